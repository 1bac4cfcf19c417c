//! What a slot tells its supervisor, which serves it: a line on the slot's standard output.

use crate::shutdown;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// How often a slot reports.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// The longest line.
const MAX_LINE: u64 = 4 << 20;

/// What a slot says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotReport {
    /// Its metrics, in the text format of Prometheus.
    pub(crate) metrics: String,
    /// What is missing, if its work hangs.
    pub(crate) hangs: Option<String>,
    /// Why it cannot work, if it cannot.
    pub(crate) unready: Option<String>,
}

/// A line of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It ends itself.
    Ending,
    /// It says how it is.
    Report(SlotReport),
}

/// Reads the next line that means something. `None` at the end.
pub(crate) async fn next(words: &mut (impl AsyncBufRead + Unpin)) -> Option<Line> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer one comes in pieces, which mean nothing.
        let read = words.take(MAX_LINE).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return None;
        }
        if line == shutdown::ENDING {
            return Some(Line::Ending);
        }
        // Libraries may print there, too.
        if let Ok(report) = serde_json::from_slice(&line) {
            return Some(Line::Report(report));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_library_prints_between_reports_is_ignored() {
        let report = SlotReport {
            metrics: "a 1\nb 2\n".to_owned(),
            hangs: None,
            unready: Some("not connected".to_owned()),
        };
        let mut text = b"noise\n{\"half\": \n".to_vec();
        text.extend(serde_json::to_vec(&report).unwrap());
        text.extend(b"\n\nending\n");
        let mut words = text.as_slice();
        assert_eq!(next(&mut words).await, Some(Line::Report(report)));
        assert_eq!(next(&mut words).await, Some(Line::Ending));
        assert_eq!(next(&mut words).await, None);
    }
}
