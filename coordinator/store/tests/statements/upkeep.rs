//! Which artifacts are needed, dumps, and whose database it is.

use crate::postgres::Postgres;
use futures::StreamExt as _;
use halfheard_shared::ids::JobId;
use halfheard_store::{
    Store, StoreError,
    backup::{LEFT_OUT, Occupied, TABLES},
};
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// Two sweeps: `11...` asks for the trainings 1 (done) and 2 (ready), `22...` for training 1. Training 3
/// is nobody's. Trainings 1 and 3 have a checkpoint each; the config names the data `aa` and the
/// encoder `bb`.
const SCENE: &str = r#"
    INSERT INTO config VALUES ('c0000000-0000-8000-8000-000000000000',
        '{"data": {"blake3": "aa"}, "encoder": {"blake3": "bb"}}');
    INSERT INTO config VALUES ('c1000000-0000-8000-8000-000000000000',
        '{"data": {"blake3": "nobody"}, "encoder": {"blake3": "nobody"}}');
    INSERT INTO sweep (id, name, spec, resolved, train_jobs, eval_jobs) VALUES
        ('11000000-0000-8000-8000-000000000000', 'one', '', '{}', 2, 0),
        ('22000000-0000-8000-8000-000000000000', E'two\twith\\odd\nname', '', '{}', 1, 0);
    INSERT INTO job (id, sweep, position, kind, method, dataset, seed, config, state) VALUES
        ('00000000-0000-8000-8000-000000000001', '11000000-0000-8000-8000-000000000000', 0,
         'train', 'lnln', 'mosi', 1, 'c0000000-0000-8000-8000-000000000000', 'ready'),
        ('00000000-0000-8000-8000-000000000002', '11000000-0000-8000-8000-000000000000', 1,
         'train', 'lnln', 'mosi', 2, 'c0000000-0000-8000-8000-000000000000', 'ready'),
        ('00000000-0000-8000-8000-000000000003', NULL, 0,
         'train', 'lnln', 'mosi', 3, 'c0000000-0000-8000-8000-000000000000', 'ready');
    INSERT INTO sweep_job VALUES
        ('11000000-0000-8000-8000-000000000000', 0, '00000000-0000-8000-8000-000000000001'),
        ('11000000-0000-8000-8000-000000000000', 1, '00000000-0000-8000-8000-000000000002'),
        ('22000000-0000-8000-8000-000000000000', 0, '00000000-0000-8000-8000-000000000001');
    INSERT INTO attempt (id, job, worker, session, outcome, epochs, seconds)
        SELECT md5(id::text)::uuid, id, 'w', gen_random_uuid(), 'done', 10, 50 FROM job
        WHERE seed <> 2;
    UPDATE job SET state = 'queued', attempt = md5(id::text)::uuid, worker = 'w',
        session = gen_random_uuid(), lease_until = now() WHERE seed <> 2;
    UPDATE job SET state = 'done', lease_until = NULL, outcome = '\x00ff' WHERE seed <> 2;
    INSERT INTO checkpoint (job, criterion, epoch, blake3, bytes, attempt)
        SELECT job, 'mae', 7, 'checkpoint-' || right(job::text, 1), 1000, id FROM attempt;
    INSERT INTO dead_letter (subject, sequence, reason, payload)
        VALUES ('s', 1, 'bad', '\x000102');
"#;

async fn scene() -> Postgres {
    let postgres = Postgres::start().await;
    execute(&postgres.store, SCENE).await;
    postgres
}

async fn execute(store: &Store, statements: &'static str) {
    sqlx::raw_sql(statements)
        .execute(store.pool())
        .await
        .unwrap();
}

fn job(number: u8) -> JobId {
    JobId(
        format!("00000000-0000-8000-8000-00000000000{number}")
            .parse()
            .unwrap(),
    )
}

async fn needed(store: &Store) -> BTreeSet<String> {
    let all = ["checkpoint-1", "checkpoint-3", "unknown"].map(str::to_owned);
    let needed = store.needed_checkpoints(&all).await.unwrap();
    needed.into_iter().collect()
}

#[tokio::test]
async fn what_a_sweep_asks_for_is_needed() {
    let postgres = scene().await;
    let store = &postgres.store;
    assert_eq!(needed(store).await, ["checkpoint-1".to_owned()].into());
    let kept = store.kept_checkpoints("", 10).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].bytes, &kept[0].jobs), (1000, &vec![job(1)]));
    assert!(
        store
            .kept_checkpoints(&kept[0].blake3, 10)
            .await
            .unwrap()
            .is_empty()
    );

    // Results are enough for the one that is finished; the other one is not finished.
    execute(store, "UPDATE sweep SET retention = 'results'").await;
    assert_eq!(needed(store).await.len(), 1);
    execute(store, "DELETE FROM sweep WHERE name = 'one'").await;
    assert_eq!(needed(store).await.len(), 0);
    execute(store, "UPDATE sweep SET retention = 'all'").await;
    assert_eq!(needed(store).await.len(), 1);

    let data = store.needed_data().await.unwrap();
    let data: BTreeSet<_> = data.iter().map(String::as_str).collect();
    assert_eq!(data, ["aa", "bb"].into());
}

#[tokio::test]
async fn states_of_unfinished_trainings_are_needed() {
    let postgres = scene().await;
    let store = &postgres.store;
    let all = [1, 2, 9].map(job);
    let week = Duration::from_secs(604_800);
    let needed = store.needed_states(&all, week).await.unwrap();
    assert_eq!(needed, [job(2)].into());
    assert_eq!(store.unreported_for().await.unwrap(), Duration::ZERO);

    let cancel = "UPDATE job SET state = 'cancelled' WHERE seed = 2";
    execute(store, cancel).await;
    assert_eq!(
        store.needed_states(&all, week).await.unwrap(),
        [job(2)].into()
    );
    assert!(
        store
            .needed_states(&all, Duration::ZERO)
            .await
            .unwrap()
            .is_empty()
    );
    execute(
        store,
        "UPDATE job SET changed = now() - interval '8 days' WHERE seed = 2",
    )
    .await;
    assert!(store.needed_states(&all, week).await.unwrap().is_empty());

    // A training at work may have uploaded what it has yet to report.
    execute(
        store,
        "INSERT INTO attempt (id, job, worker, session, granted)
             SELECT md5('x')::uuid, id, 'w', gen_random_uuid(), now() - interval '3 hours'
             FROM job WHERE seed = 2;
         UPDATE job SET state = 'ready' WHERE seed = 2;
         UPDATE job SET state = 'queued', attempt = md5('x')::uuid, worker = 'w',
             session = gen_random_uuid(), lease_until = now() WHERE seed = 2",
    )
    .await;
    let since = store.unreported_for().await.unwrap();
    assert!(since >= Duration::from_secs(10_800), "{since:?}");
    let measured = store.measured().await.unwrap();
    assert_eq!(measured.len(), 1);
    assert_eq!((measured[0].epoch_seconds, measured[0].epochs), (5.0, 10.0));
    assert_eq!(measured[0].checkpoint_bytes, Some(1000.0));
}

#[tokio::test]
async fn dump_fills_an_empty_database_alone() {
    let one = scene().await;
    let two = Postgres::start().await;
    let mut dump = one.store.dump().await.unwrap();
    // What happens meanwhile is not in it.
    execute(&one.store, "DELETE FROM sweep WHERE name = 'one'").await;
    let mut refill = two.store.refill().await.unwrap().unwrap();
    assert_eq!(refill.migrations, dump.migrations);
    for table in dump.tables.clone() {
        let content: Vec<_> = dump.copy(&table).await.unwrap().collect().await;
        let rows = refill
            .copy::<StoreError>(&table, futures::stream::iter(content))
            .await
            .unwrap();
        assert_eq!(rows > 0, rows_of(&table.name) > 0, "{}", table.name);
    }
    let checkpoints = dump.checkpoints().await.unwrap();
    assert_eq!(checkpoints.len(), 2);
    dump.close().await.unwrap();
    refill.commit().await.unwrap();

    assert_eq!(two.count("SELECT count(*) FROM sweep").await, 2);
    let name: String = sqlx::query_scalar("SELECT name FROM sweep WHERE name LIKE 'two%'")
        .fetch_one(two.store.pool())
        .await
        .unwrap();
    assert_eq!(name, "two\twith\\odd\nname");
    let ids = [&one.store, &two.store].map(Store::installation);
    let [first, second] = ids;
    assert_eq!(first.await.unwrap(), second.await.unwrap());
    // Its sequence goes on behind the rows.
    execute(
        &two.store,
        "INSERT INTO dead_letter (subject, sequence, reason, payload) VALUES ('s', 2, 'bad', '')",
    )
    .await;
    // Not a second time, and not under a leader.
    let refused = two.store.refill().await.unwrap().unwrap_err();
    assert_eq!(refused, Occupied::NotEmpty { sweeps: 2, jobs: 3 });
    let three = Postgres::start().await;
    execute(
        &three.store,
        "UPDATE leadership SET holder = 'node-1', expires = now() + interval '1 minute'",
    )
    .await;
    let refused = three.store.refill().await.unwrap().unwrap_err();
    let holder = "node-1".to_owned();
    assert_eq!(refused, Occupied::Served { holder });
}

/// Whether the scene has rows of a table.
fn rows_of(table: &str) -> u64 {
    let none = [
        "dataset",
        "epoch_log",
        "prediction",
        "evaluation",
        "result",
        "conflict",
        "other_processor",
        "attempt_output",
        "drained_worker",
    ];
    u64::from(!none.contains(&table))
}

#[tokio::test]
async fn every_table_is_in_a_dump_or_left_out_on_purpose() {
    let postgres = Postgres::start().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1",
    )
    .fetch_all(postgres.store.pool())
    .await
    .unwrap();
    let known: BTreeSet<_> = TABLES.iter().chain(&LEFT_OUT).copied().collect();
    let found: BTreeSet<_> = tables.iter().map(String::as_str).collect();
    assert_eq!(found, known);
    execute(&postgres.store, "CREATE TABLE mystery (x int)").await;
    assert!(postgres.store.dump().await.is_err());
}

#[tokio::test]
async fn first_store_is_the_installations() {
    let postgres = Postgres::start().await;
    let store = &postgres.store;
    let one = Uuid::new_v4().to_string();
    assert_eq!(store.artifact_store().await.unwrap(), None);
    assert_eq!(store.claim_store(&one).await.unwrap(), Ok(()));
    assert_eq!(store.claim_store(&one).await.unwrap(), Ok(()));
    assert_eq!(store.claim_store("other").await.unwrap(), Err(one.clone()));
    assert_eq!(store.replace_store(Some("other")).await.unwrap(), Some(one));
    assert_eq!(store.claim_store("other").await.unwrap(), Ok(()));
}

#[tokio::test]
async fn missing_rights_and_limits_are_found() {
    let postgres = Postgres::start().await;
    let facts = postgres.store.server_facts().await.unwrap();
    assert!(
        facts.version >= 150_000 && facts.max_connections > 0,
        "{facts:?}"
    );
    assert!(
        postgres
            .store
            .missing_privileges()
            .await
            .unwrap()
            .is_empty()
    );
    assert!(postgres.store.keeps_sessions().await.unwrap());
    execute(
        &postgres.store,
        "CREATE ROLE guest LOGIN CONNECTION LIMIT 4;
         ALTER ROLE guest SET statement_timeout = '7s';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest;
         REVOKE INSERT ON epoch_log FROM guest",
    )
    .await;
    let options = postgres.store.options().clone().username("guest");
    let guest = Store::connect_with(options).await.unwrap();
    let facts = guest.server_facts().await.unwrap();
    assert_eq!(facts.role_connections, Some(4));
    assert_eq!(facts.statement_timeout_ms, 7000);
    assert_eq!(
        guest.missing_privileges().await.unwrap(),
        ["INSERT on epoch_log"]
    );
}
