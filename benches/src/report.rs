//! The page of results: what is between two marks of it is made of readings.

use std::fmt::Write;
use std::path::Path;

use crate::aims::judged;
use crate::table::{Row, Spread, Table, number};
use crate::{Reading, Result, charts};

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// Writes the tables into a page, which is made if it is missing, and the plots
/// beside it.
///
/// # Errors
///
/// When a file cannot be read or written, or the page has no place for the tables.
pub fn write(readings: &[Reading], page: &Path) -> Result<()> {
    let text = match std::fs::read_to_string(page) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("# Results\n\n{BEGIN}\n{END}\n")
        }
        text => text?,
    };
    for (name, chart) in charts::all(readings) {
        std::fs::write(page.with_file_name(name), chart.svg())?;
    }
    std::fs::write(page, with_figures(&text, &figures(readings))?)?;
    Ok(())
}

fn with_figures(page: &str, figures: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .ok_or_else(|| format!("the page has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .ok_or_else(|| format!("the page has no line {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))
}

/// All tables, in Markdown.
fn figures(readings: &[Reading]) -> String {
    let mut text = String::new();
    let rounds = readings.iter().map(|r| r.round).max().unwrap_or(0);
    let judged = judged(readings);
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "Medians of {rounds} rounds, [min..max]. What is compared is compared within a round.\n"
    );
    let _ = writeln!(text, "| measure | aim | reached | |\n|---|---|---:|---|");
    for reached in &judged {
        let verdict = if reached.is_reached { "yes" } else { "**no**" };
        let (measure, aim) = (reached.measure, &reached.aim);
        let _ = writeln!(
            text,
            "| {measure} | {aim} | {} | {verdict} |",
            spread(reached.spread)
        );
    }
    let table = Table::of(readings);
    let same = |a: &Row, b: &Row| a.measure == b.measure && a.unit == b.unit;
    for rows in table.rows.chunk_by(same) {
        let Row { measure, unit, .. } = &rows[0];
        let _ = writeln!(text, "\n**{measure}**\n");
        let compared = rows.iter().any(|row| row.ratio.is_some());
        let first = &rows[0].subject;
        if compared {
            let _ = writeln!(
                text,
                "| | {unit} | {first} is x times that |\n|---|---:|---:|"
            );
        } else {
            let _ = writeln!(text, "| | {unit} |\n|---|---:|");
        }
        for row in rows {
            let _ = write!(text, "| {} | {} |", row.subject, spread(row.spread));
            if compared {
                let ratio = row.ratio.map(spread).unwrap_or_default();
                let _ = write!(text, " {ratio} |");
            }
            text.push('\n');
        }
    }
    text
}

fn spread(of: Spread) -> String {
    let Spread { min, median, max } = of;
    let [min, median, max] = [min, median, max].map(number);
    if min == max {
        median
    } else {
        format!("{median} [{min}..{max}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_figures_stays() {
        let page = format!("# A\n{BEGIN}\nold\n{END}\nB\n");
        let written = with_figures(&page, "new\n").unwrap();
        assert_eq!(written, format!("# A\n{BEGIN}\n\nnew\n\n{END}\nB\n"));
        assert_eq!(with_figures(&written, "new\n").unwrap(), written);
        with_figures("# A\n", "new").unwrap_err();
    }

    #[test]
    fn a_table_has_as_many_columns_as_its_head() {
        let reading = |subject: &str, value| Reading {
            measure: "drain 20,000".into(),
            subject: subject.into(),
            unit: "jobs/s".into(),
            round: 1,
            value,
        };
        let text = figures(&[reading("job", 10.0), reading("floor, 4 connections", 40.0)]);
        assert!(
            text.contains("| job | 10.0 |  |\n| floor, 4 connections | 40.0 | 0.25 |"),
            "{text}"
        );
        assert!(
            text.contains(
                "| drain 20,000 | at least 0.70 x floor, 4 connections | 0.25 | **no** |"
            ),
            "{text}"
        );
    }
}
