//! What a broker's account allows.

use super::Remark;
use crate::housekeeping::size::Bytes;
use async_nats::jetstream::{
    ErrorCode,
    account::Account,
    context::{AccountError, AccountErrorKind, GetStreamErrorKind},
    stream,
};
use halfheard_shared::{
    artifacts::Quota, broker::Broker, error::chain, text::count, wire::MAX_BYTES,
};
use std::time::Duration;

/// Streams of an installation: results, heartbeats, artifacts.
const STREAMS: i64 = 3;
/// Consumers: the one of results, and those of lists that come and go.
const CONSUMERS: i64 = 4;
/// Storage below which reports of a large sweep may not fit, in bytes.
const MIN_STORAGE: i64 = 64 << 20;
/// The share of a limit from which on it is worth a warning.
const NEARLY: f64 = 0.8;
/// Between two questions to a broker that is starting.
const PAUSE: Duration = Duration::from_secs(1);

/// What must be changed. A broker that does not answer is none of this.
pub(crate) async fn remarks(broker: &Broker) -> Vec<Remark> {
    let mut remarks = of_payload(broker.client().server_info().max_payload);
    let account = match account(broker).await {
        Ok(account) => account,
        Err(error) => {
            if is_off(&error) {
                remarks.push(Remark::fatal(
                    format!("the broker has no JetStream for this login: {}", chain(&error)),
                    "start nats-server with -js; with accounts, give the account `jetstream: enabled`",
                ));
            }
            return remarks;
        }
    };
    let names = broker.names();
    let streams = [
        names.results_stream(),
        format!("KV_{}", names.workers_bucket()),
        format!("OBJ_{}", names.artifacts_bucket()),
    ];
    let mut missing = 0;
    for name in streams {
        match broker.jetstream().get_stream(&name).await {
            Ok(stream) => remarks.extend(of_stream(&stream.cached_info().config)),
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => missing += 1,
            Err(_) => {}
        }
    }
    remarks.extend(of_account(&account, missing));
    remarks
}

/// The account, which a broker that is starting may not know at once.
async fn account(broker: &Broker) -> Result<Account, AccountError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match broker.jetstream().query_account().await {
            Err(error) if tries < 3 && is_off(&error) => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Whether there is no JetStream, for this account or at all.
fn is_off(error: &AccountError) -> bool {
    match error.kind() {
        AccountErrorKind::JetStreamUnavailable => true,
        AccountErrorKind::JetStream(error) => matches!(
            error.error_code(),
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        ),
        _ => false,
    }
}

fn of_payload(limit: usize) -> Vec<Remark> {
    if limit >= MAX_BYTES {
        return Vec::new();
    }
    vec![Remark::warning(
        format!(
            "the broker takes messages of at most {}: a longer result is refused",
            Bytes(limit as u64)
        ),
        format!("set `max_payload: {MAX_BYTES}` on the broker"),
    )]
}

fn of_account(account: &Account, missing: i64) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let limits = &account.limits;
    let used = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let positive = |limit: Option<i64>| limit.filter(|&limit| limit > 0);
    if let Some(limit) = positive(limits.max_streams)
        && used(account.streams).saturating_add(missing) > limit
    {
        remarks.push(Remark::fatal(
            format!(
                "the account may have {}, has {} and lacks {missing} of Halfheard's {STREAMS}",
                count(limit as usize, "stream"),
                account.streams
            ),
            "raise the account's limit of streams",
        ));
    }
    if let Some(limit) = positive(limits.max_consumers)
        && limit < CONSUMERS
    {
        remarks.push(Remark::warning(
            format!("the account may have {}", count(limit as usize, "consumer")),
            format!("raise the account's limit to {CONSUMERS}"),
        ));
    }
    if let Some(limit) = positive(limits.max_storage) {
        let quota = Quota {
            used: account.storage,
            limit: limit.cast_unsigned(),
        };
        if limit < MIN_STORAGE {
            remarks.push(Remark::warning(
                format!("the account may store {}", Bytes(quota.limit)),
                "raise it: reports wait in the broker while the coordinator is away",
            ));
        }
        if quota.share() >= NEARLY {
            remarks.push(Remark::warning(
                format!(
                    "the account stores {} of at most {}",
                    Bytes(quota.used),
                    Bytes(quota.limit)
                ),
                "raise the limit, or free some with `coord gc` if artifacts lie on the broker",
            ));
        }
    }
    remarks
}

/// Limits of an operator's that lose or refuse what Halfheard needs. They are left as they are.
fn of_stream(config: &stream::Config) -> Vec<Remark> {
    let mut limits = Vec::new();
    let heartbeats = config.name.starts_with("KV_");
    if !heartbeats && !config.max_age.is_zero() {
        limits.push(format!("deletes what is older than {:?}", config.max_age));
    }
    if config.max_messages > 0 {
        limits.push(format!("holds {} messages", config.max_messages));
    }
    if config.max_message_size > 0 && (config.max_message_size as usize) < MAX_BYTES {
        limits.push(format!(
            "takes messages of at most {} bytes",
            config.max_message_size
        ));
    }
    let limits = limits.into_iter().map(|limit| {
        Remark::warning(
            format!("the stream {} {limit}", config.name),
            format!("remove that limit: `nats stream edit {}`", config.name),
        )
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infrastructure::Weight;

    fn account(limits: &str) -> Account {
        let text = r#"{"memory":0,"storage":0,"reserved_memory":0,"reserved_storage":0,"streams":2,
            "consumers":0,"api":{"total":0,"errors":0},"limits":{"max_memory":-1,
            "max_storage":-1,"max_streams":-1,"max_consumers":-1,"max_bytes_required":false,
            "max_ack_pending":-1,"memory_max_stream_bytes":-1,"storage_max_stream_bytes":-1}}"#;
        let mut account: serde_json::Value = serde_json::from_str(text).unwrap();
        let limits: serde_json::Value = serde_json::from_str(limits).unwrap();
        for (name, limit) in limits.as_object().unwrap() {
            account["limits"][name] = limit.clone();
        }
        serde_json::from_value(account).unwrap()
    }

    #[test]
    fn broker_without_limits_needs_no_change() {
        assert_eq!(of_account(&account("{}"), 3), []);
        assert_eq!(of_payload(MAX_BYTES), []);
        assert_eq!(of_stream(&stream::Config::default()), []);
    }

    #[test]
    fn each_limit_is_named() {
        let few = of_account(&account(r#"{"max_streams":4}"#), 3);
        assert_eq!(few[0].weight, Weight::Fatal);
        assert!(
            few[0].found.contains("may have 4 streams, has 2"),
            "{few:?}"
        );
        assert_eq!(of_account(&account(r#"{"max_streams":5}"#), 3), []);
        let small = of_account(&account(r#"{"max_storage":1000000}"#), 0);
        assert_eq!(small[0].found, "the account may store 1.0 MB");
        assert!(of_payload(65_536)[0].found.contains("65.5 kB"));
        let forgetful = stream::Config {
            name: "halfheard_RESULTS".to_owned(),
            max_age: Duration::from_secs(3600),
            ..stream::Config::default()
        };
        assert!(of_stream(&forgetful)[0].found.contains("older than 3600s"));
    }
}
