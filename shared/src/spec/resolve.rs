//! Looks at the files that a spec names and fills in everything that it leaves open.

use super::{
    BuiltIn, Problem, Spec, SpecError,
    effect::{self, place_of},
    external::Methods,
    files::{Files, FoundEncoder, FoundProgram},
    methods::variant_changes,
    needs::ResolvedNeeds,
    needs_rules,
    place::{Checker, Step},
};
use crate::{
    benchmark::{Benchmark, Kind, whole},
    case::Rate,
    encoder::TokenIds,
    external::{HYPER_KEY, Program},
    ids::SweepId,
    methods::{DataFacts, EncoderShape, MAX_EPOCHS_KEY, MethodInfo, Setup, results_fit},
    numerics::Numerics,
    wire::{BlobRef, Protocol, TrainSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The hyper-parameter of methods that make labels for single modalities: within ± this.
const LABEL_BOUND: &str = "label_bound";

/// A spec with everything filled in: what the database keeps, and what ids derive from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolvedSpec {
    /// The sweep's name.
    pub name: String,
    /// Methods and variants, in order.
    pub methods: Vec<ResolvedMethod>,
    /// Datasets, by name.
    pub datasets: Vec<ResolvedDataset>,
    /// Seeds, in order.
    pub seeds: Vec<u64>,
    /// Cases in their text form, in order.
    pub cases: Vec<String>,
    /// How to train and select.
    pub protocol: Protocol,
    /// Reproducibility of the numbers. The default is not written: sweeps without it keep the ids that
    /// they had before this setting existed.
    #[serde(default, skip_serializing_if = "Numerics::is_default")]
    pub numerics: Numerics,
}

/// A method or variant with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolvedMethod {
    /// The method's id.
    pub method: String,
    /// The variant's id, empty for the method itself.
    pub variant: String,
    /// All hyper-parameters by dataset.
    pub hyper: BTreeMap<String, Map<String, Value>>,
    /// What its jobs need of a worker. Not part of any id.
    #[serde(default, skip_serializing_if = "ResolvedNeeds::is_none")]
    pub needs: ResolvedNeeds,
}

/// A dataset with its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedDataset {
    /// The name under which results are kept, and the protocol.
    #[serde(with = "whole")]
    pub benchmark: Benchmark,
    /// Its file.
    pub data: BlobRef,
    /// Its text encoder.
    pub encoder: BlobRef,
    /// The special tokens of the encoder's vocabulary; left out where they are BERT's, so that ids
    /// stay what they were before they could be others.
    #[serde(default, skip_serializing_if = "TokenIds::is_bert")]
    pub tokens: TokenIds,
}

/// Resolves a spec that [`read`](super::read) has checked. `path` and `text` are for messages.
///
/// # Errors
///
/// All missing or unsuitable files, each with its place in the spec.
pub fn resolve(
    path: &str,
    text: &str,
    spec: &Spec,
    files: &mut dyn Files,
) -> Result<ResolvedSpec, SpecError> {
    resolve_noting(path, text, spec, files, &mut Vec::new())
}

/// As [`resolve`], with what can be run and is worth knowing all the same: settings without effect,
/// batches that come out odd.
///
/// # Errors
///
/// As those of [`resolve`].
pub fn resolve_noting(
    path: &str,
    text: &str,
    spec: &Spec,
    files: &mut dyn Files,
    notes: &mut Vec<Problem>,
) -> Result<ResolvedSpec, SpecError> {
    let mut checker = Checker::new(text);
    let mut noted = Checker::new(text);
    let encoders = find_encoders(spec, files, &mut checker);
    let (datasets, grounds) = find_datasets(spec, files, &encoders, &mut checker);
    let programs = find_programs(spec, files, &mut checker);
    let methods = resolve_methods(spec, &grounds, &programs, &mut checker, &mut noted);
    let rate = Rate::new(spec.protocol.selection_rate);
    if !checker.is_empty() {
        return Err(SpecError::new(path, text, checker.into_problems()));
    }
    notes.extend(effect::idle(text, spec));
    notes.extend(noted.into_problems());
    Ok(ResolvedSpec {
        name: spec.name.clone(),
        methods,
        datasets,
        seeds: spec.seeds.clone(),
        cases: spec.cases().iter().map(ToString::to_string).collect(),
        protocol: Protocol {
            selection: spec.protocol.selection,
            train_missing: spec.protocol.train_missing,
            erasure_seed: spec.protocol.erasure_seed,
            selection_rate: rate.map_or(500, Rate::thousandths),
            fidelity: spec.protocol.fidelity,
        },
        numerics: spec.protocol.numerics,
    })
}

fn find_encoders(
    spec: &Spec,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) -> BTreeMap<String, FoundEncoder> {
    let mut found = BTreeMap::new();
    for (language, encoder) in &spec.encoders {
        match files.encoder(language, &encoder.path) {
            Ok(encoder) => {
                found.insert(language.clone(), encoder);
            }
            Err(reason) => checker.problem(
                &[
                    Step::Key("encoders"),
                    Step::Key(language),
                    Step::Key("path"),
                ],
                reason,
                "cannot be used",
                None,
            ),
        }
    }
    found
}

/// The external programs that are run, by their ids, as trainings are given them.
fn find_programs(
    spec: &Spec,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (i, external) in spec.used_externals() {
        match files.program(external) {
            Ok(FoundProgram { files, bundle }) => {
                let program = Program {
                    command: external.command.clone(),
                    needs: external.needs.clone(),
                    files,
                    bundle,
                };
                // Strings by strings: it always serializes.
                let program = serde_json::to_value(program).unwrap_or_default();
                found.insert(external.id.clone(), program);
            }
            Err(reason) => checker.problem(
                &[Step::Key("external"), Step::Index(i), Step::Key("files")],
                reason,
                "cannot be used",
                None,
            ),
        }
    }
    found
}

/// What is known of the sizes of a dataset and its encoder.
#[derive(Default)]
struct Ground {
    data: Option<DataFacts>,
    encoder: Option<EncoderShape>,
}

#[expect(
    clippy::too_many_lines,
    reason = "one check of a dataset after the other"
)]
fn find_datasets(
    spec: &Spec,
    files: &mut dyn Files,
    encoders: &BTreeMap<String, FoundEncoder>,
    checker: &mut Checker<'_>,
) -> (Vec<ResolvedDataset>, BTreeMap<String, Ground>) {
    let (mut found, mut grounds) = (Vec::new(), BTreeMap::new());
    for (name, dataset) in &spec.datasets {
        let file = [Step::Key("datasets"), Step::Key(name), Step::Key("file")];
        let here = match files.dataset(name, dataset) {
            Ok(here) => here,
            Err(reason) => {
                checker.problem(&file, reason, "cannot be used", None);
                continue;
            }
        };
        let kind = dataset.kind(name).unwrap_or(here.kind);
        if here.kind != kind {
            let (message, help) = other_protocol(name, kind, here.kind);
            checker.problem(&file, message, "another protocol", Some(help));
            continue;
        }
        let Ok(benchmark) = Benchmark::new(name, kind) else {
            continue; // `read` has refused it
        };
        if let Some(hash) = &dataset.blake3
            && !hash.eq_ignore_ascii_case(&here.blob.blake3)
        {
            checker.problem(
                &[Step::Key("datasets"), Step::Key(name), Step::Key("blake3")],
                format!("the file has the hash {}", here.blob.blake3),
                "another file was meant",
                Some("put the right file there, or the right hash here".to_owned()),
            );
            continue;
        }
        if let Some(facts) = &here.facts
            && let Err(message) = results_fit(benchmark, facts.samples[2])
        {
            checker.problem(
                &file,
                format!("the dataset `{name}`: {message}"),
                "too large",
                None,
            );
        }
        let language = dataset
            .language
            .as_deref()
            .unwrap_or_else(|| kind.language());
        grounds.insert(
            name.clone(),
            Ground {
                data: here.facts,
                encoder: encoders.get(language).and_then(|encoder| encoder.shape),
            },
        );
        let Some(encoder) = encoders.get(language) else {
            if !spec.encoders.contains_key(language) {
                checker.problem(
                    &[Step::Key("datasets"), Step::Key(name)],
                    format!("the dataset `{name}` needs a text encoder for `{language}`"),
                    "no encoder for it",
                    Some(format!(
                        "add `[encoders.{language}]` with `path` of a folder with config.json and \
                         model.safetensors"
                    )),
                );
            }
            continue; // reported with the encoders
        };
        let misfit = here
            .texts
            .as_ref()
            .and_then(|texts| texts.misfit(&encoder.facts));
        if let Some(what) = misfit {
            checker.problem(
                &file,
                format!(
                    "the dataset `{name}` does not fit the text encoder for `{language}`: {what}"
                ),
                "does not fit",
                Some(
                    "give `[encoders]` the encoder whose tokenizer wrote the dataset's texts, or \
                     create the dataset again with this one's"
                        .to_owned(),
                ),
            );
            continue;
        }
        found.push(ResolvedDataset {
            benchmark,
            data: here.blob,
            encoder: encoder.blob.clone(),
            tokens: encoder.facts.tokens,
        });
    }
    found.sort_by_key(|dataset| dataset.benchmark);
    (found, grounds)
}

/// What to say of a dataset that was imported for another protocol than the spec says, and what to
/// do.
fn other_protocol(name: &str, wanted: Kind, found: Kind) -> (String, String) {
    if let (Kind::Own(_), Kind::Own(_)) = (wanted, found) {
        let differences = wanted.definition().differences(found.definition());
        let message = format!(
            "the file of the dataset `{name}` was imported with another definition than the spec's \
             `benchmark`: {}",
            differences.join("; ")
        );
        let help = "write there what the file was imported with, or import it again with \
                    `--replace` and this definition";
        return (message, help.to_owned());
    }
    let written = |kind: Kind| match kind {
        Kind::Own(_) => format!("a definition of its own ({kind})"),
        built_in => format!("the protocol of {built_in}"),
    };
    let help = match wanted {
        Kind::Own(_) => "import it with the definition that `benchmark` has (`coord data import \
                         --label-range …`, docs/guide/own-dataset.md)"
            .to_owned(),
        built_in => format!("import it with `--as {built_in}`"),
    };
    let message = format!(
        "the dataset `{name}` is to follow {}, but its file was imported with {}",
        written(wanted),
        written(found)
    );
    (message, help)
}

fn resolve_methods(
    spec: &Spec,
    grounds: &BTreeMap<String, Ground>,
    programs: &BTreeMap<String, Value>,
    checker: &mut Checker<'_>,
    noted: &mut Checker<'_>,
) -> Vec<ResolvedMethod> {
    let known = Methods::of(spec);
    let mut resolved = Vec::new();
    for (i, id) in spec.methods.iter().enumerate() {
        let (method, variant) = id.split_once('/').unwrap_or((id, ""));
        let Some(info) = known.find(method) else {
            continue; // `read` has refused it
        };
        let change = variant_changes(spec, info, variant);
        let mut hyper = BTreeMap::new();
        for (name, dataset) in &spec.datasets {
            let Some(kind) = dataset.kind(name) else {
                continue;
            };
            if let Some(lacking) = info.lacks(kind) {
                checker.problem(
                    &[Step::Key("methods"), Step::Index(i)],
                    format!(
                        "{} needs {lacking}, which the dataset `{name}` does not have",
                        info.name
                    ),
                    "cannot train on it",
                    Some(format!(
                        "remove the method, or put `{name}` into a spec of its own without it; \
                         if its file has them, import it again with them (docs/guide/own-dataset.md)"
                    )),
                );
                continue;
            }
            // What the method has for another dataset, and the bound of labels that it makes.
            let like = dataset.hyper_like.map_or(kind, BuiltIn::kind);
            let bound = own_bound(info, kind);
            // The method's settings in the spec, then the variant's change, then the variant's own
            // settings in the spec: the nearer says more.
            let (base, base_own) = settings(spec, method, name, kind);
            let (named, named_own) = if variant.is_empty() {
                (Map::new(), Map::new())
            } else {
                settings(spec, id, name, kind)
            };
            let epochs: Map<String, Value> = spec
                .epochs
                .map(|epochs| (MAX_EPOCHS_KEY.to_owned(), Value::from(epochs)))
                .into_iter()
                .collect();
            let changes = [
                &bound, &epochs, &base, &base_own, &change, &named, &named_own,
            ];
            match info.resolve(like.as_str(), &changes) {
                Ok(mut resolved) => {
                    let at = Place {
                        spec,
                        i,
                        id,
                        dataset: name,
                    };
                    at.fit(info, &resolved, grounds.get(name), checker, noted);
                    if let Some(program) = programs.get(method) {
                        resolved.insert(HYPER_KEY.to_owned(), program.clone());
                    }
                    hyper.insert(name.to_owned(), resolved);
                }
                Err(error) => checker.problem(
                    &[Step::Key("methods"), Step::Index(i)],
                    error,
                    "of this method",
                    None,
                ),
            }
        }
        resolved.push(ResolvedMethod {
            method: method.to_owned(),
            variant: variant.to_owned(),
            hyper,
            needs: needs_rules::resolve(spec, method, variant),
        });
    }
    resolved
}

/// A method or variant on a dataset.
struct Place<'s> {
    spec: &'s Spec,
    /// Its place in `methods`.
    i: usize,
    id: &'s str,
    dataset: &'s str,
}

impl Place<'_> {
    /// Asks whether the method fits the sizes of dataset and encoder.
    fn fit(
        &self,
        info: &MethodInfo,
        hyper: &Map<String, Value>,
        ground: Option<&Ground>,
        checker: &mut Checker<'_>,
        noted: &mut Checker<'_>,
    ) {
        let fit = info.fit(Setup {
            hyper,
            fidelity: self.spec.protocol.fidelity,
            data: ground.and_then(|ground| ground.data.as_ref()),
            encoder: ground.and_then(|ground| ground.encoder.as_ref()),
        });
        let set = |key| place_of(self.spec, self.id, self.dataset, key);
        let named = || vec![Step::Key("methods"), Step::Index(self.i)];
        let (method, dataset) = (&info.id, self.dataset);
        for misfit in fit.misfits() {
            let at = misfit.keys.iter().find_map(|key| set(key));
            checker.problem(
                &at.unwrap_or_else(named),
                format!("{method} cannot be trained on {dataset}: {}", misfit.what),
                "does not fit",
                Some(misfit.help.clone()),
            );
        }
        for note in fit.notes() {
            noted.problem(&named(), format!("{method} on {dataset}: {note}"), "", None);
        }
        for (key, why) in fit.idle() {
            if let Some(at) = set(key) {
                let message = format!("`{key}` of {} has no effect: {why}", self.id);
                noted.problem_key(&at, message, "without effect", None);
            }
        }
    }
}

/// The bound of the labels that a method makes for single modalities, where it has one: on a dataset
/// with a protocol of its own half the width of its range, about whose middle models are trained.
fn own_bound(info: &MethodInfo, kind: Kind) -> Map<String, Value> {
    let mut bound = Map::new();
    let bounded = !info.external && info.hyper.contains_key(LABEL_BOUND);
    if let (Kind::Own(_), true) = (kind, bounded) {
        let [low, high] = kind.definition().label_range;
        bound.insert(LABEL_BOUND.to_owned(), Value::from((high - low) / 2.0));
    }
    bound
}

/// What `[hyper.<id>]` says for all datasets, and for this one.
///
/// What is said for the protocol that it follows is said for this one, too; what is said by its
/// own name comes last.
fn settings(
    spec: &Spec,
    id: &str,
    dataset: &str,
    kind: Kind,
) -> (Map<String, Value>, Map<String, Value>) {
    let Some(all) = spec.hyper.get(id) else {
        return Default::default();
    };
    let shared = all
        .iter()
        .filter(|(_, value)| !value.is_object())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut own = Map::new();
    for name in [kind.as_str(), dataset] {
        let said = all.get(name).and_then(Value::as_object);
        own.extend(
            said.into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    (shared, own)
}

impl ResolvedSpec {
    /// The sweep's id: of everything that results depend on. Paths are hints and take no part, so
    /// that the same spec is the same sweep wherever it is submitted; a `nonce` makes it another.
    pub fn sweep_id(&self, nonce: Option<&str>) -> SweepId {
        let mut content = self.clone();
        for dataset in &mut content.datasets {
            dataset.data.path.clear();
            dataset.encoder.path.clear();
        }
        for method in &mut content.methods {
            method.needs = ResolvedNeeds::default();
        }
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers, lists and tables with string keys always write; a default \
                      would give every sweep the same id"
        )]
        let text = serde_json::to_string(&content).expect("a resolved spec writes as JSON");
        SweepId::derive(&[text.as_bytes(), nonce.unwrap_or_default().as_bytes()])
    }

    /// What one training trains.
    pub fn train_spec(
        &self,
        method: &ResolvedMethod,
        dataset: &ResolvedDataset,
        seed: u64,
    ) -> TrainSpec {
        let benchmark = dataset.benchmark;
        let hyper = method.hyper.get(benchmark.id());
        let hyper = hyper.cloned().unwrap_or_default();
        let max_epochs = hyper.get(MAX_EPOCHS_KEY).and_then(Value::as_u64);
        TrainSpec {
            method: method.method.clone(),
            variant: method.variant.clone(),
            dataset: benchmark,
            data: dataset.data.clone(),
            encoder: dataset.encoder.clone(),
            tokens: dataset.tokens,
            seed,
            // `MethodInfo::check` keeps it within `MAX_EPOCHS`.
            max_epochs: max_epochs.and_then(|e| u32::try_from(e).ok()).unwrap_or(1),
            hyper: Value::Object(hyper).to_string(),
            protocol: self.protocol.clone(),
            numerics: self.numerics,
        }
    }
}
