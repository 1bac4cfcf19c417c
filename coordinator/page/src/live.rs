//! Live update: an event when something changed, upon which the script asks for its page again.

use crate::{Page, error::PageError};
use axum::{
    Router,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use futures::{Stream, StreamExt as _, stream};
use std::{convert::Infallible, time::Duration};

/// How often a listener hears that the connection still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a listener is served before it has to connect again: one whose network has vanished takes
/// up its place no longer than that.
const MAX_LISTENING: Duration = Duration::from_secs(15 * 60);

pub(crate) fn routes() -> Router<Page> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(page): State<Page>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, PageError> {
    let listener = page.changes.listen().ok_or(PageError::TooMany)?;
    let changes = stream::unfold(listener, |mut listener| async move {
        let count = listener.change().await?;
        let event = Event::default().event("change").data(count.to_string());
        Some((Ok(event), listener))
    });
    let until = Box::pin(tokio::time::sleep(MAX_LISTENING));
    Ok(Sse::new(changes.take_until(until)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
