//! `coord predictions delete`.

use super::args::DeleteArgs;
use crate::{commands::table::named_or_newest, housekeeping::confirm::confirm};
use halfheard_shared::{error::hinted, ids::SweepId, text::count};
use halfheard_store::Store;
use serde::Serialize;
use std::fmt;

#[derive(Serialize)]
pub(super) struct Deleted {
    sweep: SweepId,
    name: String,
    method: String,
    variant: String,
    /// Jobs that the sweep no longer has: one for each model, and one for each of its cases.
    jobs: u64,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} deleted from {} ({}) with {}",
            self.method,
            self.name,
            self.sweep.short(),
            count(self.jobs as usize, "job")
        )
    }
}

/// Deletes imported predictions; `None` if the user does not want to.
///
/// # Errors
///
/// There are none; the database fails; there is nobody to ask.
pub(super) async fn delete(args: &DeleteArgs, store: &Store) -> anyhow::Result<Option<Deleted>> {
    let sweep = named_or_newest(store, args.sweep.as_deref()).await?;
    let question = format!(
        "Delete the imported predictions of {} from the sweep {} ({})?",
        args.method,
        sweep.name,
        sweep.id.short()
    );
    if !confirm(&question, args.yes)? {
        return Ok(None);
    }
    let jobs = store
        .delete_imported(sweep.id, &args.method, &args.variant, args.seed)
        .await?;
    if jobs == 0 {
        return Err(hinted(
            format!(
                "the sweep {} has no imported predictions of {}",
                sweep.name, args.method
            ),
            "see --variant, --seed and --sweep",
        )
        .into());
    }
    Ok(Some(Deleted {
        sweep: sweep.id,
        name: sweep.name,
        method: args.method.clone(),
        variant: args.variant.clone(),
        jobs,
    }))
}
