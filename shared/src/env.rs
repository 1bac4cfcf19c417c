//! Every environment variable that the programs read, and the way they read it.

use std::path::{Path, PathBuf};

/// Looks up a variable. A value, so that tests need not change the environment of their process.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process that is set and not empty.
pub fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The broker's address: `nats://host:4222`, or several separated by commas. May hold a password.
pub const NATS_URL: &str = "HALFHEARD_NATS_URL";
/// A file with what [`NATS_URL`] would hold, as secret stores mount one.
pub const NATS_URL_FILE: &str = "HALFHEARD_NATS_URL_FILE";
/// The broker's credentials file, as `nsc` writes it.
pub const NATS_CREDS: &str = "HALFHEARD_NATS_CREDS";
/// The certificate authority to trust for the broker, in PEM.
pub const NATS_CA: &str = "HALFHEARD_NATS_CA";
/// The client certificate for the broker, in PEM.
pub const NATS_CERT: &str = "HALFHEARD_NATS_CERT";
/// The key of [`NATS_CERT`], in PEM.
pub const NATS_KEY: &str = "HALFHEARD_NATS_KEY";
/// How many servers of a NATS cluster keep each stream: 1, 3 or 5.
pub const NATS_REPLICAS: &str = "HALFHEARD_NATS_REPLICAS";
/// The prefix of all names on the broker.
pub const NATS_PREFIX: &str = "HALFHEARD_NATS_PREFIX";
/// The first token of the subjects on which the broker answers this login: `_INBOX_worker`.
pub const NATS_INBOX: &str = "HALFHEARD_NATS_INBOX";
/// The team of a worker, where each has a login of its own on the broker.
pub const TEAM: &str = "HALFHEARD_TEAM";
/// The database's address: `postgres://user@host:5432/name`. May hold a password.
pub const DATABASE_URL: &str = "HALFHEARD_DATABASE_URL";
/// A file with what [`DATABASE_URL`] would hold, as secret stores mount one.
pub const DATABASE_URL_FILE: &str = "HALFHEARD_DATABASE_URL_FILE";
/// The artifact store's address: `file:///folder`, `s3://bucket/prefix` or `nats://`.
pub const ARTIFACTS: &str = "HALFHEARD_ARTIFACTS";
/// How many bytes artifacts may take on the broker, for `nats://`: `64GB`.
pub const ARTIFACTS_MAX_BYTES: &str = "HALFHEARD_ARTIFACTS_MAX_BYTES";
/// Where notifications are posted: an address that is a secret.
pub const NOTIFY_WEBHOOK: &str = "HALFHEARD_NOTIFY_WEBHOOK";
/// The data folder: datasets, encoders, private servers.
pub const DATA_DIR: &str = "HALFHEARD_DATA_DIR";
/// The config file.
pub const CONFIG: &str = "HALFHEARD_CONFIG";

/// The folder of what `make setup` installs.
pub const DEPS: &str = "HALFHEARD_DEPS";
/// The `nats-server` program.
pub const NATS_SERVER: &str = "HALFHEARD_NATS_SERVER";
/// The folder of Postgres' programs.
pub const POSTGRES_BIN: &str = "HALFHEARD_POSTGRES_BIN";
/// The user that runs a private Postgres if `coord` runs as root.
pub const POSTGRES_USER: &str = "HALFHEARD_POSTGRES_USER";
/// The `worker` program.
pub const WORKER: &str = "HALFHEARD_WORKER";
/// The folder of the English BERT.
pub const ENCODER_EN: &str = "HALFHEARD_ENCODER_EN";
/// The folder of the Chinese BERT.
pub const ENCODER_ZH: &str = "HALFHEARD_ENCODER_ZH";

/// How many slots a worker runs.
pub const SLOTS: &str = "HALFHEARD_SLOTS";
/// Where the slots compute: `auto`, `cpu`, `cuda:0`, `cuda:0,cuda:1`.
pub const DEVICE: &str = "HALFHEARD_DEVICE";
/// Whether slots may share a GPU.
pub const SHARE_GPUS: &str = "HALFHEARD_SHARE_GPUS";
/// CPU threads per slot.
pub const THREADS: &str = "HALFHEARD_THREADS";
/// The worker's name.
pub const WORKER_NAME: &str = "HALFHEARD_WORKER_NAME";
/// How often a training run saves its state.
pub const SAVE_EVERY: &str = "HALFHEARD_SAVE_EVERY";
/// How long a worker's shutdown may take.
pub const LEAVE_WITHIN: &str = "HALFHEARD_LEAVE_WITHIN";
/// Where a worker serves its metrics and its health: `127.0.0.1:9351`.
pub const WORKER_HTTP: &str = "HALFHEARD_WORKER_HTTP";
/// A file with the token that reading a worker's metrics takes.
pub const WORKER_HTTP_TOKEN_FILE: &str = "HALFHEARD_WORKER_HTTP_TOKEN_FILE";
/// Whether a worker's metrics are for everybody who reaches its address.
pub const WORKER_HTTP_OPEN_METRICS: &str = "HALFHEARD_WORKER_HTTP_OPEN_METRICS";
/// What a spec's needs may ask of a worker.
pub const LABELS: &str = "HALFHEARD_LABELS";
/// Whether external programs are run.
pub const ALLOW_EXTERNAL: &str = "HALFHEARD_ALLOW_EXTERNAL";
/// The form of the worker's log: `text` or `json`.
pub const LOG_FORMAT: &str = "HALFHEARD_LOG_FORMAT";
/// The folder of Slurm's programs, if they are not on `PATH`.
pub const SLURM_BIN: &str = "HALFHEARD_SLURM_BIN";
/// Where systemd listens, for units of `Type=notify`.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A folder of the user's: `variable` (`XDG_DATA_HOME`), or `below` the home folder. `None` without a home.
///
/// ```
/// use halfheard_shared::env::user_folder;
/// let env = |name: &str| (name == "HOME").then(|| "/home/ann".to_owned());
/// assert_eq!(user_folder(&env, "XDG_CONFIG_HOME", ".config"), Some("/home/ann/.config".into()));
/// ```
pub fn user_folder(env: Env, variable: &str, below: &str) -> Option<PathBuf> {
    env(variable)
        .map(PathBuf::from)
        // The XDG specification: ignore a relative path.
        .filter(|path| path.is_absolute())
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(below)))
}
