//! Reads a sweep once, and writes its report.

use super::{Sources, draw, resample};
use halfheard_results::{
    audit::SweepAudit,
    report::{self, Parts, Report},
    statistics::bootstrap::BootstrapOptions,
};
use halfheard_shared::{
    error::chain,
    ids::SweepId,
    results::{Filter, Wanted},
};
use halfheard_store::{Store, results::Snapshot};
use std::sync::Arc;

/// Writes the report of a sweep.
///
/// # Errors
///
/// The database's; predictions that cannot be read; a figure that cannot be drawn.
pub async fn report(
    store: &Store,
    sweep: SweepId,
    sources: Sources<'_>,
    options: BootstrapOptions,
) -> anyhow::Result<Report> {
    tracing::info!("reading results and predictions");
    let mut snapshot = Snapshot::begin(store, sweep).await?;
    let wanted = Wanted {
        provenance: true,
        checkpoints: true,
        audit: true,
    };
    let results = Arc::new(snapshot.results(wanted).await?);
    let predictions = snapshot.predictions(&Filter::default()).await?;
    tracing::info!("audit");
    let mut audit = SweepAudit::new(&results);
    audit.check(&predictions);
    let findings = audit.finish();
    tracing::info!("figures");
    let mut figures = Vec::new();
    for (kind, request) in report::figures(&results) {
        let own = Some(&predictions);
        let drawn = draw(&mut snapshot, &results, own, sources, kind, &request).await;
        let figure = match drawn {
            Ok(figure) => Ok(figure),
            Err(error) if error.is_missing() => {
                let reason = chain(&error);
                if error.is_out_of_reach() {
                    tracing::warn!("figure {} is missing: {reason}", kind.id());
                }
                Err(reason)
            }
            Err(error) => return Err(error.into()),
        };
        figures.push((kind, figure));
    }
    tracing::info!("intervals");
    let samples = resample(predictions, options).await?;
    tracing::info!("tables");
    let parts = Parts {
        samples,
        options,
        findings,
        figures,
    };
    let build = move || report::build(&results, parts);
    Ok(tokio::task::spawn_blocking(build).await??)
}
