//! `coord set`.

use crate::{config::Settings, local::Database, output::Output};
use halfheard_shared::{error::hinted, ids::SweepId, text::plain};
use halfheard_store::terms::{Retention, SweepTerms, Terms};
use serde::Serialize;
use std::{fmt, process::ExitCode, str::FromStr};

/// Arguments of `coord set`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord set demo --priority 5          serve it before sweeps of lower priority (`coord priority demo 5`)
  coord set demo --weight 2            twice the share of its owner's other sweeps
  coord set demo --max-running 4       at most four of its jobs at once
  coord set demo --max-running none    as many as there are workers

A change takes effect with the next job that is granted; running jobs go on.")]
pub(crate) struct SetArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
    #[command(flatten)]
    terms: TermFlags,
}

/// The flags for the terms of a sweep.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TermFlags {
    /// Sweeps with a higher one are served first
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) priority: Option<i32>,
    /// Its share among its owner's sweeps of equal priority, 0.001 to 1000
    #[arg(long, value_name = "W", value_parser = weight)]
    pub(crate) weight: Option<f64>,
    /// How many of its jobs may run at once: a number, or none for no limit
    #[arg(long, value_name = "N|none", value_parser = limit::<1>)]
    pub(crate) max_running: Option<Limit>,
    /// Pause it when more of its jobs have failed: a number, or none for never
    #[arg(long, value_name = "N|none", value_parser = limit::<0>)]
    pub(crate) max_failures: Option<Limit>,
    /// Whose sweep it is: the owners of sweeps of equal priority share the workers; of a new sweep,
    /// your user name if not given
    #[arg(long, value_name = "NAME", value_parser = owner)]
    pub(crate) owner: Option<String>,
    /// What `coord gc` keeps of it once it is finished: all, or results without checkpoints
    #[arg(long, value_name = "all|results", value_parser = retention)]
    pub(crate) retention: Option<Retention>,
}

impl TermFlags {
    /// The change of terms that they ask for.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            owner: self.owner.clone(),
            priority: self.priority,
            weight: self.weight,
            max_running: self.max_running.map(|limit| limit.0),
            max_failures: self.max_failures.map(|limit| limit.0),
            retention: self.retention,
        }
    }
}

/// A limit; `None` if there is to be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<i32>);

fn limit<const MIN: i32>(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    match i32::from_str(text) {
        Ok(number) if (MIN..=1_000_000).contains(&number) => Ok(Limit(Some(number))),
        _ => Err(format!("expected {MIN} to 1000000, or none")),
    }
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(weight) if (0.001..=1000.0).contains(&weight) => Ok(weight),
        _ => Err("expected a number from 0.001 to 1000".to_owned()),
    }
}

fn owner(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 64 || plain(text) != text {
        return Err("expected 1 to 64 characters".to_owned());
    }
    Ok(text.to_owned())
}

fn retention(text: &str) -> Result<Retention, String> {
    match text {
        "all" => Ok(Retention::All),
        "results" => Ok(Retention::Results),
        _ => Err("expected all or results".to_owned()),
    }
}

#[derive(Serialize)]
pub(super) struct Set {
    sweep: SweepId,
    name: String,
    changed: bool,
    before: SweepTerms,
    terms: SweepTerms,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.name, self.sweep.short())?;
        if !self.changed {
            return write!(f, "nothing changed");
        }
        let lines = changes(&self.before, &self.terms);
        write!(f, "{}", lines.join(", "))
    }
}

/// `priority 5 (was 0)`, for each term that changed.
pub(crate) fn changes(before: &SweepTerms, after: &SweepTerms) -> Vec<String> {
    let limit = |limit: Option<i32>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let owner = |terms: &SweepTerms| match terms.owner.as_str() {
        "" => "nobody".to_owned(),
        owner => plain(owner),
    };
    [
        (
            "priority",
            before.priority.to_string(),
            after.priority.to_string(),
        ),
        (
            "weight",
            before.weight.to_string(),
            after.weight.to_string(),
        ),
        (
            "max-running",
            limit(before.max_running),
            limit(after.max_running),
        ),
        (
            "max-failures",
            limit(before.max_failures),
            limit(after.max_failures),
        ),
        ("owner", owner(before), owner(after)),
        (
            "retention",
            before.retention.as_str().to_owned(),
            after.retention.as_str().to_owned(),
        ),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(name, before, after)| format!("{name} {after} (was {before})"))
    .collect()
}

/// Changes the terms of a sweep while it runs.
///
/// # Errors
///
/// Nothing was asked for; the sweep is unknown or the database fails.
pub(crate) async fn run(args: SetArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let terms = args.terms.terms();
    if terms == Terms::default() {
        return Err(hinted("nothing to set", "name a term: `--priority 5`").into());
    }
    let database = Database::open(settings).await?;
    let outcome = set(&args.sweep, &terms, &database).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}

/// Changes terms of the sweep that is called so.
///
/// # Errors
///
/// It is unknown or ambiguous, or the database fails.
pub(super) async fn set(sweep: &str, terms: &Terms, database: &Database) -> anyhow::Result<Set> {
    let sweep = database.find_sweep(sweep).await?;
    let (before, terms) = database.set_terms(sweep.id, terms).await?;
    Ok(Set {
        sweep: sweep.id,
        name: sweep.name,
        changed: before != terms,
        before,
        terms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: SetArgs,
    }

    fn terms(flags: &[&str]) -> Option<Terms> {
        let line = Line::try_parse_from([&["set", "demo"], flags].concat());
        line.ok().map(|line| line.args.terms.terms())
    }

    #[test]
    fn limits_are_set_lifted_or_left() {
        assert_eq!(terms(&[]), Some(Terms::default()));
        let set = terms(&[
            "--max-running",
            "4",
            "--max-failures",
            "none",
            "--priority",
            "-1",
        ]);
        assert_eq!(
            set,
            Some(Terms {
                priority: Some(-1),
                max_running: Some(Some(4)),
                max_failures: Some(None),
                ..Terms::default()
            })
        );
        for bad in [
            ["--max-running", "0"],
            ["--max-failures", "-1"],
            ["--weight", "0"],
            ["--weight", "nan"],
            ["--owner", ""],
            ["--owner", "ann\x1b[2J"],
            ["--retention", "some"],
        ] {
            assert_eq!(terms(&bad), None, "{bad:?}");
        }
        assert!(terms(&["--max-failures", "0"]).is_some());
    }

    #[test]
    fn only_changes_are_named() {
        let before = SweepTerms {
            owner: String::new(),
            priority: 0,
            weight: 1.0,
            max_running: Some(2),
            max_failures: None,
            retention: Retention::All,
        };
        let after = SweepTerms {
            owner: "ann".to_owned(),
            max_running: None,
            ..before.clone()
        };
        assert_eq!(
            changes(&before, &after),
            ["max-running none (was 2)", "owner ann (was nobody)"]
        );
        assert!(changes(&before, &before).is_empty());
    }
}
