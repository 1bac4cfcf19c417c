//! `coord submit`: submits a spec as a sweep.

use super::retry;
use crate::{
    commands::failures::{self, FailureGroup},
    config::Settings,
    exit::Exit,
    orchestrator::sweep_control::publish_soon,
    submission::encoders,
    submission::specs::{self, Loaded, Making},
};
use anyhow::Context as _;
use halfheard_shared::hash_cache::HashCache;
use halfheard_shared::{
    artifacts::{ArtifactStore, Hash, Key},
    encoder,
    ids::SweepId,
};
use halfheard_store::{Store, control::Reopen, submit::JobCounts};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `coord submit`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord submit deploy/benchmark.toml            submit it; the same spec again is the same sweep
  coord submit deploy/benchmark.toml --watch    and stay until it is over
  coord submit deploy/benchmark.toml --push     for workers that do not see this machine's files
  coord submit deploy/benchmark.toml --retry    and set going again what failed

`coord serve` and workers do the rest: `coord status` tells how far they are.")]
pub struct SubmitArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// Stay and tell how far it is until it is over
    #[arg(long)]
    watch: bool,
    /// Make another sweep of a spec that was submitted before
    #[arg(long)]
    new: bool,
    /// Set going again the jobs that failed before, as `coord retry` does
    #[arg(long)]
    retry: bool,
    /// Put datasets and encoders into the artifact store, for workers that do not see the files
    #[arg(long)]
    push: bool,
}

/// Submits a spec.
///
/// # Errors
///
/// A spec that cannot be used; the database cannot be reached. Then nothing was submitted.
pub async fn run(args: SubmitArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = Store::connect_with(settings.database.clone()).await?;
    store.check().await?;
    let loaded = specs::load(&args.spec, &settings.data_dir, Making::Make)?;
    if args.push {
        push(&loaded, settings).await?;
    }
    let nonce = args.new.then(fresh_nonce);
    let (sweep, submitted) = specs::submit(&store, &loaded, nonce.as_deref()).await?;
    // A sweep that was cancelled goes on when it is submitted again.
    let (mut reopened, mut priority_before) = (JobCounts::default(), None);
    let mut told = Ok(());
    if !submitted.new {
        let which = match args.retry {
            true => Reopen::Both,
            false => Reopen::Cancelled,
        };
        reopened = store.reopen(sweep, which).await?;
        priority_before = store.set_priority(sweep, loaded.spec.priority).await?;
        if reopened.total() > 0 {
            told = publish_soon(&store, &settings.broker, sweep).await;
        }
    }
    let progress = store.progress(sweep).await?;
    let failures = match progress.failed {
        0 => Vec::new(),
        _ => failures::grouped(&store, sweep).await?,
    };
    let failures: Vec<&FailureGroup> = failures.iter().filter(|group| group.given_up).collect();
    if settings.json {
        println!(
            "{}",
            json!({
                "sweep": sweep, "name": loaded.resolved.name, "new": submitted.new,
                "jobs": submitted.jobs, "reopened": reopened.total(), "progress": progress,
                "failures": failures, "priority": loaded.spec.priority,
                "priority_before": priority_before,
            })
        );
    } else {
        let jobs = submitted.jobs;
        let what = if submitted.new {
            "submitted"
        } else {
            "is there already"
        };
        println!(
            "{} ({}) {what}: {} trainings, {} evaluations",
            loaded.resolved.name,
            sweep.short(),
            jobs.train,
            jobs.eval
        );
        if let Some(before) = priority_before {
            println!(
                "its priority is {} now and was {before}",
                loaded.spec.priority
            );
        }
        if reopened.total() > 0 {
            println!("{}", retry::words(reopened));
        }
        if let Some(notice) = notice(progress.failed, &failures, sweep) {
            println!("{notice}");
        }
        if let Err(reason) = told {
            eprintln!("workers are not told yet, `coord serve` will do it: {reason}");
        }
    }
    if args.watch {
        return watch(&store, sweep, settings).await;
    }
    // What --watch would have ended with.
    Ok(match progress.open() == 0 && progress.failed > 0 {
        true => Exit::FailedJobs.into(),
        false => ExitCode::SUCCESS,
    })
}

/// How many jobs failed and why, in one line, and how to have them tried again.
pub(crate) fn notice(failed: i64, groups: &[&FailureGroup], sweep: SweepId) -> Option<String> {
    let (first, rest) = groups.split_first()?;
    let jobs = match failed {
        1 => "1 job failed".to_owned(),
        n => format!("{n} jobs failed"),
    };
    let mut text = format!("{jobs}: {}", first.cause);
    match rest.len() {
        0 => {}
        1 => text.push_str(", and for one other cause"),
        n => text.push_str(&format!(", and for {n} other causes")),
    }
    text.push_str(&format!(
        "\nonce that is mended: `coord retry {}`; `coord status {}` says more",
        sweep.short(),
        sweep.short()
    ));
    Some(text)
}

fn fresh_nonce() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{}.{}", now.map_or(0, |d| d.as_nanos()), std::process::id())
}

/// Puts a spec's files into the artifact store, under their hashes.
async fn push(loaded: &Loaded, settings: &Settings) -> anyhow::Result<()> {
    let broker = if settings.artifacts.starts_with("nats:") {
        let broker = settings.broker.connect().await?;
        broker.ensure().await?;
        Some(broker)
    } else {
        None
    };
    let artifacts = ArtifactStore::open(&settings.artifacts, broker.as_ref()).await?;
    let mut hashes = HashCache::open(&settings.data_dir);
    for dataset in &loaded.resolved.datasets {
        let data = hash(&dataset.data.blake3)?;
        put(&artifacts, Key::Blob(data), Path::new(&dataset.data.path)).await?;
        let encoder = hash(&dataset.encoder.blake3)?;
        push_encoder(
            &artifacts,
            encoder,
            Path::new(&dataset.encoder.path),
            &mut hashes,
        )
        .await?;
    }
    Ok(())
}

/// Puts an encoder into the artifact store: its configuration, its weights and, where these are
/// other than one `model.safetensors`, the list of their files.
async fn push_encoder(
    artifacts: &ArtifactStore,
    identity: Hash,
    folder: &Path,
    hashes: &mut HashCache,
) -> anyhow::Result<()> {
    let files = encoders::files(folder, hashes)?;
    let named = encoders::named(&files);
    anyhow::ensure!(
        encoder::identity(&named) == identity,
        "the weights in {} have changed meanwhile; submit again",
        folder.display()
    );
    let config = Key::EncoderConfig(identity.clone());
    put(artifacts, config, &folder.join("config.json")).await?;
    for file in &files {
        put(artifacts, Key::Blob(file.hash.clone()), &file.path).await?;
    }
    if !matches!(named.as_slice(), [(name, _)] if name == "model.safetensors") {
        let list = encoder::write_list(&named);
        artifacts
            .put(&Key::EncoderFiles(identity), list.into())
            .await?;
    }
    Ok(())
}

fn hash(text: &str) -> anyhow::Result<Hash> {
    text.parse().ok().context("a hash that is none")
}

async fn put(artifacts: &ArtifactStore, key: Key, path: &Path) -> anyhow::Result<()> {
    if artifacts.size(&key).await?.is_none() {
        eprintln!("pushing {}", path.display());
        artifacts.put_file(&key, path).await?;
    }
    Ok(())
}

/// Tells how far a sweep is until it is over.
async fn watch(store: &Store, sweep: SweepId, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut last = None;
    loop {
        // A database that goes away for a while is waited for.
        match store.progress(sweep).await {
            Ok(progress) => {
                if last != Some(progress) {
                    if settings.json {
                        println!("{}", serde_json::to_string(&progress)?);
                    } else {
                        println!(
                            "{} of {} done, {} running, {} failed",
                            progress.done,
                            progress.total(),
                            progress.running,
                            progress.failed
                        );
                    }
                    last = Some(progress);
                }
                if progress.open() == 0 {
                    return Ok(Exit::of_sweep(progress.failed).into());
                }
            }
            Err(error) if error.is_transient() => tracing::warn!(%error, "waiting"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
