//! Colours and marks that stay apart in print and for colour-blind readers.

use super::canvas::Place;
use crate::tables::layout;
use plotters::style::RGBColor;
use std::f64::consts::TAU;

/// Text and axes.
pub const INK: RGBColor = RGBColor(34, 34, 34);
/// What is less than text: ticks, frames, what stands for all methods in a legend.
pub const GREY: RGBColor = RGBColor(110, 110, 110);
/// Lines of a grid.
pub const FAINT: RGBColor = RGBColor(228, 228, 228);
/// Paper.
pub const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Okabe and Ito's colours, in an order in which neighbours differ in lightness, with a grey for
/// their yellow, which is faint on white, and Tol's wine behind them.
pub const COLOURS: [RGBColor; 9] = [
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

/// The shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// ●
    Circle,
    /// ■
    Square,
    /// ▲
    Triangle,
    /// ◆
    Diamond,
    /// ▼
    Inverted,
    /// ✚
    Plus,
    /// ✖
    Cross,
    /// ★
    Star,
    /// ⬟
    Pentagon,
}

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

impl Mark {
    /// Its corners around a place; `None` for a circle, which has none.
    pub fn corners(self, (x, y): Place, radius: f64) -> Option<Vec<Place>> {
        // From the top, clockwise; shapes of the same radius look of a size.
        let around = |count: u32, turn: f64, radii: &dyn Fn(u32) -> f64| -> Vec<Place> {
            (0..count)
                .map(|corner| {
                    let angle = TAU * (f64::from(corner) / f64::from(count) + turn);
                    let long = radii(corner) * radius;
                    (x + long * angle.sin(), y - long * angle.cos())
                })
                .collect()
        };
        let even = |count, turn, size: f64| around(count, turn, &|_| size);
        let cross = |turn: f64| -> Vec<Place> {
            let (wide, long) = (0.36, 1.15);
            let arm = [(-wide, -long), (wide, -long), (wide, -wide)];
            (0..4)
                .flat_map(|quarter| {
                    let (sin, cos) = (TAU * (f64::from(quarter) / 4.0 + turn)).sin_cos();
                    arm.map(|(a, b)| (a * cos - b * sin, a * sin + b * cos))
                })
                .map(|(a, b)| (x + a * radius, y + b * radius))
                .collect()
        };
        Some(match self {
            Mark::Circle => return None,
            Mark::Square => even(4, 0.125, 1.25),
            Mark::Triangle => even(3, 0.0, 1.3),
            Mark::Diamond => even(4, 0.0, 1.3),
            Mark::Inverted => even(3, 0.5, 1.3),
            Mark::Plus => cross(0.0),
            Mark::Cross => cross(0.125),
            Mark::Star => around(10, 0.0, &|i| if i % 2 == 0 { 1.4 } else { 0.58 }),
            Mark::Pentagon => even(5, 0.0, 1.15),
        })
    }
}

/// How a model is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Its colour.
    pub colour: RGBColor,
    /// The shape of its points.
    pub mark: Mark,
}

/// The styles of models, method and variant each. A method has the same in every figure and sweep;
/// variants take those that are free.
pub fn styles(models: &[(String, String)]) -> Vec<Style> {
    let mut taken: Vec<usize> = models
        .iter()
        .filter(|(_, variant)| variant.is_empty())
        .map(|(method, _)| layout::method_order(method))
        .collect();
    models
        .iter()
        .map(|(method, variant)| {
            let place = if variant.is_empty() {
                layout::method_order(method)
            } else {
                let free = (0..).find(|place| !taken.contains(place)).unwrap_or(0);
                taken.push(free);
                free
            };
            Style {
                colour: COLOURS[place % COLOURS.len()],
                // Another one in each round of the colours.
                mark: MARKS[(place + place / COLOURS.len()) % MARKS.len()],
            }
        })
        .collect()
}

/// A share, 0 to 1, as a colour from white to dark blue whose lightness falls evenly.
pub fn shade(share: f64) -> RGBColor {
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
    fn models_of_a_figure_look_different() {
        let mut models: Vec<(String, String)> = halfheard_shared::methods::all()
            .iter()
            .map(|method| (method.id.to_owned(), String::new()))
            .collect();
        let alone = styles(&models[7..8]);
        models.extend((0..9).map(|i| ("lnln".to_owned(), format!("v{i}"))));
        let all = styles(&models);
        assert_eq!(all[7], alone[0], "LNLN looks the same everywhere");
        let looks: BTreeSet<String> = all.iter().map(|style| format!("{style:?}")).collect();
        assert_eq!(looks.len(), models.len());
        let methods = halfheard_shared::methods::all().len().min(COLOURS.len());
        let colours: BTreeSet<[u8; 3]> = all[..methods]
            .iter()
            .map(|style| [style.colour.0, style.colour.1, style.colour.2])
            .collect();
        assert_eq!(
            colours.len(),
            methods,
            "each method has a colour of its own"
        );
    }

    #[test]
    fn shades_grow_darker() {
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
