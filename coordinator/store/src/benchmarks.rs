//! The datasets that have results, by name, with the protocol of each. Tables, figures and audits need
//! neither the spec nor the dataset file.

use crate::{Store, StoreError};
use halfheard_shared::{
    benchmark::{Benchmark, Kind},
    ids::SweepId,
};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The datasets that have results.
#[derive(Clone, Debug, Default)]
pub struct Benchmarks(BTreeMap<String, Benchmark>);

impl Benchmarks {
    /// The dataset called `name`.
    pub fn get(&self, name: &str) -> Option<Benchmark> {
        // The built-in ones need no row.
        let known = self.0.get(name).copied();
        known.or_else(|| name.parse().ok())
    }

    /// All of them: the paper's in its order, then the others by name.
    pub fn all(&self) -> Vec<Benchmark> {
        let built_in = Benchmark::ALL.into_iter();
        let others = self.0.values().copied();
        built_in
            .chain(others.filter(|b| matches!(b, Benchmark::Own(_))))
            .collect()
    }

    /// The datasets with these names.
    ///
    /// # Errors
    ///
    /// An unknown name, with all that exist.
    pub fn select(&self, names: &[String]) -> Result<Vec<Benchmark>, StoreError> {
        names
            .iter()
            .map(|name| {
                self.get(name).ok_or_else(|| {
                    let all: Vec<&str> = self.all().iter().map(|known| known.id()).collect();
                    StoreError::NoDataset {
                        name: name.clone(),
                        have: all.join(", "),
                    }
                })
            })
            .collect()
    }
}

fn decode(
    name: &str,
    follows: &str,
    definition: serde_json::Value,
) -> Result<Benchmark, StoreError> {
    let kind = match follows {
        "own" => serde_json::from_value(definition)
            .map_err(|error| StoreError::stored(protocol_of(name), error))?,
        id => id
            .parse::<Kind>()
            .map_err(|error| StoreError::stored(protocol_of(name), error))?,
    };
    Benchmark::new(name, kind).map_err(|error| StoreError::stored(protocol_of(name), error))
}

/// What an error about a stored protocol is about.
fn protocol_of(name: &str) -> String {
    format!("the protocol of the dataset `{name}`")
}

impl Store {
    /// The datasets of all sweeps that were ever submitted.
    ///
    /// # Errors
    ///
    /// The database's; a stored protocol that cannot be decoded.
    pub async fn benchmarks(&self) -> Result<Benchmarks, StoreError> {
        let rows = sqlx::query!("SELECT name, follows, definition FROM benchmark")
            .fetch_all(self.pool())
            .await?;
        let mut known = BTreeMap::new();
        for row in rows {
            let benchmark = decode(&row.name, &row.follows, row.definition)?;
            known.insert(row.name, benchmark);
        }
        Ok(Benchmarks(known))
    }
}

/// Registers a dataset of `sweep` with its protocol and metrics, in the transaction that submits the
/// sweep. An existing one is left unchanged.
///
/// # Errors
///
/// The database's; another sweep has results under this name with another protocol.
pub(crate) async fn register(
    connection: &mut PgConnection,
    sweep: SweepId,
    dataset: Benchmark,
) -> Result<(), StoreError> {
    let (name, kind) = (dataset.id(), dataset.kind());
    let definition = serde_json::to_value(kind.definition())
        .map_err(|error| StoreError::stored(protocol_of(name), error))?;
    let inserted = sqlx::query!(
        "INSERT INTO benchmark (name, follows, definition) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO NOTHING",
        name,
        kind.as_str(),
        definition
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 0 {
        let row = sqlx::query!(
            r#"SELECT follows, definition,
                    EXISTS (SELECT FROM job j WHERE j.dataset = $1 AND NOT EXISTS (
                        SELECT FROM sweep_job w WHERE w.job = j.id AND w.sweep = $2)) AS "used!"
             FROM benchmark WHERE name = $1 FOR UPDATE"#,
            name,
            sweep.0
        )
        .fetch_one(&mut *connection)
        .await?;
        let known = decode(name, &row.follows, row.definition);
        if known.as_ref().is_ok_and(|known| *known == dataset) {
            return Ok(());
        }
        if row.used {
            let known = known?.kind();
            return Err(StoreError::OtherProtocol {
                name: name.to_owned(),
                known: known.to_string(),
                given: kind.to_string(),
            });
        }
        // No results use the name any more.
        sqlx::query!(
            "UPDATE benchmark SET follows = $2, definition = $3 WHERE name = $1",
            name,
            kind.as_str(),
            definition
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query!("DELETE FROM metric WHERE dataset = $1", name)
            .execute(&mut *connection)
            .await?;
    }
    for (position, metric) in (1i32..).zip(dataset.metrics()) {
        // Every metric belongs to one family: a test covers all protocols.
        let criterion = dataset.criterion_of(metric.id).map_or("", |found| found.id);
        sqlx::query!(
            "INSERT INTO metric (dataset, metric, position, name, criterion, higher_is_better,
                                 percent, decimals, in_paper)
             VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $7 THEN 2 ELSE 3 END, $8)",
            name,
            metric.id,
            position,
            metric.name,
            criterion,
            metric.higher_is_better,
            metric.percent,
            metric.in_paper()
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
