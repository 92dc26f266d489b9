//! From values to places on the page.

use super::{Chart, Point};

/// Where the lines are drawn; to the right of that are their names.
pub(super) const LEFT: f64 = 84.0;
pub(super) const RIGHT: f64 = 560.0;
pub(super) const TOP: f64 = 64.0;
pub(super) const BOTTOM: f64 = 376.0;
/// Steps of an axis, apart from the power of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// So many steps at most on a linear axis.
const STEPS_MAX: f64 = 6.0;

/// One direction.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub(super) label: &'static str,
    is_log: bool,
}

impl Axis {
    /// From zero.
    pub const fn linear(label: &'static str) -> Self {
        Self {
            label,
            is_log: false,
        }
    }

    /// The same distance for the same ratio.
    pub const fn log(label: &'static str) -> Self {
        Self {
            label,
            is_log: true,
        }
    }

    /// A coordinate before it is scaled.
    fn place(self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }
}

/// How values become coordinates.
pub(super) struct Frame {
    x_axis: Axis,
    y_axis: Axis,
    x_range: (f64, f64),
    y_range: (f64, f64),
    pub(super) x_marks: Vec<f64>,
    pub(super) y_marks: Vec<f64>,
}

impl Frame {
    pub(super) fn of(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| &line.points);
        let mut x_marks: Vec<f64> = points().map(|p| p.x).collect();
        x_marks.sort_by(f64::total_cmp);
        x_marks.dedup();
        let low = points().map(|p| p.y.min).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.y.max).fold(0.0, f64::max);
        let y_marks = if chart.y.is_log {
            log_marks(low, high)
        } else {
            linear_marks(high)
        };
        let range = |axis: Axis, marks: &[f64]| {
            let (first, last) = (marks.first(), marks.last());
            (
                axis.place(first.copied().unwrap_or(1.0)),
                axis.place(last.copied().unwrap_or(1.0)),
            )
        };
        Self {
            x_axis: chart.x,
            y_axis: chart.y,
            x_range: range(chart.x, &x_marks),
            y_range: range(chart.y, &y_marks),
            x_marks,
            y_marks,
        }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        // Room for the first point beside the axis.
        scale(
            self.x_axis.place(value),
            self.x_range,
            (LEFT + 24.0, RIGHT - 8.0),
        )
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        scale(self.y_axis.place(value), self.y_range, (BOTTOM, TOP))
    }

    pub(super) fn at(&self, point: &Point) -> (f64, f64) {
        (self.x(point.x), self.y(point.y.median))
    }
}

fn scale(value: f64, (low, high): (f64, f64), (from, to): (f64, f64)) -> f64 {
    if high > low {
        from + (value - low) / (high - low) * (to - from)
    } else {
        (from + to) / 2.0
    }
}

/// From zero to at least `high`.
fn linear_marks(high: f64) -> Vec<f64> {
    let rough = (high / STEPS_MAX).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = STEPS
        .iter()
        .map(|step| step * power)
        .find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let steps = (high / step).ceil().max(1.0) as u32;
    (0..=steps).map(|n| f64::from(n) * step).collect()
}

/// From at most `low` to at least `high`, both above zero; every power of ten, and
/// its double and fivefold if those are few.
fn log_marks(low: f64, high: f64) -> Vec<f64> {
    let low = low.max(f64::MIN_POSITIVE);
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let steps: &[f64] = if last - first > 3 {
        &STEPS[..1]
    } else {
        &STEPS
    };
    let mut marks: Vec<f64> = (first..=last)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .collect();
    let begin = marks.iter().rposition(|mark| *mark <= low).unwrap_or(0);
    let end = marks
        .iter()
        .position(|mark| *mark >= high)
        .unwrap_or(marks.len() - 1);
    marks.drain(..begin);
    marks.truncate(end - begin + 1);
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_has_round_steps() {
        assert_eq!(linear_marks(4_200.0), [0.0, 1e3, 2e3, 3e3, 4e3, 5e3]);
        assert_eq!(linear_marks(31.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
    }

    #[test]
    fn a_log_axis_holds_all_values() {
        for (low, high, expected) in [
            (1.3, 40.0, vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
            (0.5, 5_000.0, vec![0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0]),
        ] {
            let marks = log_marks(low, high);
            assert_eq!(marks.len(), expected.len(), "{marks:?}");
            for (mark, expected) in marks.iter().zip(expected) {
                assert!((mark - expected).abs() < 1e-9 * expected, "{marks:?}");
            }
        }
    }
}
