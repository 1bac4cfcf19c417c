//! `coord figure`: draws a figure of the paper from a sweep's results.

use super::table::named_or_newest;
use crate::{
    analysis,
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::{Context as _, bail};
use halfheard_results::figures::{Figure, Kind, Request, png};
use halfheard_shared::{atomic_file, case::Rate, results::Wanted};
use halfheard_store::{Store, results::Snapshot};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// Arguments of `coord figure`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
2 shows metrics over the missing rate, 4 the labels of each split, 5 to 7 confusion matrices on
MOSI, MOSEI and SIMS, 8 LNLN's language feature before and after its correction; confusion shows
matrices on any dataset, ranks mean ranks with their critical difference. Nothing is trained or
evaluated. docs/guide/figures.md explains how to read them.

Examples:
  coord figure 2 --out curves.svg                            the newest sweep
  coord figure 2 --dataset mosi --published --out mosi.png   one dataset and the paper
  coord figure 2 --metric mae --metric corr --method lnln --method almt --out two.svg
  coord figure 5 --method lnln --method misa --rates 0,0.5,0.9 --out confusion.png
  coord figure confusion --dataset mine --out mine.png
  coord figure 8 --sweep full --out features.svg
  coord figure ranks --out ranks.svg")]
pub(crate) struct FigureArgs {
    /// The figure: its number in the paper, 2, 4, 5, 6, 7 or 8, or confusion, ranks
    #[arg(value_name = "FIGURE")]
    which: Kind,
    /// The file: .svg for print and the web, .png for slides (300 pixels per inch)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The sweep: its name, its id, or the beginning of its id [default: the newest]
    #[arg(long)]
    sweep: Option<String>,
    /// Only these models: METHOD or METHOD/VARIANT [default: all but ablations; 5 to 8: lnln]
    #[arg(long, value_name = "MODEL")]
    method: Vec<String>,
    /// Only these datasets [default: all of the sweep]
    #[arg(long)]
    dataset: Vec<String>,
    /// Only these metrics, by their ids [default: one of each kind; of one dataset all] (figure 2)
    #[arg(long)]
    metric: Vec<String>,
    /// Only these missing rates, separated by commas [default: all; 5 to 8: four of them]
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = rate)]
    rates: Vec<Rate>,
    /// Add the paper's numbers as dashed lines, without retracted ones (figure 2)
    #[arg(long)]
    published: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    Rate::new(number).map_err(|_| {
        format!(
            "invalid missing rate `{text}`: give numbers from 0 to 1 with at most three decimals"
        )
    })
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

fn format(path: &Path) -> anyhow::Result<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_lowercase).as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => bail!(
            "{} ends in neither .svg nor .png: the extension selects the format",
            path.display()
        ),
    }
}

/// Draws a figure.
///
/// # Errors
///
/// An unknown sweep, or one without what the figure shows; the database cannot be reached; the file
/// cannot be written.
pub(crate) async fn run(args: FigureArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    // Before anything is computed.
    let format = format(&args.out)?;
    let database = Database::open(settings).await?;
    let outcome = draw(&args, settings, &database).await;
    database.close().await;
    let (sweep, figure) = outcome?;
    let bytes = match format {
        Format::Svg => figure.svg.clone().into_bytes(),
        Format::Png => {
            let svg = figure.svg.clone();
            tokio::task::spawn_blocking(move || png::render(&svg, png::SCALE)).await??
        }
    };
    atomic_file::write(&args.out, atomic_file::DEFAULT_MODE, &bytes)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    if settings.json {
        say_json(
            &serde_json::json!({
                "figure": figure.kind.id(),
                "sweep": sweep,
                "file": args.out.display().to_string(),
                "title": figure.title,
                "caption": figure.caption,
                "notes": figure.notes,
            })
            .to_string(),
        );
    } else {
        say(&format!("{}: {}", args.out.display(), figure.title));
        say(&format!("{}.", figure.caption));
        for note in &figure.notes {
            say(&format!("- {note}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn draw(
    args: &FigureArgs,
    settings: &Settings,
    store: &Store,
) -> anyhow::Result<(String, Figure)> {
    let sweep = named_or_newest(store, args.sweep.as_deref()).await?;
    let request = Request {
        methods: args.method.clone(),
        datasets: store.benchmarks().await?.select(&args.dataset)?,
        metrics: args.metric.clone(),
        rates: args.rates.clone(),
        published: args.published,
    };
    let mut snapshot = Snapshot::begin(store, sweep.id).await?;
    let wanted = Wanted {
        checkpoints: args.which == Kind::Features,
        ..Wanted::default()
    };
    let results = Arc::new(snapshot.results(wanted).await?);
    let (sources, kind) = (settings.sources(), args.which);
    let figure = analysis::draw(&mut snapshot, &results, None, sources, kind, &request)
        .await
        .with_context(|| format!("cannot draw figure {} of sweep {}", kind.id(), sweep.name))?;
    Ok((sweep.id.to_string(), figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_selects_the_format() {
        assert_eq!(format(Path::new("a/b.svg")).unwrap(), Format::Svg);
        assert_eq!(format(Path::new("B.PNG")).unwrap(), Format::Png);
        for other in ["a", "a.pdf", "svg", ""] {
            let error = format(Path::new(other)).unwrap_err().to_string();
            assert!(error.contains("neither .svg nor .png"), "{error}");
        }
    }

    #[test]
    fn rate_is_a_number_from_0_to_1() {
        assert_eq!(rate("0.3").unwrap().thousandths(), 300);
        for bad in ["1.1", "-0.1", "x", "NaN", ""] {
            assert!(
                rate(bad).unwrap_err().contains("invalid missing rate"),
                "{bad}"
            );
        }
    }
}
