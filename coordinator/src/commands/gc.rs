//! `coord gc`: deletes artifacts that nobody needs.

use crate::{
    config::Settings,
    exit::Exit,
    housekeeping::{
        collect::{self, Findings, Freed, Share},
        confirm::confirm,
        own_store,
        size::{Bytes, amount},
    },
    local::Database,
    output::Output,
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_shared::{
    address::redacted,
    artifacts::{Amount, Quota},
    text::{count, plain},
};
use serde::Serialize;
use std::{fmt, process::ExitCode, time::Duration};

/// Arguments of `coord gc`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Needed are the checkpoints and features of jobs that a sweep asks for, the saved states of unfinished
trainings, and the datasets and encoders that jobs refer to. What is younger than an hour stays in any
case, data for a week. A finished sweep with retention `results` needs no checkpoints (`coord set`).

Examples:
  coord gc --dry-run              show what would be deleted
  coord gc --yes --json           from a timer
  coord gc --keep-states 30d      keep states of failed and cancelled trainings for a month")]
pub(crate) struct GcArgs {
    /// Delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long saved states of failed and cancelled trainings are kept
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    keep_states: Duration,
}

/// Parses `7d`, `12h`, `30m`, `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let seconds = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("expected a number with s, m, h or d".to_owned()),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds));
    match seconds {
        // A century: what an interval of the database can hold.
        Some(seconds @ 0..=3_155_760_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("invalid time".to_owned()),
    }
}

#[derive(Serialize)]
struct Collected {
    store: String,
    dry_run: bool,
    #[serde(flatten)]
    findings: Findings,
    /// Temporary files in the data folder of this machine.
    data_folder: Amount,
    quota: Option<Quota>,
    /// What was deleted in the store; nothing in a dry run.
    freed: Option<Freed>,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.store)?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["kind", "needed", "young", "unneeded"]);
        let mut row = |name: &str, share: &Share| {
            table.add_row([
                name.to_owned(),
                amount(share.kept),
                amount(share.young),
                amount(share.unneeded),
            ]);
        };
        for (kind, share) in &self.findings.kinds {
            row(kind.id(), share);
        }
        if self.findings.leftovers != Share::default() {
            row("broken uploads", &self.findings.leftovers);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        if let Some(quota) = self.quota {
            let (used, limit) = (Bytes(quota.used), Bytes(quota.limit));
            writeln!(f, "the broker's bucket holds {used} of at most {limit}")?;
        }
        if self.findings.foreign > 0 {
            let foreign = count(self.findings.foreign as usize, "other file");
            writeln!(f, "{foreign} in its folders left alone")?;
        }
        if self.data_folder.count > 0 {
            let files = amount(self.data_folder);
            let verb = if self.dry_run { "can go" } else { "deleted" };
            writeln!(f, "unfinished files in the data folder: {files} {verb}")?;
        }
        match &self.freed {
            Some(freed) => {
                writeln!(f, "deleted: {}", amount(freed.deleted))?;
                if let Some(error) = &freed.error {
                    writeln!(f, "not deleted: {}: {}", freed.failed, plain(error))?;
                }
                Ok(())
            }
            None if self.dry_run => writeln!(f, "a dry run: nothing is deleted"),
            None => writeln!(f, "nothing is deleted"),
        }
    }
}

/// Deletes what nobody needs.
///
/// # Errors
///
/// The store is another installation's, cannot be listed or written; the database fails; neither a
/// terminal to ask on nor `--yes`.
pub(crate) async fn run(args: GcArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let collected = collect(&args, settings, &database).await;
    database.close().await;
    let collected = collected?;
    let failed = collected
        .freed
        .as_ref()
        .is_some_and(|freed| freed.failed > 0);
    Output::of(settings).print(&collected)?;
    Ok(match failed {
        true => Exit::Error.into(),
        false => ExitCode::SUCCESS,
    })
}

async fn collect(
    args: &GcArgs,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<Collected> {
    let artifacts = own_store::open_own(settings, database).await?;
    let findings = collect::look(&artifacts, database, args.keep_states).await?;
    let unneeded = findings.unneeded();
    let mut collected = Collected {
        store: redacted(&settings.artifacts),
        dry_run: args.dry_run,
        findings,
        data_folder: collect::sweep_temporary(&settings.data_dir, true)?,
        quota: artifacts.quota().await?,
        freed: None,
    };
    if args.dry_run || unneeded.count + collected.data_folder.count == 0 {
        return Ok(collected);
    }
    if !args.yes && !settings.json {
        Output::of(settings).note(collected.to_string().trim_end());
    }
    let question = format!(
        "Delete {} ({})?",
        count(unneeded.count as usize, "artifact"),
        Bytes(unneeded.bytes)
    );
    if !confirm(&question, args.yes)? {
        return Ok(collected);
    }
    collected.data_folder = collect::sweep_temporary(&settings.data_dir, false)?;
    let freed =
        collect::delete(&collected.findings, &artifacts, database, args.keep_states).await?;
    collected.freed = Some(freed);
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("90 m"), Ok(Duration::from_secs(5400)));
        for bad in [
            "",
            "d",
            "1w",
            "-1d",
            "999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
