//! Does what the operator confirmed.

use super::state::Action;
use crate::{
    commands::retry as counted,
    orchestrator::retry::{self, Selection},
    submission,
};
use halfheard_shared::{
    ids::SweepId,
    text::{count, plain},
};
use halfheard_store::{Store, SweepState, drained::title, sweeps::SweepRow, terms::Terms};

/// Does it, and says in one line what was done.
///
/// # Errors
///
/// The sweep was deleted meanwhile, or the database fails.
pub(super) async fn act(store: &Store, action: Action) -> anyhow::Result<String> {
    Ok(match action {
        Action::Pause(sweep) => match store.pause(sweep, None).await? {
            Some(_) => "paused; jobs in progress continue".to_owned(),
            None => "it was not running".to_owned(),
        },
        Action::Resume(sweep) => match store.resume(sweep).await? {
            true => "resumed".to_owned(),
            false => "it was not paused".to_owned(),
        },
        Action::Retry(sweep, job) => {
            let row = find(store, sweep).await?;
            let selection = match job {
                Some(job) => Selection::Job(job.to_string()),
                None if row.state == SweepState::Cancelled => Selection::All,
                None => Selection::Failed,
            };
            let jobs = retry::retry(store, &row, &selection).await?;
            match (jobs.total(), row.state) {
                (0, _) => "there was nothing to retry".to_owned(),
                (_, SweepState::Paused) => {
                    format!("{} once the sweep is resumed", counted::describe(jobs))
                }
                _ => counted::describe(jobs),
            }
        }
        Action::Priority(sweep, priority) => {
            let terms = Terms::with_priority(priority);
            let (before, after) = store.set_terms(sweep, &terms).await?;
            format!("priority {} (was {})", after.priority, before.priority)
        }
        Action::Drain { worker, at_once } => {
            store.drain(&worker, &submission::user()).await?;
            let name = plain(&worker);
            match at_once {
                true => {
                    let jobs = count(store.take_back(&worker).await? as usize, "job");
                    format!("{name} is drained; {jobs} taken back")
                }
                false => format!("{name} is drained; it finishes what it has"),
            }
        }
        Action::Undrain(worker) => {
            store.undrain(&worker).await?;
            format!("{} may work again", title(&worker))
        }
    })
}

async fn find(store: &Store, sweep: SweepId) -> anyhow::Result<SweepRow> {
    Ok(store.find_sweep(&sweep.to_string()).await?)
}
