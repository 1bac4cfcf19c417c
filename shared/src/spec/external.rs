//! External programs in a spec, beside the methods of the registry.

use super::{
    ExternalSpec, Spec,
    names::{NAME, plain_name, safe_name},
    place::{Checker, Step},
};
use crate::{
    external::{self, HYPER_KEY},
    methods::{self, HyperError, MAX_EPOCHS_KEY, MethodInfo, nearest},
    numerics::Numerics,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

/// The most arguments of a command, globs, or needs of a program.
const MAX_ENTRIES: usize = 100;
/// The most bytes of each.
const MAX_ENTRY: usize = 4096;

/// The methods that a spec can name: those of the registry, and its own programs.
pub(super) struct Methods {
    external: Vec<MethodInfo>,
}

impl Methods {
    pub(super) fn of(spec: &Spec) -> Self {
        let external = spec.externals.iter();
        Self {
            external: external
                .map(|external| MethodInfo::external(&external.id, &external.hyper))
                .collect(),
        }
    }

    /// All of them, those of the registry first.
    pub(super) fn all(&self) -> impl Iterator<Item = &MethodInfo> + Clone {
        methods::all().iter().chain(&self.external)
    }

    pub(super) fn find(&self, id: &str) -> Option<&MethodInfo> {
        self.all().find(|method| method.id == id)
    }

    /// The method with an id that is similar to `id`.
    pub(super) fn nearest(&self, id: &str) -> Option<String> {
        nearest(id, self.all().map(|method| method.id.as_str()))
    }
}

impl Spec {
    /// The external programs that `methods` names, themselves or in a variant, with their places.
    pub(super) fn used_externals(&self) -> impl Iterator<Item = (usize, &ExternalSpec)> {
        let named: BTreeSet<&str> = self
            .methods
            .iter()
            .map(|id| id.split_once('/').map_or(id.as_str(), |(method, _)| method))
            .collect();
        self.externals
            .iter()
            .enumerate()
            .filter(move |(_, external)| named.contains(external.id.as_str()))
    }
}

/// A program multiplies its matrices itself, so nothing would be in bfloat16 but the name.
fn check_numerics(spec: &Spec, checker: &mut Checker<'_>) {
    if spec.protocol.numerics != Numerics::Bf16 {
        return;
    }
    if let Some((_, external)) = spec.used_externals().next() {
        checker.problem(
            &[Step::Key("protocol"), Step::Key("numerics")],
            format!(
                "`{}` is a program of your own, which `numerics = \"bf16\"` cannot make compute in bfloat16",
                external.id
            ),
            "not for external programs",
            Some(
                "run it in a sweep of its own; how precisely it computes can be a hyper-parameter of it"
                    .to_owned(),
            ),
        );
    }
}

pub(super) fn check(spec: &Spec, checker: &mut Checker<'_>) {
    check_numerics(spec, checker);
    let mut seen = BTreeSet::new();
    for (i, external) in spec.externals.iter().enumerate() {
        let at = Place { i };
        at.check_id(external, !seen.insert(&external.id), checker);
        at.check_command(&external.command, checker);
        at.check_needs(&external.needs, checker);
        at.check_files(&external.files, checker);
        at.check_hyper(external, checker);
    }
}

/// An `[[external]]` by its place.
struct Place {
    i: usize,
}

impl Place {
    fn key<'s>(&self, key: &'s str) -> [Step<'s>; 3] {
        [Step::Key("external"), Step::Index(self.i), Step::Key(key)]
    }

    fn entry<'s>(&self, key: &'s str, entry: usize) -> [Step<'s>; 4] {
        let [table, i, key] = self.key(key);
        [table, i, key, Step::Index(entry)]
    }

    fn check_id(&self, external: &ExternalSpec, again: bool, checker: &mut Checker<'_>) {
        let (at, id) = (self.key("id"), &external.id);
        if !plain_name(id) {
            checker.problem(
                &at,
                format!("the name of a program has {NAME}"),
                "not a name",
                Some(format!("for example `{}`", safe_name(id, "model"))),
            );
        } else if methods::find(id).is_some() || id == external::METHOD {
            checker.problem(
                &at,
                match id.as_str() {
                    external::METHOD => format!("a program cannot be called `{id}`"),
                    _ => format!("`{id}` is a method already"),
                },
                "taken",
                Some(format!("give it another name: `my-{id}`")),
            );
        } else if again {
            checker.problem(
                &at,
                format!("the program `{id}` is defined twice"),
                "again",
                Some("give it another name".to_owned()),
            );
        }
    }

    /// Whether a list has entries, and none too many.
    fn check_length(&self, key: &str, list: &[String], checker: &mut Checker<'_>) {
        if list.len() > MAX_ENTRIES {
            checker.problem(
                &self.key(key),
                format!(
                    "`{key}` has {} entries, over the limit of {MAX_ENTRIES}",
                    list.len()
                ),
                "too many",
                None,
            );
        }
    }

    fn check_command(&self, command: &[String], checker: &mut Checker<'_>) {
        let help = || Some("for example `command = [\"python\", \"train.py\"]`".to_owned());
        if command.is_empty() {
            checker.problem(&self.key("command"), "no command", "empty", help());
        }
        self.check_length("command", command, checker);
        for (j, argument) in command.iter().enumerate() {
            let at = self.entry("command", j);
            if argument.is_empty() {
                checker.problem(&at, "an argument is empty", "empty", help());
            } else if argument.len() > MAX_ENTRY || argument.contains('\0') {
                checker.problem(
                    &at,
                    format!("an argument has at most {MAX_ENTRY} bytes, none of them 0"),
                    "not an argument",
                    None,
                );
            }
        }
        // Without a shell, a whole line would be the name of a program.
        if let [line] = command
            && let words = Vec::from_iter(line.split_whitespace())
            && words.len() > 1
            && !words[0].contains('/')
        {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            checker.problem(
                &self.entry("command", 0),
                format!("`{line}` is the name of a program, with its blanks: no shell reads it"),
                "one argument",
                Some(format!("write `command = [{}]`", words.join(", "))),
            );
        }
    }

    fn check_needs(&self, needs: &[String], checker: &mut Checker<'_>) {
        self.check_length("needs", needs, checker);
        for (j, need) in needs.iter().enumerate() {
            // What a worker looks for must not be taken for an option of another program.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
            let named = (1..=MAX_ENTRY).contains(&need.len()) && need.chars().all(plain);
            if !named || need.starts_with('-') {
                checker.problem(
                    &self.entry("needs", j),
                    format!("`{need}` is not the name of a program or a Python module"),
                    "not a name",
                    Some("for example `torch`, `ffmpeg`".to_owned()),
                );
            }
        }
    }

    fn check_files(&self, files: &[String], checker: &mut Checker<'_>) {
        if files.is_empty() {
            checker.problem(
                &self.key("files"),
                "no files",
                "empty",
                Some("name the program's files: `files = [\"*.py\"]`".to_owned()),
            );
        }
        self.check_length("files", files, checker);
        for (j, glob) in files.iter().enumerate() {
            if !is_relative(glob) {
                checker.problem(
                    &self.entry("files", j),
                    format!("`{glob}` does not stay in the spec's folder"),
                    "not relative",
                    Some(
                        "name files in the spec's folder or below it: `*.py`, `lib/**/*.py`"
                            .to_owned(),
                    ),
                );
            } else if let Some(what) = invalid_glob(glob) {
                checker.problem(
                    &self.entry("files", j),
                    format!("`{glob}` is not a glob: {what}"),
                    "not a glob",
                    None,
                );
            }
        }
    }

    fn check_hyper(&self, external: &ExternalSpec, checker: &mut Checker<'_>) {
        let info = MethodInfo::external(&external.id, &Default::default());
        for (key, value) in &external.hyper {
            let [table, i, hyper] = self.key("hyper");
            let at = [table, i, hyper, Step::Key(key)];
            if key == HYPER_KEY {
                checker.problem_key(
                    &at,
                    format!("a hyper-parameter cannot be called `{key}`"),
                    "taken",
                    Some("give it another name".to_owned()),
                );
            } else if key == MAX_EPOCHS_KEY {
                if let Err(error) = info.check(key, value) {
                    let label = match error {
                        HyperError::Range { .. } => "out of range",
                        _ => "another type",
                    };
                    checker.problem(&at, error, label, None);
                }
            } else if !is_setting(value) {
                checker.problem(
                    &at,
                    format!(
                        "`{key}` is neither a number, a text, nor true or false, nor a list of one of \
                         them"
                    ),
                    "another type",
                    None,
                );
            }
        }
    }
}

/// A path or glob that stays below the folder it starts from.
fn is_relative(glob: &str) -> bool {
    let mut parts = Path::new(glob).components().peekable();
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    parts.peek().is_some() && parts.all(inside) && glob.len() <= MAX_ENTRY && !glob.contains('\0')
}

/// What is wrong with a glob.
fn invalid_glob(glob: &str) -> Option<String> {
    let error = glob::Pattern::new(glob).err()?;
    Some(error.msg.to_owned())
}

/// Whether a hyper-parameter can have this value.
fn is_setting(value: &Value) -> bool {
    match value {
        Value::Array(values) => {
            let same =
                |value: &Value| std::mem::discriminant(value) == std::mem::discriminant(&values[0]);
            values
                .iter()
                .all(|value| !value.is_array() && is_setting(value) && same(value))
        }
        // TOML has no null: only numbers that JSON cannot hold end here.
        Value::Null | Value::Object(_) => false,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
pub(super) mod tests;
