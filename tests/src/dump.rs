//! What a sweep came to, as text: everything but times, attempts and names of workers. Two runs
//! of one sweep must agree in it to the last byte.

use anyhow::Result;
use halfheard_store::Store;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

const TABLES: [(&str, &str); 6] = [
    (
        "job",
        "SELECT concat_ws(' ', id, sweep, position, kind, method, dataset, seed, case_id, state,
                          encode(outcome, 'hex'))
         FROM job ORDER BY id",
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

/// The content of all tables of results.
pub async fn dump(store: &Store) -> Result<String> {
    let mut text = String::new();
    for (table, query) in TABLES {
        text.push_str(table);
        text.push('\n');
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(store.pool()).await?;
        for row in rows {
            text.push_str("  ");
            text.push_str(&row);
            text.push('\n');
        }
    }
    Ok(text)
}

/// Fails with the first lines that differ.
///
/// # Panics
///
/// When the dumps differ.
pub fn assert_same(a: &str, b: &str) {
    let lines: Vec<String> = differing(a, b).take(10).collect();
    assert!(a == b, "the tables differ:\n{}", lines.join("\n"));
}

fn differing<'a>(a: &'a str, b: &'a str) -> impl Iterator<Item = String> + 'a {
    let (first, second): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let (in_a, in_b): (HashSet<&str>, HashSet<&str>) = (
        first.iter().copied().collect(),
        second.iter().copied().collect(),
    );
    let only_a = first.into_iter().filter(move |line| !in_b.contains(line));
    let only_b = second.into_iter().filter(move |line| !in_a.contains(line));
    only_a
        .map(|line| format!("- {line}"))
        .chain(only_b.map(|line| format!("+ {line}")))
}

/// The features that evaluations left in a data folder's artifact store, by file name.
pub fn features(data_dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = data_dir.join("artifacts/features");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.insert(name.into_owned(), std::fs::read(&path)?);
    }
    Ok(all)
}
