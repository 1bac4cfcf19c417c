//! Settings that `coord` and `worker` have in common: where the broker, the artifacts and the data folder are.
//!
//! Each comes from the first of flag, environment, [config file](ConfigFile) and default. A password is accepted from the
//! environment or from a file that only its owner can read, never from a flag: every user of a machine can read the flags
//! of every process.
//!
//! ```
//! use halfheard_shared::settings::{Flags, Origin, Settings};
//!
//! let env = |name: &str| (name == "HALFHEARD_DATA_DIR").then(|| "/data".to_owned());
//! let flags = Flags { nats_url: Some("nats://gpu7".to_owned()), ..Flags::default() };
//! let settings = Settings::resolve(&flags, &env, "worker")?;
//! assert_eq!(settings.broker.url, "nats://gpu7");
//! assert_eq!(settings.broker_origin, Origin::Flag("--nats-url"));
//! assert_eq!(settings.artifacts, "file:///data/artifacts");
//! assert_eq!(settings.artifacts_origin, Origin::Default);
//! # Ok::<(), halfheard_shared::settings::SettingsError>(())
//! ```

mod error;
mod file;
mod origin;
mod resolve;

pub use error::SettingsError;
pub use file::{ConfigFile, ConfigFileError};
pub use origin::Origin;
pub use resolve::{Flags, Layers, Secret, Settings};
