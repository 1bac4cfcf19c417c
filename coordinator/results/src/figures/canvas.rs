//! A page to draw on, measured in points (1/72 inch) from its upper left corner.
//!
//! The SVG backend of plotters uses integers: its unit is a tenth of a point here. Text remains text in
//! the SVG, in the viewer's sans-serif font, and is laid out by the widths of Helvetica, which such
//! fonts have or approximate.

use super::mark::{Mark, Place};
use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::{
        Circle, Color, DrawingArea, IntoDrawingArea as _, PathElement, Polygon, RGBAColor,
        RGBColor, Rectangle, SVGBackend, ShapeStyle,
    },
    style::{
        FontFamily, FontStyle, FontTransform, IntoFont as _, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// The width of figures: that of a page's text, 7 inches.
pub(super) const WIDTH: f64 = 504.0;
/// Stands for the font that plotters names for each text.
const STAND_IN: &str = "figure";
/// The fonts of all text.
const FONTS: &str = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";
/// Units of the backend per point.
const UNITS: f64 = 10.0;
/// Plotters divides font sizes by this.
const SHRINKS: f64 = 1.24;
/// How far below its anchor plotters puts the baseline of a text anchored at the top, in font sizes.
const DROP: f64 = 0.76;
/// The height of capitals and digits, in font sizes.
const CAPITALS: f64 = 0.72;

/// The figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the figure cannot be drawn: {0}")]
pub struct DrawError(String);

/// A page in progress.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// The part of a text that is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Its start.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// The style of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lettering {
    /// The font's size in points.
    pub(super) size: f64,
    /// The color.
    pub(super) color: RGBColor,
    /// The part at the place.
    pub(super) anchor: Anchor,
    /// Whether it is bold.
    pub(super) bold: bool,
}

impl Lettering {
    /// Dark text of this size, starting at its place.
    pub(super) const fn new(size: f64) -> Self {
        Self {
            size,
            color: super::style::INK,
            anchor: Anchor::Start,
            bold: false,
        }
    }

    /// Centers it at its place.
    pub(super) const fn middle(self) -> Self {
        Self {
            anchor: Anchor::Middle,
            ..self
        }
    }

    /// Ends it at its place.
    pub(super) const fn end(self) -> Self {
        Self {
            anchor: Anchor::End,
            ..self
        }
    }

    /// Makes it bold.
    pub(super) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// Changes its color.
    pub(super) const fn color(self, color: RGBColor) -> Self {
        Self { color, ..self }
    }
}

/// Draws a page of this size, in points, and returns it as SVG.
///
/// # Errors
///
/// Those of plotters; drawing to memory has none.
pub(super) fn page(
    width: f64,
    height: f64,
    paint: impl FnOnce(&Canvas<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut svg = String::new();
    let (wide, high) = (units(width), units(height));
    {
        let size = (wide.unsigned_abs(), high.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let canvas = Canvas { area };
        paint(&canvas)?;
        canvas.area.present().map_err(failed)?;
    }
    // The printed size, and the fonts once instead of with each text.
    let svg = svg.replacen(
        &format!("<svg width=\"{wide}\" height=\"{high}\""),
        &format!("<svg width=\"{width}pt\" height=\"{height}pt\" font-family=\"{FONTS}\""),
        1,
    );
    Ok(svg.replace(&format!(" font-family=\"{STAND_IN}\""), ""))
}

fn units(points: f64) -> i32 {
    (points * UNITS).round() as i32
}

fn at((x, y): Place) -> (i32, i32) {
    (units(x), units(y))
}

fn failed<E: std::error::Error>(error: E) -> DrawError {
    DrawError(error.to_string())
}

impl Canvas<'_> {
    /// A line through all points.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn line(
        &self,
        points: &[Place],
        color: RGBColor,
        width: f64,
    ) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let path = PathElement::new(points, stroke(color, width));
        self.area.draw(&path).map_err(failed)
    }

    /// A dashed line through all points, with these lengths of dashes and gaps.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn dashes(
        &self,
        points: &[Place],
        color: RGBColor,
        width: f64,
        (dash, gap): (f64, f64),
    ) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let (dash, gap) = (units(dash), units(gap));
        let path = DashedPathElement::new(points, dash, gap, stroke(color, width));
        self.area.draw(&path).map_err(failed)
    }

    /// A filled shape.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn shape(&self, points: &[Place], color: RGBAColor) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let polygon = Polygon::new(points, color.filled());
        self.area.draw(&polygon).map_err(failed)
    }

    /// A filled rectangle between two corners.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn rectangle(
        &self,
        from: Place,
        to: Place,
        color: RGBColor,
    ) -> Result<(), DrawError> {
        let rectangle = Rectangle::new([at(from), at(to)], color.filled());
        self.area.draw(&rectangle).map_err(failed)
    }

    /// The outline of a rectangle, by its upper left corner and size.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn frame(
        &self,
        (left, top): Place,
        (wide, high): (f64, f64),
        color: RGBColor,
        width: f64,
    ) -> Result<(), DrawError> {
        let (right, bottom) = (left + wide, top + high);
        let corners = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        self.line(&corners, color, width)
    }

    /// A mark around a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn mark(
        &self,
        mark: Mark,
        place: Place,
        radius: f64,
        color: RGBAColor,
    ) -> Result<(), DrawError> {
        match mark.corners(place, radius) {
            Some(corners) => self.shape(&corners, color),
            None => {
                let circle = Circle::new(at(place), units(radius), color.filled());
                self.area.draw(&circle).map_err(failed)
            }
        }
    }

    /// A text whose baseline is at a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn text(&self, text: &str, (x, y): Place, as_: Lettering) -> Result<(), DrawError> {
        let place = at((x, y - DROP * as_.size));
        self.area
            .draw_text(text, &style(as_, FontTransform::None), place)
            .map_err(failed)
    }

    /// A text whose capitals are vertically centered at a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn centered(
        &self,
        text: &str,
        (x, y): Place,
        as_: Lettering,
    ) -> Result<(), DrawError> {
        self.text(text, (x, y + CAPITALS * as_.size / 2.0), as_)
    }

    /// A text from bottom to top, whose baseline is at a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub(super) fn upwards(
        &self,
        text: &str,
        (x, y): Place,
        as_: Lettering,
    ) -> Result<(), DrawError> {
        let place = at((x - DROP * as_.size, y));
        self.area
            .draw_text(text, &style(as_, FontTransform::Rotate270), place)
            .map_err(failed)
    }
}

fn stroke(color: RGBColor, width: f64) -> ShapeStyle {
    color.stroke_width(units(width).unsigned_abs())
}

fn style(as_: Lettering, turned: FontTransform) -> TextStyle<'static> {
    let weight = if as_.bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let horizontal = match as_.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    (FontFamily::Name(STAND_IN), as_.size * UNITS * SHRINKS)
        .into_font()
        .style(weight)
        .transform(turned)
        .color(&as_.color)
        .pos(Pos::new(horizontal, VPos::Top))
}

/// The widths of the printable ASCII characters in Helvetica, from the space on, in thousandths of the
/// font size.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278,
    278, // space to /
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, // 0 to ?
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, // @ to O
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, // P to _
    333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, // ` to o
    556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584, // p to ~
];

/// The approximate width of a text in points: that of Helvetica, with a margin for wider fonts.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let thousandths: f64 = text
        .chars()
        .map(|c| {
            let place = usize::try_from(u32::from(c)).unwrap_or(0).checked_sub(32);
            f64::from(place.and_then(|at| WIDTHS.get(at)).copied().unwrap_or(600))
        })
        .sum();
    thousandths / 1000.0 * size * 1.06
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_its_printed_size_and_text_as_text() {
        let svg = page(72.0, 36.5, |canvas| {
            canvas.text("a < b", (10.0, 10.0), Lettering::new(7.0).bold())?;
            canvas.upwards("up", (10.0, 10.0), Lettering::new(7.0))
        })
        .unwrap();
        assert!(svg.starts_with("<svg width=\"72pt\" height=\"36.5pt\" font-family=\"Helvetica"));
        assert!(svg.contains("viewBox=\"0 0 720 365\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("rotate(270"));
        assert_eq!(svg.matches("font-family").count(), 1, "{svg}");
        assert!(svg.contains("font-size=\"70\""), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn text_width_follows_its_letters() {
        assert!(width("WWW", 10.0) > 2.0 * width("iii", 10.0));
        assert!(width("−0.5", 10.0) > width("0.5", 10.0));
        assert_eq!(width("", 10.0), 0.0);
    }
}
