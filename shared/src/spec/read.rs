//! Reads a spec and checks what can be checked without looking at other files.

use super::{Problem, Spec, SpecError};
use crate::{
    benchmark::Benchmark,
    case::{Case, MissingSet, Rate},
    methods::{self, HyperError, nearest},
};
use miette::SourceSpan;
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Display, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The most bytes a spec may have.
pub const MAX_BYTES: usize = 1 << 20;

/// The most jobs a spec may expand to.
pub const MAX_JOBS: usize = 5_000_000;

/// A step into the text: a key or a place in a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Collects problems with their places.
pub(super) struct Checker<'t> {
    tree: Option<Spanned<DeTable<'t>>>,
    pub(super) problems: Vec<Problem>,
}

impl<'t> Checker<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            tree: DeTable::parse(text).ok(),
            problems: Vec::new(),
        }
    }

    /// Where the value at `path` stands; as near as the text has it.
    fn span(&self, path: &[Step<'_>]) -> Option<SourceSpan> {
        let tree = self.tree.as_ref()?;
        let mut table = Some(tree.get_ref());
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        let mut found: Option<Range<usize>> = None;
        for step in path {
            let next = match step {
                Step::Key(key) => {
                    let table = match value {
                        Some(value) => value.get_ref().as_table(),
                        None => table.take(),
                    };
                    table.and_then(|table| table.get(*key))
                }
                Step::Index(index) => value
                    .and_then(|value| value.get_ref().as_array())
                    .and_then(|array| array.get(*index)),
            };
            match next {
                Some(next) => {
                    found = Some(next.span());
                    value = Some(next);
                }
                None => break,
            }
        }
        found.map(SourceSpan::from)
    }

    pub(super) fn problem(
        &mut self,
        path: &[Step<'_>],
        message: impl Display,
        label: impl Display,
        help: Option<String>,
    ) {
        self.problems.push(Problem {
            message: message.to_string(),
            span: self.span(path),
            label: label.to_string(),
            help,
        });
    }
}

/// Parses and checks a spec. `path` is only for messages.
///
/// # Errors
///
/// All that is wrong, each with its place.
pub fn read(path: &str, text: &str) -> Result<Spec, SpecError> {
    if text.len() > MAX_BYTES {
        let problem = Problem {
            message: format!(
                "the spec has {} bytes, over the limit of {MAX_BYTES}",
                text.len()
            ),
            span: None,
            label: String::new(),
            help: None,
        };
        return Err(SpecError::new(path, "", vec![problem]));
    }
    let spec: Spec = toml::from_str(text)
        .map_err(|error| SpecError::new(path, text, vec![syntax_problem(&error)]))?;
    let mut checker = Checker::new(text);
    check(&spec, &mut checker);
    if checker.problems.is_empty() {
        Ok(spec)
    } else {
        Err(SpecError::new(path, text, checker.problems))
    }
}

/// TOML's own message; an unknown key with the nearest that there is.
fn syntax_problem(error: &toml::de::Error) -> Problem {
    let message = error.message().to_owned();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let help = match quoted.split_first() {
        Some((unknown_name, known)) if unknown => {
            match nearest(unknown_name, known.iter().copied()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None => Some(format!("there are: {}", known.join(", "))),
            }
        }
        _ => None,
    };
    Problem {
        message,
        span: error.span().map(SourceSpan::from),
        label: if unknown { "not known" } else { "here" }.to_owned(),
        help,
    }
}

fn check(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if spec.name.is_empty() || spec.name.len() > 64 || !spec.name.chars().all(plain) {
        checker.problem(
            &[Key("name")],
            "the name must have 1 to 64 letters, digits, `-`, `_` or `.`",
            "not a name",
            None,
        );
    }
    check_variants(spec, checker);
    check_methods(spec, checker);
    check_datasets(spec, checker);
    check_cases(spec, checker);
    check_hyper(spec, checker);
    if spec.seeds.is_empty() {
        checker.problem(&[Key("seeds")], "there is no seed", "empty", None);
    }
    duplicates(&spec.seeds, "seeds", "seed", checker);
    // Postgres and TOML know no whole number beyond 63 bits.
    if let Some(i) = spec.seeds.iter().position(|&s| i64::try_from(s).is_err()) {
        checker.problem(
            &[Key("seeds"), Index(i)],
            "a seed is at most 2^63 - 1",
            "too large",
            None,
        );
    }
    if spec.epochs == Some(0) {
        checker.problem(
            &[Key("epochs")],
            "training needs at least one epoch",
            "none",
            None,
        );
    }
    if Rate::new(spec.protocol.selection_rate).is_err() {
        checker.problem(
            &[Key("protocol"), Key("selection_rate")],
            "the selection rate must lie between 0 and 1, with at most three decimals",
            "not a rate",
            None,
        );
    }
    let models = [spec.methods.len(), spec.datasets.len(), spec.seeds.len()];
    let models = models.iter().fold(1usize, |n, &m| n.saturating_mul(m));
    let jobs = models.saturating_mul(1 + spec.rates.len() + spec.missing.len());
    if jobs > MAX_JOBS {
        checker.problem(
            &[Key("seeds")],
            format!("the spec expands to {jobs} jobs, over the limit of {MAX_JOBS}"),
            "too many in all",
            Some("split it into several specs".to_owned()),
        );
    }
}

/// The index of the first value that was there before.
fn duplicates<T: Ord + Display>(values: &[T], key: &str, what: &str, checker: &mut Checker<'_>) {
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            checker.problem(
                &[Step::Key(key), Step::Index(i)],
                format!("the {what} {value} is named twice"),
                "again",
                Some("leave one away".to_owned()),
            );
        }
    }
}

/// All ids that can be named in `methods`.
fn known_methods(spec: &Spec) -> Vec<String> {
    methods::all()
        .iter()
        .flat_map(|method| {
            let variants = method.variants.keys();
            std::iter::once(method.id.to_owned())
                .chain(variants.map(|variant| format!("{}/{variant}", method.id)))
        })
        .chain(spec.variants.iter().map(|variant| variant.id.clone()))
        .collect()
}

fn check_methods(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    if spec.methods.is_empty() {
        checker.problem(&[Key("methods")], "there is no method", "empty", None);
    }
    duplicates(&spec.methods, "methods", "method", checker);
    let known = known_methods(spec);
    for (i, id) in spec.methods.iter().enumerate() {
        if !known.contains(id) {
            let help = match nearest(id, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let ids: Vec<&str> = methods::all().iter().map(|m| m.id).collect();
                    format!("there are: {}", ids.join(", "))
                }
            };
            checker.problem(
                &[Key("methods"), Index(i)],
                format!("there is no method `{id}`"),
                "not known",
                Some(help),
            );
        }
    }
}

fn hyper_problem(checker: &mut Checker<'_>, path: &[Step<'_>], error: &HyperError) {
    let (label, help) = match error {
        HyperError::Unknown {
            nearest: Some(near),
            ..
        } => ("not known", Some(format!("did you mean `{near}`?"))),
        HyperError::Unknown { method, .. } => {
            let keys = methods::find(method).map(|m| m.hyper.keys().cloned().collect::<Vec<_>>());
            let help = keys.map(|keys| format!("there are: {}", keys.join(", ")));
            ("not known", help)
        }
        HyperError::Type { .. } => ("another type", None),
    };
    checker.problem(path, error, label, help);
}

fn check_variants(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let mut seen = BTreeSet::new();
    for (i, variant) in spec.variants.iter().enumerate() {
        let at = [Key("variant"), Index(i), Key("id")];
        let Some((method, name)) = variant.id.split_once('/') else {
            checker.problem(
                &at,
                format!("`{}` is no variant's id", variant.id),
                "no slash",
                Some("write method and name: `lnln/wide`".to_owned()),
            );
            continue;
        };
        let Some(info) = methods::find(method) else {
            let near = nearest(method, methods::all().iter().map(|m| m.id));
            checker.problem(
                &at,
                format!("there is no method `{method}`"),
                "not known",
                near.map(|near| format!("did you mean `{near}/{name}`?")),
            );
            continue;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            checker.problem(
                &at,
                "a variant's name has 1 to 64 letters, digits, `-`, `_` or `.`",
                "not a name",
                None,
            );
        }
        if info.variants.contains_key(name) || !seen.insert(&variant.id) {
            checker.problem(
                &at,
                format!("there is a variant `{}` already", variant.id),
                "taken",
                Some("give it another name".to_owned()),
            );
        }
        for (key, value) in &variant.hyper {
            if let Err(error) = info.check(key, value) {
                let at = [Key("variant"), Index(i), Key("hyper"), Key(key)];
                hyper_problem(checker, &at, &error);
            }
        }
    }
}

fn check_datasets(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::Key;
    if spec.datasets.is_empty() {
        checker.problem(&[Key("datasets")], "there is no dataset", "empty", None);
    }
    let mut protocols = BTreeSet::new();
    for (name, dataset) in &spec.datasets {
        let at = [Key("datasets"), Key(name)];
        let Some(benchmark) = dataset.benchmark.or_else(|| name.parse().ok()) else {
            checker.problem(
                &at,
                format!("the dataset `{name}` does not say whose protocol it follows"),
                "no benchmark",
                Some("add `benchmark = \"mosi\"` (or mosei, sims)".to_owned()),
            );
            continue;
        };
        if !protocols.insert(benchmark) {
            checker.problem(
                &at,
                format!("a second dataset follows the protocol of {benchmark}"),
                "tables could not tell the two apart",
                Some("put it into a spec of its own".to_owned()),
            );
        }
        if let Some(hash) = &dataset.blake3 {
            let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex {
                checker.problem(
                    &[Key("datasets"), Key(name), Key("blake3")],
                    "a BLAKE3 hash has 64 hexadecimal digits",
                    "not a hash",
                    None,
                );
            }
        }
        if let Some(made) = &dataset.synthesize {
            let at = [Key("datasets"), Key(name), Key("synthesize")];
            if !dataset.file.starts_with("dataset:") {
                checker.problem(
                    &at,
                    "a dataset that is made must lie in the data folder",
                    "cannot be made elsewhere",
                    Some("write `file = \"dataset:NAME\"`".to_owned()),
                );
            }
            let sizes = [made.train, made.valid, made.test];
            if sizes.iter().any(|size| !(1..=1_000_000).contains(size)) {
                checker.problem(
                    &at,
                    "each split must have 1 to 1,000,000 samples",
                    "out of range",
                    None,
                );
            }
        }
        let language = dataset
            .language
            .as_deref()
            .unwrap_or_else(|| benchmark.language());
        if !spec.encoders.contains_key(language) {
            checker.problem(
                &at,
                format!("the dataset `{name}` needs a text encoder for `{language}`"),
                "no encoder for it",
                Some(format!(
                    "add `[encoders.{language}]` with `path` of a folder with config.json and \
                     model.safetensors"
                )),
            );
        }
    }
}

fn check_cases(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    if spec.rates.is_empty() && spec.missing.is_empty() {
        checker.problem(
            &[Key("name")],
            "there is nothing to test: `rates` and `missing` are both empty",
            "this spec",
            Some("add `rates = [0.0, 0.1, …]` or `missing = [\"l\", …]`".to_owned()),
        );
    }
    let mut seen = BTreeSet::new();
    for (i, &rate) in spec.rates.iter().enumerate() {
        let at = [Key("rates"), Index(i)];
        match Rate::new(rate) {
            Ok(rate) if seen.insert(rate) => {}
            Ok(rate) => checker.problem(
                &at,
                format!("the rate {rate} is named twice"),
                "again",
                Some("leave one away".to_owned()),
            ),
            Err(error) => checker.problem(&at, error, "not a rate", None),
        }
    }
    duplicates(&spec.missing, "missing", "set", checker);
    for (i, set) in spec.missing.iter().enumerate() {
        if let Err(error) = set.parse::<MissingSet>() {
            let near = nearest(set, MissingSet::PAPER);
            checker.problem(
                &[Key("missing"), Index(i)],
                error,
                "not a set",
                near.map(|near| format!("did you mean `{near}`?")),
            );
        }
    }
}

fn check_hyper(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::Key;
    let known = known_methods(spec);
    for (id, changes) in &spec.hyper {
        let method = id.split_once('/').map_or(id.as_str(), |(method, _)| method);
        let Some(info) = methods::find(method).filter(|_| known.contains(id)) else {
            let near = nearest(id, known.iter().map(String::as_str));
            checker.problem(
                &[Key("hyper"), Key(id)],
                format!("there is no method `{id}`"),
                "not known",
                near.map(|near| format!("did you mean `{near}`?")),
            );
            continue;
        };
        for (key, value) in changes {
            match value {
                Value::Object(own) if !info.hyper.contains_key(key) => {
                    if !spec.datasets.contains_key(key) && key.parse::<Benchmark>().is_err() {
                        let near = nearest(key, spec.datasets.keys().map(String::as_str));
                        checker.problem(
                            &[Key("hyper"), Key(id), Key(key)],
                            format!("there is no dataset `{key}`"),
                            "not known",
                            near.map(|near| format!("did you mean `{near}`?")),
                        );
                    }
                    for (inner, value) in own {
                        if let Err(error) = info.check(inner, value) {
                            let at = [Key("hyper"), Key(id), Key(key), Key(inner)];
                            hyper_problem(checker, &at, &error);
                        }
                    }
                }
                _ => {
                    if let Err(error) = info.check(key, value) {
                        hyper_problem(checker, &[Key("hyper"), Key(id), Key(key)], &error);
                    }
                }
            }
        }
    }
}

impl Spec {
    /// The cases: rates first, then sets, in the spec's order. Those that are none are left out;
    /// [`read`] refuses them.
    pub fn cases(&self) -> Vec<Case> {
        let rates = self.rates.iter().filter_map(|&rate| Rate::new(rate).ok());
        let sets = self.missing.iter().filter_map(|set| set.parse().ok());
        rates
            .map(Case::Rate)
            .chain(sets.map(Case::Missing))
            .collect()
    }
}
