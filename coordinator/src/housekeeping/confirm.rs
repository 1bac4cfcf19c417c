//! Asking before something is deleted.

use halfheard_shared::error::hinted;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Asks on the terminal, unless the answer was given with `--yes`.
///
/// # Errors
///
/// Neither a terminal nor `--yes`: nothing is deleted unasked.
pub(crate) fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let message = format!("{question} needs an answer, and there is no terminal to ask on");
        return Err(hinted(message, "pass --yes").into());
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "{question} [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
