//! `coord report`: writes a report of a sweep.

use crate::{
    analysis,
    config::Settings,
    local::connect::Database,
    output::{say, say_json},
};
use anyhow::{Context as _, ensure};
use halfheard_results::{
    report::{
        Report, html,
        markdown::{self, FIGURES},
    },
    statistics::bootstrap::BootstrapOptions,
};
use halfheard_shared::atomic_file;
use halfheard_store::Store;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// Arguments of `coord report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes into the folder: report.html, one self-contained page; report.md, the same as text; figures/,
the figures as SVG and PNG. Existing files of these names are replaced.

Tables have published numbers and 95 % bootstrap intervals; the audits of the sweep and of the
published tables are included. Everything comes from the database (and, for Figure 8, the artifact
store): nothing is trained or evaluated.

Examples:
  coord report demo --out demo-report
  coord report full --out supplement --draws 10000")]
pub(crate) struct ReportArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// The folder to write to; created if necessary
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The number of bootstrap resamples for the intervals
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    draws: u32,
}

/// Writes a report.
///
/// # Errors
///
/// An unknown sweep; the database cannot be reached; the folder cannot be written to.
pub(crate) async fn run(args: ReportArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    // Before anything is computed.
    let figures = args.out.join(FIGURES);
    std::fs::create_dir_all(&figures)
        .with_context(|| format!("cannot create folder {}", figures.display()))?;
    let since = Instant::now();
    let database = Database::open(settings).await?;
    let outcome = make(&args, settings, &database).await;
    database.close().await;
    let report = outcome?;
    let files = write(&report, &args.out)?;
    let seconds = since.elapsed().as_secs_f64();
    if settings.json {
        let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        let json = serde_json::json!({ "sweep": report.id, "files": files, "seconds": seconds });
        say_json(&json.to_string());
    } else {
        say(&format!(
            "{}: written in {seconds:.1} s, with {} figures",
            args.out.join("report.html").display(),
            report.images().count()
        ));
        say(&format!(
            "{}: the same as markdown",
            args.out.join("report.md").display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn make(args: &ReportArgs, settings: &Settings, store: &Store) -> anyhow::Result<Report> {
    let sweep = store.find_sweep(&args.sweep).await?;
    ensure!(
        sweep.jobs.eval > 0,
        "sweep {} has no evaluations to report",
        sweep.name
    );
    let options = BootstrapOptions {
        resamples: args.draws as usize,
        ..BootstrapOptions::default()
    };
    analysis::report(store, sweep.id, settings.sources(), options).await
}

/// Writes every file atomically; returns their names, the page first.
fn write(report: &Report, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut put = |name: PathBuf, bytes: &[u8]| -> anyhow::Result<()> {
        let path = folder.join(name);
        atomic_file::write(&path, atomic_file::DEFAULT_MODE, bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
        Ok(())
    };
    for image in report.images() {
        let name = Path::new(FIGURES).join(&image.name);
        put(name.with_extension("svg"), image.svg.as_bytes())?;
        put(name.with_extension("png"), &image.png)?;
    }
    put("report.md".into(), markdown::render(report).as_bytes())?;
    put("report.html".into(), html::render(report).as_bytes())?;
    files.reverse();
    Ok(files)
}
