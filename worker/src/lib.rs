//! The worker: takes jobs from the broker, trains and evaluates the models with libtorch.

pub mod check;
pub mod cli;
pub mod exit;
pub mod runtime;
pub mod settings;
pub mod supervisor;

/// The program's version, with the revision where it was built from a repository.
pub const VERSION: &str = env!("HALFHEARD_VERSION");

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    halfheard_models::train::chain(error).join(": ")
}

/// This machine's name.
pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A name for the worker if it was given none: the machine and the process.
pub fn default_name() -> String {
    format!("{}-{}", host(), std::process::id())
}

/// The unique name of one slot, of letters that the broker takes in a key.
pub fn slot_name(worker: &str, slot: usize) -> String {
    let clean: String = worker
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => c,
            _ => '-',
        })
        .collect();
    format!("{clean}-{slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_name_is_a_key_of_the_broker() {
        assert_eq!(
            slot_name("gpu7.cluster example", 2),
            "gpu7-cluster-example-2"
        );
    }
}
