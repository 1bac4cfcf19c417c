//! `coord completions`: writes shell completions and manual pages.

use anyhow::Context as _;
use clap_complete::Shell;
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// Arguments of `coord completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord completions bash > ~/.local/share/bash-completion/completions/coord
  coord completions zsh  > ~/.zfunc/_coord
  coord completions fish > ~/.config/fish/completions/coord.fish
  coord completions --man ~/.local/share/man/man1")]
pub(crate) struct CompletionsArgs {
    /// The shell; its completions are written to standard output
    #[arg(required_unless_present = "man")]
    shell: Option<Shell>,
    /// Write manual pages to this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "shell")]
    man: Option<PathBuf>,
}

/// Writes completions or manual pages of `cli`.
///
/// # Errors
///
/// The folder or standard output cannot be written.
pub(crate) fn run(args: CompletionsArgs, mut cli: clap::Command) -> anyhow::Result<ExitCode> {
    if let Some(shell) = args.shell {
        let mut out = Vec::new();
        clap_complete::generate(shell, &mut cli, "coord", &mut out);
        std::io::stdout().write_all(&out)?;
    } else if let Some(folder) = args.man {
        std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(cli, &folder))
            .with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
