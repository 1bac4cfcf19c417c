//! How values are written on pages.

use chrono::{DateTime, Utc};
use halfheard_progress::format_duration;
use halfheard_shared::text::plain;
use maud::{Markup, html};

/// A time, for people and programs.
pub(crate) fn time(time: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(time.to_rfc3339()) { (time.format("%Y-%m-%d %H:%M:%S UTC")) }
    }
}

/// How long it is between two times: `4 min 10 s`.
pub(crate) fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    format_duration((to - from).to_std().unwrap_or_default())
}

/// Bytes as `6.4 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // As printed, 999.95 would be 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A model as specs name it: `lnln/no-dmc`.
pub(crate) fn model(method: &str, variant: &str) -> String {
    match variant {
        "" => plain(method),
        variant => format!("{}/{}", plain(method), plain(variant)),
    }
}

/// An error and its causes, outermost first.
pub(crate) fn chain<T: AsRef<str>>(errors: &[T]) -> Markup {
    html! {
        @if !errors.is_empty() {
            ol class="chain" {
                @for (depth, error) in errors.iter().enumerate() {
                    li {
                        @if depth > 0 { span class="muted" { "caused by: " } }
                        (plain(error.as_ref()))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_for_people_and_stripped_of_what_drives_a_terminal() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(6_400_000_000), "6.4 GB");
        assert_eq!(model("a\u{202e}b", "c"), "a\u{fffd}b/c");
        let chain = chain(&["<b>outer\x1b</b>", "inner"]).into_string();
        assert!(
            chain.contains("&lt;b&gt;outer\u{fffd}&lt;/b&gt;"),
            "{chain}"
        );
        assert!(chain.contains("caused by: </span>inner"), "{chain}");
    }
}
