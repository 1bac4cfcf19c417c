//! Figure 4: how the labels of each split are distributed.
//!
//! The database has the labels of test splits, which predictions are measured against. Those of the
//! other splits are counted in the manifest that lies beside an imported dataset: the data folder is
//! looked through for one of the same hash.

use super::sources::Sources;
use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering, Place},
    plot::{Axis, Legend, NAME, Plot, Sample, TICK, thousands},
    select::{Content, name},
    style::{COLOURS, GREY},
};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::{DataFolder, DatasetError, Split},
    ids::SweepId,
    metrics,
};
use halfheard_store::Store;
use plotters::style::RGBColor;
use sqlx::Row as _;

/// How many samples of a split have each class, the most negative first.
type Counts = Vec<u64>;

/// The splits of a dataset, as far as they are known.
#[derive(Debug)]
struct Labels {
    dataset: Benchmark,
    splits: Vec<(Split, Counts)>,
}

/// Dark, middle, light: apart without colour, too.
fn colour(split: Split) -> RGBColor {
    match split {
        Split::Train => COLOURS[1],
        Split::Valid => COLOURS[4],
        Split::Test => COLOURS[0],
    }
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "training",
        Split::Valid => "validation",
        Split::Test => "test",
    }
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
    let datasets = content.datasets(request)?;
    let rows = sqlx::query(
        "SELECT DISTINCT j.dataset, d.blake3, d.test_labels
         FROM job j
         JOIN config c ON c.id = j.config
         JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
         WHERE j.sweep = $1 AND j.kind = 'train'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let folder = DataFolder::new(settings.data_dir);
    let mut found: Vec<Labels> = Vec::new();
    let mut notes = Vec::new();
    for row in rows {
        let (dataset, blake3): (String, String) = (row.try_get("dataset")?, row.try_get("blake3")?);
        let mut asked = datasets.iter().copied();
        let Some(dataset) = asked.find(|asked| asked.id() == dataset) else {
            continue;
        };
        let mut splits = imported(&folder, &blake3)?;
        if splits.is_empty() {
            notes.push(format!(
                "of {} only the test split is shown: no dataset with its hash, {}…, is in the data \
                 folder (`coord data import` brings it there, --data-dir names another folder)",
                name(dataset),
                blake3.chars().take(12).collect::<String>()
            ));
        }
        let bytes: Vec<u8> = row.try_get("test_labels")?;
        splits.push((Split::Test, counted(dataset, &bytes)));
        found.push(Labels { dataset, splits });
    }
    found.sort_by_key(|labels| datasets.iter().position(|d| *d == labels.dataset));
    if found.is_empty() {
        return Err(FigureError::Nothing {
            what: "no labels in the database yet".to_owned(),
        });
    }
    let svg = tokio::task::spawn_blocking(move || paint(&found)).await??;
    Ok(Figure {
        kind: Kind::Labels,
        title: "Distribution of labels".to_owned(),
        caption: "The share of each class in each split; below a dataset's name, how many samples \
                  the splits have. A model that always gives the most frequent class has its share \
                  as accuracy"
            .to_owned(),
        notes,
        svg,
    })
}

/// The classes of the training and the validation split of an imported dataset with this hash.
fn imported(folder: &DataFolder, blake3: &str) -> Result<Vec<(Split, Counts)>, DatasetError> {
    for name in folder.names()? {
        // One that cannot be read is none of ours; `coord data list` tells of it.
        let Ok(manifest) = folder.manifest(&name) else {
            continue;
        };
        if manifest.blake3 != blake3 {
            continue;
        }
        let splits = [Split::Train, Split::Valid].into_iter();
        return Ok(splits
            .filter_map(|split| {
                let counts = manifest.splits.get(&split)?.label_counts.clone();
                Some((split, counts))
            })
            .collect());
    }
    Ok(Vec::new())
}

/// Counts the classes of labels stored as little-endian single precision numbers.
fn counted(dataset: Benchmark, bytes: &[u8]) -> Counts {
    let labels: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    // Where truth and prediction are the same, a class's row has all of it.
    let matrix = metrics::confusion(dataset, &labels, &labels);
    matrix.iter().map(|row| row.iter().sum()).collect()
}

/// As the axis calls the classes, in one or two lines.
fn classes(dataset: Benchmark) -> Vec<String> {
    let short = |name: &&str| {
        let short = name.replace("negative", "neg.").replace("positive", "pos.");
        super::confusion::minus(&short)
    };
    dataset.rules().fine.names.iter().map(short).collect()
}

const TOP: f64 = 44.0;
const PLOT: f64 = 120.0;

fn paint(found: &[Labels]) -> Result<String, DrawError> {
    let splits = Split::ALL.into_iter().filter(|split| {
        let mut all = found.iter().flat_map(|labels| &labels.splits);
        all.any(|(known, _)| known == split)
    });
    let entries = splits.map(|split| (Sample::Box(colour(split)), split_name(split).to_owned()));
    let wide = match found.len() {
        1 => 300.0,
        2 => 220.0,
        _ => canvas::WIDTH / 3.0,
    };
    let width = wide * found.len() as f64;
    let legend = Legend::new(entries.collect(), width);
    canvas::page(width, TOP + PLOT + 33.0, |canvas| {
        legend.draw(canvas, width / 2.0, 4.0)?;
        for (i, labels) in found.iter().enumerate() {
            let left = wide * i as f64 + 36.0;
            let frame = ((left, TOP), (left + wide - 42.0, TOP + PLOT));
            draw_panel(canvas, labels, frame)?;
        }
        Ok(())
    })
}

fn draw_panel(
    canvas: &Canvas<'_>,
    labels: &Labels,
    (from, to): (Place, Place),
) -> Result<(), DrawError> {
    let classes = classes(labels.dataset);
    let share = |counts: &Counts, class: usize| -> f64 {
        let all: u64 = counts.iter().sum();
        100.0 * counts.get(class).copied().unwrap_or(0) as f64 / all.max(1) as f64
    };
    let shares = labels.splits.iter().flat_map(|(_, counts)| {
        let own = 0..classes.len();
        own.map(|class| share(counts, class)).collect::<Vec<_>>()
    });
    let most = shares.fold(0.0, f64::max);
    let plot = Plot {
        from,
        to,
        x: Axis {
            low: 0.0,
            high: classes.len() as f64,
            ticks: Vec::new(),
        },
        y: Axis::between(0.0, (most * 1.05).max(1.0), 6),
    };
    plot.draw(canvas, "", "", "share of the split, %")?;
    let middle = f64::midpoint(from.0, to.0);
    let heading = Lettering::new(8.0).middle().bold();
    canvas.text(&name(labels.dataset), (middle, from.1 - 15.0), heading)?;
    let sizes: Vec<String> = labels
        .splits
        .iter()
        .map(|(split, counts)| {
            let samples = counts.iter().sum::<u64>();
            let samples = thousands(usize::try_from(samples).unwrap_or(usize::MAX));
            format!("{} {samples}", split.as_str())
        })
        .collect();
    let small = Lettering::new(6.2).middle().colour(GREY);
    canvas.text(&sizes.join("  \u{b7}  "), (middle, from.1 - 5.0), small)?;
    let bar = 0.8 / labels.splits.len() as f64;
    for (class, label) in classes.iter().enumerate() {
        for (i, (split, counts)) in labels.splits.iter().enumerate() {
            let x = class as f64 + 0.1 + bar * i as f64;
            let (upper, lower) = (
                plot.at(x, share(counts, class)),
                plot.at(x + bar * 0.94, 0.0),
            );
            canvas.rectangle(upper, lower, colour(*split))?;
        }
        let (x, _) = plot.at(class as f64 + 0.5, 0.0);
        for (i, line) in label.split(' ').enumerate() {
            let place = (x, to.1 + 9.0 + 7.5 * i as f64);
            canvas.text(line, place, Lettering::new(TICK).middle())?;
        }
    }
    let below = (middle, to.1 + 27.5);
    canvas.text("class of the label", below, Lettering::new(NAME).middle())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_by_class() {
        let bytes: Vec<u8> = [-1.0f32, -0.7, 0.0, 0.05, 0.9]
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect();
        assert_eq!(counted(Benchmark::Sims, &bytes), [2, 0, 2, 0, 1]);
        assert_eq!(counted(Benchmark::Mosi, &bytes), [0, 0, 2, 2, 1, 0, 0]);
    }

    #[test]
    fn an_empty_data_folder_has_no_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(folder.path());
        assert!(imported(&folder, "00").unwrap().is_empty());
    }

    #[test]
    fn sizes_and_classes_are_written() {
        let labels = |dataset, splits| Labels { dataset, splits };
        let svg = paint(&[
            labels(
                Benchmark::Sims,
                vec![(Split::Test, vec![1000, 0, 200, 30, 4])],
            ),
            labels(
                Benchmark::Mosi,
                Split::ALL
                    .map(|split| (split, vec![1, 2, 3, 4, 3, 2, 1]))
                    .into(),
            ),
        ])
        .unwrap();
        for part in [
            "test 1,234",
            "weakly",
            "\u{2212}3",
            "validation",
            "share of the split, %",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    }
}
