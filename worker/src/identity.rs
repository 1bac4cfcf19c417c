//! Who this worker is: version, machine and name.

use halfheard_shared::text::token;

/// The program's version, with the revision if it was built from a repository.
pub(crate) const VERSION: &str = env!("HALFHEARD_VERSION");

/// This machine's name.
pub(crate) fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The worker's default name: machine and process.
pub(crate) fn default_name() -> String {
    format!("{}-{}", host(), std::process::id())
}

/// The longest name of a worker, so that a team and a slot fit beside it into
/// [`halfheard_shared::broker::MAX_WORKER`].
const MAX_NAME: usize = 90;

/// The unique name of one slot, in characters that the broker allows in a key; `team.` before it if
/// it is a team's.
pub(crate) fn slot_name(team: Option<&str>, worker: &str, slot: usize) -> String {
    let clean = token(worker, MAX_NAME);
    match team {
        Some(team) => format!("{team}.{clean}-{slot}"),
        None => format!("{clean}-{slot}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::broker::valid_worker;

    #[test]
    fn slot_name_is_a_valid_key() {
        assert_eq!(
            slot_name(None, "gpu7.cluster example", 2),
            "gpu7-cluster-example-2"
        );
        assert_eq!(slot_name(Some("red"), "gpu7", 0), "red.gpu7-0");
        for team in [None, Some("a-team-of-many-people-32-letters")] {
            for worker in ["", "h", &"long".repeat(100)] {
                let name = slot_name(team, worker, 1023);
                assert!(valid_worker(&name), "{name}");
            }
        }
    }
}
