//! Who this worker is: version, machine and name.

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

/// The unique name of one slot, in characters that the broker allows in a key.
pub(crate) fn slot_name(worker: &str, slot: usize) -> String {
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
    fn slot_name_is_a_valid_key() {
        assert_eq!(
            slot_name("gpu7.cluster example", 2),
            "gpu7-cluster-example-2"
        );
    }
}
