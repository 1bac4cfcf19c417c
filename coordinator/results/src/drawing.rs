//! Drawing with progress: the bootstrap takes all cores for seconds, and says how far it is.

use crate::statistics::bootstrap::{self, Drawn, Options};
use halfheard_store::predictions::Predictions;
use indicatif::{ProgressBar, ProgressStyle};

/// Draws beside the asynchronous work; on a terminal a bar shows how far it is.
///
/// # Errors
///
/// Only when the thread that draws dies.
pub async fn draw(
    predictions: Predictions,
    options: Options,
) -> Result<Drawn, tokio::task::JoinError> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("drawing {wide_bar} {percent} %") {
        bar.set_style(style);
    }
    tokio::task::spawn_blocking(move || {
        let drawn = bootstrap::draw(&predictions, options, |share| {
            bar.set_position((share * 1000.0) as u64);
        });
        bar.finish_and_clear();
        drawn
    })
    .await
}
