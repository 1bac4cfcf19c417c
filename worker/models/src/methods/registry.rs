//! The methods by id.

use super::{
    Build, Method, almt, cenet, emt_dlfr, lf_dnn, lnln, misa, mmim, self_mm, tetfn, text_only,
    tfr_net,
};
use crate::error::MethodError;

/// Builds a method. Its initial weights come from libtorch's generator, which the caller has seeded,
/// and from the encoder's folder.
pub type Builder = fn(&Build<'_>) -> Result<Box<dyn Method>, MethodError>;

/// All methods by id.
pub const REGISTRY: &[(&str, Builder)] = &[
    ("misa", misa::build),
    ("self-mm", self_mm::build),
    ("mmim", mmim::build),
    ("cenet", cenet::build),
    ("tetfn", tetfn::build),
    ("tfr-net", tfr_net::build),
    ("almt", almt::build),
    ("lnln", lnln::build),
    ("lf-dnn", lf_dnn::build),
    ("text-only", text_only::build),
    ("emt-dlfr", emt_dlfr::build),
];

/// The ids of all methods.
pub fn ids() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|(id, _)| *id)
}

/// The builder of `method`.
pub fn builder(method: &str) -> Option<Builder> {
    REGISTRY
        .iter()
        .find(|(id, _)| *id == method)
        .map(|(_, builder)| *builder)
}
