//! The external programs of a sweep: what they are, and their files on the way to workers.

use super::load::Loaded;
use anyhow::Context as _;
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    external::{HYPER_KEY, Program},
    hash::Hash,
    spec::ResolvedSpec,
    text::{count, quoted},
};
use serde::{Deserialize as _, Serialize};
use std::{collections::BTreeMap, fmt};

/// An external program that a sweep runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ExternalProgram {
    /// The method's id.
    pub(crate) method: String,
    /// The command with its arguments.
    pub(crate) command: Vec<String>,
    /// Programs and Python modules that a machine must have.
    pub(crate) needs: Vec<String>,
    /// Number of files.
    pub(crate) files: usize,
    /// BLAKE3 of their bundle.
    pub(crate) bundle: Hash,
}

impl fmt::Display for ExternalProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command: Vec<_> = self.command.iter().map(|word| quoted(word)).collect();
        write!(
            f,
            "{}: {} ({}, bundle {})",
            self.method,
            command.join(" "),
            count(self.files, "file"),
            &self.bundle.as_str()[..8]
        )
    }
}

/// The external programs of a sweep, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct ExternalPrograms(Vec<ExternalProgram>);

impl ExternalPrograms {
    /// The ids of their methods.
    pub(crate) fn methods(&self) -> Vec<&str> {
        let methods = self.0.iter();
        methods.map(|program| program.method.as_str()).collect()
    }
}

/// One line each, and who runs them; nothing without any.
impl fmt::Display for ExternalPrograms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for program in &self.0 {
            writeln!(f, "external program {program}")?;
        }
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "note: only workers started with `--allow-external` run external programs"
        )
    }
}

/// Finds the external programs of a sweep.
pub(crate) fn of_sweep(resolved: &ResolvedSpec) -> ExternalPrograms {
    let mut found = BTreeMap::new();
    for method in &resolved.methods {
        // It is the same on all datasets and in all variants.
        let program = method.hyper.values().find_map(|hyper| hyper.get(HYPER_KEY));
        let Some(Ok(program)) = program.map(Program::deserialize) else {
            continue;
        };
        found.insert(
            method.method.clone(),
            ExternalProgram {
                method: method.method.clone(),
                command: program.command,
                needs: program.needs,
                files: program.files.len(),
                bundle: program.bundle,
            },
        );
    }
    ExternalPrograms(found.into_values().collect())
}

/// Puts the files of the sweep's external programs, and its tables of what words are heard as, into the
/// artifact store, where workers find them.
///
/// # Errors
///
/// The store's.
pub(crate) async fn store(loaded: &Loaded, artifacts: &ArtifactStore) -> anyhow::Result<()> {
    for (hash, bundle) in &loaded.bundles {
        artifacts
            .put(&Key::Blob(hash.clone()), bundle.clone())
            .await
            .context("cannot store the files of external programs and tables of confusions")?;
    }
    Ok(())
}
