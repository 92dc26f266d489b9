//! The two plots: which readings they show.

use crate::Reading;
use crate::measures::FIRST_OF_AS_MANY;
use crate::plot::{Axis, Chart, Line, Point};
use crate::table::{Spread, is_floor, is_ours};

/// All plots for which there are readings, each with the name of its file.
pub fn all(readings: &[Reading]) -> Vec<(&'static str, Chart)> {
    let charts = [
        ("drain.svg", drain(readings)),
        ("latency.svg", latency(readings)),
    ];
    let has_lines = |(_, chart): &(_, Chart)| !chart.lines.is_empty();
    charts.into_iter().filter(has_lines).collect()
}

fn drain(readings: &[Reading]) -> Chart {
    let backlogs = [
        (FIRST_OF_AS_MANY, 20_000.0),
        ("drain, first 20,000 of 200,000", 200_000.0),
        ("drain, first 20,000 of 1,000,000", 1_000_000.0),
    ];
    let x = |measure: &str| {
        backlogs
            .iter()
            .find(|(of, _)| *of == measure)
            .map(|(_, x)| *x)
    };
    let mut lines = lines(readings, |r| Some((r.subject.clone(), x(&r.measure)?)));
    // What a peer does without a backlog was measured once, for another table.
    for line in &mut lines {
        let plain = readings.iter().filter(|r| r.measure == "drain 20,000");
        let plain = plain.filter(|r| r.subject == line.name).map(|r| r.value);
        if line.points.iter().all(|point| point.x > 20_000.0)
            && let Some(y) = Spread::of(plain.collect())
        {
            line.points.insert(0, Point { x: 20_000.0, y });
        }
        // A peer has two lines, one for each of its configurations.
        if let Some(peer) = line.name.strip_suffix(" default") {
            (line.subject, line.is_dashed) = (peer.to_owned(), true);
        } else if let Some(peer) = line.name.strip_suffix(" best") {
            line.subject = peer.to_owned();
        }
    }
    Chart {
        title: "The first 20,000 jobs of a backlog",
        x: Axis::log("jobs that wait"),
        y: Axis::linear("jobs a second"),
        lines,
    }
}

fn latency(readings: &[Reading]) -> Chart {
    let mut lines = lines(readings, |reading| {
        let load = reading.measure.strip_prefix("pickup latency, ")?;
        let (load, quantile) = load.split_once(" jobs/s ")?;
        let name = match is_floor(&reading.subject) {
            true => format!("the insert alone, {quantile}"),
            false => format!("{}, {quantile}", reading.subject),
        };
        Some((name, load.parse().ok()?))
    });
    for line in &mut lines {
        line.is_dashed = line.name.ends_with("p99");
    }
    Chart {
        title: "From a spawn to the start of its runner",
        x: Axis::log("spawns a second"),
        y: Axis::log("milliseconds"),
        lines,
    }
}

/// The readings to which `place` gives a line and a place on it.
fn lines(readings: &[Reading], place: impl Fn(&Reading) -> Option<(String, f64)>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut places: Vec<(String, f64)> = Vec::new();
    for reading in readings {
        let Some(at) = place(reading) else { continue };
        if places.contains(&at) {
            continue;
        }
        let values = readings.iter().filter(|r| place(r).as_ref() == Some(&at));
        let Some(y) = Spread::of(values.map(|r| r.value).collect()) else {
            continue;
        };
        let point = Point { x: at.1, y };
        match lines.iter_mut().find(|line| line.name == at.0) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name: at.0.clone(),
                subject: reading.subject.clone(),
                is_dashed: false,
                points: vec![point],
            }),
        }
        places.push(at);
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    lines.sort_by_key(|line| !is_ours(&line.subject));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_point_for_each_load() {
        let reading = |load: u32, round, value| Reading {
            measure: format!("pickup latency, {load} jobs/s p50"),
            subject: "job".into(),
            unit: "ms".into(),
            round,
            value,
        };
        let readings = [
            reading(1000, 1, 4.0),
            reading(100, 1, 2.0),
            reading(1000, 2, 6.0),
        ];
        let chart = latency(&readings);
        let [line] = &chart.lines[..] else {
            panic!("{chart:?}");
        };
        let points: Vec<_> = line.points.iter().map(|p| (p.x, p.y.median)).collect();
        assert_eq!(points, [(100.0, 2.0), (1000.0, 5.0)]);
        assert_eq!(line.name, "job, p50");
    }
}
