//! `coord restore`: fills an empty database from a backup.

use crate::{
    config::Settings,
    housekeeping::restore::{self, Restored},
    local::Database,
    output::Output,
};
use halfheard_shared::text::count;
use std::{fmt, path::PathBuf, process::ExitCode};

/// Arguments of `coord restore`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The database must be migrated and empty, and no `coord serve` may run on it. It becomes the installation
that was saved. Checkpoints of the backup that the artifact store lacks are put back.

Example:
  createdb halfheard && coord migrate && coord restore /backup/2026-01-31 && coord serve")]
pub(crate) struct RestoreArgs {
    /// The folder of a backup
    folder: PathBuf,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = count(self.rows as usize, "row");
        writeln!(f, "installation {}: {rows} restored", self.installation)?;
        if self.checkpoints > 0 {
            let checkpoints = count(self.checkpoints as usize, "checkpoint");
            writeln!(f, "{checkpoints} put back into the artifact store")?;
        }
        match (self.missing_checkpoints, &self.store) {
            (Some(0), _) => Ok(()),
            (Some(missing), _) => writeln!(
                f,
                "{} not in the artifact store: `coord doctor --checkpoints` lists them, with --repair their trainings are done again",
                count(missing as usize, "checkpoint")
            ),
            (None, Some(reason)) => writeln!(
                f,
                "the artifact store was not looked at: {reason}; the first worker says which it is"
            ),
            (None, None) => Ok(()),
        }
    }
}

/// Restores a backup.
///
/// # Errors
///
/// No backup or a damaged one; a database that is not empty, is served or has other migrations.
pub(crate) async fn run(args: RestoreArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let restored = restore::restore(&args.folder, settings, &database).await;
    database.close().await;
    Output::of(settings).print(&restored?)?;
    Ok(ExitCode::SUCCESS)
}
