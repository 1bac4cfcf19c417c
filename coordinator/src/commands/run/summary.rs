//! What is printed at the end of a run: tables, failures, and where to look next.

use super::context::RunContext;
use crate::{
    analysis,
    commands::{
        failures::{self, FailureGroup, jobs},
        table,
        watch::{Snapshot, format_duration},
    },
    local::Servers,
};
use halfheard_results::tables::layout::{self, Layout};
use halfheard_shared::{ids::SweepId, text::quoted_path};
use halfheard_store::{
    Store,
    sweeps::{Progress, SweepRow},
};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Maximum number of causes of failures printed.
const FAILURES: usize = 5;
/// Means over missing rates, and each rate, of the datasets with the same table.
const RATE_TABLES: [u8; 4] = [2, 9, 3, 10];
/// The same for sets of missing modalities.
const MISSING_TABLES: [u8; 4] = [11, 13, 12, 14];

/// The end of a run.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    sweep: SweepId,
    name: String,
    jobs: Progress,
    failures: Vec<FailureGroup>,
    /// Models that predict one class nearly everywhere.
    collapsed: Vec<String>,
    seconds: f64,
    devices: &'a [String],
    device_warning: Option<&'a str>,
    data_dir: &'a Path,
    #[serde(skip)]
    evaluated: bool,
    /// The folder of the database cluster, if it is outside the data folder.
    #[serde(skip)]
    database: Option<PathBuf>,
    #[serde(skip)]
    logs: PathBuf,
    #[serde(skip)]
    context: &'a RunContext<'a>,
}

impl<'a> Summary<'a> {
    pub(super) async fn load(
        context: &'a RunContext<'a>,
        servers: &Servers,
        store: &Store,
        sweep: &SweepRow,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let data_dir = &context.settings.data_dir;
        let database = servers.postgres().data();
        Ok(Self {
            sweep: sweep.id,
            name: sweep.name.clone(),
            jobs: progress,
            failures: failures::load(store, sweep.id).await?,
            collapsed: analysis::collapsed(store, sweep.id).await?,
            seconds: context.started.elapsed().as_secs_f64(),
            devices: &context.slots.devices,
            device_warning: context.slots.warning.as_deref(),
            data_dir,
            evaluated: Snapshot::load(store, None, sweep.id).await?.eval_done > 0,
            // Where Postgres' own user has no access to the data folder.
            database: (!database.starts_with(data_dir)).then(|| database.to_owned()),
            logs: servers.folder().to_owned(),
            context,
        })
    }

    /// Prints the tables and the rest.
    pub(super) async fn print(&self, store: &Store, sweep: &SweepRow) -> anyhow::Result<()> {
        let output = self.context.output;
        if !output.is_json() && self.evaluated {
            let layouts: Vec<Layout> = self.tables().collect();
            table::print(store, sweep, &layouts, self.context.settings.color).await?;
        }
        Ok(output.print(self)?)
    }

    /// Returns the tables to print: of missing rates or, without any, of missing modalities.
    fn tables(&self) -> impl Iterator<Item = Layout> {
        let numbers = match self.context.loaded.spec.rates.is_empty() {
            true => MISSING_TABLES,
            false => RATE_TABLES,
        };
        numbers.into_iter().filter_map(|number| self.table(number))
    }

    /// Returns table `number` if it has a block for a dataset of the spec.
    fn table(&self, number: u8) -> Option<Layout> {
        let datasets = &self.context.loaded.resolved.datasets;
        let shows = |layout: &Layout| datasets.iter().any(|d| layout.shows(d.benchmark));
        layout::find(number).filter(shows)
    }

    fn fmt_collapsed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.collapsed.is_empty() {
            return Ok(());
        }
        let audit = self.context.command_line(&["audit", &self.name]);
        writeln!(
            f,
            "{} one class for nearly all samples: {}.\nTheir accuracies are those of the dataset's \
             most frequent class (for evidence, run `{audit}`).\n",
            match self.collapsed.len() {
                1 => "A model predicts",
                _ => "Models predict",
            },
            self.collapsed.join(", "),
        )
    }

    fn fmt_failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.failed == 0 {
            return Ok(());
        }
        writeln!(f, "{} failed:", jobs(self.jobs.failed))?;
        for failure in self.failures.iter().take(FAILURES) {
            writeln!(f, "  {}", failure.describe().replace('\n', "\n  "))?;
        }
        if self.failures.len() > FAILURES {
            let more = self.failures.len() - FAILURES;
            let status = self.context.command_line(&["status", &self.name]);
            writeln!(f, "  and {more} more causes: `{status}`")?;
        }
        let retry = self.context.run_again("--retry");
        writeln!(
            f,
            "After fixing the cause, run them again with `{retry}`.\n"
        )
    }

    fn fmt_next_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context;
        let mut line = |arguments: &[&str], note: &str| {
            writeln!(f, "  {}{note}", context.command_line(arguments))
        };
        line(&["status", &self.name], "")?;
        let spec = &context.loaded.spec;
        if !spec.missing.is_empty() && !spec.rates.is_empty() {
            let number = match self.table(13) {
                Some(_) => "13",
                None => "14",
            };
            line(&["table", number], "    (missing modalities)")?;
        }
        let latex = ["table", "2", "--format", "latex"];
        line(&latex, "    (also markdown, csv, json)")?;
        if !context.args.keep {
            let keep = context.run_again("--keep");
            writeln!(f, "  {keep}    (keeps the servers running, for SQL)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.evaluated {
            writeln!(f, "No evaluation job is done, so there are no tables.\n")?;
        }
        self.fmt_collapsed(f)?;
        self.fmt_failures(f)?;
        writeln!(
            f,
            "{} of {} are done; this run took {}.\nNext steps:",
            self.jobs.done,
            jobs(self.jobs.total()),
            format_duration(self.context.started.elapsed())
        )?;
        self.fmt_next_steps(f)?;
        writeln!(f, "Data and results: {}", self.data_dir.display())?;
        if let Some(database) = &self.database {
            writeln!(f, "Database: {}", database.display())?;
        }
        let logs = quoted_path(&self.logs);
        writeln!(f, "Logs: {logs}/{{worker.log,postgres.log,nats/nats.log}}")
    }
}
