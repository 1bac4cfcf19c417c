//! `coord compare`: where one of two models is really better.

use super::table::newest;
use crate::{config::Settings, local::connect::Database};
use anyhow::{bail, ensure};
use halfheard_results::{
    drawing::draw,
    statistics::{
        bootstrap::{Model, Options},
        compare::{Difference, Side, compare, draws_needed},
    },
    tables::{ColumnMetric, layout},
};
use halfheard_shared::benchmark::Benchmark;
use halfheard_store::{
    Store,
    benchmarks::Benchmarks,
    predictions::{Filter, Predictions},
    sweeps::SweepRow,
};
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

/// Arguments of `coord compare`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Draws test samples and seeds again and again, the same for both models (paired bootstrap), and
corrects for looking at many cells (Holm): what is called better is so at the level --alpha in all
cells together. Only stored predictions are read; nothing is trained or evaluated.

Examples:
  coord compare lnln almt                       in the newest sweep
  coord compare lnln lnln/no-dmc --sweep full   a method and an ablation
  coord compare new:lnln old:lnln               the same method in two sweeps
  coord compare lnln almt --dataset mosi --metric mae --metric corr --all")]
pub struct CompareArgs {
    /// The first model: METHOD or METHOD/VARIANT, with SWEEP: before it if it is in another one
    a: String,
    /// The second
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
    /// The level at which a difference counts
    #[arg(long, default_value_t = 0.05, value_parser = level)]
    alpha: f64,
    /// How often to draw [default: 10000, or what the level needs with so many cells]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    draws: Option<u32>,
    /// Print every cell, not only those with a difference
    #[arg(long)]
    all: bool,
}

/// The least number of draws, where the user does not say.
const DRAWS: usize = 10_000;

fn level(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(level) if level > 0.0 && level < 0.5 => Ok(level),
        _ => Err("a level lies between 0 and 0.5".to_owned()),
    }
}

/// What came out.
#[derive(Debug, serde::Serialize)]
struct Comparison {
    a: String,
    b: String,
    alpha: f64,
    draws: usize,
    /// Means over rates and over sets, corrected among each other.
    means: Vec<Difference>,
    /// Each cell, corrected among each other.
    cells: Vec<Difference>,
}

/// Compares two models.
///
/// # Errors
///
/// No such sweep or model; nothing that both were evaluated on; the database cannot be reached.
pub async fn run(args: CompareArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = compared(&args, &database).await;
    database.close().await;
    let comparison = outcome?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print!("{}", text(&comparison, args.all));
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
    format!("there are {}", ids.join(", "))
}

async fn compared(args: &CompareArgs, store: &Store) -> anyhow::Result<Comparison> {
    let known = store.benchmarks().await?;
    for metric in &args.metric {
        let there = known.all().iter().any(|b| b.metric(metric).is_some());
        ensure!(
            there,
            "there is no metric `{metric}`: {}",
            metric_ids(&known)
        );
    }
    let datasets = known.select(&args.dataset)?;
    let default = match &args.sweep {
        Some(text) => store.find_sweep(text).await?,
        None => newest(store).await?,
    };
    let (a_sweep, a) = side(store, &default, &args.a).await?;
    let (b_sweep, b) = side(store, &default, &args.b).await?;
    ensure!(
        a_sweep.id != b_sweep.id || a != b,
        "both are {} of sweep {}: name two models",
        layout::label(&a.0, &a.1),
        a_sweep.name
    );
    let mut both = Predictions::default();
    // Two sweeps may have the same method: the sides are told apart by their place.
    let names = ["a", "b"].map(|name| (name.to_owned(), String::new()));
    for ((sweep, model), name) in [(&a_sweep, &a), (&b_sweep, &b)].into_iter().zip(&names) {
        let filter = Filter {
            methods: vec![model.0.clone()],
            datasets: datasets.clone(),
            cases: Vec::new(),
        };
        let own = store.predictions(sweep.id, &filter).await?;
        let mut evaluations = own.evaluations;
        evaluations.retain(|e| e.variant == model.1);
        ensure!(
            !evaluations.is_empty(),
            "sweep {} has no evaluations of {} that are done{}",
            sweep.name,
            layout::label(&model.0, &model.1),
            have(store, sweep).await?
        );
        for evaluation in &mut evaluations {
            evaluation.method.clone_from(&name.0);
            evaluation.variant.clear();
        }
        for (dataset, labels) in own.labels {
            let known = both.labels.entry(dataset).or_insert_with(|| labels.clone());
            if **known != *labels {
                bail!(
                    "the two sweeps have {dataset} from different files: their test splits differ"
                );
            }
        }
        both.evaluations.extend(evaluations);
    }

    let wanted = |id: &str| args.metric.is_empty() || args.metric.iter().any(|m| m == id);
    let draws = args.draws.map_or_else(
        || draws_needed(comparisons(&both, wanted), args.alpha).max(DRAWS),
        |draws| draws as usize,
    );
    let options = Options {
        draws,
        ..Options::default()
    };
    let drawn = draw(both, options).await?;
    let [a_name, b_name] = &names;
    let of = |means| compare(&drawn, a_name, b_name, means, args.alpha, wanted);
    let (means, cells) = (of(true), of(false));
    ensure!(
        !cells.is_empty(),
        "the two have no dataset and case in common: there is nothing to compare"
    );
    let name = |sweep: &SweepRow, model: &Model| {
        let label = layout::label(&model.0, &model.1);
        if a_sweep.id == b_sweep.id {
            label
        } else {
            format!("{}:{label}", sweep.name)
        }
    };
    Ok(Comparison {
        a: name(&a_sweep, &a),
        b: name(&b_sweep, &b),
        alpha: args.alpha,
        draws,
        means,
        cells,
    })
}

/// How many cells both have, times their metrics.
fn comparisons(both: &Predictions, wanted: impl Fn(&str) -> bool) -> usize {
    let mut sides: BTreeMap<(Benchmark, &str), Vec<&str>> = BTreeMap::new();
    for evaluation in &both.evaluations {
        let key = (evaluation.dataset, evaluation.case.as_str());
        let sides = sides.entry(key).or_default();
        if !sides.contains(&evaluation.method.as_str()) {
            sides.push(&evaluation.method);
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

/// Reads `[SWEEP:]METHOD[/VARIANT]`.
async fn side(store: &Store, default: &SweepRow, text: &str) -> anyhow::Result<(SweepRow, Model)> {
    let (sweep, model) = match text.rsplit_once(':') {
        Some((sweep, model)) => (store.find_sweep(sweep).await?, model),
        None => (default.clone(), text),
    };
    let (method, variant) = model.split_once('/').unwrap_or((model, ""));
    ensure!(!method.is_empty(), "`{text}` names no method");
    Ok((sweep, (method.to_owned(), variant.to_owned())))
}

/// `; it has almt, lnln`.
async fn have(store: &Store, sweep: &SweepRow) -> anyhow::Result<String> {
    let models = store.evaluated_models(sweep.id).await?;
    Ok(if models.is_empty() {
        ": none at all is done yet".to_owned()
    } else {
        format!("; it has some of {}", models.join(", "))
    })
}

fn text(comparison: &Comparison, all: bool) -> String {
    let Comparison { a, b, .. } = comparison;
    let mut out = format!("{a} (A) against {b} (B)\n");
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
        "\nOf {of} cells and metrics {a} is really better in {for_a}, {b} in {for_b}; the other {} \
         may be chance.",
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
        "\nPaired bootstrap over test samples and seeds, {} draws; p corrected by Holm's method \
         among the means and among the cells; better: p below {}.",
        comparison.draws, comparison.alpha
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
            d.case.clone(),
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
    fn a_level_lies_between_nothing_and_a_half() {
        assert_eq!(level("0.05"), Ok(0.05));
        for bad in ["0", "0.5", "-1", "x", "NaN"] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }
}
