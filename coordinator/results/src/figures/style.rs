//! Colors and marks that are distinct in print and for color-blind readers.

use super::mark::Mark;
use crate::tables::layout;
use halfheard_shared::results::Model;
use plotters::style::RGBColor;

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Ticks, frames, and legend entries of all methods.
pub(super) const GRAY: RGBColor = RGBColor(110, 110, 110);
/// Grid lines.
pub(super) const FAINT: RGBColor = RGBColor(228, 228, 228);
/// Paper.
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Okabe and Ito's colors, ordered so that neighbors differ in lightness, with a gray instead of their
/// yellow, which is faint on white, and Tol's wine at the end.
pub(super) const COLORS: [RGBColor; 9] = [
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(153, 153, 153),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(136, 34, 85),
];

const MARKS: [Mark; 9] = [
    Mark::Square,
    Mark::Triangle,
    Mark::Diamond,
    Mark::Inverted,
    Mark::Plus,
    Mark::Cross,
    Mark::Pentagon,
    Mark::Circle,
    Mark::Star,
];

/// How a model is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// The color.
    pub(super) color: RGBColor,
    /// The shape of its points.
    pub(super) mark: Mark,
}

/// The styles of models. A method has the same style in every figure and sweep; variants get the free
/// ones.
pub(super) fn styles(models: &[Model]) -> Vec<Style> {
    let mut taken: Vec<usize> = models
        .iter()
        .filter(|model| model.variant.is_empty())
        .map(|model| layout::method_order(&model.method))
        .collect();
    models
        .iter()
        .map(|model| {
            let place = if model.variant.is_empty() {
                layout::method_order(&model.method)
            } else {
                let free = (0..).find(|place| !taken.contains(place)).unwrap_or(0);
                taken.push(free);
                free
            };
            Style {
                color: COLORS[place % COLORS.len()],
                // Different marks in each round of the colors.
                mark: MARKS[(place + place / COLORS.len()) % MARKS.len()],
            }
        })
        .collect()
}

/// A share from 0 to 1 as a color from white to dark blue, with evenly falling lightness.
pub(super) fn shade(share: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 4] = [
        [255.0, 255.0, 255.0],
        [158.0, 202.0, 225.0],
        [49.0, 130.0, 189.0],
        [8.0, 48.0, 107.0],
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place.floor() as usize).min(STOPS.len() - 2);
    let part = place - below as f64;
    let mixed = |i: usize| {
        let (a, b) = (STOPS[below][i], STOPS[below + 1][i]);
        (a + (b - a) * part).round() as u8
    };
    RGBColor(mixed(0), mixed(1), mixed(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn models_have_distinct_styles() {
        let mut models: Vec<Model> = halfheard_shared::methods::all()
            .iter()
            .map(|method| Model::new(method.id.as_str(), ""))
            .collect();
        let alone = styles(&models[7..8]);
        models.extend((0..9).map(|i| Model::new("lnln", format!("v{i}"))));
        let all = styles(&models);
        assert_eq!(all[7], alone[0], "LNLN looks the same everywhere");
        let looks: BTreeSet<String> = all.iter().map(|style| format!("{style:?}")).collect();
        assert_eq!(looks.len(), models.len());
        let methods = halfheard_shared::methods::all().len().min(COLORS.len());
        let colors: BTreeSet<[u8; 3]> = all[..methods]
            .iter()
            .map(|style| [style.color.0, style.color.1, style.color.2])
            .collect();
        assert_eq!(colors.len(), methods, "each method has its own color");
    }

    #[test]
    fn shade_darkens_with_the_share() {
        let light = |share| {
            let RGBColor(r, g, b) = shade(share);
            0.3 * f64::from(r) + 0.59 * f64::from(g) + 0.11 * f64::from(b)
        };
        let steps: Vec<f64> = (0..=20).map(|i| light(f64::from(i) / 20.0)).collect();
        assert!(steps.windows(2).all(|pair| pair[1] < pair[0]), "{steps:?}");
        assert_eq!(shade(-1.0), PAPER);
        assert_eq!(shade(2.0), RGBColor(8, 48, 107));
    }
}
