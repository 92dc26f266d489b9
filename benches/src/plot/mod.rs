//! Line charts as SVG, for light and for dark pages.

mod frame;

use std::fmt::Write;

pub use frame::Axis;
use frame::{BOTTOM, Frame, LEFT, RIGHT, TOP};

use crate::table::{Spread, is_floor, is_ours, number};

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 440.0;
/// The least distance of two names.
const NAME_HEIGHT: f64 = 20.0;
/// A light and a dark colour for each line, ours first; they differ in brightness as
/// well, for those who do not tell all colours apart.
const COLOURS: [(&str, &str); 8] = [
    ("#1d4ed8", "#79a8ff"),
    ("#c2410c", "#ff9d5c"),
    ("#0f766e", "#4fd1c5"),
    ("#9333ea", "#cfa0ff"),
    ("#a16207", "#f2cc60"),
    ("#be185d", "#ff8fc0"),
    ("#3f6212", "#a5d65c"),
    ("#0e7490", "#67d5f0"),
];
const STYLE: &str = "\
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.axis { fill: #59636e }
.page { fill: #ffffff }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.base { stroke: #818b98; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
.ours { stroke-width: 3.5 }
.range { stroke-width: 1.5; stroke-opacity: 0.55 }
.lead { stroke-width: 1; stroke-opacity: 0.5; fill: none }
";
const STYLE_DARK: &str = "\
text { fill: #f0f6fc }
.axis { fill: #9198a1 }
.page { fill: #0d1117 }
.grid { stroke: #2f353d }
.base { stroke: #656c76 }
";

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// From left to right. Its marks are at the points.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// With at least one point each; ours first.
    pub lines: Vec<Line>,
}

/// A line and its name.
#[derive(Clone, Debug)]
pub struct Line {
    /// Written at its end.
    pub name: String,
    /// Lines of the same subject have the same colour, and ours stand out.
    pub subject: String,
    /// Whether it is less important than another line of its subject.
    pub is_dashed: bool,
    /// From left to right.
    pub points: Vec<Point>,
}

/// A point with the range of its rounds.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// From left to right.
    pub x: f64,
    /// From bottom to top.
    pub y: Spread,
}

impl Chart {
    /// The file.
    pub fn svg(&self) -> String {
        let frame = Frame::of(self);
        let mut svg = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&frame, &mut svg);
        svg
    }

    fn write(&self, frame: &Frame, svg: &mut String) -> std::fmt::Result {
        let title = self.title;
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">"#
        )?;
        writeln!(svg, "<style>\n{STYLE}{}", colours(|(light, _)| light))?;
        writeln!(
            svg,
            "@media (prefers-color-scheme: dark) {{\n{STYLE_DARK}{}}}\n</style>",
            colours(|(_, dark)| dark)
        )?;
        writeln!(
            svg,
            r#"<rect class="page" width="100%" height="100%" rx="6"/>"#
        )?;
        text(svg, "title", "start", LEFT, 30.0, title)?;
        self.write_axes(frame, svg)?;
        for (n, line) in self.lines.iter().enumerate() {
            write_line(frame, svg, &self.colour(n), line)?;
        }
        self.write_names(frame, svg)?;
        writeln!(svg, "</svg>")
    }

    fn write_axes(&self, frame: &Frame, svg: &mut String) -> std::fmt::Result {
        for mark in &frame.y_marks {
            let y = frame.y(*mark);
            let class = if y >= BOTTOM { "base" } else { "grid" };
            straight(svg, class, (LEFT, y), (RIGHT, y))?;
            text(svg, "axis", "end", LEFT - 10.0, y + 4.5, &round(*mark))?;
        }
        straight(svg, "base", (LEFT, BOTTOM), (RIGHT, BOTTOM))?;
        for mark in &frame.x_marks {
            let x = frame.x(*mark);
            straight(svg, "base", (x, BOTTOM), (x, BOTTOM + 5.0))?;
            text(svg, "axis", "middle", x, BOTTOM + 21.0, &round(*mark))?;
        }
        let middle = (LEFT + RIGHT) / 2.0;
        text(svg, "axis", "middle", middle, BOTTOM + 46.0, self.x.label)?;
        text(svg, "axis", "start", LEFT, TOP - 12.0, self.y.label)
    }

    /// The class of a line: floors are grey, the others have a colour each.
    fn colour(&self, n: usize) -> String {
        let subject = &self.lines[n].subject;
        if is_floor(subject) {
            return "floor".to_owned();
        }
        let mut subjects: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| !is_floor(&line.subject)) {
            if !subjects.contains(&line.subject.as_str()) {
                subjects.push(&line.subject);
            }
        }
        let of_subject = subjects.iter().position(|other| other == subject);
        format!("c{}", of_subject.unwrap_or(0) % COLOURS.len())
    }

    /// Beside the ends of the lines, and moved apart where those are close.
    fn write_names(&self, frame: &Frame, svg: &mut String) -> std::fmt::Result {
        let mut ends: Vec<_> = self
            .lines
            .iter()
            .enumerate()
            .filter_map(|(n, line)| Some((n, frame.at(line.points.last()?))))
            .collect();
        ends.sort_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let places = apart(&ends.iter().map(|(_, (_, y))| *y).collect::<Vec<_>>());
        for ((n, (x, y)), place) in ends.into_iter().zip(places) {
            let to = RIGHT + 22.0;
            writeln!(
                svg,
                r#"<path class="lead {}" d="M{:.1} {y:.1}L{:.1} {y:.1}L{to:.1} {place:.1}"/>"#,
                self.colour(n),
                x + 5.0,
                RIGHT.max(x + 6.0),
            )?;
            text(
                svg,
                "name",
                "start",
                to + 5.0,
                place + 4.5,
                &self.lines[n].name,
            )?;
        }
        Ok(())
    }
}

/// A number that has few digits, without those that say nothing.
fn round(mark: f64) -> String {
    let number = number(mark);
    match number.split_once('.') {
        Some((whole, fraction)) if fraction.chars().all(|digit| digit == '0') => whole.to_owned(),
        Some(_) => number.trim_end_matches('0').to_owned(),
        None => number,
    }
}

/// The same places, in order, but no two closer than a name is high, and as far as
/// possible within the chart.
fn apart(places: &[f64]) -> Vec<f64> {
    let mut apart = Vec::with_capacity(places.len());
    let mut least = TOP - NAME_HEIGHT;
    for place in places {
        least = place.max(least);
        apart.push(least);
        least += NAME_HEIGHT;
    }
    let mut most = BOTTOM - NAME_HEIGHT / 2.0;
    for place in apart.iter_mut().rev() {
        *place = place.min(most);
        most = *place - NAME_HEIGHT;
    }
    apart
}

fn write_line(frame: &Frame, svg: &mut String, colour: &str, line: &Line) -> std::fmt::Result {
    let weight = if is_ours(&line.subject) { " ours" } else { "" };
    let mut path = String::new();
    for point in &line.points {
        let (x, y) = frame.at(point);
        let (low, high) = (frame.y(point.y.min), frame.y(point.y.max));
        if low - high > 1.0 {
            straight(svg, &format!("range {colour}"), (x, low), (x, high))?;
        }
        let command = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{command}{x:.1} {y:.1}")?;
    }
    let dashes = if line.is_dashed {
        r#" stroke-dasharray="7 6""#
    } else {
        ""
    };
    writeln!(
        svg,
        r#"<path class="line {colour}{weight}" d="{path}"{dashes}/>"#
    )?;
    for point in &line.points {
        let (x, y) = frame.at(point);
        let radius = if weight.is_empty() { 3.5 } else { 4.5 };
        writeln!(
            svg,
            r#"<circle class="dot {colour}" cx="{x:.1}" cy="{y:.1}" r="{radius}"/>"#
        )?;
    }
    Ok(())
}

fn straight(
    svg: &mut String,
    class: &str,
    (x1, y1): (f64, f64),
    (x2, y2): (f64, f64),
) -> std::fmt::Result {
    writeln!(
        svg,
        r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    )
}

fn text(
    svg: &mut String,
    class: &str,
    anchor: &str,
    x: f64,
    y: f64,
    text: &str,
) -> std::fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        svg,
        r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#
    )
}

fn colours(of: impl Fn((&'static str, &'static str)) -> &'static str) -> String {
    let mut style = String::new();
    let all = COLOURS
        .iter()
        .enumerate()
        .map(|(n, pair)| (format!("c{n}"), *pair));
    for (class, pair) in all.chain([("floor".to_owned(), ("#59636e", "#a5adb6"))]) {
        let colour = of(pair);
        style += &format!(
            ".{class} {{ stroke: {colour} }} .dot.{class} {{ fill: {colour}; stroke: none }}\n"
        );
    }
    style
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_no_needless_digits() {
        for (mark, expected) in [(0.5, "0.5"), (1.0, "1"), (20.0, "20"), (1e6, "1,000,000")] {
            assert_eq!(round(mark), expected);
        }
    }

    #[test]
    fn names_do_not_overlap() {
        let places = apart(&[100.0, 101.0, 102.0, 375.0, 376.0, 376.0]);
        assert_eq!(places, [100.0, 120.0, 140.0, 326.0, 346.0, 366.0]);
    }
}
