//! `benchmark.toml`: what a sweep runs.
//!
//! [`read`] parses and checks the text; [`resolve`] looks at the files it names and fills in the
//! rest. Neither writes anything, and all problems are reported at once, each with its line.

mod benchmark;
mod cases;
mod confusions;
mod definition;
mod effect;
mod error;
mod external;
mod files;
mod ground;
mod keys;
mod kinds;
mod methods;
mod names;
mod needs;
mod needs_rules;
mod place;
mod read;
mod resolve;
mod resolve_methods;
mod resolved;
mod training;
mod training_effect;

pub use benchmark::{BenchmarkSpec, BuiltIn};
pub use definition::{
    DatasetSpec, EncoderSpec, ExternalSpec, ProtocolSpec, ResourcesSpec, Spec, SynthesizeSpec,
    TrainingSpec, VariantSpec, json_schema,
};
pub use error::{Problem, SpecError};
pub use files::{Files, FoundDataset, FoundEncoder, FoundProgram};
pub use needs::{NeedSpec, NeedsSpec, ResolvedNeeds, valid_label};
pub use read::{MAX_BYTES, MAX_JOBS, MAX_LIST, read, too_large};
pub use resolve::{resolve, resolve_noting};
pub use resolved::{ResolvedDataset, ResolvedInputs, ResolvedMethod, ResolvedSpec};

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;
