//! Looks at the files that a spec names and fills in everything that it leaves open.

use super::{
    DatasetSpec, Spec, SpecError,
    place::{Checker, Step},
    read::variant_changes,
};
use crate::{
    benchmark::Benchmark,
    case::Rate,
    ids::SweepId,
    methods,
    numerics::Numerics,
    wire::{BlobRef, Protocol, TrainSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A dataset that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDataset {
    /// The file and its hash.
    pub blob: BlobRef,
    /// Whose protocol it was imported for.
    pub benchmark: Benchmark,
    /// Its largest token id, where that is known without reading all of it.
    pub largest_token: Option<u64>,
    /// Its text length in tokens, where known.
    pub text_length: Option<u64>,
}

/// An encoder that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEncoder {
    /// Its folder, and the hash of its weights.
    pub blob: BlobRef,
    /// How many tokens it knows.
    pub vocabulary: Option<u64>,
    /// The longest text it takes, in tokens.
    pub longest: Option<u64>,
}

/// Finds what a spec names. An error says what is missing and what to do, for people.
pub trait Files {
    /// The dataset file of `spec`; one that can be made may be made now.
    ///
    /// # Errors
    ///
    /// It is not there, or it is none.
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String>;

    /// The encoder folder at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, or it is none.
    fn encoder(&mut self, language: &str, path: &str) -> Result<FoundEncoder, String>;
}

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
    /// To which bits to compute. The default is not written, so that a sweep that says nothing of
    /// it keeps the id that it had before it could be said.
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
    /// All hyper-parameters by benchmark.
    pub hyper: BTreeMap<String, Map<String, Value>>,
}

/// A dataset with its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedDataset {
    /// Its protocol: the name under which results are kept.
    pub benchmark: Benchmark,
    /// Its file.
    pub data: BlobRef,
    /// Its text encoder.
    pub encoder: BlobRef,
}

/// Resolves a spec that [`read`](super::read) has checked. `path` and `text` are for messages.
///
/// # Errors
///
/// All that is missing or does not fit, each with its place.
pub fn resolve(
    path: &str,
    text: &str,
    spec: &Spec,
    files: &mut dyn Files,
) -> Result<ResolvedSpec, SpecError> {
    let mut checker = Checker::new(text);
    let encoders = find_encoders(spec, files, &mut checker);
    let datasets = find_datasets(spec, files, &encoders, &mut checker);
    let methods = resolve_methods(spec, &mut checker);
    let rate = Rate::new(spec.protocol.selection_rate);
    if !checker.is_empty() {
        return Err(SpecError::new(path, text, checker.into_problems()));
    }
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

fn find_datasets(
    spec: &Spec,
    files: &mut dyn Files,
    encoders: &BTreeMap<String, FoundEncoder>,
    checker: &mut Checker<'_>,
) -> Vec<ResolvedDataset> {
    let mut found = Vec::new();
    for (name, dataset) in &spec.datasets {
        let file = [Step::Key("datasets"), Step::Key(name), Step::Key("file")];
        let here = match files.dataset(name, dataset) {
            Ok(here) => here,
            Err(reason) => {
                checker.problem(&file, reason, "cannot be used", None);
                continue;
            }
        };
        let wanted = dataset.benchmark.or_else(|| name.parse().ok());
        let benchmark = wanted.unwrap_or(here.benchmark);
        if here.benchmark != benchmark {
            checker.problem(
                &file,
                format!(
                    "the dataset `{name}` is to follow the protocol of {benchmark}, but its file \
                     was imported as {}",
                    here.benchmark
                ),
                "another protocol",
                Some(format!("import it with `--as {benchmark}`")),
            );
            continue;
        }
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
        let language = dataset
            .language
            .as_deref()
            .unwrap_or_else(|| benchmark.language());
        let Some(encoder) = encoders.get(language) else {
            continue; // told with the encoders, or refused by `read`
        };
        if let Some(message) = misfit(name, &here, language, encoder) {
            let help = "the dataset was made with another encoder's vocabulary: give \
                        `[encoders]` that one, or make the dataset anew";
            checker.problem(&file, message, "does not fit", Some(help.to_owned()));
            continue;
        }
        found.push(ResolvedDataset {
            benchmark,
            data: here.blob,
            encoder: encoder.blob.clone(),
        });
    }
    found.sort_by_key(|dataset| dataset.benchmark);
    found
}

/// Why an encoder cannot read a dataset's texts: looking up a token beyond its tables would end a
/// worker in mid-training.
fn misfit(
    name: &str,
    dataset: &FoundDataset,
    language: &str,
    encoder: &FoundEncoder,
) -> Option<String> {
    match (dataset.largest_token, encoder.vocabulary) {
        (Some(token), Some(known)) if token >= known => {
            return Some(format!(
                "the dataset `{name}` has the token {token}, but the text encoder for \
                 `{language}` knows only {known} tokens"
            ));
        }
        _ => {}
    }
    match (dataset.text_length, encoder.longest) {
        (Some(length), Some(longest)) if length > longest => Some(format!(
            "texts of the dataset `{name}` have {length} tokens, but the text encoder for \
             `{language}` takes at most {longest}"
        )),
        _ => None,
    }
}

fn resolve_methods(spec: &Spec, checker: &mut Checker<'_>) -> Vec<ResolvedMethod> {
    let mut resolved = Vec::new();
    for (i, id) in spec.methods.iter().enumerate() {
        let (method, variant) = id.split_once('/').unwrap_or((id, ""));
        let Some(info) = methods::find(method) else {
            continue; // `read` has refused it
        };
        let change = variant_changes(spec, info, variant);
        let mut hyper = BTreeMap::new();
        for (name, dataset) in &spec.datasets {
            let Some(benchmark) = dataset.benchmark.or_else(|| name.parse().ok()) else {
                continue;
            };
            // The method's settings in the spec, then the variant's change, then the variant's own
            // settings in the spec: the nearer says more.
            let (base, base_own) = settings(spec, method, name);
            let (named, named_own) = if variant.is_empty() {
                (Map::new(), Map::new())
            } else {
                settings(spec, id, name)
            };
            let epochs: Map<String, Value> = spec
                .epochs
                .map(|epochs| ("max_epochs".to_owned(), Value::from(epochs)))
                .into_iter()
                .collect();
            let changes = [&epochs, &base, &base_own, &change, &named, &named_own];
            match info.resolve(benchmark.id(), &changes) {
                Ok(resolved) => {
                    hyper.insert(benchmark.id().to_owned(), resolved);
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
        });
    }
    resolved
}

/// What `[hyper.<id>]` says for all datasets, and for this one.
fn settings(spec: &Spec, id: &str, dataset: &str) -> (Map<String, Value>, Map<String, Value>) {
    let Some(all) = spec.hyper.get(id) else {
        return Default::default();
    };
    let shared = all
        .iter()
        .filter(|(_, value)| !value.is_object())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let own = all.get(dataset).and_then(Value::as_object).cloned();
    (shared, own.unwrap_or_default())
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
        let benchmark = dataset.benchmark.id();
        let hyper = method.hyper.get(benchmark).cloned().unwrap_or_default();
        let max_epochs = hyper.get("max_epochs").and_then(Value::as_u64);
        TrainSpec {
            method: method.method.clone(),
            variant: method.variant.clone(),
            dataset: benchmark.to_owned(),
            data: dataset.data.clone(),
            encoder: dataset.encoder.clone(),
            seed,
            // `MethodInfo::check` keeps it within `MAX_EPOCHS`.
            max_epochs: max_epochs.and_then(|e| u32::try_from(e).ok()).unwrap_or(1),
            hyper: Value::Object(hyper).to_string(),
            protocol: self.protocol.clone(),
            numerics: self.numerics,
        }
    }
}
