//! Reads a spec and checks what can be checked without looking at other files.

use super::{
    DatasetSpec, Problem, Spec, SpecError, cases,
    external::{self, Methods},
    keys,
    methods::{check_hyper, check_methods, check_variants},
    names::{NAME, duplicates, plain_name, safe_name},
    needs_rules,
    place::{Checker, Step},
    training,
};
use crate::{
    benchmark::{Benchmark, Kind, definition::DefinitionError},
    case::Rate,
    dataset::valid_name,
    device::{Devices, DevicesError},
    methods::{MAX_EPOCHS, nearest},
};
use miette::SourceSpan;

/// Maximum size of a spec in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Maximum number of jobs that a spec may expand to.
pub const MAX_JOBS: usize = 5_000_000;

/// Maximum length of a list: methods, variants, rates, sets. Seeds are bounded by [`MAX_JOBS`].
pub const MAX_LIST: usize = 1_000;

/// The message for a file that is too large.
pub fn too_large(bytes: u64) -> String {
    format!("the spec has {bytes} bytes, over the limit of {MAX_BYTES}")
}

/// Parses and checks a spec. `path` is only for messages.
///
/// # Errors
///
/// All problems, each with its place.
pub fn read(path: &str, text: &str) -> Result<Spec, SpecError> {
    if text.len() > MAX_BYTES {
        let problem = Problem {
            message: too_large(text.len() as u64),
            span: None,
            label: String::new(),
            help: Some("is it the right file? If so, split it into several specs".to_owned()),
        };
        return Err(SpecError::new(path, "", vec![problem]));
    }
    let mut checker = Checker::new(text);
    let spec: Spec = match toml::from_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            // The parser stops at the first problem: report all unknown and missing keys with it.
            keys::check(&mut checker);
            checker.add_unless_reported(syntax_problem(&error));
            return Err(SpecError::new(path, text, checker.into_problems()));
        }
    };
    check(&spec, &mut checker);
    match checker.into_problems() {
        problems if problems.is_empty() => Ok(spec),
        problems => Err(SpecError::new(path, text, problems)),
    }
}

/// TOML's own message; for an unknown key with the nearest known one.
fn syntax_problem(error: &toml::de::Error) -> Problem {
    let message = error.message().to_owned();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let help = match quoted.split_first() {
        Some((unknown_name, known)) if unknown => {
            match nearest(unknown_name, known.iter().copied()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None => Some(format!("known: {}", known.join(", "))),
            }
        }
        _ => None,
    };
    Problem {
        message,
        span: error.span().map(SourceSpan::from),
        label: if unknown { "unknown" } else { "here" }.to_owned(),
        help,
    }
}

fn check(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    if !plain_name(&spec.name) {
        checker.problem(
            &[Key("name")],
            format!("the name must have {NAME}"),
            "not a name",
            Some(format!("for example `{}`", safe_name(&spec.name, "sweep"))),
        );
    }
    let lists = [
        ("methods", spec.methods.len()),
        ("variant", spec.variants.len()),
        ("external", spec.externals.len()),
        ("rates", spec.rates.len()),
        ("missing", spec.missing.len()),
        ("cases", spec.cases.len()),
        ("erasure_seeds", spec.erasure_seeds.len()),
        ("hyper", spec.hyper.len()),
        ("needs", spec.needs.methods.len()),
        ("method", spec.training.len()),
        ("datasets", spec.datasets.len()),
        ("encoders", spec.encoders.len()),
        ("confusions", spec.confusions.len()),
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
        return; // checking every entry would take too long
    }
    external::check(spec, checker);
    let methods = Methods::of(spec);
    check_variants(spec, &methods, checker);
    check_methods(spec, &methods, checker);
    check_datasets(spec, checker);
    cases::check(spec, checker);
    check_hyper(spec, &methods, checker);
    training::check(spec, &methods, checker);
    if spec.seeds.is_empty() {
        checker.problem(&[Key("seeds")], "no seeds", "empty", None);
    }
    duplicates(&spec.seeds, "seeds", "seed", checker);
    // Postgres and TOML have no integers beyond 63 bits.
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
            "the number of epochs must be 1 to 1,000,000",
            "out of range",
            None,
        );
    }
    check_resources(spec, checker);
    needs_rules::check(spec, checker);
    check_limits(spec, checker);
    if Rate::new(spec.protocol.selection_rate).is_err() {
        checker.problem(
            &[Key("protocol"), Key("selection_rate")],
            "the selection rate must lie between 0 and 1, with at most three decimals",
            "not a rate",
            None,
        );
    }
    check_size(spec, checker);
}

/// Whether the spec expands to no more jobs than there may be.
fn check_size(spec: &Spec, checker: &mut Checker<'_>) {
    let models = [spec.methods.len(), spec.datasets.len(), spec.seeds.len()];
    let models = models.iter().fold(1usize, |n, &m| n.saturating_mul(m));
    let jobs = models.saturating_mul(1 + spec.case_count());
    if jobs > MAX_JOBS {
        checker.problem(
            &[Step::Key("seeds")],
            format!("the spec expands to {jobs} jobs, over the limit of {MAX_JOBS}"),
            "too many in all",
            Some("split it into several specs".to_owned()),
        );
    }
}

fn check_limits(spec: &Spec, checker: &mut Checker<'_>) {
    if spec.weight.is_some_and(|w| !(0.001..=1000.0).contains(&w)) {
        checker.problem(
            &[Step::Key("weight")],
            "the weight must be 0.001 to 1000",
            "out of range",
            None,
        );
    }
    let limits = [
        ("max_running", spec.max_running, 1),
        ("max_failures", spec.max_failures, 0),
    ];
    for (key, limit, min) in limits {
        if limit.is_some_and(|limit| !(min..=1_000_000).contains(&limit)) {
            checker.problem(
                &[Step::Key(key)],
                format!("`{key}` must be {min} to 1,000,000"),
                "out of range",
                Some("leave it out for no limit".to_owned()),
            );
        }
    }
}

fn check_resources(spec: &Spec, checker: &mut Checker<'_>) {
    let at = |key| [Step::Key("resources"), Step::Key(key)];
    if let Some(workers) = spec.resources.workers
        && !(1..=256).contains(&workers)
    {
        checker.problem(
            &at("workers"),
            "the number of workers must be 1 to 256",
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
            format!("unknown device `{device}`"),
            "unknown",
            Some("write `auto`, `cpu`, `cuda:0`, or a list: `cuda:0,cuda:1`".to_owned()),
        ),
        Err(error @ DevicesError::Twice(_)) => {
            checker.problem(&at("device"), error.to_string(), "listed twice", None);
        }
        Ok(devices) => {
            let workers = spec.resources.workers.map_or(0, usize::from);
            if let Err(error) = devices.check(workers, spec.resources.share_gpus) {
                checker.problem(&at("device"), error.to_string(), "too few", None);
            }
        }
    }
}

/// The protocol that a dataset follows, if it is valid.
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
            Some(match name.to_lowercase().parse::<Kind>() {
                Ok(meant) => format!("did you mean `[datasets.{meant}]`?"),
                Err(_) => "add `benchmark = \"mosi\"` (or mosei, sims), or one of its own: \
                           `benchmark = { label_range = [-1, 1], language = \"zh\", classes = \
                           [2, 3, 5] }`"
                    .to_owned(),
            }),
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
    /// The protocol that the dataset called `name` follows; `None` if [`read`] rejects it.
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
        checker.problem(&[Key("datasets")], "no datasets", "empty", None);
    }
    for (name, dataset) in &spec.datasets {
        if check_protocol(name, dataset, checker).is_none() {
            continue;
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
        if let Some(kept) = dataset.file.strip_prefix("dataset:")
            && !valid_name(kept)
        {
            checker.problem(
                &[Key("datasets"), Key(name), Key("file")],
                format!("`{kept}` is not a valid dataset name"),
                "not a name",
                Some(format!(
                    "a name has {NAME}; a file elsewhere is named by its path alone"
                )),
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
    }
}
