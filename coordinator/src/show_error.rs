//! How an error is shown to a person.

use halfheard_store::fault::{explained, migrate_words, words};
use std::io::IsTerminal as _;

/// Prints `error` with its causes on standard error.
pub fn show(error: &anyhow::Error) {
    let bold = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (start, end) = if bold {
        ("\x1b[31;1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let of_driver = words_of_driver(error.as_ref(), explained);
    let causes = match of_driver {
        Some(_) => 0,
        None => usize::MAX,
    };
    let text = of_driver.unwrap_or_else(|| error.to_string());
    // A report with the lines of a spec says by itself what it is.
    if text.trim_start().starts_with('×') {
        eprintln!("{text}");
    } else {
        eprintln!("{start}error:{end} {text}");
    }
    // Many errors of ours already say their cause: it is not said twice.
    let mut said = text;
    for cause in error.chain().skip(1).take(causes) {
        let of_driver = words_of_driver(cause, words);
        let last = of_driver.is_some();
        let cause = of_driver.unwrap_or_else(|| cause.to_string());
        if !said.contains(&cause) {
            eprintln!("  because: {cause}");
            said.push_str(&cause);
        }
        if last {
            break;
        }
    }
}

/// The words for an error of Postgres' driver and all its causes. Its own have a line of Postgres'
/// source in them.
fn words_of_driver(
    error: &(dyn std::error::Error + 'static),
    words: fn(&sqlx::Error) -> String,
) -> Option<String> {
    if let Some(error) = error.downcast_ref::<sqlx::Error>() {
        return Some(words(error));
    }
    let error = error.downcast_ref::<sqlx::migrate::MigrateError>()?;
    Some(migrate_words(error))
}
