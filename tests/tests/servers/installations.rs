//! Several installations: a stranger's database, another store, two prefixes on one broker.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, output},
    site::Site,
};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The same with the other's broker.
fn on_broker_of<'a>(command: &'a mut Command, other: &Site) -> &'a mut Command {
    command.env("HALFHEARD_NATS_URL", other.nats.url())
}

fn fails_with(command: &mut Command) -> Result<String> {
    let output = command.stdout(Stdio::null()).output()?;
    ensure!(!output.status.success(), "it succeeds");
    Ok(String::from_utf8(output.stderr)?)
}

async fn named(site: &Site, name: &str) -> Result<()> {
    let store = site.store().await?;
    sqlx::query("UPDATE installation SET name = $1")
        .bind(name)
        .execute(store.pool())
        .await?;
    store.pool().close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn second_database_on_a_broker_is_refused_with_both_names() -> Result<()> {
    let (one, two) = (Site::start()?, Site::start()?);
    named(&one, "team-one").await?;
    named(&two, "team-two").await?;
    one.spec("first", &[1])?;
    output(&mut one.coord(&["submit", "first.toml"])?)?;
    let _serve = one.serve()?;
    let _worker = Process::spawn(&mut one.worker("one")?)?;
    one.finished().await?;

    let mut stranger = two.coord(&["serve"])?;
    let told = fails_with(on_broker_of(&mut stranger, &one))?;
    assert!(
        told.contains("team-one") && told.contains("team-two"),
        "{told}"
    );
    assert!(told.contains("HALFHEARD_NATS_PREFIX"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_share_a_broker_by_their_prefixes() -> Result<()> {
    let (one, two) = (Site::start()?, Site::start()?);
    one.spec("first", &[1, 2])?;
    two.spec("second", &[1, 2])?;
    output(&mut one.coord(&["submit", "first.toml"])?)?;
    output(&mut two.coord(&["submit", "second.toml"])?)?;
    let prefix = "HALFHEARD_NATS_PREFIX";
    let mut running = Vec::new();
    for mut command in [one.coord(&["serve"])?, one.worker("same")?] {
        running.push(Process::spawn(command.env(prefix, "team-one"))?);
    }
    for mut command in [two.coord(&["serve"])?, two.worker("same")?] {
        let command = on_broker_of(&mut command, &one).env(prefix, "team-two");
        running.push(Process::spawn(command)?);
    }
    assert_eq!(one.finished().await?, 8);
    assert_eq!(two.finished().await?, 8);
    for site in [&one, &two] {
        // Each heard its own alone.
        site.until("SELECT count(*) FROM dead_letter", |letters| letters == 0)
            .await?;
        site.until(
            "SELECT count(*) FROM attempt WHERE outcome <> 'done'",
            |n| n == 0,
        )
        .await?;
    }
    assert_eq!(one.tables("first")?, two.tables("second")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_on_another_store_is_refused_with_both_ids() -> Result<()> {
    let site = Site::start()?;
    let _serve = site.serve()?;
    let _good = Process::spawn(&mut site.worker("good")?)?;
    site.until("SELECT count(store) FROM installation", |stores| {
        stores == 1
    })
    .await?;
    let elsewhere = tempfile::tempdir()?;
    let mut other = site.worker("lost")?;
    other.env(
        "HALFHEARD_ARTIFACTS",
        format!("file://{}", elsewhere.path().display()),
    );
    let _other = Process::spawn(&mut other)?;
    let ids = |folder: &std::path::Path| std::fs::read_to_string(folder.join("store-id"));
    let since = Instant::now();
    loop {
        let status = site.json(&["status"])?;
        let workers = status["workers"].as_array().context("no workers")?;
        let name = |beat: &serde_json::Value| beat["worker"]["name"].to_string();
        let lost = workers.iter().find(|beat| name(beat).contains("lost"));
        let told = lost.map(ToString::to_string).unwrap_or_default();
        let known = [ids(&site.artifacts()), ids(elsewhere.path())];
        if known
            .iter()
            .all(|id| id.as_ref().is_ok_and(|id| told.contains(id.trim())))
        {
            break;
        }
        ensure!(since.elapsed() < PATIENCE, "not refused: {told}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Commands that open a store look, too.
    let mut gc = site.coord(&["gc", "--dry-run"])?;
    gc.env(
        "HALFHEARD_ARTIFACTS",
        format!("file://{}", elsewhere.path().display()),
    );
    let told = fails_with(&mut gc)?;
    assert!(told.contains(ids(&site.artifacts())?.trim()), "{told}");
    Ok(())
}
