//! The daemon: while it leads, it grants jobs, collects results and looks after leases.

use super::{
    collect::collect,
    context::Lead,
    dispatch::dispatch,
    hearing::{Hearing, Pings},
    leader::Leadership,
    leases::keep_leases,
    notify::{look_once_more, watch_events},
    options::ServeOptions,
    outage_log::OutageLog,
};
use crate::notify::{Notifier, Watch};
use halfheard_shared::{
    broker::{Broker, BrokerError, heartbeats::Heartbeats, topology::Installation},
    error::chain,
};
use halfheard_store::Store;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the stream and the buckets are looked for.
const ENSURE_EVERY: Duration = Duration::from_secs(30);

/// Serves until `shutdown`. An outage of Postgres or of the broker does not end it.
///
/// # Errors
///
/// The broker's objects belong to another installation.
pub async fn serve(
    store: Store,
    broker: Broker,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    let holder = holder();
    let (pings, sending) = Pings::start(broker.clone(), &holder);
    let sending = tokio::spawn(sending);
    let notifier = options.notify.clone().map(Notifier::start);
    let leads = metrics::gauge!("halfheard_leader");
    leads.set(0.0);
    let mut outcome = Ok(());
    while let Some(leadership) =
        Leadership::acquire(&store, &pings, &holder, options.leader_poll, &shutdown).await
    {
        leads.set(1.0);
        let lead = Lead {
            store: store.leading(leadership.term()),
            broker: broker.clone(),
            options: options.clone(),
            hearing: Hearing::new(pings.clone()),
            heartbeats: Heartbeats::default(),
            wake: Notify::new(),
        };
        let mut watch = notifier.as_ref().map(Watch::new);
        outcome = serve_lead(&lead, watch.as_mut(), leadership.lost()).await;
        if let Some(watch) = &mut watch {
            look_once_more(&lead, watch).await;
        }
        leads.set(0.0);
        // Acknowledgements that are still buffered.
        let flushed = tokio::time::timeout(Duration::from_secs(2), broker.client().flush()).await;
        tracing::debug!(?flushed, "acknowledgements sent");
        leadership.resign().await;
        if outcome.is_err() {
            break;
        }
    }
    sending.abort();
    if let Some(notifier) = notifier {
        notifier.finish().await;
    }
    tracing::info!("stopped");
    outcome
}

/// This coordinator's name: machine and process, in characters that a subject allows.
pub(crate) fn holder() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host: String = host
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("{host}-{}", std::process::id())
}

/// Makes what the broker needs for this installation. `None` on `stop`.
async fn prepare(
    lead: &Lead,
    stop: &CancellationToken,
) -> Result<Option<Installation>, BrokerError> {
    let mut outage = OutageLog::new("cannot create the stream and the buckets; retrying");
    loop {
        let pause = match lead.store.installation().await {
            Ok(installation) => match lead.broker.ensure(&installation).await {
                Ok(()) => return Ok(Some(installation)),
                Err(error) if error.is_transient() => outage.failed(&chain(&error), 0),
                Err(error) => return Err(error),
            },
            Err(error) => outage.failed(&chain(&error), 0),
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn serve_lead(
    lead: &Lead,
    watch: Option<&mut Watch<'_>>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let Some(installation) = prepare(lead, stop).await? else {
        return Ok(());
    };
    let installation = &installation;
    let events = async {
        match (watch, &lead.options.notify) {
            (Some(watch), Some(notify)) => watch_events(lead, watch, notify.every).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        ((), (), ()) = async { tokio::join!(
            dispatch(lead, stop),
            collect(lead, installation, stop),
            keep_leases(lead, stop),
        ) } => Ok(()),
        () = lead.heartbeats.listen(&lead.broker) => Ok(()),
        () = lead.hearing.watch() => Ok(()),
        () = events => Ok(()),
        error = keep_layout(lead, installation) => Err(error),
    }
}

/// Makes again what is missing on the broker, for as long as it runs: it may lose its storage.
async fn keep_layout(lead: &Lead, installation: &Installation) -> BrokerError {
    loop {
        tokio::time::sleep(ENSURE_EVERY.min(lead.options.lease)).await;
        match lead.broker.ensure(installation).await {
            Ok(()) => {
                if let Err(error) = lead.broker.tidy_artifacts().await {
                    tracing::debug!(error = chain(&error), "cannot tidy the bucket of artifacts");
                }
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(
                    error = chain(&error),
                    "cannot look for the stream and the buckets"
                );
            }
            Err(error) => return error,
        }
    }
}
