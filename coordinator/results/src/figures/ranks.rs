//! The critical-difference diagram (Demšar 2006): mean ranks on a line, and bars over methods that do
//! not differ significantly.

use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering, width},
    mark::Place,
    plot::{NAME, TICK},
    select::Content,
    style::{GRAY, INK, PAPER},
};
use crate::{
    statistics::ranks::{Measurement, ranks},
    tables::{derived, layout},
};
use halfheard_shared::results::Results;

/// Draws the figure.
pub(super) fn figure(
    results: &Results,
    content: &Content,
    request: &Request,
) -> Result<Figure, FigureError> {
    let datasets = content.datasets(request)?;
    let labels: Vec<String> = content.models(request)?.iter().map(layout::label).collect();
    let mut measurements = derived::measurements(&results.cells);
    measurements.retain(|m| labels.contains(&m.method) && datasets.contains(&m.dataset));
    of_measurements(&measurements)?.ok_or_else(|| FigureError::Nothing {
        what: "no two methods (besides ablations) with all seeds of a cell in common".to_owned(),
    })
}

/// The diagram of measured cells; `None` with fewer than two methods or without a cell that all have.
///
/// # Errors
///
/// Those of plotters.
pub fn of_measurements(measurements: &[Measurement]) -> Result<Option<Figure>, DrawError> {
    let Some(ranks) = ranks(measurements) else {
        return Ok(None);
    };
    let title = "mean rank over all cells (1 is best)";
    let svg = critical_difference(title, &ranks.mean, ranks.critical_difference)?;
    let differ = match ranks.critical_difference {
        Some(difference) => format!(
            ". Methods under one bar do not differ at the level 0.05: their mean ranks are closer \
             than {difference:.2} (Nemenyi); cells of one dataset share its samples, so the true \
             critical difference is larger"
        ),
        None => String::new(),
    };
    Ok(Some(Figure {
        kind: Kind::Ranks,
        title: "Mean ranks".to_owned(),
        caption: format!(
            "Mean rank over {} cells (one dataset and one case each), averaged over metrics{differ}",
            ranks.cells
        ),
        notes: Vec::new(),
        svg,
    }))
}

const LINE: f64 = 12.0;
const BAR: f64 = 5.0;

/// Draws mean ranks, the best first, along an axis called `title`, with a bar over each group of
/// methods that are closer than `difference`.
///
/// # Errors
///
/// Those of plotters.
pub fn critical_difference(
    title: &str,
    mean: &[(String, f64)],
    difference: Option<f64>,
) -> Result<String, DrawError> {
    let count = mean.len();
    let left_side = count.div_ceil(2);
    let groups = difference.map_or(Vec::new(), |difference| groups(mean, difference));
    let longest = mean
        .iter()
        .map(|(label, _)| width(&format!("{label}  9.99"), NAME));
    let margin = longest.fold(40.0, f64::max) + 18.0;
    let page = canvas::WIDTH.min(2.0 * margin + 60.0 + 40.0 * count.max(2) as f64);
    let ends = (margin, page - margin);
    let high = count.max(2) as f64;
    let at = |rank: f64| ends.0 + (rank - 1.0) / (high - 1.0) * (ends.1 - ends.0);
    let ruler = if difference.is_some() { 16.0 } else { 0.0 };
    let axis = 18.0 + ruler + 12.0;
    let bars = axis + 9.0;
    let names = bars + BAR * groups.len() as f64 + 7.0;
    let height = names + LINE * left_side.max(1) as f64 + 4.0;
    canvas::page(page, height, |canvas| {
        let middle = f64::midpoint(ends.0, ends.1);
        canvas.text(title, (middle, 11.0), Lettering::new(NAME).middle())?;
        if let Some(difference) = difference {
            draw_ruler(
                canvas,
                difference,
                (ends.0, 24.0),
                at(1.0 + difference) - at(1.0),
            )?;
        }
        canvas.line(&[(ends.0, axis), (ends.1, axis)], GRAY, 0.8)?;
        for rank in 1..=count.max(2) {
            let x = at(rank as f64);
            canvas.line(&[(x, axis - 3.0), (x, axis)], GRAY, 0.6)?;
            let place = (x, axis - 5.0);
            canvas.text(&rank.to_string(), place, Lettering::new(TICK).middle())?;
        }
        for (i, (label, rank)) in mean.iter().enumerate() {
            let x = at(*rank);
            // The better half to the left, the best on top; the other half reversed, which avoids
            // crossing lines.
            let (row, left) = if i < left_side {
                (i, true)
            } else {
                (count - 1 - i, false)
            };
            let y = names + LINE * (row as f64 + 0.5);
            let end = if left { ends.0 - 6.0 } else { ends.1 + 6.0 };
            canvas.line(&[(x, axis), (x, y), (end, y)], GRAY, 0.5)?;
            let text = if left {
                format!("{label}  {rank:.2}")
            } else {
                format!("{rank:.2}  {label}")
            };
            let as_ = Lettering::new(NAME);
            let (place, as_) = if left {
                ((end - 3.0, y), as_.end())
            } else {
                ((end + 3.0, y), as_)
            };
            canvas.centered(&text, place, as_)?;
        }
        for (i, &(first, last)) in groups.iter().enumerate() {
            let y = bars + BAR * i as f64;
            let (from, to) = (at(mean[first].1) - 2.5, at(mean[last].1) + 2.5);
            canvas.line(&[(from, y), (to, y)], INK, 2.2)?;
        }
        Ok(())
    })
}

/// A ruler as long as the critical difference.
fn draw_ruler(
    canvas: &Canvas<'_>,
    difference: f64,
    (left, y): Place,
    long: f64,
) -> Result<(), DrawError> {
    let right = left + long;
    canvas.line(&[(left, y), (right, y)], INK, 0.8)?;
    for x in [left, right] {
        canvas.line(&[(x, y - 2.5), (x, y + 2.5)], INK, 0.8)?;
    }
    let text = format!("critical difference {difference:.2}");
    let behind = (right + 6.0, y);
    // White below the text, which may reach into the diagram.
    let wide = width(&text, TICK);
    canvas.rectangle((behind.0 - 1.0, y - 4.0), (behind.0 + wide, y + 4.0), PAPER)?;
    canvas.centered(&text, behind, Lettering::new(TICK))
}

/// The longest runs of two or more methods closer than `difference`, as indices of the first and the
/// last.
fn groups(mean: &[(String, f64)], difference: f64) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for first in 0..mean.len() {
        let within = |last: &usize| mean[*last].1 - mean[first].1 <= difference;
        let Some(last) = (first..mean.len()).rev().find(within) else {
            continue;
        };
        // A run within the previous one adds nothing.
        if last > first && groups.last().is_none_or(|&(_, before)| last > before) {
            groups.push((first, last));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(ranks: &[f64]) -> Vec<(String, f64)> {
        let named = ranks.iter().enumerate();
        named.map(|(i, rank)| (format!("m{i}"), *rank)).collect()
    }

    #[test]
    fn groups_are_the_longest_runs() {
        let ranks = mean(&[1.0, 1.8, 2.2, 4.0, 4.1]);
        assert_eq!(groups(&ranks, 1.0), [(0, 1), (1, 2), (3, 4)]);
        assert_eq!(groups(&ranks, 1.3), [(0, 2), (3, 4)]);
        assert_eq!(groups(&ranks, 10.0), [(0, 4)]);
        assert_eq!(groups(&ranks, 0.01), []);
    }

    #[test]
    fn every_method_is_labeled_with_its_rank() {
        for count in [1, 2, 3, 8, 19] {
            let ranks: Vec<f64> = (0..count).map(|i| 1.0 + 0.9 * f64::from(i)).collect();
            let ranks = mean(&ranks);
            let svg = critical_difference("mean rank", &ranks, Some(1.5)).unwrap();
            for (label, rank) in &ranks {
                let left = svg.contains(&format!("\n{label}  {rank:.2}\n"));
                let right = svg.contains(&format!("\n{rank:.2}  {label}\n"));
                assert!(left || right, "{label}");
            }
            assert!(svg.contains("critical difference 1.50"));
        }
        let svg = critical_difference("mean rank", &mean(&[1.5, 1.5]), None).unwrap();
        assert!(!svg.contains("critical"));
    }
}
