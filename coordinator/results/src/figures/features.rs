//! Figure 8: LNLN's language feature and the dominant feature after its correction, at several missing
//! rates.
//!
//! An evaluation at a missing rate leaves both in the artifact store. t-SNE embeds them together, for
//! each rate separately.

use super::{
    Figure, FigureError, Inputs, Kind, NeededFeatures, Request,
    canvas::{self, Canvas, DrawError, Lettering},
    mark::{Mark, Place},
    plot::{Legend, NAME, Sample},
    select::{Content, name, spread},
    style::{COLORS, FAINT, GRAY, Style},
    tsne,
};
use crate::tables::layout;
use halfheard_shared::{
    features::Features,
    results::{Model, Results},
};
use plotters::style::Color as _;
use std::collections::BTreeMap;

/// The most rates in a row, and the default number of rates.
const PER_ROW: usize = 4;
/// The most samples shown, evenly spaced among those kept: twice as many points.
const SAMPLES: usize = 250;

const LANGUAGE: Style = Style {
    color: COLORS[1],
    mark: Mark::Circle,
};
const DOMINANT: Style = Style {
    color: COLORS[6],
    mark: Mark::Triangle,
};

/// The features of a model at a rate.
struct Kept {
    heading: String,
    /// `None` if they are not in the store.
    features: Option<Features>,
}

/// The features that the figure is drawn from, by model and dataset.
pub(super) fn needs(
    results: &Results,
    content: &Content,
    request: &Request,
) -> Result<Vec<NeededFeatures>, FigureError> {
    let models = match content.requested(request)? {
        Some(models) => models,
        None => vec![Model::new("lnln", "")],
    };
    if let Some(other) = models.iter().find(|model| model.method != "lnln") {
        return Err(FigureError::NotLnln(layout::label(other)));
    }
    if !models.iter().all(|model| content.models.contains(model)) {
        let have: Vec<String> = content.models.iter().map(layout::label).collect();
        return Err(FigureError::NotInSweep {
            what: "LNLN, whose features the figure shows,".to_owned(),
            have: have.join(", "),
        });
    }
    let datasets = content.datasets(request)?;
    let rates = content.rates(request, PER_ROW)?;
    let mut needed = Vec::new();
    for model in models {
        for &dataset in &datasets {
            let own = results.checkpoints.iter();
            let own = own.filter(|c| c.model == model && c.dataset == dataset);
            needed.push(NeededFeatures {
                model: model.clone(),
                dataset,
                rates: rates.clone(),
                checkpoints: own.map(|c| (c.seed, c.hash.clone())).collect(),
            });
        }
    }
    Ok(needed)
}

/// Draws the figure.
pub(super) fn figure(
    results: &Results,
    content: &Content,
    request: &Request,
    inputs: &Inputs,
) -> Result<Figure, FigureError> {
    let needed = needs(results, content, request)?;
    let several = needed.iter().any(|other| other.model != needed[0].model);
    let mut kept = Vec::new();
    let mut notes = Vec::new();
    let mut seeds: Vec<String> = Vec::new();
    for (needed, loaded) in needed.iter().zip(&inputs.features) {
        let label = layout::label(&needed.model);
        let dataset = name(needed.dataset);
        let Some(loaded) = loaded else {
            notes.push(format!("no features of {label} on {dataset}"));
            continue;
        };
        let seed = loaded.seed.to_string();
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
        let model = if several {
            format!("{label}, ")
        } else {
            String::new()
        };
        let panels = needed.rates.iter().zip(&loaded.features);
        kept.extend(panels.map(|(rate, features)| Kept {
            heading: format!("{model}{dataset}, r = {rate}"),
            features: features.clone(),
        }));
    }
    if kept.is_empty() {
        let mut datasets: Vec<String> = needed.iter().map(|n| name(n.dataset)).collect();
        datasets.dedup();
        return Err(FigureError::NoFeatures {
            store: inputs.artifacts.clone(),
            what: format!("LNLN on {} in this sweep", datasets.join(", ")),
        });
    }
    let missing = kept.iter().filter(|kept| kept.features.is_none()).count();
    if missing > 0 {
        notes.push(format!(
            "{missing} of {} panels lack their features",
            kept.len()
        ));
    }
    let samples = kept.iter().filter_map(|kept| kept.features.as_ref());
    let samples = samples.map(|f| f.samples().min(SAMPLES)).max().unwrap_or(0);
    let caption = format!(
        "t-SNE of the language feature and of the dominant feature after its correction, {samples} \
         test samples each, of seed {}; the axes have no unit, and every panel is embedded \
         separately. Where language goes missing, its feature collapses to one place; the corrected \
         feature should not",
        seeds.join(" and ")
    );
    let per_row = needed.first().map_or(1, |needed| needed.rates.len());
    let placed = place(&kept);
    Ok(Figure {
        kind: Kind::Features,
        title: "The language feature before and after its correction".to_owned(),
        caption,
        notes,
        svg: paint(&kept, &placed, per_row.min(PER_ROW))?,
    })
}

/// Embedded language and dominant features.
type Placed = [Vec<[f64; 2]>; 2];

/// Embeds every panel, on as many threads as there are cores.
fn place(kept: &[Kept]) -> Vec<Option<Placed>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut placed: BTreeMap<usize, Placed> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min(kept.len()))
            .map(|first| {
                scope.spawn(move || {
                    let own = (first..kept.len()).step_by(cores.min(kept.len()));
                    own.filter_map(|i| Some((i, embedded(kept[i].features.as_ref()?))))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in threads {
            // A panicked thread would leave its panels empty; none can panic.
            placed.extend(thread.join().unwrap_or_default());
        }
    });
    (0..kept.len()).map(|i| placed.remove(&i)).collect()
}

fn embedded(features: &Features) -> Placed {
    let all: Vec<usize> = (0..features.samples()).collect();
    let rows: Vec<usize> = spread(&all, SAMPLES);
    let mut points = Vec::with_capacity(2 * rows.len() * features.width);
    for &row in &rows {
        points.extend_from_slice(features.row(row).map_or(&[][..], |(language, _)| language));
    }
    for &row in &rows {
        points.extend_from_slice(features.row(row).map_or(&[][..], |(_, dominant)| dominant));
    }
    let mut language = tsne::embed(&points, features.width);
    let dominant = language.split_off(rows.len().min(language.len()));
    [language, dominant]
}

const TITLE: f64 = 14.0;
const GAP: f64 = 8.0;
/// Names of the axes.
const LEFT: f64 = 16.0;
const BELOW: f64 = 12.0;

fn paint(kept: &[Kept], placed: &[Option<Placed>], per_row: usize) -> Result<String, DrawError> {
    let entries = vec![
        (Sample::Point(LANGUAGE), "language feature".to_owned()),
        (
            Sample::Point(DOMINANT),
            "corrected dominant feature".to_owned(),
        ),
    ];
    let room = (canvas::WIDTH - LEFT - 6.0 + GAP) / per_row as f64 - GAP;
    let side = room.min(200.0);
    let width = LEFT + (side + GAP) * per_row as f64 - GAP + 6.0;
    let legend = Legend::new(entries, width.max(240.0));
    let width = width.max(260.0);
    let rows = kept.len().div_ceil(per_row);
    let top = 6.0 + legend.height();
    let pitch = TITLE + side + BELOW;
    canvas::page(width, top + pitch * rows as f64 + 2.0, |canvas| {
        legend.draw(canvas, width / 2.0, 4.0)?;
        for (i, (kept, placed)) in kept.iter().zip(placed).enumerate() {
            let left = LEFT + (side + GAP) * (i % per_row) as f64;
            let above = top + pitch * (i / per_row) as f64 + TITLE;
            draw_panel(canvas, &kept.heading, placed.as_ref(), (left, above), side)?;
            let small = Lettering::new(6.5).middle().color(GRAY);
            let middle = (left + side / 2.0, above + side / 2.0);
            canvas.text("t-SNE 1", (middle.0, above + side + 8.5), small)?;
            if i % per_row == 0 {
                canvas.upwards("t-SNE 2", (left - 5.0, middle.1), small)?;
            }
        }
        Ok(())
    })
}

fn draw_panel(
    canvas: &Canvas<'_>,
    heading: &str,
    placed: Option<&Placed>,
    (left, top): Place,
    side: f64,
) -> Result<(), DrawError> {
    let middle = (left + side / 2.0, top + side / 2.0);
    let as_ = Lettering::new(NAME).middle().bold();
    canvas.text(heading, (middle.0, top - 4.5), as_)?;
    let Some(placed) = placed else {
        canvas.rectangle((left, top), (left + side, top + side), FAINT)?;
        let as_ = Lettering::new(NAME).middle().color(GRAY);
        return canvas.centered("not there", middle, as_);
    };
    // The same scale along both axes: distances matter.
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for point in placed.iter().flatten() {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let wide = (high[0] - low[0]).max(high[1] - low[1]).max(1e-9);
    let scale = (side - 10.0) / wide;
    let center = [0, 1].map(|axis| f64::midpoint(low[axis], high[axis]));
    let at = |point: &[f64; 2]| {
        (
            middle.0 + (point[0] - center[0]) * scale,
            middle.1 - (point[1] - center[1]) * scale,
        )
    };
    canvas.frame((left, top), (side, side), GRAY, 0.5)?;
    // Alternating, so neither hides the other.
    let [language, dominant] = placed;
    for i in 0..language.len().max(dominant.len()) {
        for (points, style) in [(language, LANGUAGE), (dominant, DOMINANT)] {
            if let Some(point) = points.get(i) {
                canvas.mark(style.mark, at(point), 1.5, style.color.mix(0.7))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_does_not_depend_on_the_number_of_threads() {
        let features = |shift: f32| Features {
            width: 3,
            index: (0..20).collect(),
            language: (0..60).map(|i| (i as f32).sin()).collect(),
            dominant: (0..60).map(|i| (i as f32).sin() + shift).collect(),
        };
        let kept: Vec<Kept> = [Some(8.0), None, Some(0.0), Some(-8.0), Some(8.0)]
            .into_iter()
            .enumerate()
            .map(|(i, shift)| Kept {
                heading: format!("panel {i}"),
                features: shift.map(features),
            })
            .collect();
        let placed = place(&kept);
        assert!(placed[1].is_none());
        assert_eq!(placed[0], placed[4]);
        for placed in placed.iter().flatten() {
            assert_eq!([placed[0].len(), placed[1].len()], [20, 20]);
        }
        let svg = paint(&kept, &placed, 4).unwrap();
        assert_eq!(svg, paint(&kept, &place(&kept), 4).unwrap());
        for part in [
            "panel 4",
            "not there",
            "corrected dominant feature",
            "t-SNE 2",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    }
}
