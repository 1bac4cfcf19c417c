//! Counts what happens to a coordinator.

use halfheard_shared::broker::BrokerError;
use halfheard_store::{Fault, StoreError, ingest::IngestSummary, leases::Ended};

/// Counts an error of the database by whose fault it is.
pub(crate) fn database_failed(error: &StoreError) {
    let fault = match error.fault() {
        _ if error.is_deposed() => "deposed",
        Fault::Transient => "transient",
        Fault::Refusal => "refusal",
        Fault::Timeout => "timeout",
        Fault::Content => "content",
        Fault::Other => "other",
    };
    metrics::counter!("halfheard_database_errors_total", "fault" => fault).increment(1);
}

/// Counts an error of the broker.
pub(crate) fn broker_failed(error: &BrokerError) {
    let kind = match error.is_transient() {
        true => "transient",
        false => "permanent",
    };
    metrics::counter!("halfheard_broker_errors_total", "kind" => kind).increment(1);
}

/// Counts leases that ended without their worker's word.
pub(crate) fn leases_ended(ended: &[Ended], reason: &'static str) {
    let again = ended.iter().filter(|ended| !ended.gave_up).count();
    metrics::counter!("halfheard_leases_ended_total", "reason" => reason)
        .increment(ended.len() as u64);
    metrics::counter!("halfheard_retries_total", "reason" => reason).increment(again as u64);
}

/// Counts what a batch of reports brought.
pub(crate) fn ingested(summary: &IngestSummary) {
    for kind in &summary.stored {
        metrics::counter!("halfheard_results_total", "kind" => kind.as_str()).increment(1);
    }
    for reason in &summary.retried {
        metrics::counter!("halfheard_retries_total", "reason" => *reason).increment(1);
    }
}
