//! The table of a dataset: models by seeds.

use super::metric::{self, Shown};
use crate::marks::symbol;
use halfheard_results::tables::layout::{dataset_title, label};
use halfheard_shared::{
    benchmark::Metric,
    ids::{JobId, SweepId},
    results::Model,
    text::plain,
    wire::Heartbeat,
};
use halfheard_store::{JobState, map::MapRow};
use maud::{Markup, html};
use std::collections::{BTreeSet, HashMap};

/// The trainings of a dataset.
pub(super) struct Grid<'a> {
    /// The dataset's name.
    pub(super) dataset: &'a str,
    /// The seeds, ascending.
    seeds: Vec<i64>,
    /// The models in the order of the spec.
    models: Vec<Line<'a>>,
}

/// A method or variant, and its jobs by seed.
struct Line<'a> {
    method: &'a str,
    variant: &'a str,
    jobs: HashMap<i64, &'a MapRow>,
}

/// How far workers are with jobs, 0 to 1, as they say themselves.
pub(super) struct Progresses(HashMap<JobId, f64>);

impl Progresses {
    /// Of the jobs of a sweep.
    pub(super) fn of(workers: &[Heartbeat], sweep: SweepId) -> Self {
        let doing = workers.iter().filter_map(|worker| worker.doing.as_ref());
        let mine = doing.filter(|doing| doing.sweep == sweep && doing.max_epochs > 0);
        Self(
            mine.map(|doing| {
                let within = f64::from(doing.step) / f64::from(doing.steps.max(1));
                let epochs = f64::from(doing.epoch.saturating_sub(1)) + within.min(1.0);
                (doing.job, epochs / f64::from(doing.max_epochs))
            })
            .collect(),
        )
    }

    fn percent(&self, row: &MapRow) -> Option<u32> {
        let logged = || {
            let epochs = f64::from(row.max_epochs.filter(|all| *all > 0)?);
            Some(f64::from(row.epoch.unwrap_or(0)) / epochs)
        };
        let share = self.0.get(&row.job).copied().or_else(logged)?;
        // From 0 to 100: the cast is exact.
        Some((share.clamp(0.0, 1.0) * 100.0) as u32)
    }
}

impl<'a> Grid<'a> {
    /// The tables of a sweep, a dataset each, in the order of the spec.
    pub(super) fn of(rows: &'a [MapRow]) -> Vec<Self> {
        let mut grids: Vec<Self> = Vec::new();
        let mut places = HashMap::new();
        let mut lines: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for row in rows {
            let at = *places.entry(row.dataset.as_str()).or_insert_with(|| {
                grids.push(Self {
                    dataset: &row.dataset,
                    seeds: Vec::new(),
                    models: Vec::new(),
                });
                grids.len() - 1
            });
            let models = &mut grids[at].models;
            let key = (
                row.dataset.as_str(),
                row.method.as_str(),
                row.variant.as_str(),
            );
            let line = *lines.entry(key).or_insert_with(|| {
                models.push(Line {
                    method: &row.method,
                    variant: &row.variant,
                    jobs: HashMap::new(),
                });
                models.len() - 1
            });
            models[line].jobs.insert(row.seed, row);
        }
        for grid in &mut grids {
            let seeds = grid
                .models
                .iter()
                .flat_map(|line| line.jobs.keys().copied());
            grid.seeds = seeds.collect::<BTreeSet<i64>>().into_iter().collect();
            grid.group_variants();
        }
        grids
    }

    /// Puts variants below their method, and leaves the order of the spec otherwise.
    fn group_variants(&mut self) {
        let mut order: HashMap<&str, usize> = HashMap::new();
        for line in &self.models {
            let next = order.len();
            order.entry(line.method).or_insert(next);
        }
        self.models
            .sort_by_key(|line| (order[line.method], !line.variant.is_empty()));
    }

    pub(super) fn table(&self, shown: &Shown, running: &Progresses) -> Markup {
        let metric = shown.of(self.dataset);
        let title = plain(&dataset_title(self.dataset));
        html! {
            div class="scroll" tabindex="0" role="region" aria-label={ "Map of " (title) }
                data-key={ "map-" (self.dataset) } {
                table class="map" {
                    caption {
                        (title)
                        @if let Some(metric) = metric {
                            ": " (metric.name)
                            @if metric.percent { " in percent" }
                            ", " @if metric.higher_is_better { "higher" } @else { "lower" } " is better"
                        }
                    }
                    thead { tr {
                        th scope="col" { "Method" }
                        @for seed in &self.seeds { th scope="col" { span class="muted" { "seed " } (seed.cast_unsigned()) } }
                    } }
                    tbody {
                        @for line in &self.models { (self.line(line, metric, running)) }
                    }
                }
            }
        }
    }

    fn line(&self, line: &Line<'_>, metric: Option<&Metric>, running: &Progresses) -> Markup {
        let name = match line.variant {
            "" => label(&Model::new(line.method, "")),
            variant => variant.to_owned(),
        };
        html! {
            tr {
                th scope="row" class=[(!line.variant.is_empty()).then_some("variant")] {
                    @if !line.variant.is_empty() {
                        span class="away" { (plain(line.method)) " " }
                    }
                    (plain(&name))
                }
                @for seed in &self.seeds {
                    @match line.jobs.get(seed) {
                        Some(row) => (cell(row, metric, running)),
                        None => td {},
                    }
                }
            }
        }
    }
}

/// A training job: its state, how far its evaluations are, and its number once they are done.
fn cell(row: &MapRow, metric: Option<&Metric>, running: &Progresses) -> Markup {
    let number = metric
        .zip(row.value)
        .map(|(metric, value)| metric::print(metric, value));
    let symbol = match row.state {
        // The model is there, but not all of its numbers.
        JobState::Done if row.failed > 0 => "✗",
        state => symbol(state),
    };
    html! {
        td class={ (row.state) @if row.failed > 0 { " failed" } } {
            a href={ "/trainings/" (row.job) } {
                (symbol) " "
                @match (row.state, number) {
                    (JobState::Done, Some(number)) => { span class="away" { "done " } (number) }
                    (JobState::Done, None) => "trained",
                    (JobState::Running, _) => {
                        span class="away" { "running " }
                        @match running.percent(row) {
                            Some(percent) => { (percent) " %" }
                            None => "running",
                        }
                    }
                    (state, _) => (state),
                }
                @if row.state == JobState::Done && row.completed < row.expected {
                    " " small { (row.completed) "/" (row.expected) }
                }
            }
        }
    }
}

/// What the symbols mean.
pub(super) fn legend() -> Markup {
    let meaning = |state: JobState| match state {
        JobState::Blocked => "waits for another job",
        JobState::Ready => "waits for a worker",
        JobState::Queued => "a worker has it and has not begun",
        JobState::Running => "in progress, with its share of the epochs",
        JobState::Done => "trained: its number, or how many of its evaluations are done",
        JobState::Failed => "given up, or evaluations of it were",
        JobState::Cancelled => "cancelled",
    };
    html! {
        details id="legend" {
            summary { "Legend" }
            ul class="legend" {
                @for state in JobState::ALL {
                    @if state != JobState::Blocked {
                        li { (crate::marks::job_state(state)) ": " (meaning(state)) }
                    }
                }
            }
            p class="muted" {
                "A number is the mean over the missing rates, of one seed; the results have means over seeds. "
                "Click a cell for the training itself."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, variant: &str, seed: i64, state: JobState) -> MapRow {
        MapRow {
            job: JobId::derive(&[method.as_bytes(), variant.as_bytes(), &seed.to_le_bytes()]),
            dataset: "mosi".to_owned(),
            method: method.to_owned(),
            variant: variant.to_owned(),
            seed,
            state,
            epoch: None,
            max_epochs: Some(10),
            completed: 0,
            expected: 16,
            failed: 0,
            value: None,
        }
    }

    #[test]
    fn variants_stand_below_their_method_in_the_order_of_the_spec() {
        let rows = [
            row("lnln", "no-dmc", 2, JobState::Ready),
            row("almt", "", 1, JobState::Ready),
            row("lnln", "", 1, JobState::Ready),
        ];
        let grids = Grid::of(&rows);
        let models: Vec<_> = grids[0]
            .models
            .iter()
            .map(|l| (l.method, l.variant))
            .collect();
        assert_eq!(models, [("lnln", ""), ("lnln", "no-dmc"), ("almt", "")]);
        assert_eq!(grids[0].seeds, [1, 2]);
    }

    #[test]
    fn cell_has_state_number_and_link_and_escapes_names() {
        let running = Progresses(HashMap::new());
        let metric = Metric {
            id: "mae",
            name: "MAE",
            higher_is_better: false,
            percent: false,
        };
        let text = |row: &MapRow| cell(row, Some(&metric), &running).into_string();
        let mut done = row("almt", "", 1, JobState::Done);
        assert!(
            text(&done).contains("✓ trained <small>0/16</small>"),
            "{}",
            text(&done)
        );
        done.completed = 16;
        done.value = Some(0.912_34);
        assert!(
            text(&done).contains("✓ <span class=\"away\">done </span>0.912<"),
            "{}",
            text(&done)
        );
        assert!(text(&done).contains(&format!("/trainings/{}", done.job)));
        let mut begun = row("almt", "", 1, JobState::Running);
        begun.epoch = Some(4);
        assert!(text(&begun).contains("40 %"), "{}", text(&begun));
        let hostile = [row("<script>", "<b>", 1, JobState::Ready)];
        let grid = &Grid::of(&hostile)[0];
        let line = grid.line(&grid.models[0], None, &running).into_string();
        assert!(
            !line.contains("<script>") && line.contains("&lt;b&gt;"),
            "{line}"
        );
    }
}
