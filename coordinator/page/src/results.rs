//! Tables and figures of a sweep, as far as it is.

mod figures;
mod made;
mod offered;
mod overview;
mod tables;

use crate::Page;
use axum::{Extension, Router, routing::get};
use made::Made;
use std::sync::Arc;

pub(crate) fn routes() -> Router<Page> {
    Router::new()
        .route("/sweeps/{sweep}/results", get(overview::show))
        .route("/sweeps/{sweep}/tables/{table}", get(tables::show))
        .route("/sweeps/{sweep}/figures/{figure}", get(figures::show))
        .layer(Extension(Arc::new(Made::default())))
}
