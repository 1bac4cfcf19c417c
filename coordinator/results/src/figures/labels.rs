//! Figure 4: the distribution of labels in each split.
//!
//! The database has the labels of test splits, which predictions are measured against. Those of the
//! other splits are counted in the manifests of imported datasets.

use super::{
    Figure, FigureError, Inputs, Kind, Request, SplitCounts,
    canvas::{self, Canvas, DrawError, Lettering},
    mark::Place,
    plot::{Axis, Legend, NAME, Plot, Sample, TICK, thousands},
    select::{Content, name},
    style::{COLORS, GRAY},
};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::Split,
    metrics,
    results::{DatasetFile, Results},
};
use plotters::style::RGBColor;

/// The known splits of a dataset.
#[derive(Debug)]
struct Labels {
    dataset: Benchmark,
    splits: Vec<SplitCounts>,
}

/// Dark, medium, light: distinct without color, too.
fn color(split: Split) -> RGBColor {
    match split {
        Split::Train => COLORS[1],
        Split::Valid => COLORS[4],
        Split::Test => COLORS[0],
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
pub(super) fn figure(
    results: &Results,
    content: &Content,
    request: &Request,
    inputs: &Inputs,
) -> Result<Figure, FigureError> {
    let datasets = content.datasets(request)?;
    let mut found: Vec<Labels> = Vec::new();
    let mut notes = Vec::new();
    for file in &results.files {
        // A second file has the same samples.
        let known = found.iter().any(|labels| labels.dataset == file.dataset);
        if known || !datasets.contains(&file.dataset) {
            continue;
        }
        let mut splits = inputs.splits.get(&file.blake3).cloned().unwrap_or_default();
        if splits.is_empty() {
            notes.push(format!(
                "of {} only the test split is shown: no dataset with its hash, {}…, is in the data \
                 folder (`coord data import` adds it, --data-dir names another folder)",
                name(file.dataset),
                file.blake3.chars().take(12).collect::<String>()
            ));
        }
        splits.push((Split::Test, counted(file)));
        found.push(Labels {
            dataset: file.dataset,
            splits,
        });
    }
    found.sort_by_key(|labels| datasets.iter().position(|d| *d == labels.dataset));
    if found.is_empty() {
        return Err(FigureError::Nothing {
            what: "no labels in the database yet".to_owned(),
        });
    }
    Ok(Figure {
        kind: Kind::Labels,
        title: "Distribution of labels".to_owned(),
        caption: "The share of each class in each split; below the name of a dataset are the sizes \
                  of its splits. A model that always predicts the most frequent class has its share \
                  as accuracy"
            .to_owned(),
        notes,
        svg: paint(&found)?,
    })
}

/// Counts the classes of the test labels.
fn counted(file: &DatasetFile) -> Vec<u64> {
    // With labels as predictions, a class's row has all of its samples.
    let matrix = metrics::confusion(file.dataset, &file.test_labels, &file.test_labels);
    matrix.iter().map(|row| row.iter().sum()).collect()
}

/// The names of the classes at the axis, in one or two lines.
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
    let entries = splits.map(|split| (Sample::Box(color(split)), split_name(split).to_owned()));
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
    let share = |counts: &[u64], class: usize| -> f64 {
        let all: u64 = counts.iter().sum();
        100.0 * counts.get(class).copied().unwrap_or(0) as f64 / all.max(1) as f64
    };
    let shares = labels.splits.iter().flat_map(|(_, counts)| {
        let own = 0..classes.len();
        own.map(|class| share(counts, class)).collect::<Vec<_>>()
    });
    let max = shares.fold(0.0, f64::max);
    let plot = Plot {
        from,
        to,
        x: Axis {
            low: 0.0,
            high: classes.len() as f64,
            ticks: Vec::new(),
        },
        y: Axis::between(0.0, (max * 1.05).max(1.0), 6),
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
    let small = Lettering::new(6.2).middle().color(GRAY);
    canvas.text(&sizes.join("  \u{b7}  "), (middle, from.1 - 5.0), small)?;
    let bar = 0.8 / labels.splits.len() as f64;
    for (class, label) in classes.iter().enumerate() {
        for (i, (split, counts)) in labels.splits.iter().enumerate() {
            let x = class as f64 + 0.1 + bar * i as f64;
            let (upper, lower) = (
                plot.at(x, share(counts, class)),
                plot.at(x + bar * 0.94, 0.0),
            );
            canvas.rectangle(upper, lower, color(*split))?;
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
        let count = |dataset| {
            counted(&DatasetFile {
                dataset,
                blake3: String::new(),
                sizes: [0, 0, 5],
                test_labels: [-1.0f32, -0.7, 0.0, 0.05, 0.9].into(),
            })
        };
        assert_eq!(count(Benchmark::Sims), [2, 0, 2, 0, 1]);
        assert_eq!(count(Benchmark::Mosi), [0, 0, 2, 2, 1, 0, 0]);
    }

    #[test]
    fn sizes_and_classes_are_labeled() {
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
