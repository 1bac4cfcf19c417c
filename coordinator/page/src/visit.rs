//! What a request says about its visitor, for whatever answers it.

use crate::did::Did;
use std::future::Future;

tokio::task_local! {
    static VISIT: Visit;
}

/// What the guard found out about a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visit {
    /// Who asks, as a reverse proxy says.
    pub(crate) user: Option<String>,
    /// What was done by the form that led here.
    pub(crate) did: Option<Did>,
}

impl Visit {
    /// Answers a request of this visitor.
    pub(crate) async fn answer<T>(self, answer: impl Future<Output = T>) -> T {
        VISIT.scope(self, answer).await
    }

    /// The visitor of the request that is being answered.
    pub(crate) fn current() -> Self {
        VISIT.try_with(Clone::clone).unwrap_or_default()
    }
}
