//! `coord figure`: draws a figure of the paper from a sweep's results.

use super::table::newest;
use crate::{config::Settings, local::connect::Database};
use anyhow::{Context as _, bail};
use halfheard_results::figures::{self, Figure, Kind, Request, png};
use halfheard_shared::atomic_file;
use halfheard_shared::case::Rate;
use halfheard_store::Store;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `coord figure`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
2 has metrics over the missing rate, 4 the labels of each split, 5 to 7 confusion matrices on MOSI,
MOSEI and SIMS, 8 LNLN's language feature before and after its correction; confusion has matrices on
any dataset, ranks mean ranks with the difference that counts. Nothing is trained or evaluated for any of them. docs/guide/figures.md shows
how to read them.

Examples:
  coord figure 2 --out curves.svg                            the newest sweep, whole
  coord figure 2 --dataset mosi --published --out mosi.png   one dataset beside the paper
  coord figure 2 --metric mae --metric corr --method lnln --method almt --out two.svg
  coord figure 5 --method lnln --method misa --rates 0,0.5,0.9 --out confusion.png
  coord figure confusion --dataset mine --out mine.png
  coord figure 8 --sweep full --out features.svg
  coord figure ranks --out ranks.svg")]
pub struct FigureArgs {
    /// The figure: its number in the paper, 2, 4, 5, 6, 7 or 8, or confusion, ranks
    #[arg(value_name = "FIGURE")]
    which: Kind,
    /// The file: .svg for print and the web, .png for slides (300 pixels to the inch)
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
    /// Only these missing rates, with commas between [default: all; 5 to 8: four of them]
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = rate)]
    rates: Vec<Rate>,
    /// Add the paper's numbers as dashed lines, without those that its errata void (figure 2)
    #[arg(long)]
    published: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    Rate::new(number).map_err(|_| {
        format!("`{text}` is no missing rate: give numbers from 0 to 1 with at most three decimals")
    })
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

fn format(path: &Path) -> anyhow::Result<Format> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.map(str::to_lowercase).as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        _ => bail!(
            "{} ends in neither .svg nor .png: the ending says what is written",
            path.display()
        ),
    }
}

/// Draws a figure.
///
/// # Errors
///
/// No such sweep, or one that lacks what the figure shows; the database cannot be reached; the file
/// cannot be written.
pub async fn run(args: FigureArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    // Before anything is computed.
    let format = format(&args.out)?;
    let database = Database::open(settings).await?;
    let outcome = drawn(&args, settings, &database).await;
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
        println!(
            "{}",
            serde_json::json!({
                "figure": figure.kind.id(),
                "sweep": sweep,
                "file": args.out.display().to_string(),
                "title": figure.title,
                "caption": figure.caption,
                "notes": figure.notes,
            })
        );
    } else {
        println!("{}: {}", args.out.display(), figure.title);
        println!("{}.", figure.caption);
        for note in &figure.notes {
            println!("- {note}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn drawn(
    args: &FigureArgs,
    settings: &Settings,
    store: &Store,
) -> anyhow::Result<(String, Figure)> {
    let sweep = match &args.sweep {
        Some(text) => store.find_sweep(text).await?,
        None => newest(store).await?,
    };
    let request = Request {
        methods: args.method.clone(),
        datasets: store.benchmarks().await?.select(&args.dataset)?,
        metrics: args.metric.clone(),
        rates: args.rates.clone(),
        published: args.published,
    };
    let figure = figures::draw(store, &settings.sources(), sweep.id, args.which, &request)
        .await
        .with_context(|| format!("figure {} of sweep {}", args.which.id(), sweep.name))?;
    Ok((sweep.id.to_string(), figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_is_written() {
        assert_eq!(format(Path::new("a/b.svg")).unwrap(), Format::Svg);
        assert_eq!(format(Path::new("B.PNG")).unwrap(), Format::Png);
        for other in ["a", "a.pdf", "svg", ""] {
            let error = format(Path::new(other)).unwrap_err().to_string();
            assert!(error.contains("neither .svg nor .png"), "{error}");
        }
    }

    #[test]
    fn rates_are_rates() {
        assert_eq!(rate("0.3").unwrap().thousandths(), 300);
        for bad in ["1.1", "-0.1", "x", "NaN", ""] {
            assert!(rate(bad).unwrap_err().contains("no missing rate"), "{bad}");
        }
    }
}
