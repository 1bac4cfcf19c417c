//! Figure 2: metrics over the missing rate, a line for each method with a band over its seeds.

use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering, Place},
    plot::{Axis, BAND, DASHES, Legend, Plot, Sample, point},
    select::{self, Content, Model, name},
    style::{GREY, Style, styles},
};
use crate::tables::layout;
use halfheard_shared::published::{self, ErratumKind};
use halfheard_shared::{
    benchmark::{Benchmark, Metric},
    case::{Case, Rate},
    ids::SweepId,
};
use halfheard_store::{Store, StoreError};
use plotters::style::Color as _;
use sqlx::Row as _;
use std::collections::BTreeMap;

/// A mean over seeds, with the least and the greatest of them.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rate: Rate,
    mean: f64,
    least: f64,
    most: f64,
}

/// Dataset, model, metric; points by rising rate.
type Curves = BTreeMap<(Benchmark, Model, &'static str), Vec<Measured>>;

/// One frame.
struct Panel {
    dataset: Benchmark,
    metric: &'static Metric,
    lines: Vec<Line>,
}

/// What is drawn for a model.
struct Line {
    style: Style,
    ours: Vec<Measured>,
    paper: Vec<(Rate, f64)>,
}

/// Published numbers that are not drawn, counted.
#[derive(Default)]
struct LeftOut {
    void: usize,
    swapped: usize,
}

impl LeftOut {
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.void > 0 {
            notes.push(format!(
                "{} published numbers that errata void are left out",
                self.void
            ));
        }
        if self.swapped > 0 {
            notes.push(format!(
                "{} published F1 are left out that were computed with truth and prediction swapped: \
                 `--metric f1_nonzero_swapped` (`f1_swapped` on SIMS) draws them beside ours computed \
                 the same way",
                self.swapped
            ));
        }
        notes
    }
}

/// Draws the figure.
///
/// # Errors
///
/// As [`super::draw`].
pub async fn figure(
    store: &Store,
    sweep: SweepId,
    content: &Content,
    request: &Request,
) -> Result<Figure, FigureError> {
    let models = content.models(request)?;
    let datasets = content.datasets(request)?;
    let rates = content.rates(request, usize::MAX)?;
    let wanted = select::metrics(request, &datasets)?;
    let (curves, done, asked) = load(store, sweep, &rates).await?;
    let looks = styles(&models);
    let mut panels: Vec<Vec<Panel>> = Vec::new();
    let mut notes = Vec::new();
    let mut left_out = LeftOut::default();
    for &dataset in &datasets {
        let metrics = shown(dataset, wanted, datasets.len() > 1);
        let mut column = Vec::new();
        for metric in metrics {
            let mut lines = Vec::new();
            for (model, style) in models.iter().zip(&looks) {
                let ours = curves.get(&(dataset, model.clone(), metric.id));
                let paper = if request.published {
                    paper(dataset, model, metric, &rates, &mut left_out)
                } else {
                    Vec::new()
                };
                lines.push(Line {
                    style: *style,
                    ours: ours.cloned().unwrap_or_default(),
                    paper,
                });
            }
            if lines.iter().any(|line| !line.ours.is_empty()) {
                column.push(Panel {
                    dataset,
                    metric,
                    lines,
                });
            }
        }
        if column.is_empty() {
            let of = wanted.map_or(String::new(), |ids| format!(" of {}", ids.join(", ")));
            notes.push(format!("nothing{of} is there on {}", name(dataset)));
        } else {
            panels.push(column);
        }
    }
    if panels.is_empty() {
        return Err(FigureError::Nothing {
            what: "no finished evaluation at a missing rate of what the figure would show"
                .to_owned(),
        });
    }
    if done < asked {
        notes.push(format!(
            "{done} of {asked} evaluations at these rates are done"
        ));
    }
    let band = panels.iter().flatten().any(|panel| {
        let points = panel.lines.iter().flat_map(|line| &line.ours);
        points.into_iter().any(|p| p.most > p.least)
    });
    let dashed = panels
        .iter()
        .flatten()
        .any(|panel| panel.lines.iter().any(|line| line.paper.len() > 1));
    if request.published && !dashed {
        notes.push("the paper has no numbers that could be set beside these".to_owned());
    }
    notes.extend(left_out.notes());
    // A model without a line has no place in the legend.
    let has_line = |style: &Style| {
        let mut lines = panels.iter().flatten().flat_map(|panel| &panel.lines);
        lines.any(|line| line.style == *style && !(line.ours.is_empty() && line.paper.is_empty()))
    };
    let mut entries: Vec<(Sample, String)> = models
        .iter()
        .zip(&looks)
        .filter(|(_, style)| has_line(style))
        .map(|((method, variant), style)| (Sample::Line(*style), layout::label(method, variant)))
        .collect();
    let mut caption = "Lines are means over seeds".to_owned();
    if band {
        entries.push((Sample::Band(GREY), "range over seeds".to_owned()));
        caption.push_str(", bands span the least to the greatest seed");
    }
    if dashed {
        entries.push((Sample::Dashes(GREY), "published".to_owned()));
        caption.push_str("; dashed in the same colour is what the paper prints");
    }
    caption.push_str(
        ". Accuracies, F1 and laziness are in percent, MAE in units of the label (\u{2212}3 to 3, \
         on SIMS \u{2212}1 to 1)",
    );
    let (title, svg) = (
        "Metrics over the missing rate".to_owned(),
        tokio::task::spawn_blocking(move || paint(&panels, &entries)).await??,
    );
    Ok(Figure {
        kind: Kind::Curves,
        title,
        caption,
        notes,
        svg,
    })
}

/// One metric of each kind: the accuracy of the most classes, of two, its F1, error, correlation.
fn one_of_each(dataset: Benchmark) -> Vec<&'static str> {
    let rules = dataset.rules();
    let mut ids: Vec<&str> = rules.scales.iter().take(1).map(|s| s.accuracy).collect();
    ids.extend(
        rules
            .binaries
            .iter()
            .take(1)
            .flat_map(|b| [b.accuracy, b.f1]),
    );
    ids.extend(["mae", "corr"]);
    ids
}

/// The metrics of a dataset's column.
fn shown(
    dataset: Benchmark,
    wanted: Option<&[String]>,
    beside_others: bool,
) -> Vec<&'static Metric> {
    let ids: Vec<&str> = match wanted {
        Some(ids) => ids.iter().map(String::as_str).collect(),
        None if beside_others => one_of_each(dataset),
        None => layout::columns(dataset)
            .into_iter()
            .flat_map(|(_, metrics)| metrics)
            .collect(),
    };
    ids.into_iter()
        .filter_map(|id| dataset.metric(id))
        .collect()
}

/// The curves, and how many evaluations of those at these rates are done.
async fn load(
    store: &Store,
    sweep: SweepId,
    rates: &[Rate],
) -> Result<(Curves, i64, i64), StoreError> {
    let rows = sqlx::query(
        "SELECT dataset, method, variant, case_id, metric, mean, min, max, seeds_completed, seeds_expected
         FROM cell WHERE sweep = $1 AND case_id LIKE 'r=%'",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let known = store.benchmarks().await?;
    let mut curves = Curves::new();
    let (mut done, mut asked) = (0, 0);
    for row in rows {
        let (dataset, case): (String, String) = (row.try_get("dataset")?, row.try_get("case_id")?);
        let metric: String = row.try_get("metric")?;
        let (Some(dataset), Ok(Case::Rate(rate))) = (known.get(&dataset), case.parse()) else {
            continue;
        };
        let Some(metric) = dataset.metric(&metric).filter(|_| rates.contains(&rate)) else {
            continue;
        };
        // Every cell has this metric.
        if metric.id == "mae" {
            done += row.try_get::<i64, _>("seeds_completed")?;
            asked += row.try_get::<i64, _>("seeds_expected")?;
        }
        let number = |column| row.try_get::<Option<f64>, _>(column);
        let (mean, least, most) = (number("mean")?, number("min")?, number("max")?);
        if let (Some(mean), Some(least), Some(most)) = (mean, least, most) {
            let scale = if metric.percent { 100.0 } else { 1.0 };
            let model = (row.try_get("method")?, row.try_get("variant")?);
            let curve = curves.entry((dataset, model, metric.id)).or_default();
            curve.push(Measured {
                rate,
                mean: mean * scale,
                least: least * scale,
                most: most * scale,
            });
        }
    }
    for curve in curves.values_mut() {
        curve.sort_by_key(|point| point.rate);
    }
    Ok((curves, done, asked))
}

/// What the paper prints of a model, but for what errata void; counts those. An F1 that was
/// computed with truth and prediction swapped belongs to the metric that is.
fn paper(
    dataset: Benchmark,
    (method, variant): &Model,
    metric: &Metric,
    rates: &[Rate],
    left_out: &mut LeftOut,
) -> Vec<(Rate, f64)> {
    let scale = if metric.percent { 100.0 } else { 1.0 };
    let mut line = Vec::new();
    for number in published::numbers() {
        let details = [9, 10].contains(&number.table);
        let own = Some(number.dataset) == dataset.published()
            && number.method == method
            && number.variant == variant;
        let Ok(Case::Rate(rate)) = number.case.parse() else {
            continue;
        };
        if !details || !own || !rates.contains(&rate) {
            continue;
        }
        let erratum = number.erratum().map(|erratum| erratum.kind);
        let swapped = matches!(erratum, Some(ErratumKind::LabelsSwapped));
        let (id, is_swapped) = match metric.id.strip_suffix("_swapped") {
            Some(id) => (id, true),
            None => (metric.id, false),
        };
        if number.metric != id || (is_swapped && !swapped) {
            continue;
        }
        match erratum {
            Some(ErratumKind::Retracted) => left_out.void += 1,
            Some(ErratumKind::LabelsSwapped) if !is_swapped => left_out.swapped += 1,
            Some(ErratumKind::Corrected(value)) => line.push((rate, value * scale)),
            Some(ErratumKind::LabelsSwapped) | None => line.push((rate, number.value * scale)),
        }
    }
    line.sort_by_key(|(rate, _)| *rate);
    line
}

/// What an axis is called.
fn axis_name(metric: &Metric) -> String {
    match metric.id {
        "mae" => "MAE (label units)".to_owned(),
        _ if metric.percent => format!("{}, %", metric.name),
        _ => metric.name.to_owned(),
    }
}

/// Sizes of a grid of panels.
struct Grid {
    columns: usize,
    width: f64,
    plot: f64,
}

impl Grid {
    fn of(columns: usize) -> Self {
        let (width, plot) = match columns {
            1 => (300.0, 170.0),
            2 => (canvas::WIDTH, 130.0),
            _ => (canvas::WIDTH, 94.0),
        };
        Self {
            columns,
            width,
            plot,
        }
    }
}

const HEADING: f64 = 18.0;
/// Numbers below a frame, and the gap to the next.
const BELOW: f64 = 23.0;
/// The name of the lowest axes.
const LAST: f64 = 12.0;

fn paint(panels: &[Vec<Panel>], entries: &[(Sample, String)]) -> Result<String, DrawError> {
    // Datasets beside each other; of one alone, its metrics.
    let (grid, one) = match panels {
        [one] => (Grid::of(one.len().min(3)), true),
        several => (Grid::of(several.len()), false),
    };
    // Column, row, whether it is the lowest of its column.
    let placed: Vec<(usize, usize, bool, &Panel)> = if one {
        let all: Vec<&Panel> = panels.iter().flatten().collect();
        let (count, columns) = (all.len(), grid.columns);
        let place = |i| (i % columns, i / columns, i + columns >= count);
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(i, panel)| {
                let (column, row, last) = place(i);
                (column, row, last, panel)
            })
            .collect()
    } else {
        let columns = panels.iter().enumerate();
        columns
            .flat_map(|(column, own)| {
                own.iter()
                    .enumerate()
                    .map(move |(row, panel)| (column, row, row + 1 == own.len(), panel))
            })
            .collect()
    };
    let rows = placed
        .iter()
        .map(|(_, row, _, _)| row + 1)
        .max()
        .unwrap_or(0);
    let legend = Legend::new(entries.to_vec(), grid.width - 20.0);
    let top = 6.0 + legend.height() + 4.0 + HEADING;
    let height = top + rows as f64 * (grid.plot + BELOW) + LAST;
    canvas::page(grid.width, height, |canvas| {
        legend.draw(canvas, grid.width / 2.0, 6.0)?;
        let wide = (grid.width - 4.0) / grid.columns as f64;
        for (column, row, last, panel) in placed {
            let left = 2.0 + wide * column as f64 + 36.0;
            let above = top + row as f64 * (grid.plot + BELOW);
            let from = (left, above);
            let to = (left + wide - 44.0, above + grid.plot);
            let heading = match (one, row) {
                (false, 0) => name(panel.dataset),
                _ => String::new(),
            };
            draw_panel(canvas, panel, (from, to), &heading, last)?;
        }
        if let (true, Some(panel)) = (one, panels.iter().flatten().next()) {
            let as_ = Lettering::new(8.0).middle().bold();
            canvas.text(&name(panel.dataset), (grid.width / 2.0, top - 6.0), as_)?;
        }
        Ok(())
    })
}

fn draw_panel(
    canvas: &Canvas<'_>,
    panel: &Panel,
    (from, to): (Place, Place),
    heading: &str,
    last: bool,
) -> Result<(), DrawError> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut first, mut end) = (f64::INFINITY, f64::NEG_INFINITY);
    for line in &panel.lines {
        let ours = line.ours.iter().map(|p| (p.rate, p.least, p.most));
        let paper = line
            .paper
            .iter()
            .map(|(rate, value)| (*rate, *value, *value));
        for (rate, least, most) in ours.chain(paper) {
            (low, high) = (low.min(least), high.max(most));
            (first, end) = (first.min(rate.value()), end.max(rate.value()));
        }
    }
    let room = (0.04 * (end - first)).max(0.01);
    let plot = Plot {
        from,
        to,
        x: Axis::between(first - room, end + room, 5),
        y: Axis::around(low, high, 6),
    };
    let x_name = if last { "missing rate r" } else { "" };
    plot.draw(canvas, heading, x_name, &axis_name(panel.metric))?;
    let at = |rate: Rate, value: f64| plot.at(rate.value(), value);
    for line in &panel.lines {
        let forth = line.ours.iter().map(|p| at(p.rate, p.most));
        let back = line.ours.iter().rev().map(|p| at(p.rate, p.least));
        if line.ours.len() > 1 && line.ours.iter().any(|p| p.most > p.least) {
            let corners: Vec<Place> = forth.chain(back).collect();
            canvas.shape(&corners, line.style.colour.mix(BAND))?;
        }
    }
    for line in &panel.lines {
        let points: Vec<Place> = line.paper.iter().map(|&(rate, v)| at(rate, v)).collect();
        if points.len() > 1 {
            canvas.dashes(&points, line.style.colour, 0.7, DASHES)?;
        }
    }
    let drawn: Vec<Vec<Place>> = panel
        .lines
        .iter()
        .map(|line| line.ours.iter().map(|p| at(p.rate, p.mean)).collect())
        .collect();
    for (number, (line, points)) in panel.lines.iter().zip(&drawn).enumerate() {
        let hidden = |place: &Place| above(*place, &drawn[number + 1..]);
        for pair in points.windows(2) {
            // Covered where both ends are, by the same lines.
            let (one, other) = (hidden(&pair[0]), hidden(&pair[1]));
            let covered = one.iter().filter(|line| other.contains(line)).count();
            canvas.line(pair, line.style.colour, 0.9 + WIDER * covered as f64)?;
        }
        for place in points {
            let covered = hidden(place).len() as f64;
            point(canvas, line.style, *place, 1.7 + LARGER * covered)?;
        }
    }
    Ok(())
}

/// By how much a line is wider for each other line that lies upon it, and a mark larger: what is
/// below looks out on both sides.
const WIDER: f64 = 1.5;
const LARGER: f64 = 0.9;
/// Marks that are nearer than this hide each other.
const NEAR: f64 = 1.0;

/// Which of the lines that are drawn later have a mark upon `place`.
fn above((x, y): Place, later: &[Vec<Place>]) -> Vec<usize> {
    let near =
        |&(other_x, other_y): &Place| (x - other_x).abs() < NEAR && (y - other_y).abs() < NEAR;
    (0..later.len())
        .filter(|&line| later[line].iter().any(near))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widths of all lines of a panel that are drawn in `colour`.
    fn widths(svg: &str, Style { colour, .. }: Style) -> Vec<String> {
        let colour = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
        svg.split("<polyline")
            .skip(1)
            .filter(|element| element[..element.find('>').unwrap()].contains(&colour))
            .filter_map(|element| element.split("stroke-width=\"").nth(1)?.split('"').next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn curves_that_coincide_are_both_seen() {
        let models = ["almt", "lf-dnn"].map(|method| (method.to_owned(), String::new()));
        let looks = styles(&models);
        assert_ne!(looks[0].colour, looks[1].colour);
        let line = |style, values: [f64; 3]| Line {
            style,
            ours: (0..3)
                .zip(values)
                .map(|(i, mean)| Measured {
                    rate: Rate::new(f64::from(i) / 10.0).unwrap(),
                    mean,
                    least: mean,
                    most: mean,
                })
                .collect(),
            paper: Vec::new(),
        };
        let draw = |second| {
            let panel = Panel {
                dataset: Benchmark::Mosi,
                metric: Benchmark::Mosi.metric("acc7").unwrap(),
                lines: vec![line(looks[0], [20.0, 30.0, 40.0]), line(looks[1], second)],
            };
            paint(&[vec![panel]], &[]).unwrap()
        };
        // The same in two of three points: their segment is wider below than above.
        let svg = draw([20.0, 30.0, 20.0]);
        let (below, above) = (widths(&svg, looks[0]), widths(&svg, looks[1]));
        assert_eq!((below.len(), above.len()), (2, 2), "{svg}");
        assert_ne!(below[0], below[1], "one of its segments is covered");
        assert!(above.iter().all(|width| *width == below[1]), "{above:?}");
        // Apart everywhere: all alike.
        let svg = draw([10.0, 20.0, 30.0]);
        let all = [widths(&svg, looks[0]), widths(&svg, looks[1])].concat();
        assert!(all.iter().all(|width| *width == all[0]), "{all:?}");
    }
}
