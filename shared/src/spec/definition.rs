//! The tables and keys of a spec.

use super::{BenchmarkSpec, BuiltIn, NeedSpec, NeedsSpec};
use crate::{
    numerics::Numerics,
    regime::Regime,
    wire::{Fidelity, Selection},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The form of a further case.
const CASE: &str = r"^(r=(0|1|0\.\d{1,3})(\+missing=[lav]{1,2})?|(missing|permuted)=[lav]{1,2}|averaged=(a|v|av)|(mr|block|bursts|asr)=(1|0\.\d{1,3})|l=(0|1|0\.\d{1,3}),a=(0|1|0\.\d{1,3}),v=(0|1|0\.\d{1,3})|noise=\d{1,2}(\.\d{1,3})?)(@\d{1,10})?$";

/// A benchmark: which methods are trained on which datasets and tested under which missing data.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The sweep's name, for people: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Methods and variants by id: `"lnln"`, `"lnln/no-dmc"`.
    #[schemars(length(min = 1))]
    pub methods: Vec<String>,
    /// Datasets by name.
    pub datasets: BTreeMap<String, DatasetSpec>,
    /// Random seeds: one training run per seed.
    #[schemars(length(min = 1))]
    pub seeds: Vec<u64>,
    /// Missing rates to test at, 0 to 1, with at most three decimals.
    #[serde(default)]
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub rates: Vec<f64>,
    /// Sets of missing modalities to test: `"l"`, `"a"`, `"v"`, `"la"`, `"lv"`, `"av"`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^[lav]{1,2}$")))]
    pub missing: Vec<String>,
    /// Further cases: `"r=0.3+missing=la"`, `"mr=0.3"` (whole modalities at random, one kept),
    /// `"l=0.7,a=0.1,v=0.3"` (each modality at its own rate), `"block=0.3"` and `"bursts=0.3"`
    /// (contiguous steps), `"asr=0.3"` (errors of speech recognition), `"noise=0.5"` (in standard
    /// deviations), `"permuted=a"` (of another sample), `"averaged=a"` (the training split's mean); each
    /// with `@1112` for another erasure seed, if it is drawn.
    #[serde(default)]
    #[schemars(inner(regex(pattern = CASE)))]
    pub cases: Vec<String>,
    /// Further erasure seeds: every case that is drawn is tested under each, besides the protocol's
    /// `erasure_seed`. Models are not trained anew.
    #[serde(default)]
    pub erasure_seeds: Vec<u32>,
    /// Maximum epochs of every training run, instead of each method's own.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: Option<u32>,
    /// Sweeps with a higher priority are served first.
    #[serde(default)]
    pub priority: i32,
    /// The sweep's share of the workers among its owner's sweeps of equal priority; 1, if left out.
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub weight: Option<f64>,
    /// How many of its jobs may run at once; any number, if left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_running: Option<u32>,
    /// The sweep is paused when more of its jobs have failed than this; never, if left out.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_failures: Option<u32>,
    /// What its jobs need of a worker.
    #[serde(default)]
    pub needs: NeedsSpec,
    /// Resources that `coord run` gives the sweep on this machine.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// How to train and select.
    #[serde(default)]
    pub protocol: ProtocolSpec,
    /// Text encoders by language.
    pub encoders: BTreeMap<String, EncoderSpec>,
    /// What words are heard as, by language, for `asr=`: `builtin` (English words that sound alike), or a
    /// file of lines `word<TAB>heard as<TAB>weight`, relative to the spec. English has `builtin`, if left
    /// out.
    #[serde(default)]
    pub confusions: BTreeMap<String, String>,
    /// Hyper-parameters by method, and below a method by dataset.
    #[serde(default)]
    pub hyper: BTreeMap<String, Map<String, Value>>,
    /// How single methods and variants are trained, where it is otherwise than `protocol`,
    /// `datasets` and `encoders` say.
    #[serde(default, rename = "method")]
    pub training: BTreeMap<String, TrainingSpec>,
    /// Your own variants.
    #[serde(default, rename = "variant")]
    pub variants: Vec<VariantSpec>,
    /// Programs of your own as methods.
    #[serde(default, rename = "external")]
    pub externals: Vec<ExternalSpec>,
}

/// A dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    /// The imported file, relative to the spec, or `dataset:NAME` for one in the data folder
    /// (`coord data import` puts it there).
    pub file: String,
    /// BLAKE3 hash of the file, checked if given.
    #[serde(default)]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    pub blake3: Option<String>,
    /// Whose protocol it follows, `mosi`, `mosei` or `sims`, or a protocol of its own; its own name,
    /// if left out.
    #[serde(default)]
    pub benchmark: Option<BenchmarkSpec>,
    /// The language of its texts; that of its benchmark, if left out.
    #[serde(default)]
    pub language: Option<String>,
    /// Whose hyper-parameters methods start from on a dataset with a protocol of its own: `mosi`,
    /// `mosei` or `sims`; what a method has for all datasets, if left out.
    #[serde(default)]
    #[schemars(with = "Option<BuiltIn>")]
    pub hyper_like: Option<BuiltIn>,
    /// Creates the dataset if it is missing: synthetic, small, learnable.
    #[serde(default)]
    pub synthesize: Option<SynthesizeSpec>,
}

/// A synthetic dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SynthesizeSpec {
    /// Training samples.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train: usize,
    /// Validation samples.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub valid: usize,
    /// Test samples.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test: usize,
    /// Seed of the synthetic data.
    #[serde(default)]
    pub seed: u64,
}

/// How to train and select.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProtocolSpec {
    /// On which split the best epoch is chosen: `validation`, `test` as the paper's code does, or `both`,
    /// which keeps either choice.
    pub selection: Selection,
    /// What is missing of the samples that methods train on.
    pub train_missing: Regime,
    /// Seed of the erasure of validation and test data.
    pub erasure_seed: u32,
    /// Missing rate of the split that checkpoints are chosen on.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub selection_rate: f64,
    /// `reference`: as the published code does; `corrected`: as the papers say where the two differ.
    pub fidelity: Fidelity,
    /// Single faults of references, kept (`true`) or corrected (`false`) whatever `fidelity` says:
    /// `{ grl-on-proxy = false }`. docs/reference/methods.md lists them.
    pub faults: BTreeMap<String, bool>,
    /// `machine`: the same bits on machines of the same kind, as fast as they can; `portable`: the
    /// same bits on every x86-64 processor with AVX2, slower and never on a GPU; `bf16`: products of
    /// matrices in bfloat16, faster on processors and GPUs that have it, with results of their own.
    pub numerics: Numerics,
}

impl Default for ProtocolSpec {
    fn default() -> Self {
        Self {
            selection: Selection::Validation,
            train_missing: Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 0.5,
            fidelity: Fidelity::Reference,
            faults: BTreeMap::new(),
            numerics: Numerics::Machine,
        }
    }
}

/// A text encoder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// The folder of a BERT or RoBERTa in the Hugging Face layout, relative to the spec, or
    /// `encoder:en` for the one that set-up brought.
    pub path: String,
}

/// How a method or variant is trained, where it is otherwise than for the sweep.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSpec {
    /// What is missing of the samples that it trains on.
    pub train_missing: Option<Regime>,
    /// Single faults of its reference, kept or corrected whatever `fidelity` says.
    pub faults: BTreeMap<String, bool>,
    /// Its text encoders by language.
    pub encoders: BTreeMap<String, EncoderSpec>,
    /// Its files by dataset: TETFN's reference reads the aligned one.
    pub files: BTreeMap<String, String>,
}

/// What `coord run` gives a sweep. Workers of a cluster say for themselves how many slots they have
/// and where they compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourcesSpec {
    /// Workers, each a process; `--workers` says otherwise. Left out: one for each GPU, or on the CPU
    /// what `coord tune-machine` found, or two.
    #[serde(default)]
    #[schemars(range(min = 1, max = 256))]
    pub workers: Option<u16>,
    /// Where they compute: `auto` (one GPU each; the CPU if there is none), `cpu`, `cuda:N`, or a
    /// list `cuda:0,cuda:1` whose GPUs they take in turn; `--device` says otherwise.
    #[serde(default)]
    #[schemars(regex(pattern = "^(auto|cpu|cuda|cuda:[0-9]+(, *cuda:[0-9]+)*)$"))]
    pub device: Option<String>,
    /// Whether several workers may compute on one GPU, as with `--share-gpus`. Otherwise no more
    /// start than there are GPUs.
    #[serde(default)]
    pub share_gpus: bool,
}

/// A variant that the spec defines.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// Method and name: `lnln/wide`. It must be named in `methods` to be run.
    pub id: String,
    /// What it is about.
    #[serde(default)]
    pub about: String,
    /// A variant of the same method that it starts from, built in or written above it; the method
    /// itself, if left out.
    #[serde(default)]
    pub base: Option<String>,
    /// The hyper-parameters that it changes.
    #[serde(default)]
    pub hyper: Map<String, Value>,
    /// What is missing of the samples that it trains on, where it is otherwise than for its base.
    #[serde(default)]
    pub train_missing: Option<Regime>,
    /// Single faults of its reference, kept or corrected whatever `fidelity` says.
    #[serde(default)]
    pub faults: BTreeMap<String, bool>,
    /// What its jobs need of a worker, where it is other than its base's.
    #[serde(default)]
    pub needs: Option<NeedSpec>,
}

/// A program of your own as a method: it trains a model and predicts. It is run in a copy of the
/// folder of its files, by workers with `--allow-external`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalSpec {
    /// The method's name: letters, digits, `-`, `_` and `.`. It must be named in `methods` to be run.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub id: String,
    /// The command with its arguments: `["python", "train.py"]`.
    #[schemars(length(min = 1, max = 100))]
    pub command: Vec<String>,
    /// Programs and Python modules that a machine must have: `["torch"]`.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Its files, as globs relative to the spec's folder: `["*.py"]`. A method with another file is
    /// another method: its models are trained anew. Hidden files and `__pycache__` are taken only by a
    /// glob that names them.
    #[schemars(length(min = 1, max = 100))]
    pub files: Vec<String>,
    /// Its hyper-parameters with their defaults. `max_epochs` is 50, if left out.
    #[serde(default)]
    pub hyper: Map<String, Value>,
}

/// The JSON schema of a spec, for editors.
pub fn json_schema() -> Value {
    schemars::schema_for!(Spec).to_value()
}
