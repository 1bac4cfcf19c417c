//! Whether this process writes ANSI colors: decided once, from `--color`, `NO_COLOR`, `CLICOLOR_FORCE`, `TERM` and whether
//! a person reads the stream.
//!
//! Everything colored is written through [`anstream`], which strips escapes where there should be none. Writers with a
//! switch of their own (logs, comfy-table) ask [`stdout`] and [`stderr`].

use anstream::AutoStream;
pub use anstream::ColorChoice;

/// Decides for the whole process. Programs call it once, before they print.
pub fn set(choice: ColorChoice) {
    choice.write_global();
}

/// Whether standard output is colored.
pub fn stdout() -> bool {
    AutoStream::choice(&std::io::stdout()) != ColorChoice::Never
}

/// Whether standard error is colored.
pub fn stderr() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}
