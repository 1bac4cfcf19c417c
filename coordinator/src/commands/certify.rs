//! `coord certify`: tests which published numbers a sweep reproduces.

use crate::{
    config::Settings,
    exit::Exit,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::Context as _;
use halfheard_results::{
    certify::{Certificate, Options, Verdict, certify, render},
    report::{self, html, markdown},
};
use halfheard_shared::{atomic_file, error::hinted, results::Wanted};
use halfheard_store::{Store, results::load};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `coord certify`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Each of the 3,506 numbers of the paper's Tables 2 to 14 is compared with the sweep's mean by two
one-sided tests of equivalence at the level 0.05. The bound is a multiple of the paper's standard
deviation over seeds (Table 8; docs/reference/certify.md says which stands for what it lacks):
  reproduced      the difference is within the bound
  different       the difference is significant, and not shown to be within the bound
  too few seeds   neither is shown; the reason says how many seeds would do
  not comparable  retracted, or the sweep measured something else: it needs selection = \"test\" and
                  fidelity = \"reference\", all cases of a mean, and the paper's test split
  not measured    the sweep does not have it
Nothing is trained or evaluated.

Examples:
  coord certify full                      verdicts by table and method, and what differs
  coord certify full --out verdicts.csv   every number with its tests
  coord certify full --out page.html      the same as a page; `coord report` has the overview
  coord certify full --strict             for scripts

Exits with 0; with --strict with 4 if a number is different or none could be tested.")]
pub(crate) struct CertifyArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// The bound of equivalence, in published standard deviations
    #[arg(long, value_name = "FACTOR", default_value_t = Options::default().factor, value_parser = factor)]
    bound: f64,
    /// Print every number as CSV
    #[arg(long)]
    csv: bool,
    /// Write every number to a file: .csv, .json, .html or .md
    #[arg(long, visible_alias = "output", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with 4 if a number is different, or none could be tested
    #[arg(long)]
    strict: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 10.0 => Ok(factor),
        _ => Err("a bound is above 0 and at most 10 standard deviations".to_owned()),
    }
}

/// The format of a file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
    Html,
    Markdown,
}

impl Format {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            Some("html") => Ok(Self::Html),
            Some("md") => Ok(Self::Markdown),
            _ => Err(hinted(
                format!("unknown format of file {}", path.display()),
                "let its name end in .csv, .json, .html or .md",
            )
            .into()),
        }
    }

    fn render(self, certificate: &Certificate) -> anyhow::Result<String> {
        Ok(match self {
            Self::Csv => render::csv(certificate)?,
            Self::Json => render::json(certificate)?,
            Self::Html => html::render(&report::certificate(certificate)),
            Self::Markdown => markdown::render(&report::certificate(certificate)),
        })
    }
}

/// Certifies the published numbers by a sweep, and prints or writes the verdicts.
///
/// # Errors
///
/// An unknown sweep or format; the database cannot be reached; the file cannot be written.
pub(crate) async fn run(args: CertifyArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    // Before anything is read.
    let file = match &args.out {
        Some(path) => Some((path, Format::of(path)?)),
        None => None,
    };
    let database = Database::open(settings).await?;
    let outcome = of_sweep(&args, &database).await;
    database.close().await;
    let certificate = outcome?;
    if let Some((path, format)) = file {
        let text = format.render(&certificate)?;
        atomic_file::write(path, atomic_file::DEFAULT_MODE, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if settings.json {
        say_json(&render::json(&certificate)?);
    } else if args.csv {
        say(&render::csv(&certificate)?);
    } else {
        say(&render::text(&certificate));
        if let Some(path) = &args.out {
            say(&format!("{}: every number", path.display()));
        }
    }
    let clean = certificate.count(Verdict::Different) == 0 && certificate.tested() > 0;
    Ok(if args.strict && !clean {
        Exit::Findings.into()
    } else {
        ExitCode::SUCCESS
    })
}

async fn of_sweep(args: &CertifyArgs, store: &Store) -> anyhow::Result<Certificate> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let results = load(store, sweep.id, Wanted::default()).await?;
    let options = Options { factor: args.bound };
    Ok(certify(&results, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_is_positive_and_finite() {
        assert_eq!(factor("1.5"), Ok(1.5));
        for bad in ["0", "-1", "NaN", "inf", "11", "x"] {
            assert!(factor(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn format_is_that_of_the_extension() {
        let of = |name: &str| Format::of(Path::new(name)).ok();
        assert_eq!(of("a/b.csv"), Some(Format::Csv));
        assert_eq!(of("page.html"), Some(Format::Html));
        assert_eq!(of("page"), None);
        assert_eq!(of("page.pdf"), None);
    }
}
