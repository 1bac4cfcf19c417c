//! Whether this machine has what a program needs.

use halfheard_shared::{
    external::ExternalTraining,
    wire::{Fault, FaultKind},
};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What asks Python for a module: nothing of it is imported.
const FIND: &str =
    "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec(sys.argv[1]) else 3)";

/// The worker's fault if it lacks the command or something that the program needs.
pub(super) fn missing(
    method: &str,
    training: &ExternalTraining,
    folder: &Path,
    environment: &BTreeMap<String, String>,
) -> Option<Fault> {
    let path = environment.get("PATH").map_or("", String::as_str);
    let fault = |reason: String| {
        let what = format!("external program {method}");
        Some(Fault::new(FaultKind::Method, what, vec![reason]))
    };
    let command = training.program.command.first()?;
    if find(command, path, folder).is_none() {
        return fault(format!("this machine has no `{command}`"));
    }
    let is_python = Path::new(command)
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("python"));
    for need in &training.program.needs {
        let has = find(need, path, folder).is_some()
            || is_python && has_module(command, need, folder, environment);
        if !has {
            let kinds = match is_python {
                true => "neither a Python module nor a program of that name",
                false => "no program of that name",
            };
            return fault(format!("it needs `{need}`, and this machine has {kinds}"));
        }
    }
    None
}

/// The executable of this name.
fn find(name: &str, path: &str, folder: &Path) -> Option<PathBuf> {
    let is_executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = folder.join(name);
        return is_executable(&path).then_some(path);
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn has_module(
    python: &str,
    module: &str,
    folder: &Path,
    environment: &BTreeMap<String, String>,
) -> bool {
    Command::new(python)
        .args(["-c", FIND, module])
        .current_dir(folder)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::{external::Program, hash::Hash};
    use serde_json::Map;

    fn missing_of(command: &str, needs: &[&str]) -> Option<String> {
        let training = ExternalTraining {
            program: Program {
                command: vec![command.to_owned()],
                needs: needs.iter().map(|need| (*need).to_owned()).collect(),
                files: BTreeMap::new(),
                bundle: Hash::of(b""),
            },
            hyper: Map::new(),
        };
        let path = std::env::var("PATH").unwrap();
        let environment = BTreeMap::from([("PATH".to_owned(), path)]);
        let fault = missing("m", &training, Path::new("/"), &environment)?;
        assert_eq!(fault.what, "external program m");
        Some(fault.chain[0].clone())
    }

    #[test]
    fn what_a_machine_lacks_is_named() {
        assert_eq!(missing_of("sh", &["sh"]), None);
        assert_eq!(missing_of("/bin/sh", &[]), None);
        let no_command = missing_of("no-such-command", &[]).unwrap();
        assert_eq!(no_command, "this machine has no `no-such-command`");
        assert!(missing_of("sh", &["json"]).unwrap().contains("`json`"));
        assert_eq!(missing_of("python3", &["json", "sh"]), None);
        let module = missing_of("python3", &["no_such_module"]).unwrap();
        assert!(module.contains("Python module"), "{module}");
    }
}
