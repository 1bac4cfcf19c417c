//! `coord doctor`: what this machine has of all that halfheard needs, and what to do about the rest.

use crate::{
    config::{Origin, Settings},
    local::Servers,
    local::connect::Database,
    local::programs::{Part, ProgramError, Programs},
    local::worker_check::{self, WorkerCheck},
    submission::demand,
    submission::encoders::{self, ExamineError},
    submission::specs,
};
use halfheard_shared::hash_cache::HashCache;
use halfheard_shared::{dataset::DataFolder, text::count};
use halfheard_store::Store;
use nix::sys::statvfs::statvfs;
use serde::Serialize;
use std::{path::Path, process::ExitCode, time::Duration};

/// How long each server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Free space below which a sweep may not fit.
const ROOM: u64 = 5 << 30;

/// Arguments of `coord doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Each line is ok, a warning (something that not every use needs) or bad. Ends with 1 if anything is
bad.

Examples:
  coord doctor            is everything here for `coord run`, and is the cluster in reach?
  coord doctor --json     for a node's health check")]
pub struct DoctorArgs {}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Not every use needs it.
    Warn,
    /// It must be repaired.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do, unless all is well.
    remedy: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn not(
        what: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            what,
            verdict,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Looks at everything.
///
/// # Errors
///
/// None of its own: what is wrong is what it prints.
pub async fn run(_args: DoctorArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let programs = Programs::discover();
    let mut findings = vec![
        settings_found(settings),
        program(&programs, Part::Nats, "nats-server"),
        program(&programs, Part::Postgres, "PostgreSQL"),
        broker(settings).await,
        database(settings).await,
    ];
    findings.push(part(&programs, Part::Libtorch, "libtorch", Verdict::Bad));
    findings.extend(worker(&programs).await);
    let mut hashes = HashCache::open(&settings.data_dir);
    for (part, what) in [
        (Part::EncoderEn, "encoder (en)"),
        (Part::EncoderZh, "encoder (zh)"),
    ] {
        findings.push(encoder(&programs, part, what, &mut hashes));
    }
    hashes.save();
    findings.push(datasets(settings));
    findings.push(writable(&settings.data_dir));
    findings.extend(memory(settings, &programs));
    findings.push(room(settings));

    let bad = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Bad);
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings, settings.color);
    }
    Ok(ExitCode::from(u8::from(bad)))
}

fn print(findings: &[Finding], color: bool) {
    let width = findings
        .iter()
        .map(|finding| finding.what.chars().count())
        .max()
        .unwrap_or(0);
    for finding in findings {
        let (word, paint) = match finding.verdict {
            Verdict::Ok => ("ok  ", "\x1b[32m"),
            Verdict::Warn => ("warn", "\x1b[33m"),
            Verdict::Bad => ("BAD ", "\x1b[31;1m"),
        };
        let (start, end) = if color { (paint, "\x1b[0m") } else { ("", "") };
        println!(
            "{start}{word}{end}  {:width$}  {}",
            finding.what, finding.found
        );
        if let Some(remedy) = &finding.remedy {
            println!("      {:width$}  -> {remedy}", "");
        }
    }
}

fn settings_found(settings: &Settings) -> Finding {
    let file = match &settings.config_file {
        Some(path) => format!("config file {}", path.display()),
        None => "no config file".to_owned(),
    };
    Finding::ok(
        "settings",
        format!("{file}; data folder {}", settings.data_dir.display()),
    )
}

/// A program of `coord run`'s private servers. A node of a cluster need not have it.
fn program(programs: &Programs, part: Part, what: &'static str) -> Finding {
    match programs.find(part) {
        Ok(found) => Finding::ok(
            what,
            format!("{} ({})", found.version, found.path.display()),
        ),
        Err(error) => Finding::not(
            what,
            Verdict::Warn,
            format!("`coord run` cannot start one: {}", error.found()),
            error.remedy(),
        ),
    }
}

fn part(programs: &Programs, part: Part, what: &'static str, missing: Verdict) -> Finding {
    match programs.find(part) {
        Ok(found) => Finding::ok(
            what,
            format!("{} ({})", found.version, found.path.display()),
        ),
        // One that is there and is wrong is worse than none.
        Err(error) => {
            let verdict = match error {
                ProgramError::Missing { .. } => missing,
                ProgramError::Unusable { .. } => Verdict::Bad,
            };
            Finding::not(what, verdict, error.found(), error.remedy())
        }
    }
}

/// A text encoder, as a training would find it.
fn encoder(
    programs: &Programs,
    part_of: Part,
    what: &'static str,
    hashes: &mut HashCache,
) -> Finding {
    let found = match programs.find(part_of) {
        Ok(found) => found,
        Err(_) => return part(programs, part_of, what, Verdict::Warn),
    };
    let bad = |found: String, remedy: &str| Finding::not(what, Verdict::Bad, found, remedy);
    match encoders::examine(&found.path, hashes) {
        Ok(examined) => Finding::ok(
            what,
            format!("{} ({})", examined.summary, found.path.display()),
        ),
        Err(ExamineError::Unfit(error)) => bad(
            format!("{} cannot be used: {}", error.folder.display(), error.found),
            &error.remedy,
        ),
        Err(ExamineError::Unreadable { path, source }) => bad(
            format!("{} cannot be read: {source}", path.display()),
            "check the file and its permissions",
        ),
    }
}

async fn broker(settings: &Settings) -> Finding {
    const WHAT: &str = "broker";
    let address = settings.broker.address();
    let asked = async {
        let broker = settings
            .broker
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let version = broker.client().server_info().version;
        broker
            .jetstream()
            .query_account()
            .await
            .map_err(|error| format!("it has no JetStream: {error}"))?;
        // Not made before a coordinator has served once.
        let streams = broker.results().await.is_ok();
        Ok::<_, String>((version, streams))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((version, streams))) => {
            let streams = if streams {
                "its streams are made"
            } else {
                "its streams are not made yet, `coord serve` does it"
            };
            Finding::ok(
                WHAT,
                format!("nats-server {version} at {address}, JetStream on; {streams}"),
            )
        }
        trouble => {
            let reason = match trouble {
                Ok(Err(reason)) => reason,
                _ => format!("{address} does not answer"),
            };
            let remedy = "start `nats-server -c deploy/nats.conf`, or set HALFHEARD_NATS_URL (docs/guide/cluster.md)";
            unreachable(WHAT, &settings.broker_origin, reason, remedy)
        }
    }
}

/// A server that nobody asked for may be away: `coord run` brings its own.
fn unreachable(what: &'static str, origin: &Origin, reason: String, remedy: &str) -> Finding {
    match origin {
        Origin::Default | Origin::Private => Finding::not(
            what,
            Verdict::Warn,
            "none is set and none answers at the usual address; `coord run` needs none",
            remedy,
        ),
        origin => Finding::not(
            what,
            Verdict::Bad,
            format!("{reason} (from {origin})"),
            remedy,
        ),
    }
}

async fn database(settings: &Settings) -> Finding {
    const WHAT: &str = "database";
    let private =
        settings.database_origin == Origin::Default && Servers::exists(&settings.data_dir);
    if private {
        return match Database::open(settings).await {
            Ok(database) => {
                let version = server_version(&database).await;
                database.close().await;
                Finding::ok(
                    WHAT,
                    format!("the private one of `coord run`, PostgreSQL {version}, migrated"),
                )
            }
            Err(error) => Finding::not(
                WHAT,
                Verdict::Bad,
                format!("{error:#}"),
                "look at embedded/postgres.log in the data folder",
            ),
        };
    }
    let asked = async {
        let store = Store::connect_with(settings.database.clone()).await?;
        Ok::<_, halfheard_store::StoreError>((
            server_version(&store).await,
            store.missing_migrations().await,
        ))
    };
    let address = settings.database_address();
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((version, Ok(0)))) => {
            Finding::ok(WHAT, format!("PostgreSQL {version} at {address}, migrated"))
        }
        Ok(Ok((version, Ok(missing)))) => Finding::not(
            WHAT,
            Verdict::Bad,
            format!("PostgreSQL {version} at {address} lacks {missing} migrations"),
            "`coord migrate`",
        ),
        Ok(Ok((_, Err(error)))) => Finding::not(
            WHAT,
            Verdict::Bad,
            error.to_string(),
            "run the same release everywhere",
        ),
        trouble => {
            let reason = match trouble {
                Ok(Err(error)) => error.to_string(),
                _ => format!("{address} does not answer"),
            };
            let remedy = "start PostgreSQL 15 or newer, `createdb halfheard && coord migrate`, or set HALFHEARD_DATABASE_URL";
            unreachable(WHAT, &settings.database_origin, reason, remedy)
        }
    }
}

async fn server_version(store: &Store) -> String {
    let version = store.server_version().await;
    version.unwrap_or_else(|_| "of unknown version".to_owned())
}

/// The worker, and what it says of libtorch and GPUs when it is asked.
async fn worker(programs: &Programs) -> Vec<Finding> {
    const WHAT: &str = "worker";
    let found = match programs.find(Part::Worker) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::not(
                WHAT,
                Verdict::Bad,
                error.found(),
                error.remedy(),
            )];
        }
    };
    let (path, programs) = (found.path.clone(), programs.clone());
    let asked = tokio::task::spawn_blocking(move || {
        worker_check::ask(&path, &programs, &["--check".to_owned()])
    });
    let check = match asked.await {
        Ok(Ok(check)) => check,
        Ok(Err(error)) => {
            return vec![Finding::not(
                WHAT,
                Verdict::Bad,
                format!("`worker --check`: {error}"),
                "check LIBTORCH and LD_LIBRARY_PATH",
            )];
        }
        Err(error) => {
            return vec![Finding::not(
                WHAT,
                Verdict::Bad,
                error.to_string(),
                "try again",
            )];
        }
    };
    vec![
        Finding::ok(
            WHAT,
            format!("{} ({})", found.version, found.path.display()),
        ),
        devices(&check),
    ]
}

/// Where slots compute, and what keeps them off a GPU.
fn devices(check: &WorkerCheck) -> Finding {
    const WHAT: &str = "device";
    let driver = match &check.driver {
        Some(driver) => format!(", NVIDIA driver {driver}"),
        None => String::new(),
    };
    let remedy = || {
        let remedy = check.remedy.clone();
        remedy.unwrap_or_else(|| "see what `nvidia-smi` and `worker --check` say".to_owned())
    };
    if let Some(error) = &check.device_error {
        // With its remedy, where there is one.
        return Finding::not(WHAT, Verdict::Bad, error.clone(), remedy());
    }
    match (&check.trouble, &check.trouble_says) {
        (Some(trouble), Some(says)) => {
            // Without a CUDA build nothing is broken: the CPU is what there is.
            let plain = trouble.kind == "no_cuda_build";
            let verdict = if plain { Verdict::Warn } else { Verdict::Bad };
            let found = format!(
                "{says}; {}, {} CPU threads each",
                check.places(),
                check.threads
            );
            Finding::not(WHAT, verdict, found, remedy())
        }
        _ if check.gpus == 0 => Finding::ok(
            WHAT,
            format!("{}, {} CPU threads each", check.places(), check.threads),
        ),
        _ => {
            let gpus = count(check.gpus, "GPU");
            let mut found = format!("{gpus}{driver}; {}", check.places());
            if check.slots.len() < check.gpus {
                found += &format!("; `worker --slots {}` computes on all", check.gpus);
            }
            match check.warning() {
                Some(warning) => Finding::not(WHAT, Verdict::Warn, found, warning),
                None => Finding::ok(WHAT, found),
            }
        }
    }
}

fn datasets(settings: &Settings) -> Finding {
    const WHAT: &str = "datasets";
    let folder = DataFolder::new(&settings.data_dir);
    let none = || {
        Finding::not(
            WHAT,
            Verdict::Warn,
            format!("none in {}", settings.data_dir.display()),
            "`coord data import --as mosi FILE.pkl`; the demo makes its own",
        )
    };
    let names = match folder.names() {
        Ok(names) if names.is_empty() => return none(),
        Ok(names) => names,
        Err(error) => {
            return Finding::not(
                WHAT,
                Verdict::Bad,
                error.to_string(),
                "check the data folder's rights",
            );
        }
    };
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for name in names {
        let manifest = folder.manifest(&name);
        match manifest {
            Ok(_) if !folder.data_file(&name).exists() => {
                wrong.push(format!("{name} (its data file is gone)"));
            }
            Ok(manifest) => good.push(format!("{name} ({})", manifest.kind)),
            Err(error) => wrong.push(format!("{name} ({error})")),
        }
    }
    if wrong.is_empty() {
        Finding::ok(WHAT, good.join(", "))
    } else {
        Finding::not(
            WHAT,
            Verdict::Bad,
            format!("damaged: {}", wrong.join(", ")),
            "import them again; `coord data check NAME` reads one through",
        )
    }
}

/// The folder, or the nearest one above it that is there: it may not be made yet.
fn nearest(folder: &Path) -> &Path {
    folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"))
}

/// Whether the data folder takes files: found out by writing one, since rights, read-only mounts,
/// quotas and full disks each say so in another way.
fn writable(data_dir: &Path) -> Finding {
    const WHAT: &str = "data folder";
    let there = nearest(data_dir);
    let written = tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(there)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, &[0; 4096])?;
            file.as_file().sync_all()
        });
    match written {
        Ok(()) if there == data_dir => {
            Finding::ok(WHAT, format!("{} takes files", data_dir.display()))
        }
        Ok(()) => Finding::ok(
            WHAT,
            format!("{} can be made in {}", data_dir.display(), there.display()),
        ),
        Err(error) => Finding::not(
            WHAT,
            Verdict::Bad,
            format!("nothing can be written to {}: {error}", there.display()),
            "give yourself the right to write there, or name another folder with --data-dir or \
             HALFHEARD_DATA_DIR",
        ),
    }
}

/// The method that needs most memory on the datasets here, beside what there is.
fn memory(settings: &Settings, programs: &Programs) -> Option<Finding> {
    const WHAT: &str = "memory";
    let folder = DataFolder::new(&settings.data_dir);
    let available = demand::available()?;
    let encoder = |language: &str| {
        let part = if language == "zh" {
            Part::EncoderZh
        } else {
            Part::EncoderEn
        };
        specs::encoder_shape(&programs.find(part).ok()?.path)
    };
    let names = folder.names().ok()?;
    let most = names.iter().filter_map(|name| {
        let manifest = folder.manifest(name).ok()?;
        let kind = manifest.kind.as_str();
        let language = manifest.kind.language();
        demand::largest(kind, &specs::facts(&manifest), &encoder(language)?)
    });
    let most = most.max_by_key(|need| need.bytes)?;
    let found = format!(
        "{} free; a slot takes up to about {} on the CPU ({} on {})",
        demand::gigabytes(available),
        demand::gigabytes(most.bytes),
        most.method,
        most.dataset
    );
    let slots = super::run::slots::WORKERS as u64;
    if most.bytes.saturating_mul(slots) <= available {
        return Some(Finding::ok(WHAT, found));
    }
    let remedy = "fewer slots (`--workers 1`), a smaller `batch_size`, or a machine with more memory; \
                  `coord plan SPEC` tells each method's need";
    Some(Finding::not(WHAT, Verdict::Warn, found, remedy))
}

fn room(settings: &Settings) -> Finding {
    const WHAT: &str = "disk";
    let there = nearest(&settings.data_dir);
    match statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!(
                "{} free at {}",
                indicatif::HumanBytes(free),
                there.display()
            );
            if free >= ROOM {
                Finding::ok(WHAT, found)
            } else {
                Finding::not(
                    WHAT,
                    Verdict::Warn,
                    found,
                    "a model leaves up to five checkpoints of some 100 MB to 500 MB: free some, or use --data-dir",
                )
            }
        }
        Err(error) => Finding::not(
            WHAT,
            Verdict::Warn,
            format!(
                "the free space at {} is not known: {error}",
                there.display()
            ),
            "check the data folder",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_is_written_to_before_it_is_called_good() {
        let root = tempfile::tempdir().unwrap();
        let good = writable(root.path());
        assert_eq!(good.verdict, Verdict::Ok, "{}", good.found);
        let absent = root.path().join("not/yet");
        assert_eq!(writable(&absent).verdict, Verdict::Ok);
        assert!(!absent.exists());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        // A file where the folder should be: nobody can write into it, not even root.
        let file = root.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let bad = writable(&file);
        assert_eq!(bad.verdict, Verdict::Bad, "{}", bad.found);
        assert!(bad.remedy.unwrap().contains("--data-dir"));
    }
}
