//! Artifacts that nobody needs go, and nothing else; backups come back; missing checkpoints are made anew.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, output},
    servers::Nats,
    site::Site,
};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const OPEN: &str =
    "SELECT count(*) FROM job WHERE state IN ('blocked', 'ready', 'queued', 'running')";

/// Makes a file as old as one of a week ago.
fn make_old(path: &Path) -> Result<()> {
    let old = SystemTime::now() - Duration::from_secs(8 * 86_400);
    Ok(File::options().write(true).open(path)?.set_modified(old)?)
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    if folder.exists() {
        for file in std::fs::read_dir(folder)? {
            found.insert(file?.path());
        }
    }
    Ok(found)
}

fn deleted(gc: &serde_json::Value) -> Result<u64> {
    gc["freed"]["deleted"]["count"]
        .as_u64()
        .context("nothing was deleted")
}

/// A site whose sweeps are finished.
async fn finished(sweeps: &[(&str, &[u64])]) -> Result<Site> {
    let site = Site::start()?;
    for (name, seeds) in sweeps {
        site.spec(name, seeds)?;
        output(&mut site.coord(&["submit", &format!("{name}.toml")])?)?;
    }
    let _serve = site.serve()?;
    let _worker = Process::spawn(&mut site.worker("w")?)?;
    site.finished().await?;
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_deletes_what_nobody_needs_and_nothing_else() -> Result<()> {
    // Seed 1 belongs to both.
    let site = finished(&[("one", &[1, 2]), ("two", &[1])]).await?;
    let tables = site.tables("two")?;
    let checkpoints = site.artifacts().join("checkpoints");
    let resume = site.artifacts().join("resume");
    let before = files(&checkpoints)?;
    ensure!(!before.is_empty());
    for path in &before {
        make_old(path)?;
    }
    // What a broken worker leaves: a state of an unknown job, a checkpoint nobody reported, old and
    // young, and half a file.
    std::fs::create_dir_all(&resume)?;
    let junk = |name: &str| checkpoints.join(format!("{}.safetensors", name.repeat(64)));
    let state = resume.join("00000000-0000-8000-8000-000000000001");
    let half = checkpoints.join(".halfheard-AbCdEf");
    let mine = checkpoints.join("notes.txt");
    for path in [&junk("a"), &junk("b"), &state, &half, &mine] {
        std::fs::write(path, "junk")?;
    }
    for path in [&junk("a"), &state, &half, &mine] {
        make_old(path)?;
    }

    let dry = site.json(&["gc", "--dry-run"])?;
    assert_eq!(dry["kinds"]["checkpoints"]["unneeded"]["count"], 1, "{dry}");
    assert_eq!(dry["kinds"]["checkpoints"]["young"]["count"], 1, "{dry}");
    assert_eq!(dry["leftovers"]["unneeded"]["count"], 1, "{dry}");
    assert!(junk("a").exists() && half.exists());
    // Nobody is there to be asked.
    assert!(!site.coord(&["gc"])?.output()?.status.success());
    assert!(junk("a").exists());

    let gc = site.json(&["gc", "--yes"])?;
    assert_eq!(gc["freed"]["failed"], 0, "{gc}");
    assert!(deleted(&gc)? >= 3, "{gc}");
    for gone in [junk("a"), state, half] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert!(junk("b").exists() && mine.exists());
    assert!(
        before.is_subset(&files(&checkpoints)?),
        "a needed checkpoint is gone"
    );

    // With the sweep goes what only it asked for.
    output(&mut site.coord(&["delete", "one", "--yes"])?)?;
    site.json(&["gc", "--yes"])?;
    let after = files(&checkpoints)?;
    let left: Vec<_> = before.intersection(&after).collect();
    assert!(
        !left.is_empty() && left.len() < before.len(),
        "{left:?} of {before:?}"
    );
    assert_eq!(site.tables("two")?, tables);

    // Results stay without their checkpoints where that is enough.
    let store = site.store().await?;
    sqlx::query("UPDATE sweep SET retention = 'results'")
        .execute(store.pool())
        .await?;
    site.json(&["gc", "--yes"])?;
    let after = files(&checkpoints)?;
    assert_eq!(before.intersection(&after).count(), 0);
    assert_eq!(site.tables("two")?, tables);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_keeps_what_a_sweep_at_work_needs() -> Result<()> {
    let site = Site::start()?;
    site.spec("one", &[1, 2, 3])?;
    output(&mut site.coord(&["submit", "one.toml"])?)?;
    let _serve = site.serve()?;
    let _worker = Process::spawn(&mut site.worker("w")?)?;
    // However often, in the middle of it, and with states that were saved long ago.
    loop {
        for path in files(&site.artifacts().join("resume"))? {
            // It may have been replaced or deleted meanwhile.
            let _ = make_old(&path);
        }
        let gc = site.json(&["gc", "--yes", "--keep-states", "0"])?;
        assert_eq!(gc["freed"]["failed"].as_u64().unwrap_or(0), 0, "{gc}");
        if site.until(OPEN, |_| true).await? == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(site.finished().await?, 12);
    site.until(
        "SELECT count(*) FROM attempt WHERE outcome <> 'done'",
        |n| n == 0,
    )
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_half_a_sweep_is_restored_and_finished() -> Result<()> {
    let first = Site::start()?;
    first.spec("one", &[1, 2, 3, 4, 5])?;
    output(&mut first.coord(&["submit", "one.toml"])?)?;
    let serve = first.serve()?;
    let worker = Process::spawn(&mut first.worker("w")?)?;
    first
        .until("SELECT count(*) FROM job WHERE state = 'done'", |done| {
            done >= 2
        })
        .await?;
    let backups = tempfile::tempdir()?;
    let backup = backups.path().join("b");
    let folder = backup.display().to_string();
    // While everything runs.
    let saved = first.json(&["backup", &folder, "--with-checkpoints"])?;
    assert_eq!(saved["missing_checkpoints"], 0, "{saved}");
    // It is not written over.
    assert!(
        !first
            .coord(&["backup", &folder])?
            .output()?
            .status
            .success()
    );
    first.finished().await?;
    let tables = first.tables("one")?;
    drop((serve, worker));
    drop(first);

    // Other servers, another disk.
    let second = Site::start()?;
    let restored = second.json(&["restore", &folder])?;
    assert_eq!(restored["missing_checkpoints"], 0, "{restored}");
    assert_eq!(restored["rows"], saved["rows"]);
    // A database with sweeps is not written over.
    let again = second.coord(&["restore", &folder])?.output()?;
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr)?.contains("not empty"));
    assert!(
        second.until(OPEN, |_| true).await? > 0,
        "nothing is left to do"
    );
    // Data files are no part of a backup: the same spec says where they are now.
    second.spec("one", &[1, 2, 3, 4, 5])?;
    output(&mut second.coord(&["submit", "one.toml"])?)?;
    let _serve = second.serve()?;
    let _worker = Process::spawn(&mut second.worker("w2")?)?;
    assert_eq!(second.finished().await?, 20);
    assert_eq!(second.tables("one")?, tables);
    second
        .until("SELECT count(*) FROM conflict", |conflicts| conflicts == 0)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_backup_is_refused_before_anything_is_written() -> Result<()> {
    let site = finished(&[("one", &[1])]).await?;
    let backups = tempfile::tempdir()?;
    let backup = backups.path().join("b");
    let folder = backup.display().to_string();
    output(&mut site.coord(&["backup", &folder])?)?;
    let other = Site::start()?;
    let refused = |reason: &str| -> Result<()> {
        let tried = other.coord(&["restore", &folder])?.output()?;
        let told = String::from_utf8(tried.stderr)?;
        ensure!(!tried.status.success() && told.contains(reason), "{told}");
        Ok(())
    };
    let table = backup.join("tables/result.copy.gz");
    let content = std::fs::read(&table)?;
    std::fs::write(&table, &content[..content.len() / 2])?;
    refused("damaged")?;
    std::fs::write(&table, content)?;
    let manifest = backup.join("manifest.json");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(
        &manifest,
        text.replacen("\"checksum\": \"", "\"checksum\": \"0", 1),
    )?;
    refused("migration")?;
    std::fs::remove_file(&manifest)?;
    refused("not a finished backup")?;
    std::fs::write(&manifest, text)?;
    output(&mut other.coord(&["restore", &folder])?)?;
    assert_eq!(other.tables("one")?, site.tables("one")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_checkpoints_are_listed_and_made_anew() -> Result<()> {
    let site = finished(&[("one", &[1, 2])]).await?;
    let tables = site.tables("one")?;
    let all = files(&site.artifacts().join("checkpoints"))?;
    let lost = all.first().context("no checkpoint")?;
    let name = lost
        .file_stem()
        .context("no name")?
        .to_string_lossy()
        .into_owned();
    std::fs::remove_file(lost)?;

    let told = site.coord(&["doctor", "--checkpoints"])?.output()?;
    assert!(!told.status.success());
    assert!(String::from_utf8(told.stdout)?.contains(&name));
    site.until(OPEN, |open| open == 0).await?;

    let _ = site
        .coord(&["doctor", "--checkpoints", "--repair", "--yes"])?
        .output()?;
    assert!(
        site.until(OPEN, |_| true).await? > 0,
        "nothing was sent back"
    );
    let _serve = site.serve()?;
    let _worker = Process::spawn(&mut site.worker("again")?)?;
    site.finished().await?;
    assert!(lost.exists(), "the weights have another hash");
    assert_eq!(site.tables("one")?, tables);
    site.until("SELECT count(*) FROM conflict", |conflicts| conflicts == 0)
        .await?;
    Ok(())
}

/// A broker with room for little: artifacts fill it, and reports still arrive.
#[tokio::test(flavor = "multi_thread")]
async fn full_bucket_stops_artifacts_and_not_reports() -> Result<()> {
    let nats = Nats::configured("jetstream { max_file_store: 24MB }")?;
    let mut site = Site::with(nats)?;
    site.use_artifacts("nats://");
    site.spec("one", &[1, 2])?;
    let _serve = site.serve()?;
    output(&mut site.coord(&["submit", "one.toml"])?)?;

    let client = async_nats::connect(site.nats.url()).await?;
    let jetstream = async_nats::jetstream::new(client);
    let mut bucket = None;
    for _ in 0..200 {
        if let Ok(stream) = jetstream.get_stream("OBJ_halfheard_ARTIFACTS").await {
            bucket = Some(stream);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bucket = bucket.context("the bucket is not made")?;
    ensure!(bucket.cached_info().config.max_bytes < 24 << 20, "no limit");
    // As an upload does that never ends, but for a little: workers begin where a probe still fits.
    let parts = "$O.halfheard_ARTIFACTS.C.filler";
    for size in [500_000, 50_000] {
        while jetstream
            .publish(parts, vec![0; size].into())
            .await?
            .await
            .is_ok()
        {}
    }
    let _worker = Process::spawn(&mut site.worker("w")?)?;
    // Epochs are reported, and nothing fails.
    site.until("SELECT count(*) FROM epoch_log", |epochs| epochs >= 4)
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    site.until(
        "SELECT count(*) FROM job WHERE state IN ('failed', 'done')",
        |n| n == 0,
    )
    .await?;
    bucket.purge().filter(parts).await?;
    // It goes on by itself.
    assert_eq!(site.finished().await?, 8);
    site.until(
        "SELECT coalesce(sum(failures + losses), 0)::bigint FROM job",
        |n| n == 0,
    )
    .await?;
    Ok(())
}
