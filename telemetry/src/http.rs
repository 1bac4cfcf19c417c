//! `/metrics`, `/healthz` and `/readyz`: answered from memory, whatever the servers behind do.

use crate::access::Access;
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A program that machines watch. Nothing of it may wait.
pub trait Watched: Send + Sync + 'static {
    /// Its metrics, in the text format of Prometheus.
    fn metrics(&self) -> String;
    /// Whether it lives: if not, it should be started again.
    fn health(&self) -> Report;
    /// Whether it can work.
    fn readiness(&self) -> Report;
}

/// Checks by name, each passed or with what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(BTreeMap<String, Result<(), String>>);

impl Report {
    /// Adds a check.
    pub fn check(&mut self, name: impl Into<String>, outcome: Result<(), String>) {
        self.0.insert(name.into(), outcome);
    }

    /// Whether every check passed.
    pub fn is_ok(&self) -> bool {
        self.0.values().all(Result::is_ok)
    }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            ok: bool,
            /// `ok`, or what is wrong.
            checks: BTreeMap<String, String>,
        }
        let ok = self.is_ok();
        let status = match ok {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let said = |outcome: Result<(), String>| outcome.err().unwrap_or_else(|| "ok".to_owned());
        let checks = self
            .0
            .into_iter()
            .map(|(name, outcome)| (name, said(outcome)));
        let checks = checks.collect();
        (status, Json(Body { ok, checks })).into_response()
    }
}

/// The three addresses. Whether a program lives and can work says nothing that needs protection, and
/// those who ask have no token; metrics are for who has `access`.
pub fn routes(watched: Arc<dyn Watched>, access: Access) -> Router {
    let (health, readiness) = (watched.clone(), watched.clone());
    let metrics = get(async move || ([(header::CONTENT_TYPE, TEXT_FORMAT)], watched.metrics()));
    access
        .guard(Router::new().route("/metrics", metrics))
        .route("/healthz", get(async move || health.health()))
        .route("/readyz", get(async move || readiness.readiness()))
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens on `address`.
///
/// # Errors
///
/// The address is taken, or is not this machine's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ListenError { address, source })
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, routes: Router, shutdown: CancellationToken) {
    let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP ended");
    }
}
