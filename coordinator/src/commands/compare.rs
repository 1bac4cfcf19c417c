//! `coord compare`: compares two models with paired bootstrap tests.

use super::table::named_or_newest;
use crate::{
    analysis::resample,
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::{bail, ensure};
use halfheard_results::{
    statistics::{
        bootstrap::BootstrapOptions,
        compare::{Compared, Difference, Side, compare, resamples_needed},
    },
    tables::{ColumnMetric, layout, protocols},
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    results::{Filter, Model, Predictions, Protocol},
};
use halfheard_store::{Store, benchmarks::Benchmarks, results::Snapshot, sweeps::SweepRow};
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

/// Arguments of `coord compare`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Resamples test samples and seeds, the same for both models (paired bootstrap), and corrects for
multiple comparisons (Holm): \"better\" holds at the level --alpha over all cells together. Only
stored predictions are read; nothing is trained or evaluated.

Examples:
  coord compare lnln almt                       in the newest sweep
  coord compare lnln lnln/no-dmc --sweep full   a method and an ablation
  coord compare new:lnln old:lnln               the same method in two sweeps
  coord compare lnln almt --dataset mosi --metric mae --metric corr --all")]
pub(crate) struct CompareArgs {
    /// The first model: METHOD or METHOD/VARIANT, after SWEEP: if it is of another sweep
    a: String,
    /// The second model
    b: String,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    sweep: Option<String>,
    /// Only these datasets
    #[arg(long)]
    dataset: Vec<String>,
    /// Only these metrics, by their ids
    #[arg(long)]
    metric: Vec<String>,
    /// The significance level
    #[arg(long, default_value_t = 0.05, value_parser = level)]
    alpha: f64,
    /// The number of resamples [default: 10000, or what the level needs with that many cells]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    draws: Option<u32>,
    /// Print every cell, not only significant differences
    #[arg(long)]
    all: bool,
}

/// The minimum of the default number of resamples.
const RESAMPLES: usize = 10_000;

fn level(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(level) if level > 0.0 && level < 0.5 => Ok(level),
        _ => Err("a level is between 0 and 0.5".to_owned()),
    }
}

/// The outcome of a comparison.
#[derive(Debug, serde::Serialize)]
struct Comparison {
    a: String,
    b: String,
    /// In what their training and selection differ, beside the model.
    differences: Vec<String>,
    alpha: f64,
    resamples: usize,
    /// Means over rates and over sets, corrected together.
    means: Vec<Difference>,
    /// Each cell, corrected together.
    cells: Vec<Difference>,
}

/// Compares two models.
///
/// # Errors
///
/// An unknown sweep or model; no common evaluations; the database cannot be reached.
pub(crate) async fn run(args: CompareArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = compare_models(&args, &database).await;
    database.close().await;
    let comparison = outcome?;
    if settings.json {
        say_json(&serde_json::to_string_pretty(&comparison)?);
    } else {
        say(&text(&comparison, args.all));
    }
    Ok(ExitCode::SUCCESS)
}

fn metric_ids(known: &Benchmarks) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for metric in known.all().iter().flat_map(|b| b.metrics()) {
        if !ids.contains(&metric.id) && !metric.id.ends_with("_swapped") {
            ids.push(metric.id);
        }
    }
    format!("known are {}", ids.join(", "))
}

/// One of the two models, with its sweep.
struct Operand {
    sweep: SweepRow,
    model: Model,
}

impl Operand {
    /// Reads `[SWEEP:]METHOD[/VARIANT]`.
    async fn parse(store: &Store, default: &SweepRow, text: &str) -> anyhow::Result<Self> {
        let (sweep, model) = match text.rsplit_once(':') {
            Some((sweep, model)) => (store.find_sweep(sweep).await?, model),
            None => (default.clone(), text),
        };
        let model = model.parse()?;
        Ok(Self { sweep, model })
    }

    fn label(&self) -> String {
        layout::label(&self.model)
    }

    /// The protocols by which the model is trained: several, where its datasets differ.
    async fn protocols(&self, store: &Store) -> anyhow::Result<Vec<Protocol>> {
        let mut snapshot = Snapshot::begin(store, self.sweep.id).await?;
        let mut protocols = snapshot.protocols().await?;
        protocols.retain(|protocol| protocol.models.contains(&self.model));
        Ok(protocols)
    }

    /// The predictions of the model, as those of a model called `name`: two sweeps may have the same
    /// model.
    async fn predictions(
        &self,
        store: &Store,
        datasets: &[Benchmark],
        name: &Model,
    ) -> anyhow::Result<Predictions> {
        let mut snapshot = Snapshot::begin(store, self.sweep.id).await?;
        let filter = Filter {
            methods: vec![self.model.method.clone()],
            datasets: datasets.to_vec(),
            cases: Vec::new(),
        };
        let mut predictions = snapshot.predictions(&filter).await?;
        let evaluations = &mut predictions.evaluations;
        evaluations.retain(|evaluation| evaluation.model == self.model);
        if evaluations.is_empty() {
            let models = store.evaluated_models(self.sweep.id).await?;
            bail!(
                "sweep {} has no finished evaluations of {}{}",
                self.sweep.name,
                self.label(),
                if models.is_empty() {
                    ": none is finished yet".to_owned()
                } else {
                    format!("; it has some of {}", models.join(", "))
                }
            );
        }
        for evaluation in evaluations {
            evaluation.model = name.clone();
        }
        Ok(predictions)
    }
}

/// Adds the second model's predictions, on the same test samples.
fn join(mut both: Predictions, other: Predictions) -> anyhow::Result<Predictions> {
    for (dataset, labels) in other.labels {
        let known = both.labels.entry(dataset).or_insert_with(|| labels.clone());
        ensure!(
            **known == *labels,
            "the two sweeps have {dataset} from different files: their test splits differ"
        );
    }
    both.evaluations.extend(other.evaluations);
    Ok(both)
}

async fn compare_models(args: &CompareArgs, store: &Store) -> anyhow::Result<Comparison> {
    let known = store.benchmarks().await?;
    for metric in &args.metric {
        let exists = known.all().iter().any(|b| b.metric(metric).is_some());
        ensure!(exists, "unknown metric `{metric}`: {}", metric_ids(&known));
    }
    let datasets = known.select(&args.dataset)?;
    let default = named_or_newest(store, args.sweep.as_deref()).await?;
    let a = Operand::parse(store, &default, &args.a).await?;
    let b = Operand::parse(store, &default, &args.b).await?;
    ensure!(
        a.sweep.id != b.sweep.id || a.model != b.model,
        "both are {} of sweep {}: name two models",
        a.label(),
        a.sweep.name
    );
    let [a_name, b_name] = ["a", "b"].map(|name| Model::new(name, ""));
    let both = join(
        a.predictions(store, &datasets, &a_name).await?,
        b.predictions(store, &datasets, &b_name).await?,
    )?;
    let differences = differences(&a.protocols(store).await?, &b.protocols(store).await?);
    let wanted = |id: &str| args.metric.is_empty() || args.metric.iter().any(|m| m == id);
    let resamples = args.draws.map_or_else(
        || resamples_needed(comparisons(&both, wanted), args.alpha).max(RESAMPLES),
        |draws| draws as usize,
    );
    let options = BootstrapOptions {
        resamples,
        ..BootstrapOptions::default()
    };
    let samples = resample(both, options).await?;
    let of = |compared| compare(&samples, &a_name, &b_name, compared, args.alpha, wanted);
    let (means, cells) = (of(Compared::Means), of(Compared::Cases));
    ensure!(
        !cells.is_empty(),
        "the two have no dataset and case in common to compare"
    );
    let name = |operand: &Operand| {
        if a.sweep.id == b.sweep.id {
            operand.label()
        } else {
            format!("{}:{}", operand.sweep.name, operand.label())
        }
    };
    Ok(Comparison {
        a: name(&a),
        b: name(&b),
        differences,
        alpha: args.alpha,
        resamples,
        means,
        cells,
    })
}

/// In what the models' protocols differ, each difference once.
fn differences(a: &[Protocol], b: &[Protocol]) -> Vec<String> {
    let mut lines = Vec::new();
    for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (a, b))) {
        for line in protocols::differences(a, b) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// The number of comparisons: common cells times their metrics.
fn comparisons(both: &Predictions, wanted: impl Fn(&str) -> bool) -> usize {
    let mut sides: BTreeMap<(Benchmark, Case), Vec<&Model>> = BTreeMap::new();
    for evaluation in &both.evaluations {
        let key = (evaluation.dataset, evaluation.case);
        let sides = sides.entry(key).or_default();
        if !sides.contains(&&evaluation.model) {
            sides.push(&evaluation.model);
        }
    }
    let common = sides.iter().filter(|(_, sides)| sides.len() == 2);
    common
        .map(|((dataset, _), _)| {
            let columns = layout::columns(*dataset).into_iter();
            columns
                .flat_map(|(_, metrics)| metrics)
                .filter(|id| wanted(id))
                .count()
        })
        .sum()
}

fn text(comparison: &Comparison, all: bool) -> String {
    let Comparison { a, b, .. } = comparison;
    let mut out = format!("{a} (A) vs. {b} (B)\n");
    for difference in &comparison.differences {
        let _ = writeln!(out, "note: {difference}");
    }
    if !comparison.means.is_empty() {
        out.push_str("\nMeans over cases\n");
        out.push_str(&listing(comparison.means.iter()));
    }
    let count = |side| {
        comparison
            .cells
            .iter()
            .filter(|d| d.better == Some(side))
            .count()
    };
    let (for_a, for_b, of) = (count(Side::A), count(Side::B), comparison.cells.len());
    let _ = writeln!(
        out,
        "\nOf {of} cells and metrics, {a} is significantly better in {for_a}, {b} in {for_b}; the other \
         {} may be chance.",
        of - for_a - for_b
    );
    let shown = || {
        comparison
            .cells
            .iter()
            .filter(|d| all || d.better.is_some())
    };
    if shown().next().is_some() {
        out.push_str(&listing(shown()));
    }
    let _ = writeln!(
        out,
        "\nPaired bootstrap over test samples and seeds, {} resamples; p corrected by Holm's method \
         over the means and over the cells; better: p below {}.",
        comparison.resamples, comparison.alpha
    );
    if !all && for_a + for_b < of {
        out.push_str("Every cell: --all; for programs: --json.\n");
    }
    out
}

fn listing<'a>(differences: impl Iterator<Item = &'a Difference>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "dataset",
        "case",
        "metric",
        "A",
        "B",
        "A - B",
        "95 % interval",
        "p",
        "p (Holm)",
        "better",
    ]);
    for d in differences {
        let metric = d.dataset.metric(d.metric);
        let printed = ColumnMetric {
            id: d.metric.to_owned(),
            higher_is_better: true,
            percent: metric.is_some_and(|metric| metric.percent),
        };
        let p = |p: f64| {
            if p < 0.001 {
                format!("{p:.1e}")
            } else {
                format!("{p:.3}")
            }
        };
        table.add_row([
            d.dataset.title(),
            d.case.to_string(),
            metric.map_or(d.metric, |metric| metric.name).to_owned(),
            printed.print(d.a),
            printed.print(d.b),
            printed.print(d.difference),
            d.interval.map_or(String::new(), |(low, high)| {
                format!("{} to {}", printed.print(low), printed.print(high))
            }),
            p(d.p),
            p(d.p_holm),
            match d.better {
                Some(Side::A) => "A",
                Some(Side::B) => "B",
                None => "",
            }
            .to_owned(),
        ]);
    }
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_is_between_zero_and_a_half() {
        assert_eq!(level("0.05"), Ok(0.05));
        for bad in ["0", "0.5", "-1", "x", "NaN"] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }
}
