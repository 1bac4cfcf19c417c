//! Marks of points, and places on a page.

use std::f64::consts::TAU;

/// A place on the page, in points: right, down.
pub(super) type Place = (f64, f64);

/// The shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
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

impl Mark {
    /// The corners around a place; `None` for a circle.
    pub(super) fn corners(self, (x, y): Place, radius: f64) -> Option<Vec<Place>> {
        // From the top, clockwise; shapes of equal radius look equally large.
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
