//! Audits a sweep, a method on a dataset at a time.

use halfheard_results::audit::{self, Finding, SweepAudit};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::SweepId,
    results::{Filter, Wanted},
};
use halfheard_store::{
    Store,
    results::{ResultsError, Snapshot},
};

fn filter(dataset: Benchmark, method: &str) -> Filter {
    Filter {
        methods: vec![method.to_owned()],
        datasets: vec![dataset],
        cases: Vec::new(),
    }
}

/// Finds what is wrong or suspect in a sweep. Unreadable predictions are a finding: the rest is audited
/// all the same.
///
/// # Errors
///
/// The database's; a dataset that this program does not know.
pub async fn audit(store: &Store, sweep: SweepId) -> Result<Vec<Finding>, ResultsError> {
    let mut snapshot = Snapshot::begin(store, sweep).await?;
    let wanted = Wanted {
        audit: true,
        ..Wanted::default()
    };
    let results = snapshot.results(wanted).await?;
    let mut audit = SweepAudit::new(&results);
    for (dataset, method) in results.evaluated() {
        match snapshot.predictions(&filter(dataset, method)).await {
            Ok(predictions) => audit.check(&predictions),
            Err(error) if error.is_damage() => {
                audit.unreadable(dataset, method, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(audit.finish())
}

/// The models of a sweep whose predictions are all constant or of one class: `almt on mosi`. Unreadable
/// predictions are left to [`audit()`].
///
/// # Errors
///
/// The database's.
pub async fn collapsed(store: &Store, sweep: SweepId) -> Result<Vec<String>, ResultsError> {
    let mut snapshot = Snapshot::begin(store, sweep).await?;
    let mut names = Vec::new();
    for (dataset, method) in snapshot.evaluated().await? {
        match snapshot.predictions(&filter(dataset, &method)).await {
            Ok(predictions) => names.extend(audit::collapsed(&predictions)),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}
