//! What must hold in the end, and what two runs must have in common.

use crate::{cluster::Cluster, work};
use anyhow::{Context as _, Result};
use std::collections::HashSet;

/// Everything but times, attempts and names of workers.
const TABLES: &[(&str, &str)] = &[
    (
        "job",
        "SELECT concat_ws(' ', id, kind, method, variant, dataset, seed, case_id, state,
                          encode(outcome, 'hex')) FROM job ORDER BY id",
    ),
    (
        "sweep_job",
        "SELECT concat_ws(' ', s.name, j.position, j.job)
         FROM sweep_job j JOIN sweep s ON s.id = j.sweep ORDER BY s.name, j.position",
    ),
    (
        "epoch_log",
        "SELECT concat_ws(' ', job, epoch, losses, metrics, best_for)
         FROM epoch_log ORDER BY job, epoch",
    ),
    (
        "checkpoint",
        "SELECT concat_ws(' ', job, criterion, epoch, blake3, bytes)
         FROM checkpoint ORDER BY job, criterion",
    ),
    (
        "prediction",
        "SELECT concat_ws(' ', job, number, samples, encode(data, 'hex'))
         FROM prediction ORDER BY job, number",
    ),
    (
        "evaluation",
        "SELECT concat_ws(' ', job, criterion, epoch, prediction)
         FROM evaluation ORDER BY job, criterion",
    ),
    (
        "result",
        "SELECT concat_ws(' ', job, criterion, metric, coalesce(value::text, 'null'))
         FROM result ORDER BY job, criterion, metric",
    ),
];

/// The printed tables that are compared.
const PRINTED: [&str; 4] = ["2", "9", "11", "13"];

/// What a run came to, as text. Two runs of the same sweeps must agree in it to the last byte.
///
/// # Errors
///
/// It cannot be read.
pub fn content(cluster: &Cluster, sweeps: u64) -> Result<String> {
    let sql = cluster.sql.patient();
    let mut text = String::new();
    for (table, statement) in TABLES {
        text.push_str(table);
        text.push('\n');
        for row in sql.rows(statement)? {
            text.push_str("  ");
            text.push_str(&row);
            text.push('\n');
        }
    }
    for number in 0..sweeps {
        for table in PRINTED {
            let name = work::name(number);
            let args = ["table", table, "--sweep", &name, "--format", "csv"];
            text.push_str(&cluster.coord(&args)?);
        }
    }
    Ok(text)
}

/// The first lines that two runs do not share.
pub fn differences(a: &str, b: &str) -> Vec<String> {
    let (first, second): (HashSet<&str>, HashSet<&str>) =
        (a.lines().collect(), b.lines().collect());
    let shown = |line: &str| line.chars().take(300).collect::<String>();
    let only_a = a.lines().filter(|line| !second.contains(line));
    let only_b = b.lines().filter(|line| !first.contains(line));
    only_a
        .map(|line| format!("- {}", shown(line)))
        .take(10)
        .chain(only_b.map(|line| format!("+ {}", shown(line))).take(10))
        .collect()
}

/// A statement that must return no rows, and what it means if it does.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "jobs are not done",
        "SELECT id, kind, state, last_error FROM job WHERE state <> 'done'",
    ),
    (
        "jobs were counted as failed for a fault that was not theirs",
        "SELECT id, kind, failures, last_error FROM job WHERE failures > 0",
    ),
    (
        "results contradict each other",
        "SELECT job, what, noticed FROM conflict",
    ),
    (
        "results contradict each other on another processor",
        "SELECT job, what, noticed FROM other_processor",
    ),
    (
        "messages were rejected",
        "SELECT subject, sequence, reason FROM dead_letter",
    ),
    (
        "a job is done without its results",
        "SELECT id FROM job WHERE kind = 'eval' AND NOT EXISTS
             (SELECT FROM evaluation WHERE job = job.id)
         UNION ALL SELECT id FROM job WHERE kind = 'train' AND NOT EXISTS
             (SELECT FROM checkpoint WHERE job = job.id)",
    ),
    (
        "a job is leased though it is over",
        "SELECT id, state, lease_until FROM job WHERE lease_until IS NOT NULL",
    ),
];

/// What is wrong with the rows of a finished run with so many jobs.
///
/// # Errors
///
/// They cannot be read.
pub fn problems(cluster: &Cluster, jobs: u64) -> Result<Vec<String>> {
    let sql = cluster.sql.patient();
    let mut problems = Vec::new();
    let found = sql.number("SELECT count(*) FROM job")?;
    if found != i64::try_from(jobs)? {
        problems.push(format!("there are {found} jobs, not {jobs}"));
    }
    for (meaning, statement) in FORBIDDEN {
        let rows = sql.rows(statement).context(*meaning)?;
        if !rows.is_empty() {
            let some: Vec<&str> = rows.iter().take(5).map(String::as_str).collect();
            problems.push(format!("{meaning} ({}): {}", rows.len(), some.join("; ")));
        }
    }
    let checkpoints = sql.rows("SELECT DISTINCT blake3 FROM checkpoint")?;
    let folder = cluster.folders.store.join("checkpoints");
    let is_gone = |hash: &&String| !folder.join(format!("{hash}.safetensors")).is_file();
    let gone = checkpoints.iter().filter(is_gone).count();
    if gone > 0 {
        problems.push(format!("the store lacks {gone} checkpoints"));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_lines_of_both_sides() {
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(differences("a\nb\n", "a\nc\n"), ["- b", "+ c"]);
    }
}
