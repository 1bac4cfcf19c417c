//! A spec with everything filled in: what ids derive from.

use super::needs::ResolvedNeeds;
use crate::{
    benchmark::{Benchmark, whole},
    encoder::TokenIds,
    external::HYPER_KEY,
    ids::SweepId,
    methods::{MAX_EPOCHS_KEY, TRAIN_MISSING_KEY},
    numerics::Numerics,
    regime::Regime,
    wire::{BlobRef, Protocol, TrainSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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
    /// How it is trained, where it is otherwise than the sweep says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// What it reads of a dataset, where it is other than what other methods read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, ResolvedInputs>,
    /// What its jobs need of a worker. Not part of any id.
    #[serde(default, skip_serializing_if = "ResolvedNeeds::is_none")]
    pub needs: ResolvedNeeds,
}

/// What a method reads of a dataset, where it is other than what the others read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedInputs {
    /// Its file.
    pub data: BlobRef,
    /// Its text encoder.
    pub encoder: BlobRef,
    /// The special tokens of the encoder's vocabulary.
    #[serde(default, skip_serializing_if = "TokenIds::is_bert")]
    pub tokens: TokenIds,
    /// The hash of the table of what words are heard as, in the encoder's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusions: Option<String>,
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
    /// The hash of the table of what words are heard as, in the encoder's tokens; left out without
    /// errors of speech recognition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusions: Option<String>,
}

/// Whether hyper-parameters have a method of the registry train on complete inputs, as those of
/// `lnln/no-train-missing` do. What an external program calls so is its own affair.
pub(super) fn trains_on_complete_inputs(hyper: &Map<String, Value>) -> bool {
    let switched_off = hyper.get(TRAIN_MISSING_KEY) == Some(&Value::Bool(false));
    switched_off && !hyper.contains_key(HYPER_KEY)
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
            for inputs in method.inputs.values_mut() {
                inputs.data.path.clear();
                inputs.encoder.path.clear();
            }
        }
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers, lists and tables with string keys always write; a default \
                      would give every sweep the same id"
        )]
        let text = serde_json::to_string(&content).expect("a resolved spec writes as JSON");
        SweepId::derive(&[text.as_bytes(), nonce.unwrap_or_default().as_bytes()])
    }

    /// How a method is trained.
    pub fn protocol_of<'s>(&'s self, method: &'s ResolvedMethod) -> &'s Protocol {
        method.protocol.as_ref().unwrap_or(&self.protocol)
    }

    /// What a method reads of a dataset: its file, its text encoder, and the encoder's special tokens.
    pub fn inputs_of<'s>(
        &'s self,
        method: &'s ResolvedMethod,
        dataset: &'s ResolvedDataset,
    ) -> (&'s BlobRef, &'s BlobRef, TokenIds) {
        match method.inputs.get(dataset.benchmark.id()) {
            Some(own) => (&own.data, &own.encoder, own.tokens),
            None => (&dataset.data, &dataset.encoder, dataset.tokens),
        }
    }

    /// Every file with the text encoder that reads it, each pair once: those of datasets, then those
    /// of single methods.
    pub fn inputs(&self) -> Vec<(&BlobRef, &BlobRef)> {
        let datasets = self.datasets.iter();
        let mut all: Vec<_> = datasets.map(|own| (&own.data, &own.encoder)).collect();
        let own = self
            .methods
            .iter()
            .flat_map(|method| method.inputs.values());
        for pair in own.map(|own| (&own.data, &own.encoder)) {
            if !all.contains(&pair) {
                all.push(pair);
            }
        }
        all
    }

    /// How a method is trained on a dataset: on complete inputs where its hyper-parameters say so.
    pub fn protocol_on(&self, method: &ResolvedMethod, dataset: &ResolvedDataset) -> Protocol {
        let mut protocol = self.protocol_of(method).clone();
        let hyper = method.hyper.get(dataset.benchmark.id());
        if hyper.is_some_and(trains_on_complete_inputs) {
            protocol.train_missing = Regime::Complete;
        }
        protocol
    }

    /// The hash of the table by which a method's texts are misheard.
    pub fn confusions<'s>(
        &'s self,
        method: &'s ResolvedMethod,
        dataset: &'s ResolvedDataset,
    ) -> Option<&'s str> {
        let own = method.inputs.get(dataset.benchmark.id());
        let found = own.map_or(&dataset.confusions, |own| &own.confusions);
        found.as_deref()
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
        let (data, encoder, tokens) = self.inputs_of(method, dataset);
        TrainSpec {
            method: method.method.clone(),
            variant: method.variant.clone(),
            dataset: benchmark,
            data: data.clone(),
            encoder: encoder.clone(),
            tokens,
            seed,
            // `MethodInfo::check` keeps it within `MAX_EPOCHS`.
            max_epochs: max_epochs.and_then(|e| u32::try_from(e).ok()).unwrap_or(1),
            hyper: Value::Object(hyper).to_string(),
            protocol: self.protocol_on(method, dataset),
            numerics: self.numerics,
        }
    }
}
