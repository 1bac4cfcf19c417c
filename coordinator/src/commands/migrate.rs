//! `coord migrate`: updates the database's schema.

use crate::{config::Settings, output::Output};
use halfheard_shared::text::count;
use halfheard_store::Store;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord migrate`.
#[derive(clap::Args, Debug)]
pub(crate) struct MigrateArgs {
    /// Change nothing; exit with 1 if migrations are missing
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Migrated {
    applied: usize,
    #[serde(skip)]
    address: String,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.applied {
            0 => write!(f, "the database at {} is up to date", self.address),
            applied => {
                let migrations = count(applied, "migration");
                write!(
                    f,
                    "applied {migrations} to the database at {}",
                    self.address
                )
            }
        }
    }
}

/// Applies missing migrations. Several processes may do so at once.
///
/// # Errors
///
/// The database cannot be reached, is newer than the program, or a migration fails.
pub(crate) async fn run(args: MigrateArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = Store::connect_with(settings.database.clone()).await?;
    let missing = store.missing_migrations().await?;
    if args.check {
        store.check().await?;
    } else {
        store.migrate().await?;
    }
    Output::of(settings).print(&Migrated {
        applied: missing,
        address: settings.database_address(),
    })?;
    Ok(ExitCode::SUCCESS)
}
