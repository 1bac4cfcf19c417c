//! Frames with axes, and legends.

use super::{
    canvas::{Canvas, DrawError, Lettering, Place, width},
    style::{FAINT, GREY, Mark, Style},
};
use plotters::style::{Color as _, RGBColor};

/// The size of an axis' name and of a legend's.
pub const NAME: f64 = 7.5;
/// The size of the numbers at an axis.
pub const TICK: f64 = 6.5;

/// An axis: its ends, and what is written along it.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// One end.
    pub low: f64,
    /// The other.
    pub high: f64,
    /// Places with their labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for values between two, with round numbers along it and a little room at its ends.
    pub fn around(low: f64, high: f64, ticks: usize) -> Self {
        let middle = f64::midpoint(low, high);
        // Of one value alone, or nearly so, a piece that shows where it is.
        let least = 0.06 * middle.abs().max(0.5);
        let half = ((high - low) / 2.0 * 1.08).max(least);
        Self::between(middle - half, middle + half, ticks)
    }

    /// An axis with these ends and round numbers along it.
    pub fn between(low: f64, high: f64, ticks: usize) -> Self {
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

/// A number in figures: with a true minus, and no minus before zero.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    if value < 0.0 && text.bytes().any(|b| matches!(b, b'1'..=b'9')) {
        format!("\u{2212}{text}")
    } else {
        text
    }
}

/// A count with its thousands apart.
pub fn thousands(count: usize) -> String {
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
pub struct Plot {
    /// Upper left corner of the frame.
    pub from: Place,
    /// Lower right corner.
    pub to: Place,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
}

impl Plot {
    /// Where a point lies on the page.
    pub fn at(&self, x: f64, y: f64) -> Place {
        (
            self.from.0 + (self.to.0 - self.from.0) * self.x.share(x),
            self.to.1 - (self.to.1 - self.from.1) * self.y.share(y),
        )
    }

    /// Draws grid, axes, their numbers and names; what is empty is left out.
    ///
    /// # Errors
    ///
    /// As [`super::canvas::page`].
    pub fn draw(
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
            canvas.line(&[(left - 2.0, y), (left, y)], GREY, 0.5)?;
            canvas.centred(label, (left - 4.0, y), Lettering::new(TICK).end())?;
        }
        for (value, label) in &self.x.ticks {
            let (x, _) = self.at(*value, self.y.low);
            canvas.line(&[(x, bottom), (x, bottom + 2.0)], GREY, 0.5)?;
            canvas.text(label, (x, bottom + 9.5), Lettering::new(TICK).middle())?;
        }
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], GREY, 0.6)?;
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

/// The sample beside a name in a legend.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
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

/// A legend, in as many rows as it needs.
#[derive(Clone, Debug)]
pub struct Legend {
    rows: Vec<Vec<(Sample, String)>>,
}

/// From one row of a legend to the next.
const ROW: f64 = 12.0;
/// The width of a sample and the gap behind it; the gap behind an entry.
const SAMPLE: f64 = 18.0;
const AFTER_SAMPLE: f64 = 4.0;
const AFTER: f64 = 12.0;

fn wide(entry: &(Sample, String)) -> f64 {
    SAMPLE + AFTER_SAMPLE + width(&entry.1, NAME) + AFTER
}

impl Legend {
    /// A legend that is as wide as `space` at most.
    pub fn new(entries: Vec<(Sample, String)>, space: f64) -> Self {
        // As many rows as are needed, filled evenly.
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

    /// How high it is.
    pub fn height(&self) -> f64 {
        ROW * self.rows.len() as f64
    }

    /// Draws it around `middle`, below `top`.
    ///
    /// # Errors
    ///
    /// As [`super::canvas::page`].
    pub fn draw(&self, canvas: &Canvas<'_>, middle: f64, top: f64) -> Result<(), DrawError> {
        // Rows begin below each other.
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
                canvas.centred(name, place, Lettering::new(NAME))?;
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
            canvas.line(&across, style.colour, 1.1)?;
            point(canvas, style, middle, 2.3)
        }
        Sample::Point(style) => canvas.mark(style.mark, middle, 2.6, style.colour.to_rgba()),
        Sample::Dashes(colour) => canvas.dashes(&across, colour, 0.9, DASHES),
        Sample::Band(colour) => {
            let (above, below) = (y - 3.5, y + 3.5);
            let corners = [
                (x, above),
                (x + SAMPLE, above),
                (x + SAMPLE, below),
                (x, below),
            ];
            canvas.shape(&corners, colour.mix(BAND))
        }
        Sample::Box(colour) => {
            let (from, to) = ((middle.0 - 4.0, y - 3.5), (middle.0 + 4.0, y + 3.5));
            canvas.rectangle(from, to, colour)
        }
    }
}

/// How much of a band's colour is seen.
pub const BAND: f64 = 0.16;
/// Dash and gap of a dashed line.
pub const DASHES: (f64, f64) = (3.2, 2.2);

/// A mark with a rim of paper, so that it stands off the lines below.
///
/// # Errors
///
/// As [`super::canvas::page`].
pub fn point(
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
    canvas.mark(style.mark, place, radius, style.colour.to_rgba())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::style::COLOURS;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
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
    fn numbers_are_written_for_people() {
        assert_eq!(number(-0.04, 1), "0.0");
        assert_eq!(number(-2.0, 0), "\u{2212}2");
        assert_eq!(thousands(16326), "16,326");
        assert_eq!(thousands(229), "229");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }

    #[test]
    fn a_legend_wraps_and_loses_nothing() {
        let entries = |count: usize| -> Vec<(Sample, String)> {
            (0..count)
                .map(|i| (Sample::Box(COLOURS[0]), format!("a method {i}")))
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
