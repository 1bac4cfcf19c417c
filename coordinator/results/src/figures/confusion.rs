//! Figures 5, 6 and 7: confusion matrices at several missing rates, from stored predictions.

use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering, width},
    mark::Place,
    plot::{NAME, TICK},
    select::{Content, name},
    style::{FAINT, GRAY, INK, PAPER, shade},
};
use crate::tables::layout;
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, Rate},
    metrics,
    results::{Filter, Model, Predictions},
};

/// The most matrices in a row.
const PER_ROW: usize = 4;

/// How often each class (row) is predicted as each (column).
type Counts = Vec<Vec<u64>>;

/// A matrix of a model at a rate, over all its seeds.
struct Matrix {
    label: String,
    rate: Rate,
    /// `None` without a finished evaluation.
    counts: Option<Counts>,
}

/// The metric whose checkpoint predicts: the accuracy of the classes shown.
fn metric(dataset: Benchmark) -> &'static str {
    dataset.rules().fine.accuracy
}

/// The short names of the classes, the most negative first.
fn classes(dataset: Benchmark) -> Vec<String> {
    let short = |name: &&str| match *name {
        "negative" => "neg.".to_owned(),
        "weakly negative" => "w. neg.".to_owned(),
        "neutral" => "neut.".to_owned(),
        "weakly positive" => "w. pos.".to_owned(),
        "positive" => "pos.".to_owned(),
        "not negative" => "not neg.".to_owned(),
        "not positive" => "not pos.".to_owned(),
        other => minus(other),
    };
    dataset.rules().fine.names.iter().map(short).collect()
}

/// With a true minus before numbers.
pub(super) fn minus(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.strip_prefix('-') {
        Some(number) => format!("\u{2212}{number}"),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The models and rates of the figure, and whether the models were requested.
fn chosen(
    content: &Content,
    dataset: Benchmark,
    request: &Request,
) -> Result<(Vec<Model>, Vec<Rate>, bool), FigureError> {
    content.has(dataset)?;
    let requested = content.requested(request)?;
    let is_requested = requested.is_some();
    let models = match requested {
        Some(models) => models,
        None => default_models(content, request)?,
    };
    Ok((models, content.rates(request, PER_ROW)?, is_requested))
}

/// LNLN, as in the paper, or else all models.
fn default_models(content: &Content, request: &Request) -> Result<Vec<Model>, FigureError> {
    let lnln = Model::new("lnln", "");
    if content.models.contains(&lnln) {
        return Ok(vec![lnln]);
    }
    content.models(request)
}

/// The predictions that the figure is computed from.
pub(super) fn needs(
    content: &Content,
    dataset: Benchmark,
    request: &Request,
) -> Result<Filter, FigureError> {
    let (models, rates, _) = chosen(content, dataset, request)?;
    Ok(Filter {
        methods: models.into_iter().map(|model| model.method).collect(),
        datasets: vec![dataset],
        cases: rates.into_iter().map(Case::at_rate).collect(),
    })
}

/// Draws the figure.
pub(super) fn figure(
    predictions: &Predictions,
    content: &Content,
    dataset: Benchmark,
    request: &Request,
) -> Result<Figure, FigureError> {
    let (models, rates, is_requested) = chosen(content, dataset, request)?;
    let matrices = count(predictions, dataset, &models, &rates);
    let missing = matrices.iter().filter(|m| m.counts.is_none()).count();
    if missing == matrices.len() {
        return Err(FigureError::Nothing {
            what: format!(
                "no finished evaluation on {} of what the figure would show",
                name(dataset)
            ),
        });
    }
    let mut notes = Vec::new();
    if !is_requested && content.models.len() > models.len() {
        notes.push("--method draws other methods".to_owned());
    }
    if missing > 0 {
        notes.push(format!(
            "{missing} of {} matrices have no finished evaluation yet",
            matrices.len()
        ));
    }
    let samples = predictions.labels.get(&dataset).map_or(0, |l| l.len());
    let caption = format!(
        "Rows are true classes, columns predicted ones; each number is the percentage of its row, \
         over all seeds ({samples} test samples each), by the checkpoint selected for {}. A column \
         that is dark from top to bottom is a model that gives the same answer for every input",
        dataset.metric(metric(dataset)).map_or("", |m| m.name)
    );
    Ok(Figure {
        kind: Kind::Confusion(dataset),
        title: format!("Confusion matrices on {}", name(dataset)),
        caption,
        notes,
        svg: paint(dataset, &matrices, rates.len().min(PER_ROW))?,
    })
}

fn count(
    predictions: &Predictions,
    dataset: Benchmark,
    models: &[Model],
    rates: &[Rate],
) -> Vec<Matrix> {
    let mut matrices = Vec::new();
    for model in models {
        for &rate in rates {
            let mut sum: Option<Counts> = None;
            let own = predictions.evaluations.iter().filter(|evaluation| {
                (&evaluation.model, evaluation.dataset, evaluation.case)
                    == (model, dataset, Case::at_rate(rate))
            });
            for evaluation in own {
                let (Some(labels), Some(predicted)) = (
                    predictions.labels.get(&dataset),
                    evaluation.of_metric(metric(dataset)),
                ) else {
                    continue;
                };
                let own = metrics::confusion(dataset, predicted, labels);
                match &mut sum {
                    None => sum = Some(own),
                    Some(sum) => {
                        let cells = sum.iter_mut().flatten();
                        cells
                            .zip(own.iter().flatten())
                            .for_each(|(sum, own)| *sum += own);
                    }
                }
            }
            matrices.push(Matrix {
                label: layout::label(model),
                rate,
                counts: sum,
            });
        }
    }
    matrices
}

/// The left margin, with the names of classes and axis.
fn margin(dataset: Benchmark) -> f64 {
    let names = classes(dataset).into_iter();
    names.map(|name| width(&name, TICK)).fold(0.0, f64::max) + 20.0
}

const GAP: f64 = 11.0;
const TITLE: f64 = 15.0;
const SIDE: f64 = 104.0;
/// The names of classes below a matrix and the gap to the next.
const BELOW: f64 = 19.0;
/// The name of the lowest axes.
const LAST: f64 = 8.0;
/// The scale of shades.
const SCALE: f64 = 34.0;

fn paint(dataset: Benchmark, matrices: &[Matrix], per_row: usize) -> Result<String, DrawError> {
    let rows = matrices.len().div_ceil(per_row);
    let start = margin(dataset);
    // Fewer matrices are larger, up to a limit.
    let room = (canvas::WIDTH - start - 6.0 + GAP) / per_row as f64 - GAP;
    let side = room.clamp(SIDE, 1.5 * SIDE);
    let width = start + (side + GAP) * per_row as f64 - GAP + 6.0;
    let pitch = TITLE + side + BELOW;
    let height = 4.0 + pitch * rows as f64 + LAST + SCALE;
    canvas::page(width, height, |canvas| {
        for (i, matrix) in matrices.iter().enumerate() {
            let (row, column) = (i / per_row, i % per_row);
            let corner = (
                start + (side + GAP) * column as f64,
                4.0 + pitch * row as f64 + TITLE,
            );
            let lowest = i + per_row >= matrices.len();
            draw_matrix(canvas, dataset, matrix, corner, side, (column == 0, lowest))?;
        }
        let middle = start + (width - 6.0 - start) / 2.0;
        draw_scale(canvas, (middle, height - SCALE + 10.0))
    })
}

fn draw_matrix(
    canvas: &Canvas<'_>,
    dataset: Benchmark,
    matrix: &Matrix,
    (left, top): Place,
    side: f64,
    (first, lowest): (bool, bool),
) -> Result<(), DrawError> {
    let classes = classes(dataset);
    let cell = side / classes.len() as f64;
    let middle = left + side / 2.0;
    let title = format!("{}, r = {}", matrix.label, matrix.rate);
    canvas.text(
        &title,
        (middle, top - 5.0),
        Lettering::new(NAME).middle().bold(),
    )?;
    for (i, class) in classes.iter().enumerate() {
        let along = cell * (i as f64 + 0.5);
        let size = Lettering::new(TICK);
        if first {
            canvas.centered(class, (left - 4.0, top + along), size.end())?;
        }
        canvas.text(class, (left + along, top + side + 8.5), size.middle())?;
    }
    if first {
        let place = (left + 11.0 - margin(dataset), top + side / 2.0);
        canvas.upwards("true class", place, Lettering::new(NAME).middle())?;
    }
    if lowest {
        let place = (middle, top + side + 18.5);
        canvas.text("predicted class", place, Lettering::new(NAME).middle())?;
    }
    match &matrix.counts {
        None => {
            canvas.rectangle((left, top), (left + side, top + side), FAINT)?;
            let as_ = Lettering::new(NAME).middle().color(GRAY);
            canvas.centered("not there yet", (middle, top + side / 2.0), as_)?;
        }
        Some(counts) => {
            for (i, row) in counts.iter().enumerate() {
                draw_row(canvas, row, (left, top + cell * i as f64), cell)?;
            }
        }
    }
    canvas.frame((left, top), (side, side), GRAY, 0.5)
}

fn draw_row(
    canvas: &Canvas<'_>,
    counts: &[u64],
    (left, top): Place,
    cell: f64,
) -> Result<(), DrawError> {
    let all: u64 = counts.iter().sum();
    let size = (0.42 * cell).clamp(5.8, 7.5);
    for (i, &count) in counts.iter().enumerate() {
        let (x, y) = (left + cell * i as f64, top);
        let share = count as f64 / all.max(1) as f64;
        canvas.rectangle((x, y), (x + cell, y + cell), shade(share))?;
        // A class without samples has no percentage.
        let text = if all == 0 {
            "\u{2013}".to_owned()
        } else {
            format!("{:.0}", share * 100.0)
        };
        let color = if share > 0.55 { PAPER } else { INK };
        let place = (x + cell / 2.0, y + cell / 2.0);
        canvas.centered(&text, place, Lettering::new(size).middle().color(color))?;
    }
    Ok(())
}

fn draw_scale(canvas: &Canvas<'_>, (middle, top): Place) -> Result<(), DrawError> {
    const STEPS: u32 = 50;
    let (wide, high) = (130.0, 7.0);
    let left = middle - wide / 2.0;
    let step = wide / f64::from(STEPS);
    for i in 0..STEPS {
        let x = left + step * f64::from(i);
        let share = (f64::from(i) + 0.5) / f64::from(STEPS);
        // Overlaps the next a little, to hide the seam.
        let end = (x + step + 0.3).min(left + wide);
        canvas.rectangle((x, top), (end, top + high), shade(share))?;
    }
    canvas.frame((left, top), (wide, high), GRAY, 0.4)?;
    for percent in [0.0, 50.0, 100.0] {
        let x = left + wide * percent / 100.0;
        let place = (x, top + high + 8.5);
        canvas.text(&format!("{percent}"), place, Lettering::new(TICK).middle())?;
    }
    let place = (left + wide + 10.0, top + high / 2.0);
    canvas.centered("% of the true class", place, Lettering::new(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::ids::JobId;
    use halfheard_shared::results::Evaluation;
    use std::{collections::BTreeMap, sync::Arc};

    #[test]
    fn seeds_are_summed_and_missing_matrices_are_left_open() {
        let evaluation = |seed, values: [f32; 3]| Evaluation {
            job: JobId::derive(&[&[seed as u8]]),
            dataset: Benchmark::Sims,
            model: Model::new("lnln", ""),
            seed,
            case: "r=0.5".parse().unwrap(),
            by_criterion: BTreeMap::from([("acc5".to_owned(), Arc::from(values))]),
        };
        let predictions = Predictions {
            labels: BTreeMap::from([(Benchmark::Sims, Arc::from([-1.0f32, 0.0, 1.0]))]),
            evaluations: vec![
                evaluation(1, [-1.0, 0.0, 0.5]),
                evaluation(2, [-1.0, 0.5, 0.5]),
            ],
        };
        let models = [Model::new("lnln", "")];
        let rates = [0.5, 0.9].map(|rate| Rate::new(rate).unwrap());
        let matrices = count(&predictions, Benchmark::Sims, &models, &rates);
        let counts = matrices[0].counts.as_ref().unwrap();
        assert_eq!(counts[0], [2, 0, 0, 0, 0]);
        assert_eq!(counts[2], [0, 0, 1, 1, 0]);
        assert_eq!(counts[4], [0, 0, 0, 2, 0]);
        assert!(matrices[1].counts.is_none());
        let svg = paint(Benchmark::Sims, &matrices, 2).unwrap();
        for part in [
            "LNLN, r = 0.5",
            "not there yet",
            "true class",
            "predicted class",
            "\n50\n",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        // Two classes without samples.
        assert_eq!(svg.matches("\u{2013}").count(), 10);
    }

    #[test]
    fn every_class_has_a_name() {
        for dataset in Benchmark::ALL {
            assert_eq!(classes(dataset).len(), dataset.rules().fine.count());
            assert!(dataset.metric(metric(dataset)).is_some());
        }
    }
}
