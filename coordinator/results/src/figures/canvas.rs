//! A page to draw on, measured in points of print (1/72 inch) from its upper left corner.
//!
//! Plotters' SVG backend takes whole numbers: a unit of it is a tenth of a point here. Text stays
//! text in the SVG, in whatever plain sans-serif font a viewer has, and is laid out by the widths of
//! Helvetica, which those fonts share or come near to.

use super::style::Mark;
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

/// The width of a page's text, 7 inches: what figures are made for.
pub const WIDTH: f64 = 504.0;
/// Where plotters would name a font for each text.
const STAND_IN: &str = "figure";
/// The fonts of all text.
const FONTS: &str = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";
/// Units of the backend in a point.
const UNITS: f64 = 10.0;
/// Plotters divides sizes of fonts by this on their way into an SVG.
const SHRINKS: f64 = 1.24;
/// How far below the given height plotters puts the baseline of a text anchored at its top, in sizes
/// of the font.
const DROP: f64 = 0.76;
/// Capitals and digits are so high, in sizes of the font.
const CAPITALS: f64 = 0.72;

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
#[error("the figure cannot be drawn: {0}")]
pub struct DrawError(String);

/// A place on the page, in points: right, down.
pub type Place = (f64, f64);

/// A page that is being drawn on.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Which part of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its start.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub struct Lettering {
    /// The font's size in points.
    pub size: f64,
    /// Its colour.
    pub colour: RGBColor,
    /// What is at the place.
    pub anchor: Anchor,
    /// In bold.
    pub bold: bool,
}

impl Lettering {
    /// Dark text of this size that begins at its place.
    pub const fn new(size: f64) -> Self {
        Self {
            size,
            colour: super::style::INK,
            anchor: Anchor::Start,
            bold: false,
        }
    }

    /// The same around its place.
    pub const fn middle(self) -> Self {
        Self {
            anchor: Anchor::Middle,
            ..self
        }
    }

    /// The same that ends at its place.
    pub const fn end(self) -> Self {
        Self {
            anchor: Anchor::End,
            ..self
        }
    }

    /// The same in bold.
    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// The same in another colour.
    pub const fn colour(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }
}

/// Draws a page of this size, in points, and returns it as SVG.
///
/// # Errors
///
/// Plotters', which a page in memory has none of.
pub fn page(
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
    // The size in print, and the fonts once for all.
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
    pub fn line(&self, points: &[Place], colour: RGBColor, width: f64) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let path = PathElement::new(points, stroke(colour, width));
        self.area.draw(&path).map_err(failed)
    }

    /// A dashed line through all points; dashes and gaps as long as said.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn dashes(
        &self,
        points: &[Place],
        colour: RGBColor,
        width: f64,
        (dash, gap): (f64, f64),
    ) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let (dash, gap) = (units(dash), units(gap));
        let path = DashedPathElement::new(points, dash, gap, stroke(colour, width));
        self.area.draw(&path).map_err(failed)
    }

    /// A filled shape.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn shape(&self, points: &[Place], colour: RGBAColor) -> Result<(), DrawError> {
        let points: Vec<_> = points.iter().map(|&point| at(point)).collect();
        let polygon = Polygon::new(points, colour.filled());
        self.area.draw(&polygon).map_err(failed)
    }

    /// A filled rectangle between two corners.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn rectangle(&self, from: Place, to: Place, colour: RGBColor) -> Result<(), DrawError> {
        let rectangle = Rectangle::new([at(from), at(to)], colour.filled());
        self.area.draw(&rectangle).map_err(failed)
    }

    /// A line around a rectangle, whose upper left corner and size are given.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn frame(
        &self,
        (left, top): Place,
        (wide, high): (f64, f64),
        colour: RGBColor,
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
        self.line(&corners, colour, width)
    }

    /// A mark around a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn mark(
        &self,
        mark: Mark,
        place: Place,
        radius: f64,
        colour: RGBAColor,
    ) -> Result<(), DrawError> {
        match mark.corners(place, radius) {
            Some(corners) => self.shape(&corners, colour),
            None => {
                let circle = Circle::new(at(place), units(radius), colour.filled());
                self.area.draw(&circle).map_err(failed)
            }
        }
    }

    /// A text whose baseline is at a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn text(&self, text: &str, (x, y): Place, as_: Lettering) -> Result<(), DrawError> {
        let place = at((x, y - DROP * as_.size));
        self.area
            .draw_text(text, &style(as_, FontTransform::None), place)
            .map_err(failed)
    }

    /// A text whose capitals have a place at half their height.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn centred(&self, text: &str, (x, y): Place, as_: Lettering) -> Result<(), DrawError> {
        self.text(text, (x, y + CAPITALS * as_.size / 2.0), as_)
    }

    /// A text from bottom to top, whose baseline is at a place.
    ///
    /// # Errors
    ///
    /// As [`page`].
    pub fn upwards(&self, text: &str, (x, y): Place, as_: Lettering) -> Result<(), DrawError> {
        let place = at((x - DROP * as_.size, y));
        self.area
            .draw_text(text, &style(as_, FontTransform::Rotate270), place)
            .map_err(failed)
    }
}

fn stroke(colour: RGBColor, width: f64) -> ShapeStyle {
    colour.stroke_width(units(width).unsigned_abs())
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
        .color(&as_.colour)
        .pos(Pos::new(horizontal, VPos::Top))
}

/// How wide the printable characters of ASCII are in Helvetica, from the space on, in thousandths of
/// the font's size.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278,
    278, // space to /
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, // 0 to ?
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, // @ to O
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, // P to _
    333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, // ` to o
    556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584, // p to ~
];

/// About how wide a text is, in points: that of Helvetica and a little more, for fonts that are
/// wider.
pub fn width(text: &str, size: f64) -> f64 {
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
    fn a_page_has_its_size_in_print_and_its_text_as_text() {
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
    fn wide_letters_are_wide() {
        assert!(width("WWW", 10.0) > 2.0 * width("iii", 10.0));
        assert!(width("−0.5", 10.0) > width("0.5", 10.0));
        assert_eq!(width("", 10.0), 0.0);
    }
}
