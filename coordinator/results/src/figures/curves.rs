//! Figure 2: metrics over the missing rate, one line per method with a band over its seeds.

use super::{
    Figure, FigureError, Kind, Request,
    canvas::{self, Canvas, DrawError, Lettering},
    mark::Place,
    plot::{Axis, BAND, DASHES, Legend, Plot, Sample, point},
    select::{self, Content, name},
    style::{GRAY, Style, styles},
};
use crate::tables::layout;
use halfheard_shared::{
    benchmark::{Benchmark, Metric},
    case::{Case, Rate},
    published::{self, ErratumKind, Number},
    results::{Model, Results},
};
use plotters::style::Color as _;
use std::collections::BTreeMap;

/// A mean over seeds, with their range.
#[derive(Clone, Copy, Debug)]
struct Point {
    rate: Rate,
    mean: f64,
    min: f64,
    max: f64,
}

/// Dataset, model, metric; points by rising rate.
type Curves<'a> = BTreeMap<(Benchmark, &'a Model, &'static str), Vec<Point>>;

/// A frame with the lines of all models.
struct Panel {
    dataset: Benchmark,
    metric: &'static Metric,
    lines: Vec<Line>,
}

/// The line of a model.
struct Line {
    style: Style,
    ours: Vec<Point>,
    paper: Vec<(Rate, f64)>,
}

/// Counts of published numbers that are not drawn.
#[derive(Default)]
struct Omitted {
    retracted: usize,
    labels_swapped: usize,
}

impl Omitted {
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.retracted > 0 {
            notes.push(format!(
                "{} published numbers are left out: retracted by errata",
                self.retracted
            ));
        }
        if self.labels_swapped > 0 {
            notes.push(format!(
                "{} published F1 are left out: computed with labels and predictions swapped; \
                 `--metric f1_nonzero_swapped` (`f1_swapped` on SIMS) compares them with ours \
                 computed the same way",
                self.labels_swapped
            ));
        }
        notes
    }
}

/// Draws the figure.
#[expect(
    clippy::too_many_lines,
    reason = "the layout of one figure, from top to bottom"
)]
pub(super) fn figure(
    results: &Results,
    content: &Content,
    request: &Request,
) -> Result<Figure, FigureError> {
    let models = content.models(request)?;
    let datasets = content.datasets(request)?;
    let rates = content.rates(request, usize::MAX)?;
    let wanted = select::metrics(request, &datasets)?;
    let (curves, completed, expected) = curves(results, &rates);
    let styles = styles(&models);
    let mut panels: Vec<Vec<Panel>> = Vec::new();
    let mut notes = Vec::new();
    let mut omitted = Omitted::default();
    for &dataset in &datasets {
        let mut column = Vec::new();
        for metric in shown(dataset, wanted, datasets.len() > 1) {
            let line = |(model, style): (&Model, &Style)| Line {
                style: *style,
                ours: curves
                    .get(&(dataset, model, metric.id))
                    .cloned()
                    .unwrap_or_default(),
                paper: if request.published {
                    paper(dataset, model, metric, &rates, &mut omitted)
                } else {
                    Vec::new()
                },
            };
            let lines: Vec<Line> = models.iter().zip(&styles).map(line).collect();
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
            notes.push(format!("no results{of} on {}", name(dataset)));
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
    if completed < expected {
        notes.push(format!(
            "{completed} of {expected} evaluations at these rates are done"
        ));
    }
    let lines = || panels.iter().flatten().flat_map(|panel| &panel.lines);
    let dashed = lines().any(|line| line.paper.len() > 1);
    if request.published && !dashed {
        notes.push("the paper has no numbers to compare with".to_owned());
    }
    notes.extend(omitted.notes());
    // A model without a line has no legend entry.
    let has_line = |style: &Style| {
        lines().any(|line| line.style == *style && !(line.ours.is_empty() && line.paper.is_empty()))
    };
    let mut entries: Vec<(Sample, String)> = models
        .iter()
        .zip(&styles)
        .filter(|(_, style)| has_line(style))
        .map(|(model, style)| (Sample::Line(*style), layout::label(model)))
        .collect();
    let mut caption = "Lines are means over seeds".to_owned();
    if lines().any(|line| line.ours.iter().any(|p| p.max > p.min)) {
        entries.push((Sample::Band(GRAY), "range over seeds".to_owned()));
        caption.push_str(", bands span the range over seeds");
    }
    if dashed {
        entries.push((Sample::Dashes(GRAY), "published".to_owned()));
        caption.push_str("; dashed in the same color are the paper's numbers");
    }
    caption.push_str(
        ". Accuracies, F1 and laziness are in percent, MAE in units of the label (\u{2212}3 to 3, \
         on SIMS \u{2212}1 to 1)",
    );
    Ok(Figure {
        kind: Kind::Curves,
        title: "Metrics over the missing rate".to_owned(),
        caption,
        notes,
        svg: paint(&panels, &entries)?,
    })
}

/// One metric of each kind: the accuracy with the most classes, with two, its F1, error, correlation.
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
fn shown(dataset: Benchmark, wanted: Option<&[String]>, several: bool) -> Vec<&'static Metric> {
    let ids: Vec<&str> = match wanted {
        Some(ids) => ids.iter().map(String::as_str).collect(),
        None if several => one_of_each(dataset),
        None => layout::columns(dataset)
            .into_iter()
            .flat_map(|(_, metrics)| metrics)
            .collect(),
    };
    ids.into_iter()
        .filter_map(|id| dataset.metric(id))
        .collect()
}

/// The curves, and how many evaluations at these rates are done and expected.
fn curves<'a>(results: &'a Results, rates: &[Rate]) -> (Curves<'a>, i64, i64) {
    let mut curves = Curves::new();
    let (mut completed, mut expected) = (0, 0);
    for (key, cell) in results.cells.iter() {
        let rate = key.case.rate().filter(|rate| rates.contains(rate));
        let (Some(rate), Some(metric)) = (rate, key.dataset.metric(key.metric)) else {
            continue;
        };
        // Every case has this metric.
        if metric.id == "mae" {
            completed += cell.completed;
            expected += cell.expected;
        }
        if let (Some(mean), Some(min), Some(max)) = (cell.mean, cell.min, cell.max) {
            let scale = if metric.percent { 100.0 } else { 1.0 };
            let curve = curves.entry((key.dataset, &key.model, metric.id));
            curve.or_default().push(Point {
                rate,
                mean: mean * scale,
                min: min * scale,
                max: max * scale,
            });
        }
    }
    (curves, completed, expected)
}

/// The paper's numbers of a model without retracted ones, which are counted. An F1 that was computed
/// with labels and predictions swapped belongs to the swapped metric.
fn paper(
    dataset: Benchmark,
    model: &Model,
    metric: &Metric,
    rates: &[Rate],
    omitted: &mut Omitted,
) -> Vec<(Rate, f64)> {
    let scale = if metric.percent { 100.0 } else { 1.0 };
    let (id, is_swapped) = match metric.id.strip_suffix("_swapped") {
        Some(id) => (id, true),
        None => (metric.id, false),
    };
    let of_model = |number: &&Number| {
        matches!(number.table, 9 | 10)
            && Some(number.dataset) == dataset.published()
            && (number.method, number.variant) == (&*model.method, &*model.variant)
            && number.metric == id
    };
    let mut line = Vec::new();
    for number in published::numbers().iter().filter(of_model) {
        let case = number.case.parse::<Case>().ok();
        let Some(rate) = case.and_then(|case| case.rate()) else {
            continue;
        };
        if !rates.contains(&rate) {
            continue;
        }
        let value = match (number.erratum().map(|erratum| erratum.kind), is_swapped) {
            (Some(ErratumKind::LabelsSwapped), true) | (None, false) => number.value,
            (Some(ErratumKind::Corrected(value)), false) => value,
            (Some(ErratumKind::LabelsSwapped), false) => {
                omitted.labels_swapped += 1;
                continue;
            }
            (Some(ErratumKind::Retracted), false) => {
                omitted.retracted += 1;
                continue;
            }
            (_, true) => continue,
        };
        line.push((rate, value * scale));
    }
    line.sort_by_key(|(rate, _)| *rate);
    line
}

/// The name of an axis.
fn axis_name(metric: &Metric) -> String {
    match metric.id {
        "mae" => "MAE (label units)".to_owned(),
        _ if metric.percent => format!("{}, %", metric.name),
        _ => metric.name.to_owned(),
    }
}

/// The sizes of a grid of panels.
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
/// The numbers below a frame and the gap to the next.
const BELOW: f64 = 23.0;
/// The name of the lowest axes.
const LAST: f64 = 12.0;

fn paint(panels: &[Vec<Panel>], entries: &[(Sample, String)]) -> Result<String, DrawError> {
    // Datasets side by side; of one dataset, its metrics.
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
        let ours = line.ours.iter().map(|p| (p.rate, p.min, p.max));
        let paper = line
            .paper
            .iter()
            .map(|(rate, value)| (*rate, *value, *value));
        for (rate, min, max) in ours.chain(paper) {
            (low, high) = (low.min(min), high.max(max));
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
        let forth = line.ours.iter().map(|p| at(p.rate, p.max));
        let back = line.ours.iter().rev().map(|p| at(p.rate, p.min));
        if line.ours.len() > 1 && line.ours.iter().any(|p| p.max > p.min) {
            let corners: Vec<Place> = forth.chain(back).collect();
            canvas.shape(&corners, line.style.color.mix(BAND))?;
        }
    }
    for line in &panel.lines {
        let points: Vec<Place> = line.paper.iter().map(|&(rate, v)| at(rate, v)).collect();
        if points.len() > 1 {
            canvas.dashes(&points, line.style.color, 0.7, DASHES)?;
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
            // A segment is covered if both ends are, by the same lines.
            let (one, other) = (hidden(&pair[0]), hidden(&pair[1]));
            let covered = one.iter().filter(|line| other.contains(line)).count();
            canvas.line(pair, line.style.color, 0.9 + WIDER * covered as f64)?;
        }
        for place in points {
            let covered = hidden(place).len() as f64;
            point(canvas, line.style, *place, 1.7 + LARGER * covered)?;
        }
    }
    Ok(())
}

/// How much wider a line is, and larger a mark, for each line above it: it remains visible on both
/// sides.
const WIDER: f64 = 1.5;
const LARGER: f64 = 0.9;
/// Marks closer than this hide each other.
const NEAR: f64 = 1.0;

/// The later lines with a mark at `place`.
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

    /// The widths of all lines of a panel in this color.
    fn widths(svg: &str, Style { color, .. }: Style) -> Vec<String> {
        let color = format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
        svg.split("<polyline")
            .skip(1)
            .filter(|element| element[..element.find('>').unwrap()].contains(&color))
            .filter_map(|element| element.split("stroke-width=\"").nth(1)?.split('"').next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn coinciding_curves_are_both_visible() {
        let models = ["almt", "lf-dnn"].map(|method| Model::new(method, ""));
        let styles = styles(&models);
        assert_ne!(styles[0].color, styles[1].color);
        let line = |style, values: [f64; 3]| Line {
            style,
            ours: (0..3)
                .zip(values)
                .map(|(i, mean)| Point {
                    rate: Rate::new(f64::from(i) / 10.0).unwrap(),
                    mean,
                    min: mean,
                    max: mean,
                })
                .collect(),
            paper: Vec::new(),
        };
        let draw = |second| {
            let panel = Panel {
                dataset: Benchmark::Mosi,
                metric: Benchmark::Mosi.metric("acc7").unwrap(),
                lines: vec![line(styles[0], [20.0, 30.0, 40.0]), line(styles[1], second)],
            };
            paint(&[vec![panel]], &[]).unwrap()
        };
        // The same in two of three points: their segment is wider below than above.
        let svg = draw([20.0, 30.0, 20.0]);
        let (below, above) = (widths(&svg, styles[0]), widths(&svg, styles[1]));
        assert_eq!((below.len(), above.len()), (2, 2), "{svg}");
        assert_ne!(below[0], below[1], "one of its segments is covered");
        assert!(above.iter().all(|width| *width == below[1]), "{above:?}");
        // Apart everywhere: all alike.
        let svg = draw([10.0, 20.0, 30.0]);
        let all = [widths(&svg, styles[0]), widths(&svg, styles[1])].concat();
        assert!(all.iter().all(|width| *width == all[0]), "{all:?}");
    }
}
