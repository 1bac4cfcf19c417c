//! `coord backup`: saves what must last.

use crate::{
    config::Settings,
    housekeeping::{
        backup::{self, Written},
        own_store,
        size::Bytes,
    },
    local::Database,
    output::Output,
};
use halfheard_shared::text::{count, quoted_path};
use serde::Serialize;
use std::{fmt, path::PathBuf, process::ExitCode};

/// Arguments of `coord backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The folder gets a manifest with the hashes of its files, which is written last. `coord serve` may run
meanwhile: the backup is the database as it was at one moment.

Examples:
  coord backup /backup/2026-01-31
  coord backup /backup/2026-01-31 --with-checkpoints

Restore it with `coord restore`.")]
pub(crate) struct BackupArgs {
    /// A new folder, or one in which a backup was not finished
    folder: PathBuf,
    /// Copy the checkpoints that results refer to, too
    #[arg(long)]
    with_checkpoints: bool,
}

#[derive(Serialize)]
struct Saved {
    folder: PathBuf,
    with_checkpoints: bool,
    #[serde(flatten)]
    written: Written,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = &self.written;
        writeln!(
            f,
            "{}: {} ({})",
            self.folder.display(),
            count(written.rows as usize, "row"),
            Bytes(written.bytes)
        )?;
        let checkpoints = count(written.checkpoints as usize, "checkpoint");
        if !self.with_checkpoints {
            return writeln!(f, "{checkpoints} not included (--with-checkpoints)");
        }
        writeln!(
            f,
            "{} of {checkpoints} ({})",
            written.saved_checkpoints,
            Bytes(written.checkpoint_bytes)
        )?;
        if written.missing_checkpoints > 0 {
            writeln!(
                f,
                "warning: {} not in the store; see `coord doctor --checkpoints`",
                count(written.missing_checkpoints as usize, "checkpoint")
            )?;
        }
        writeln!(
            f,
            "restore it with `coord restore {}`",
            quoted_path(&self.folder)
        )
    }
}

/// Saves the database and, if asked to, checkpoints.
///
/// # Errors
///
/// The folder holds something else or cannot be written; the database or the store fails.
pub(crate) async fn run(args: BackupArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let written = save(&args, settings, &database).await;
    database.close().await;
    Output::of(settings).print(&Saved {
        written: written?,
        folder: args.folder,
        with_checkpoints: args.with_checkpoints,
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn save(
    args: &BackupArgs,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<Written> {
    let artifacts = match args.with_checkpoints {
        true => Some(own_store::open_own(settings, database).await?),
        false => None,
    };
    backup::write(&args.folder, database, artifacts.as_ref()).await
}
