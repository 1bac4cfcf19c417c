//! What goes wrong in answering a request, as a page.

use crate::layout;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use halfheard_shared::error::chain;
use halfheard_store::{StoreError, results::ResultsError};
use maud::html;

/// After how many seconds a browser asks again during an outage.
const RETRY: &str = "5";

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The page may not change anything, or the request came from another site.
    #[error("{0}")]
    Forbidden(String),
    /// The request was sent to a name that is not this machine's loopback.
    #[error(
        "this page is for its own machine: ask for it as localhost or 127.0.0.1, through a tunnel if need be"
    )]
    OtherHost,
    /// The reverse proxy named no user.
    #[error("the reverse proxy names no user: ask for this page through the proxy")]
    NoUser,
    /// An address has guessed too often, or too many listen.
    #[error("too many requests: wait a minute")]
    TooMany,
    /// The answer took too long.
    #[error("this page takes too long")]
    TooSlow,
    /// The database failed.
    #[error("the database cannot be read")]
    Store(#[from] StoreError),
    /// Results cannot be read.
    #[error("the results cannot be read")]
    Results(#[from] ResultsError),
    /// Anything else.
    #[error("this page cannot be made")]
    Other(#[from] anyhow::Error),
}

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) | Self::Store(StoreError::NoSweep(_) | StoreError::NoJob(_)) => {
                StatusCode::NOT_FOUND
            }
            Self::BadRequest(_)
            | Self::Store(StoreError::AmbiguousSweep { .. } | StoreError::AmbiguousJob(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NoUser => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
            Self::Store(error) if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Results(error) if is_outage(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) | Self::Results(_) | Self::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Whether results could not be read because the database is away.
fn is_outage(error: &ResultsError) -> bool {
    let mut cause = Some(error as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<StoreError>() {
            return error.is_transient();
        }
        cause = error.source();
    }
    false
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = self.status();
        let what = match &self {
            Self::Other(error) => format!("{error:#}"),
            error => chain(error),
        };
        let outage = status == StatusCode::SERVICE_UNAVAILABLE;
        if outage {
            // The daemon itself logs the outage once.
            tracing::debug!(error = what, "a page cannot be shown");
        } else if status.is_server_error() {
            tracing::warn!(error = what, "a page cannot be shown");
        }
        let body = html! {
            h1 { (status.canonical_reason().unwrap_or("Error")) }
            p { (what) }
            @if outage {
                p { "Workers go on with what they have. This page comes back when the database does." }
            }
            p { a href="/" { "All sweeps" } }
        };
        if !outage {
            return (status, layout::bare("Error", &body)).into_response();
        }
        let retry = [(header::RETRY_AFTER, RETRY), (header::REFRESH, RETRY)];
        (status, retry, layout::bare("Unavailable", &body)).into_response()
    }
}

/// The answer to an address that does not exist.
pub(crate) async fn not_found() -> PageError {
    PageError::NotFound("there is no such page".to_owned())
}
