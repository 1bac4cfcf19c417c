//! The name of a model in a plan.

/// Returns `METHOD` or `METHOD/VARIANT`.
pub(super) fn model_name(method: &str, variant: &str) -> String {
    match variant {
        "" => method.to_owned(),
        variant => format!("{method}/{variant}"),
    }
}
