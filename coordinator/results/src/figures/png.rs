//! Renders a drawing as PNG, with a font that the program carries: the machine needs none.

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};
use std::sync::{Arc, LazyLock};

/// Pixels per CSS pixel (1/96 inch): 300 per inch.
pub const SCALE: f32 = 3.125;

/// The most pixels in a direction.
const MAX: f32 = 20_000.0;

/// Why a drawing cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The drawing is not an SVG.
    #[error("cannot parse the drawing")]
    Unreadable(#[from] resvg::usvg::Error),
    /// Too many pixels.
    #[error(
        "the figure would have {width:.0} x {height:.0} pixels: choose fewer methods, datasets or \
         rates, or write it as SVG"
    )]
    TooLarge {
        /// The width in pixels.
        width: f32,
        /// The height in pixels.
        height: f32,
    },
    /// The encoder.
    #[error("cannot encode the pixels as PNG: {0}")]
    Encoding(String),
}

/// The only font, whatever font is requested.
static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let mut families = fonts.faces().flat_map(|face| face.families.clone());
    let family = families.next().map(|(name, _)| name);
    drop(families);
    fonts.set_sans_serif_family(family.unwrap_or_default());
    Arc::new(fonts)
});

/// Renders a drawing on white, with `scale` pixels per CSS pixel.
///
/// # Errors
///
/// A drawing that is not an SVG, or too large.
pub fn render(svg: &str, scale: f32) -> Result<Vec<u8>, PngError> {
    let options = Options {
        fontdb: Arc::clone(&FONTS),
        ..Options::default()
    };
    let tree = Tree::from_str(&heavier(svg), &options)?;
    let size = tree.size();
    let (width, height) = (
        (size.width() * scale).ceil(),
        (size.height() * scale).ceil(),
    );
    let too_large = PngError::TooLarge { width, height };
    if width > MAX || height > MAX {
        return Err(too_large);
    }
    let Some(mut pixels) = Pixmap::new(width as u32, height as u32) else {
        return Err(too_large);
    };
    pixels.fill(resvg::tiny_skia::Color::WHITE);
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut pixels.as_mut(),
    );
    let encoded = pixels.encode_png();
    encoded.map_err(|error| PngError::Encoding(error.to_string()))
}

/// The font is a light one: an outline in its own color makes text look regular, and a thicker one
/// bold.
fn heavier(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len() + 4096);
    for (number, part) in svg.split("<text ").enumerate() {
        if number > 0 {
            let tag = part.split('>').next().unwrap_or_default();
            let attribute = |name: &str| {
                let (_, rest) = tag.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let size: f64 = attribute("font-size")
                .and_then(|s| s.parse().ok())
                .unwrap_or(0.0);
            let share = if tag.contains("font-weight=\"bold\"") {
                0.065
            } else {
                0.03
            };
            let fill = attribute("fill").unwrap_or("#000000");
            out.push_str(&format!(
                "<text stroke=\"{fill}\" stroke-width=\"{:.2}\" ",
                size * share
            ));
        }
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<svg width=\"72pt\" height=\"36pt\" viewBox=\"0 0 720 360\" \
        xmlns=\"http://www.w3.org/2000/svg\" font-family=\"Helvetica, sans-serif\">\
        <text x=\"50\" y=\"200\" font-size=\"200\" fill=\"#000000\">\u{2212}0.5</text></svg>";

    #[test]
    fn text_is_rendered_without_fonts_on_the_machine() {
        let png = render(TEXT, 1.0).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        let pixels = Pixmap::decode_png(&png).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (96, 48));
        let dark = pixels
            .pixels()
            .iter()
            .filter(|pixel| pixel.red() < 128)
            .count();
        assert!(dark > 50, "{dark} dark pixels");
        assert_eq!(render(TEXT, 1.0).unwrap(), png);
    }

    #[test]
    fn too_large_drawing_is_refused() {
        let error = render(TEXT, 1000.0).unwrap_err().to_string();
        assert!(error.contains("96000 x 48000"), "{error}");
        assert!(render("<p>", 1.0).is_err());
    }
}
