//! Figure 8: LNLN's language feature beside the dominant feature that its correction makes of it, at
//! several missing rates.
//!
//! An evaluation at a missing rate leaves both in the artifact store; they are placed in the plane
//! together, by t-SNE, for each rate by itself.

use super::sources::Sources;
use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering, Place},
    plot::{Legend, NAME, Sample},
    select::{Content, Model, name, spread},
    style::{COLOURS, FAINT, GREY, Mark, Style},
    tsne,
};
use crate::tables::layout;
use halfheard_shared::{
    address::redacted,
    artifacts::{ArtifactStore, Hash, Key},
    benchmark::Benchmark,
    case::{Case, Rate},
    features::{CRITERION, Features, MAX_BYTES},
    ids::SweepId,
};
use halfheard_store::Store;
use plotters::style::Color as _;
use sqlx::Row as _;
use std::collections::BTreeMap;

/// So many rates are shown unless others are asked for, and stand beside each other.
const BESIDE: usize = 4;
/// So many samples are shown, evenly from those that were kept: twice as many points.
const SAMPLES: usize = 250;

const LANGUAGE: Style = Style {
    colour: COLOURS[1],
    mark: Mark::Circle,
};
const DOMINANT: Style = Style {
    colour: COLOURS[6],
    mark: Mark::Triangle,
};

/// The features of a model at a rate.
struct Kept {
    heading: String,
    /// `None` where they are not in the store.
    features: Option<Features>,
}

/// Draws the figure.
///
/// # Errors
///
/// As [`super::draw`].
pub async fn figure(
    store: &Store,
    settings: &Sources<'_>,
    sweep: SweepId,
    content: &Content,
    request: &Request,
) -> Result<Figure, FigureError> {
    let models = match content.asked(request)? {
        Some(models) => models,
        None => vec![("lnln".to_owned(), String::new())],
    };
    for (method, variant) in &models {
        if method != "lnln" {
            return Err(FigureError::NotLnln(layout::label(method, variant)));
        }
    }
    if !models.iter().all(|model| content.models.contains(model)) {
        let have = content.models.iter();
        let have: Vec<String> = have.map(|(m, v)| layout::label(m, v)).collect();
        return Err(FigureError::NotInSweep {
            what: "LNLN, whose features the figure shows,".to_owned(),
            have: have.join(", "),
        });
    }
    let datasets = content.datasets(request)?;
    let rates = content.rates(request, BESIDE)?;
    // Only the broker's own bucket needs the broker.
    let broker = if settings.artifacts.starts_with("nats:") {
        Some(settings.broker.connect().await?)
    } else {
        None
    };
    let artifacts = ArtifactStore::open(settings.artifacts, broker.as_ref()).await?;
    let mut kept = Vec::new();
    let mut notes = Vec::new();
    let mut seeds: Vec<String> = Vec::new();
    for model in &models {
        for &dataset in &datasets {
            let (seed, own) = load(store, &artifacts, sweep, model, dataset, &rates).await?;
            let label = layout::label(&model.0, &model.1);
            let Some(seed) = seed else {
                notes.push(format!(
                    "no features of {label} on {} are there",
                    name(dataset)
                ));
                continue;
            };
            let seed = seed.to_string();
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
            for (&rate, features) in rates.iter().zip(own) {
                let model = if models.len() > 1 {
                    format!("{label}, ")
                } else {
                    String::new()
                };
                kept.push(Kept {
                    heading: format!("{model}{}, r = {rate}", name(dataset)),
                    features,
                });
            }
        }
    }
    if kept.is_empty() {
        let of: Vec<String> = datasets.iter().map(|dataset| name(*dataset)).collect();
        return Err(FigureError::NoFeatures {
            store: redacted(settings.artifacts),
            what: format!("LNLN on {} in this sweep", of.join(", ")),
        });
    }
    let lacking = kept.iter().filter(|kept| kept.features.is_none()).count();
    if lacking > 0 {
        notes.push(format!(
            "{lacking} of {} panels lack their features",
            kept.len()
        ));
    }
    let samples = kept.iter().filter_map(|kept| kept.features.as_ref());
    let samples = samples.map(|f| f.samples().min(SAMPLES)).max().unwrap_or(0);
    let caption = format!(
        "t-SNE of the language feature and of the dominant feature that the correction makes of it, \
         {samples} test samples each, of seed {}; the axes have no unit, and every panel is placed \
         by itself. Where language goes missing, its feature gathers in one place; the corrected \
         feature should not",
        seeds.join(" and ")
    );
    let per_row = rates.len().min(BESIDE);
    let svg = tokio::task::spawn_blocking(move || {
        let placed = place(&kept);
        paint(&kept, &placed, per_row)
    })
    .await??;
    Ok(Figure {
        kind: Kind::Features,
        title: "The language feature before and after its correction".to_owned(),
        caption,
        notes,
        svg,
    })
}

/// The features of the first seed that has any, by rate.
async fn load(
    store: &Store,
    artifacts: &ArtifactStore,
    sweep: SweepId,
    (method, variant): &Model,
    dataset: Benchmark,
    rates: &[Rate],
) -> Result<(Option<i64>, Vec<Option<Features>>), FigureError> {
    let rows = sqlx::query(
        "SELECT j.seed, k.blake3
         FROM job j
         JOIN checkpoint k ON k.job = j.id AND k.criterion = $5
         WHERE j.sweep = $1 AND j.kind = 'train' AND j.dataset = $2 AND j.method = $3
           AND j.variant = $4
         ORDER BY j.seed",
    )
    .bind(sweep.0)
    .bind(dataset.id())
    .bind(method)
    .bind(variant)
    .bind(CRITERION)
    .fetch_all(store.pool())
    .await?;
    for row in rows {
        let (seed, blake3): (i64, String) = (row.try_get("seed")?, row.try_get("blake3")?);
        let checkpoint: Hash = blake3.parse()?;
        let mut found = Vec::new();
        for &rate in rates {
            let key = Key::Features(checkpoint.clone(), Case::Rate(rate));
            let bytes = artifacts.get(&key, MAX_BYTES).await?;
            let features = bytes.map(|bytes| {
                Features::from_bytes(&bytes).map_err(|source| FigureError::Damaged {
                    key: key.to_string(),
                    source,
                })
            });
            found.push(features.transpose()?);
        }
        if found.iter().any(Option::is_some) {
            return Ok((Some(seed), found));
        }
    }
    Ok((None, Vec::new()))
}

/// Language and dominant features in the plane.
type Placed = [Vec<[f64; 2]>; 2];

/// Places every panel's points, on as many threads as there are cores.
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
            // A thread that died leaves its panels empty; nothing in it can.
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
            let small = Lettering::new(6.5).middle().colour(GREY);
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
        let as_ = Lettering::new(NAME).middle().colour(GREY);
        return canvas.centred("not there", middle, as_);
    };
    // The same scale along both axes: distances are what counts.
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for point in placed.iter().flatten() {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let wide = (high[0] - low[0]).max(high[1] - low[1]).max(1e-9);
    let scale = (side - 10.0) / wide;
    let centre = [0, 1].map(|axis| f64::midpoint(low[axis], high[axis]));
    let at = |point: &[f64; 2]| {
        (
            middle.0 + (point[0] - centre[0]) * scale,
            middle.1 - (point[1] - centre[1]) * scale,
        )
    };
    canvas.frame((left, top), (side, side), GREY, 0.5)?;
    // By turns, so that neither hides the other.
    let [language, dominant] = placed;
    for i in 0..language.len().max(dominant.len()) {
        for (points, style) in [(language, LANGUAGE), (dominant, DOMINANT)] {
            if let Some(point) = points.get(i) {
                canvas.mark(style.mark, at(point), 1.5, style.colour.mix(0.7))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_placed_whatever_the_number_of_threads() {
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
