//! `coord completions`: for shells, and manual pages.

use crate::{cli::Cli, config::Settings};
use anyhow::Context as _;
use clap_complete::Shell;
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// What to write.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord completions bash > ~/.local/share/bash-completion/completions/coord
  coord completions zsh  > ~/.zfunc/_coord
  coord completions fish > ~/.config/fish/completions/coord.fish
  coord completions --man ~/.local/share/man/man1")]
pub struct CompletionsArgs {
    /// The shell to write completions for, on standard output
    #[arg(required_unless_present = "man")]
    shell: Option<Shell>,
    /// Write the manual pages into this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "shell")]
    man: Option<PathBuf>,
}

/// Writes completions or manual pages.
///
/// # Errors
///
/// Where the folder or standard output cannot be written.
pub async fn run(args: CompletionsArgs, _settings: &Settings) -> anyhow::Result<ExitCode> {
    if let Some(shell) = args.shell {
        let mut out = Vec::new();
        clap_complete::generate(shell, &mut Cli::description(), "coord", &mut out);
        std::io::stdout().write_all(&out)?;
    }
    if let Some(folder) = args.man {
        std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Cli::description(), &folder))
            .with_context(|| {
                format!("the manual pages cannot be written to {}", folder.display())
            })?;
    }
    Ok(ExitCode::SUCCESS)
}
