//! How an error is shown to a person.

use std::io::IsTerminal as _;

/// Prints `error` with its causes on standard error.
pub fn show(error: &anyhow::Error) {
    let bold = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (start, end) = if bold {
        ("\x1b[31;1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let text = error.to_string();
    // A report with the lines of a spec says by itself what it is.
    if text.trim_start().starts_with('×') {
        eprintln!("{text}");
    } else {
        eprintln!("{start}error:{end} {text}");
    }
    // Many errors of ours already say their cause: it is not said twice.
    let mut said = text;
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            eprintln!("  because: {cause}");
            said.push_str(&cause);
        }
    }
}
