//! Frames with axes, and legends.

use super::{
    canvas::{Canvas, DrawError, Lettering, width},
    mark::{Mark, Place},
    style::{FAINT, GRAY, Style},
};
use plotters::style::{Color as _, RGBColor};

/// The font size of names of axes and legend entries.
pub(super) const NAME: f64 = 7.5;
/// The font size of the numbers at an axis.
pub(super) const TICK: f64 = 6.5;

/// An axis: its ends and its ticks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// The lower end.
    pub(super) low: f64,
    /// The upper end.
    pub(super) high: f64,
    /// Places with their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis around values between two, with ticks at round numbers and a margin at its ends.
    pub(super) fn around(low: f64, high: f64, ticks: usize) -> Self {
        let middle = f64::midpoint(low, high);
        // A single value needs an axis, too.
        let min_half = 0.06 * middle.abs().max(0.5);
        let half = ((high - low) / 2.0 * 1.08).max(min_half);
        Self::between(middle - half, middle + half, ticks)
    }

    /// An axis with these ends and ticks at round numbers.
    pub(super) fn between(low: f64, high: f64, ticks: usize) -> Self {
        let rough = (high - low) / ticks.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * power);
        let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        let count = (last - first).max(0.0) as usize;
        let ticks = (0..=count)
            .map(|i| {
                let value = (first + i as f64) * step;
                (value, number(value, decimals))
            })
            .collect();
        Self { low, high, ticks }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// A number in a figure: with a true minus, and none before zero.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    if value < 0.0 && text.bytes().any(|b| matches!(b, b'1'..=b'9')) {
        format!("\u{2212}{text}")
    } else {
        text
    }
}

/// A count with separated thousands.
pub(super) fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A frame with two axes.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Upper left corner of the frame.
    pub(super) from: Place,
    /// Lower right corner.
    pub(super) to: Place,
    /// The horizontal axis.
    pub(super) x: Axis,
    /// The vertical axis.
    pub(super) y: Axis,
}

impl Plot {
    /// The place of a point on the page.
    pub(super) fn at(&self, x: f64, y: f64) -> Place {
        (
            self.from.0 + (self.to.0 - self.from.0) * self.x.share(x),
            self.to.1 - (self.to.1 - self.from.1) * self.y.share(y),
        )
    }

    /// Draws grid, axes, their numbers and names; empty texts are left out.
    ///
    /// # Errors
    ///
    /// As [`super::canvas::page`].
    pub(super) fn draw(
        &self,
        canvas: &Canvas<'_>,
        heading: &str,
        x_name: &str,
        y_name: &str,
    ) -> Result<(), DrawError> {
        let ((left, top), (right, bottom)) = (self.from, self.to);
        for (value, label) in &self.y.ticks {
            let (_, y) = self.at(self.x.low, *value);
            canvas.line(&[(left, y), (right, y)], FAINT, 0.4)?;
            canvas.line(&[(left - 2.0, y), (left, y)], GRAY, 0.5)?;
            canvas.centered(label, (left - 4.0, y), Lettering::new(TICK).end())?;
        }
        for (value, label) in &self.x.ticks {
            let (x, _) = self.at(*value, self.y.low);
            canvas.line(&[(x, bottom), (x, bottom + 2.0)], GRAY, 0.5)?;
            canvas.text(label, (x, bottom + 9.5), Lettering::new(TICK).middle())?;
        }
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], GRAY, 0.6)?;
        let middle = f64::midpoint(left, right);
        if !heading.is_empty() {
            let as_ = Lettering::new(8.0).middle().bold();
            canvas.text(heading, (middle, top - 6.0), as_)?;
        }
        if !x_name.is_empty() {
            canvas.text(
                x_name,
                (middle, bottom + 19.5),
                Lettering::new(NAME).middle(),
            )?;
        }
        if !y_name.is_empty() {
            let widest = self.y.ticks.iter().map(|(_, label)| width(label, TICK));
            let x = left - 8.0 - widest.fold(0.0, f64::max);
            let place = (x, f64::midpoint(top, bottom));
            canvas.upwards(y_name, place, Lettering::new(NAME).middle())?;
        }
        Ok(())
    }
}

/// The sample of a legend entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sample {
    /// A line with a point.
    Line(Style),
    /// A dashed line.
    Dashes(RGBColor),
    /// A band around a line.
    Band(RGBColor),
    /// A point.
    Point(Style),
    /// A filled box.
    Box(RGBColor),
}

/// A legend, in as many rows as necessary.
#[derive(Clone, Debug)]
pub(super) struct Legend {
    rows: Vec<Vec<(Sample, String)>>,
}

/// The height of a row.
const ROW: f64 = 12.0;
/// The widths of a sample, the gap after it, and the gap after an entry.
const SAMPLE: f64 = 18.0;
const AFTER_SAMPLE: f64 = 4.0;
const AFTER: f64 = 12.0;

fn wide(entry: &(Sample, String)) -> f64 {
    SAMPLE + AFTER_SAMPLE + width(&entry.1, NAME) + AFTER
}

impl Legend {
    /// A legend of at most this width.
    pub(super) fn new(entries: Vec<(Sample, String)>, space: f64) -> Self {
        // As many rows as necessary, filled evenly.
        let all: f64 = entries.iter().map(wide).sum();
        let rows = (all / space).ceil().max(1.0);
        let aim = (all / rows).max(space * 0.5);
        let mut legend = Self { rows: Vec::new() };
        let mut used = f64::INFINITY;
        for entry in entries {
            let own = wide(&entry);
            if used + own > space + AFTER || used >= aim {
                legend.rows.push(Vec::new());
                used = 0.0;
            }
            used += own;
            if let Some(row) = legend.rows.last_mut() {
                row.push(entry);
            }
        }
        legend
    }

    /// The height.
    pub(super) fn height(&self) -> f64 {
        ROW * self.rows.len() as f64
    }

    /// Draws it around `middle`, below `top`.
    ///
    /// # Errors
    ///
    /// As [`super::canvas::page`].
    pub(super) fn draw(&self, canvas: &Canvas<'_>, middle: f64, top: f64) -> Result<(), DrawError> {
        // Rows are left-aligned.
        let widths = self
            .rows
            .iter()
            .map(|row| row.iter().map(wide).sum::<f64>());
        let left = middle - (widths.fold(0.0, f64::max) - AFTER) / 2.0;
        for (number, row) in self.rows.iter().enumerate() {
            let y = top + ROW * (number as f64 + 0.5);
            let mut x = left;
            for entry in row {
                let (sample, name) = entry;
                draw_sample(canvas, *sample, x, y)?;
                let place = (x + SAMPLE + AFTER_SAMPLE, y);
                canvas.centered(name, place, Lettering::new(NAME))?;
                x += wide(entry);
            }
        }
        Ok(())
    }
}

fn draw_sample(canvas: &Canvas<'_>, sample: Sample, x: f64, y: f64) -> Result<(), DrawError> {
    let across = [(x, y), (x + SAMPLE, y)];
    let middle = (x + SAMPLE / 2.0, y);
    match sample {
        Sample::Line(style) => {
            canvas.line(&across, style.color, 1.1)?;
            point(canvas, style, middle, 2.3)
        }
        Sample::Point(style) => canvas.mark(style.mark, middle, 2.6, style.color.to_rgba()),
        Sample::Dashes(color) => canvas.dashes(&across, color, 0.9, DASHES),
        Sample::Band(color) => {
            let (above, below) = (y - 3.5, y + 3.5);
            let corners = [
                (x, above),
                (x + SAMPLE, above),
                (x + SAMPLE, below),
                (x, below),
            ];
            canvas.shape(&corners, color.mix(BAND))
        }
        Sample::Box(color) => {
            let (from, to) = ((middle.0 - 4.0, y - 3.5), (middle.0 + 4.0, y + 3.5));
            canvas.rectangle(from, to, color)
        }
    }
}

/// The opacity of a band.
pub(super) const BAND: f64 = 0.16;
/// Dash and gap of a dashed line.
pub(super) const DASHES: (f64, f64) = (3.2, 2.2);

/// A mark with a white rim, which separates it from the lines below.
///
/// # Errors
///
/// As [`super::canvas::page`].
pub(super) fn point(
    canvas: &Canvas<'_>,
    style: Style,
    place: Place,
    radius: f64,
) -> Result<(), DrawError> {
    let rim = match style.mark {
        Mark::Plus | Mark::Cross => radius + 0.4,
        _ => radius + 0.6,
    };
    canvas.mark(style.mark, place, rim, super::style::PAPER.to_rgba())?;
    canvas.mark(style.mark, place, radius, style.color.to_rgba())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::style::COLORS;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axis_has_ticks_at_round_numbers() {
        assert_eq!(
            labels(&Axis::between(0.0, 0.9, 5)),
            ["0.0", "0.2", "0.4", "0.6", "0.8"]
        );
        assert_eq!(
            labels(&Axis::between(-0.2, 0.21, 4)),
            ["\u{2212}0.2", "0.0", "0.2"]
        );
        assert_eq!(
            labels(&Axis::between(0.0, 100.0, 5)),
            ["0", "20", "40", "60", "80", "100"]
        );
        for (low, high) in [
            (0.3, 0.3),
            (0.0, 0.0),
            (-4.0, -4.0),
            (1.0, 1.000_01),
            (21.3, 48.9),
        ] {
            let axis = Axis::around(low, high, 4);
            assert!(axis.low < low && axis.high > high);
            assert!((2..=9).contains(&axis.ticks.len()), "{axis:?}");
            let distinct: std::collections::BTreeSet<_> = labels(&axis).into_iter().collect();
            assert_eq!(distinct.len(), axis.ticks.len(), "{axis:?}");
        }
    }

    #[test]
    fn numbers_have_a_true_minus_and_separated_thousands() {
        assert_eq!(number(-0.04, 1), "0.0");
        assert_eq!(number(-2.0, 0), "\u{2212}2");
        assert_eq!(thousands(16326), "16,326");
        assert_eq!(thousands(229), "229");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }

    #[test]
    fn legend_wraps_and_keeps_all_entries() {
        let entries = |count: usize| -> Vec<(Sample, String)> {
            (0..count)
                .map(|i| (Sample::Box(COLORS[0]), format!("a method {i}")))
                .collect()
        };
        for count in [1, 3, 8, 25] {
            let legend = Legend::new(entries(count), 300.0);
            assert_eq!(legend.rows.iter().map(Vec::len).sum::<usize>(), count);
            for row in &legend.rows {
                assert!(
                    row.iter().map(wide).sum::<f64>() <= 300.0 + AFTER,
                    "{row:?}"
                );
            }
        }
        assert_eq!(Legend::new(Vec::new(), 300.0).height(), 0.0);
    }
}
