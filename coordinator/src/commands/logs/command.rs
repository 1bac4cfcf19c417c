//! The command.

use super::{
    output,
    story::{Line, Story},
};
use crate::{
    config::Settings,
    exit::Exit,
    local::Database,
    output::{Output, say, say_json},
};
use halfheard_shared::{
    error::chain,
    shutdown::{Interrupted, Shutdown},
};
use halfheard_store::{JobState, Store, output::NamedJob};
use std::{process::ExitCode, time::Duration};

/// How often `--follow` looks.
const POLL: Duration = Duration::from_secs(1);

/// Arguments of `coord logs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Prints the attempts at a job with their errors, the epochs of a training job, and the end of what an
external program wrote to standard error; --attempt and --all print nothing but that.
`coord plan SPEC --jobs`, `coord top` and the page show jobs with their ids.

Examples:
  coord logs 3f2a91c0                     what became of it so far
  coord logs 3f2a91c0 --follow            until it ends; exits with 3 if it failed
  coord logs 3f2a91c0 --json              one object a line
  coord logs 3f2a91c0 --all | less        all that its program wrote, from the artifact store
  coord logs 3f2a91c0 --attempt 81d4      what it wrote in another attempt")]
pub(crate) struct LogsArgs {
    /// The job: its id, or the first digits of it
    job: String,
    /// Go on as attempts begin and end and epochs are trained, until the job ends
    #[arg(long, short, conflicts_with_all = ["attempt", "all"])]
    follow: bool,
    /// Print what the program wrote in this attempt: its id, or the first digits of it
    #[arg(long, value_name = "ID")]
    attempt: Option<String>,
    /// Print all that the program wrote, from the artifact store
    #[arg(long)]
    all: bool,
}

/// Prints what became of a job, or what its program wrote.
///
/// # Errors
///
/// The job is unknown or, where it is asked for, has no output; the database or the artifact store fails.
pub(crate) async fn run(args: LogsArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database).await;
    database.close().await;
    match outcome {
        Err(error) if error.is::<Interrupted>() => Ok(Exit::Interrupted.into()),
        outcome => outcome,
    }
}

async fn show(
    args: &LogsArgs,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<ExitCode> {
    let job = database.find_job(&args.job).await?;
    if args.all || args.attempt.is_some() {
        return output::print(&job, args.attempt.as_deref(), args.all, settings, database).await;
    }
    let json = Output::of(settings).is_json();
    if args.follow {
        let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
        let ended = follow(database, job, json, &interrupt).await?;
        return Ok(match ended {
            JobState::Failed => Exit::FailedJobs.into(),
            _ => ExitCode::SUCCESS,
        });
    }
    let mut story = Story::new(job);
    print(&story.news(database).await?, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints news of a job until it ends. A database outage is waited out.
async fn follow(
    store: &Store,
    job: NamedJob,
    json: bool,
    interrupt: &Shutdown,
) -> anyhow::Result<JobState> {
    let mut story = Story::new(job);
    let mut lost = false;
    loop {
        match interrupt.or(story.news(store)).await? {
            Ok(news) => {
                lost = false;
                print(&news, json)?;
                if let Some(state) = story.ended() {
                    return Ok(state);
                }
            }
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut lost, true) {
                    tracing::warn!(error = chain(&error), "waiting for the database");
                }
            }
            Err(error) => return Err(error.into()),
        }
        interrupt.or(tokio::time::sleep(POLL)).await?;
    }
}

fn print(news: &[Line], json: bool) -> serde_json::Result<()> {
    for line in news {
        match json {
            true => say_json(&serde_json::to_string(line)?),
            false => say(&line.to_string()),
        }
    }
    Ok(())
}
