//! Resamples on a blocking thread: the bootstrap uses all cores for seconds.

use halfheard_results::statistics::bootstrap::{self, BootstrapOptions, BootstrapSamples};
use halfheard_shared::results::Predictions;
use indicatif::{ProgressBar, ProgressStyle};

/// Resamples predictions; a terminal shows a progress bar.
///
/// # Errors
///
/// The thread panicked.
pub async fn resample(
    predictions: Predictions,
    options: BootstrapOptions,
) -> Result<BootstrapSamples, tokio::task::JoinError> {
    // Hidden if standard error is not a terminal.
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("resampling {wide_bar} {percent} %") {
        bar.set_style(style);
    }
    tokio::task::spawn_blocking(move || {
        let samples = bootstrap::resample(&predictions, options, |share| {
            bar.set_position((share * 1000.0) as u64);
        });
        bar.finish_and_clear();
        samples
    })
    .await
}
