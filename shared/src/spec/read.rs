//! Reads a spec and checks what can be checked without looking at other files.

use super::{
    DatasetSpec, Problem, Spec, SpecError, VariantSpec, keys,
    place::{Checker, Step},
};
use crate::{
    benchmark::{Benchmark, Kind, definition::DefinitionError},
    case::{Case, MissingSet, Rate},
    dataset::valid_name,
    device::{Devices, DevicesError},
    methods::{self, HyperError, MAX_EPOCHS, MethodInfo, nearest},
};
use miette::SourceSpan;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt::Display};

/// The most bytes a spec may have.
pub const MAX_BYTES: usize = 1 << 20;

/// The most jobs a spec may expand to.
pub const MAX_JOBS: usize = 5_000_000;

/// The most entries of a list: methods, variants, rates, sets. Seeds are bounded by [`MAX_JOBS`].
pub const MAX_LIST: usize = 1_000;

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
            help: Some("split it into several specs".to_owned()),
        };
        return Err(SpecError::new(path, "", vec![problem]));
    }
    let mut checker = Checker::new(text);
    let spec: Spec = match toml::from_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            // The parser ends at the first: all unknown and missing keys are told with it.
            keys::check(&mut checker);
            checker.add_unless_told(syntax_problem(&error));
            return Err(SpecError::new(path, text, checker.into_problems()));
        }
    };
    check(&spec, &mut checker);
    match checker.into_problems() {
        problems if problems.is_empty() => Ok(spec),
        problems => Err(SpecError::new(path, text, problems)),
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
    let lists = [
        ("methods", spec.methods.len()),
        ("variant", spec.variants.len()),
        ("rates", spec.rates.len()),
        ("missing", spec.missing.len()),
        ("hyper", spec.hyper.len()),
        ("datasets", spec.datasets.len()),
        ("encoders", spec.encoders.len()),
    ];
    let mut too_long = false;
    for (key, length) in lists.into_iter().filter(|(_, length)| *length > MAX_LIST) {
        too_long = true;
        checker.problem(
            &[Key(key)],
            format!("`{key}` has {length} entries, over the limit of {MAX_LIST}"),
            "too many",
            Some("split it into several specs".to_owned()),
        );
    }
    if too_long {
        return; // each of its entries would be looked at
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
    if spec.epochs.is_some_and(|n| !(1..=MAX_EPOCHS).contains(&n)) {
        checker.problem(
            &[Key("epochs")],
            "a training has 1 to 1,000,000 epochs",
            "out of range",
            None,
        );
    }
    check_resources(spec, checker);
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

fn check_resources(spec: &Spec, checker: &mut Checker<'_>) {
    let at = |key| [Step::Key("resources"), Step::Key(key)];
    if let Some(workers) = spec.resources.workers
        && !(1..=256).contains(&workers)
    {
        checker.problem(
            &at("workers"),
            "there can be 1 to 256 workers",
            "out of range",
            None,
        );
    }
    let Some(device) = &spec.resources.device else {
        return;
    };
    match device.parse::<Devices>() {
        Err(DevicesError::Unknown(_)) => checker.problem(
            &at("device"),
            format!("`{device}` is no device"),
            "not known",
            Some("write `auto`, `cpu`, `cuda:0`, or a list: `cuda:0,cuda:1`".to_owned()),
        ),
        Err(error @ DevicesError::Twice(_)) => {
            checker.problem(&at("device"), error.to_string(), "named twice", None);
        }
        Ok(devices) => {
            let workers = spec.resources.workers.map_or(0, usize::from);
            if let Err(error) = devices.check(workers, spec.resources.share_gpus) {
                checker.problem(&at("device"), error.to_string(), "too few", None);
            }
        }
    }
}

/// Tells of each value that was there before.
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
fn known_methods(spec: &Spec) -> BTreeSet<String> {
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
        HyperError::Range { .. } => ("out of range", None),
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
        check_base(spec, i, info, checker);
        for (key, value) in &variant.hyper {
            if let Err(error) = info.check(key, value) {
                let at = [Key("variant"), Index(i), Key("hyper"), Key(key)];
                hyper_problem(checker, &at, &error);
            }
        }
    }
}

/// All that a variant of `info` changes: what it starts from, then its own. Nothing for the method
/// itself.
pub(super) fn variant_changes(spec: &Spec, info: &MethodInfo, variant: &str) -> Map<String, Value> {
    let id = format!("{}/{variant}", info.id);
    // Each one starts from one above it ([`check_base`]), so this ends.
    let mut above: &[VariantSpec] = &spec.variants;
    let (mut id, mut layers) = (id.as_str(), Vec::new());
    while let Some(at) = above.iter().position(|own| own.id == id) {
        let own = &above[at];
        layers.push(&own.hyper);
        above = &above[..at];
        id = own.base.as_deref().unwrap_or_default();
    }
    let known = id
        .split_once('/')
        .and_then(|(_, name)| info.variants.get(name));
    let mut changes = known.map(|known| known.hyper.clone()).unwrap_or_default();
    for layer in layers.into_iter().rev() {
        changes.extend(layer.clone());
    }
    changes
}

/// What a variant starts from must be there before it: so none starts from itself.
fn check_base(spec: &Spec, i: usize, info: &MethodInfo, checker: &mut Checker<'_>) {
    let Some(base) = &spec.variants[i].base else {
        return;
    };
    let built_in = info.variants.keys().map(|v| format!("{}/{v}", info.id));
    let above = spec.variants[..i].iter().map(|v| v.id.clone());
    let own = format!("{}/", info.id);
    let known: BTreeSet<String> = std::iter::once(info.id.to_owned())
        .chain(built_in)
        .chain(above.filter(|id| id.starts_with(&own)))
        .collect();
    if known.contains(base) {
        return;
    }
    let near = nearest(base, known.iter().map(String::as_str));
    checker.problem(
        &[Step::Key("variant"), Step::Index(i), Step::Key("base")],
        format!("there is no variant `{base}` of {} to start from", info.id),
        "not known",
        Some(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", Vec::from_iter(known).join(", ")),
        }),
    );
}

/// The protocol that a dataset follows, if it is one.
fn check_protocol(name: &str, dataset: &DatasetSpec, checker: &mut Checker<'_>) -> Option<Kind> {
    use Step::Key;
    let at = [Key("datasets"), Key(name), Key("benchmark")];
    let kind = match &dataset.benchmark {
        None => name.parse().ok(),
        Some(benchmark) => match benchmark.kind() {
            Ok(kind) => Some(kind),
            Err(DefinitionError { key, what }) => {
                let at = [at[0], at[1], at[2], Key(key)];
                checker.problem(&at, what, "not a protocol", None);
                return None;
            }
        },
    };
    let Some(kind) = kind else {
        checker.problem(
            &at[..2],
            format!("the dataset `{name}` does not say whose protocol it follows"),
            "no benchmark",
            Some(
                "add `benchmark = \"mosi\"` (or mosei, sims), or one of its own: `benchmark = { \
                 label_range = [-1, 1], language = \"zh\", classes = [2, 3, 5] }`"
                    .to_owned(),
            ),
        );
        return None;
    };
    match Benchmark::new(name, kind) {
        Ok(_) => Some(kind),
        Err(error) => {
            checker.problem(&at[..2], error, "not this name", None);
            None
        }
    }
}

impl DatasetSpec {
    /// The protocol that the dataset called `name` follows; `None` where [`read`] refuses it.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        match &self.benchmark {
            None => name.parse().ok(),
            Some(benchmark) => benchmark.kind().ok(),
        }
    }
}

fn check_datasets(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::Key;
    if spec.datasets.is_empty() {
        checker.problem(&[Key("datasets")], "there is no dataset", "empty", None);
    }
    for (name, dataset) in &spec.datasets {
        let at = [Key("datasets"), Key(name)];
        let Some(kind) = check_protocol(name, dataset, checker) else {
            continue;
        };
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
        if let Some(kept) = dataset.file.strip_prefix("dataset:")
            && !valid_name(kept)
        {
            checker.problem(
                &[Key("datasets"), Key(name), Key("file")],
                format!("`{kept}` is no dataset's name"),
                "not a name",
                Some(
                    "a name has 1 to 64 letters, digits, `-`, `_` or `.`; a file elsewhere is \
                     named by its path alone"
                        .to_owned(),
                ),
            );
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
            .unwrap_or_else(|| kind.language());
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
    let mut seen = BTreeSet::new();
    for (i, set) in spec.missing.iter().enumerate() {
        let at = [Key("missing"), Index(i)];
        match set.parse::<MissingSet>() {
            Ok(parsed) if seen.insert(parsed) => {}
            // `la` and `al` are the same one.
            Ok(parsed) => checker.problem(
                &at,
                format!("the set {parsed} is named twice"),
                "again",
                Some("leave one away".to_owned()),
            ),
            Err(error) => {
                let near = nearest(set, MissingSet::PAPER);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                checker.problem(&at, error, "not a set", help);
            }
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
