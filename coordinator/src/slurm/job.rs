//! What is submitted: the script, its arguments, and the settings of its worker.

use super::SlurmError;
use crate::config::Settings;
use halfheard_shared::{
    address::holds_secret,
    atomic_file::{self, PRIVATE_MODE},
    env::{self, user_folder},
    text::quoted,
};
use std::{
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// The script for those who submit by hand; here, flags say what its `#SBATCH` lines say.
const SCRIPT: &str = include_str!("../../../deploy/slurm/worker.sbatch");
/// Slurm may be a minute early with a signal, and the worker must have ended before the limit.
const SIGNAL_MARGIN: Duration = Duration::from_secs(35);
const SIGNAL_MIN: Duration = Duration::from_secs(60);

/// What an allocation asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) partition: String,
    /// As Slurm writes it.
    pub(crate) time: String,
    /// `gpu:1`; `None` if none.
    pub(crate) gres: Option<String>,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory: Option<String>,
    pub(crate) account: Option<String>,
    /// The worker exits after this long without work.
    pub(crate) idle: Duration,
    /// A worker's shutdown may take this long.
    pub(crate) leave_within: Duration,
    /// The operator's own script.
    pub(crate) script: Option<PathBuf>,
    /// Further arguments of the worker.
    pub(crate) arguments: Vec<String>,
    /// A folder that compute nodes see as well.
    pub(crate) folder: PathBuf,
    /// The worker's settings, if the operator wrote them.
    pub(crate) settings: Option<PathBuf>,
    pub(crate) labels: Vec<String>,
    pub(crate) worker: Option<PathBuf>,
    pub(crate) libtorch: Option<PathBuf>,
}

/// A job that can be submitted as often as needed.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The name of all jobs of the installation.
    pub(crate) name: String,
    /// `sbatch`'s arguments.
    pub(crate) arguments: Vec<String>,
    /// What is added to its environment. Holds no secret.
    pub(crate) environment: Vec<(String, String)>,
    log: String,
}

impl Job {
    /// Writes the script and the worker's settings into the folder.
    ///
    /// # Errors
    ///
    /// A file cannot be written, others could read or replace it, or an argument holds a secret.
    pub(crate) fn prepare(
        wanted: &Wanted,
        installation: uuid::Uuid,
        settings: &Settings,
    ) -> Result<Self, SlurmError> {
        if wanted.arguments.iter().any(|argument| {
            let value = argument
                .split_once('=')
                .map_or(argument.as_str(), |(_, value)| value);
            holds_secret(value, true)
        }) {
            return Err(SlurmError::SecretInArgument);
        }
        private_folder(&wanted.folder)?;
        let script = match &wanted.script {
            Some(script) => script.clone(),
            None => {
                let script = wanted.folder.join("worker.sbatch");
                let lines = SCRIPT.lines().filter(|line| !line.starts_with("#SBATCH"));
                let text: String = lines.flat_map(|line| [line, "\n"]).collect();
                write(&script, 0o700, &text)?;
                script
            }
        };
        let own = wanted.folder.join("worker.env");
        let file = match &wanted.settings {
            Some(file) => file.clone(),
            None => {
                write(
                    &own,
                    PRIVATE_MODE,
                    &worker_settings(settings, std::env::vars()),
                )?;
                own
            }
        };
        check_private(&file)?;
        let log = wanted.folder.join(format!("{}-%j.log", wanted.partition));
        let name = format!("halfheard-{}", &installation.simple().to_string()[..8]);
        Ok(Self {
            arguments: arguments(wanted, &name, &log, &script),
            environment: environment(wanted, &file),
            name,
            log: log.display().to_string(),
        })
    }

    /// The file of the worker's log in the allocation with this number.
    pub(crate) fn log(&self, id: i64) -> String {
        self.log.replace("%j", &id.to_string())
    }
}

/// How long before the limit the script gets SIGTERM.
pub(crate) fn signal_before(leave_within: Duration) -> Duration {
    (leave_within + SIGNAL_MARGIN).max(SIGNAL_MIN)
}

fn arguments(wanted: &Wanted, name: &str, log: &Path, script: &Path) -> Vec<String> {
    let signal = signal_before(wanted.leave_within).as_secs();
    let mut all = vec![
        "--parsable".to_owned(),
        format!("--job-name={name}"),
        format!("--partition={}", wanted.partition),
        format!("--time={}", wanted.time),
        format!("--signal=B:TERM@{signal}"),
        format!("--output={}", log.display()),
    ];
    let fixed = [
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
        "--export=ALL",
    ];
    all.extend(fixed.map(str::to_owned));
    all.extend(wanted.gres.as_ref().map(|gres| format!("--gres={gres}")));
    all.extend(wanted.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    all.extend(
        wanted
            .memory
            .as_ref()
            .map(|memory| format!("--mem={memory}")),
    );
    all.extend(
        wanted
            .account
            .as_ref()
            .map(|account| format!("--account={account}")),
    );
    all.push(script.display().to_string());
    all.push("--once".to_owned());
    all.push(wanted.idle.as_secs().to_string());
    for label in &wanted.labels {
        all.extend(["--label".to_owned(), label.clone()]);
    }
    all.extend(wanted.arguments.iter().cloned());
    all
}

fn environment(wanted: &Wanted, settings: &Path) -> Vec<(String, String)> {
    let leave_within = wanted.leave_within.as_secs().to_string();
    let mut all = vec![
        ("HALFHEARD_ENV".to_owned(), settings.display().to_string()),
        ("HALFHEARD_REQUEUE".to_owned(), "0".to_owned()),
        (env::LEAVE_WITHIN.to_owned(), leave_within),
    ];
    let path = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
    all.extend(wanted.worker.iter().map(|worker| path(env::WORKER, worker)));
    all.extend(
        wanted
            .libtorch
            .iter()
            .map(|folder| path("LIBTORCH", folder)),
    );
    all
}

/// The user's own settings of workers, if there are any.
pub(crate) fn users_settings() -> Option<PathBuf> {
    let folder = user_folder(&env::process, "XDG_CONFIG_HOME", ".config")?;
    Some(folder.join("halfheard/worker.env")).filter(|file| file.is_file())
}

/// The connections of this command without the database, as the lines of a shell: workers have no
/// business there.
fn worker_settings(
    settings: &Settings,
    variables: impl Iterator<Item = (String, String)>,
) -> String {
    let broker = &settings.broker;
    let path = |path: &Path| path.display().to_string();
    let absolute =
        |file: &PathBuf| path(&std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    let mut lines = vec![
        (env::NATS_URL, Some(broker.url.clone())),
        (env::NATS_CREDS, broker.credentials.as_ref().map(absolute)),
        (env::NATS_CA, broker.tls.ca.as_ref().map(absolute)),
        (env::NATS_PREFIX, Some(broker.names.to_string())),
        (env::NATS_INBOX, broker.inbox.clone()),
        (env::ARTIFACTS, Some(settings.artifacts.clone())),
        // All is said here.
        (env::CONFIG, Some("/dev/null".to_owned())),
    ];
    if let Some((certificate, key)) = &broker.tls.identity {
        lines.push((env::NATS_CERT, Some(absolute(certificate))));
        lines.push((env::NATS_KEY, Some(absolute(key))));
    }
    let mut text = "# Written by `coord slurm`: the settings of its workers.\n".to_owned();
    // An artifact store on S3 is reached by these.
    let s3 = variables.filter(|(name, _)| name.starts_with("AWS_"));
    let lines = lines
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    for (name, value) in lines.chain(s3.map(|(name, value)| (name, Some(value)))) {
        if let Some(value) = value {
            text.push_str(&format!("{name}={}\n", quoted(&value)));
        }
    }
    text
}

fn private_folder(folder: &Path) -> Result<(), SlurmError> {
    let failed = |action, source| SlurmError::File {
        action,
        path: folder.to_owned(),
        source,
    };
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|source| failed("create", source))?;
    let meta = std::fs::metadata(folder).map_err(|source| failed("read", source))?;
    // Whoever can write here could have the user's jobs run something else.
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        let source = io::Error::other("other users can write to it; name another with --folder");
        return Err(failed("use", source));
    }
    Ok(())
}

fn check_private(file: &Path) -> Result<(), SlurmError> {
    let meta = std::fs::metadata(file).map_err(|source| SlurmError::File {
        action: "read",
        path: file.to_owned(),
        source,
    })?;
    match meta.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(SlurmError::Exposed {
            path: file.to_owned(),
        }),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), SlurmError> {
    atomic_file::write(path, mode, text.as_bytes()).map_err(|source| SlurmError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads a time limit as Slurm does: minutes, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`.
///
/// # Errors
///
/// What to write instead.
pub(crate) fn time_limit(text: &str) -> Result<Duration, String> {
    let parse = || {
        let (days, rest) = match text.split_once('-') {
            Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
            None => (None, text),
        };
        let fields: Option<Vec<u64>> = rest.split(':').map(|field| field.parse().ok()).collect();
        let seconds = match (days.is_some(), fields?.as_slice()) {
            (true, [h]) => h.checked_mul(3600)?,
            (true, [h, m]) => h.checked_mul(3600)?.checked_add(m.checked_mul(60)?)?,
            (false, [m]) => m.checked_mul(60)?,
            (false, [m, s]) => m.checked_mul(60)?.checked_add(*s)?,
            (_, [h, m, s]) => {
                let minutes = h.checked_mul(60)?.checked_add(*m)?;
                minutes.checked_mul(60)?.checked_add(*s)?
            }
            _ => return None,
        };
        let all = days
            .unwrap_or(0)
            .checked_mul(86_400)?
            .checked_add(seconds)?;
        (1..=10 * 365 * 86_400)
            .contains(&all)
            .then(|| Duration::from_secs(all))
    };
    parse().ok_or_else(|| {
        "write it as Slurm does: 4:00:00, 90 (minutes), 2-12 (days-hours)".to_owned()
    })
}

/// GPUs of a request like `gpu:2` or `gpu:a100:2`, at least 1.
pub(crate) fn gpus(gres: Option<&str>) -> u32 {
    let gpus = gres
        .unwrap_or_default()
        .split(',')
        .filter(|one| one.starts_with("gpu"))
        .map(|one| {
            one.rsplit(':')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(1)
        })
        .fold(0_u32, u32::saturating_add);
    gpus.clamp(1, 1024)
}

#[cfg(test)]
mod tests;
