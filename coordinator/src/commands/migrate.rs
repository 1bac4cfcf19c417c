//! `coord migrate`: brings the database up to date.

use crate::config::Settings;
use halfheard_store::Store;
use std::process::ExitCode;

/// Arguments of `coord migrate`.
#[derive(clap::Args, Debug)]
pub struct MigrateArgs {
    /// Change nothing; end with 1 when the database is not up to date
    #[arg(long)]
    check: bool,
}

/// Applies the migrations that the database lacks. Several may do so at once.
///
/// # Errors
///
/// The database cannot be reached, is newer than the program, or a migration fails.
pub async fn run(args: MigrateArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = Store::connect_with(settings.database.clone()).await?;
    let missing = store.missing_migrations().await?;
    if args.check {
        store.check().await?;
    } else {
        store.migrate().await?;
    }
    if settings.json {
        println!("{}", serde_json::json!({ "applied": missing }));
    } else if missing == 0 {
        println!(
            "the database at {} is up to date",
            settings.database_address()
        );
    } else {
        println!(
            "the database at {}: {missing} migrations applied",
            settings.database_address()
        );
    }
    Ok(ExitCode::SUCCESS)
}
