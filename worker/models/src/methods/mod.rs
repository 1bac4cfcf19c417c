//! The methods and their registry.
//!
//! A method is a model with its training procedure. It works on tensors alone: no messages, no
//! database, and no files but the encoder's. Adding one takes a file here, a line in [`REGISTRY`],
//! and hyper-parameters in `shared/methods/<id>.toml`; see docs/guide/adding-a-method.md.

mod almt;
mod batch;
mod cenet;
mod common;
mod emt_dlfr;
mod lf_dnn;
mod lnln;
mod losses;
mod method;
mod misa;
mod mmim;
mod multi_task;
mod registry;
mod self_mm;
mod single_loss;
mod tetfn;
mod text_only;
mod tfr_net;

pub use crate::{
    error::MethodError,
    state::{MethodState, Position},
};
pub use batch::{Batch, DataShape, Inputs, PerModality};
pub use losses::Losses;
pub use method::{
    Build, Features, Method, Needs, ReferenceErasure, ReferenceValidation, StepOutcome,
};
pub use registry::{Builder, REGISTRY, builder, ids};
