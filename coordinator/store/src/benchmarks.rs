//! The datasets that results are kept of, by name, with the protocol that each follows: so that
//! tables, figures and audits need neither spec nor dataset file.

use super::{Store, StoreError};
use halfheard_shared::{
    benchmark::{Benchmark, Kind},
    ids::SweepId,
};
use sqlx::{PgConnection, Row as _};
use std::collections::BTreeMap;

/// The datasets that the database knows.
#[derive(Clone, Debug, Default)]
pub struct Benchmarks(BTreeMap<String, Benchmark>);

impl Benchmarks {
    /// The dataset called `name`.
    pub fn get(&self, name: &str) -> Option<Benchmark> {
        // The built-in ones are known without a row.
        let known = self.0.get(name).copied();
        known.or_else(|| name.parse().ok())
    }

    /// All of them: the paper's in its order, then others by name.
    pub fn all(&self) -> Vec<Benchmark> {
        let built_in = Benchmark::ALL.into_iter();
        let others = self.0.values().copied();
        built_in
            .chain(others.filter(|b| matches!(b, Benchmark::Own(_))))
            .collect()
    }

    /// The datasets that somebody asks for by their names.
    ///
    /// # Errors
    ///
    /// One that there is not, with all that there are.
    pub fn asked(&self, names: &[String]) -> Result<Vec<Benchmark>, StoreError> {
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

fn read(name: &str, follows: &str, definition: serde_json::Value) -> Result<Benchmark, StoreError> {
    let bad = |reason: String| StoreError::Stored {
        what: format!("the protocol of the dataset `{name}`"),
        reason,
    };
    let kind = match follows {
        "own" => serde_json::from_value(definition).map_err(|error| bad(error.to_string()))?,
        id => id.parse::<Kind>().map_err(|error| bad(error.to_string()))?,
    };
    Benchmark::new(name, kind).map_err(|error| bad(error.to_string()))
}

impl Store {
    /// The datasets that sweeps were ever submitted of.
    ///
    /// # Errors
    ///
    /// The database's; a protocol that was changed after it was stored.
    pub async fn benchmarks(&self) -> Result<Benchmarks, StoreError> {
        let rows = sqlx::query("SELECT name, follows, definition FROM benchmark")
            .fetch_all(self.pool())
            .await?;
        let mut known = BTreeMap::new();
        for row in rows {
            let (name, follows): (String, String) = (row.try_get("name")?, row.try_get("follows")?);
            let benchmark = read(&name, &follows, row.try_get("definition")?)?;
            known.insert(name, benchmark);
        }
        Ok(Benchmarks(known))
    }
}

/// Notes a dataset of `sweep` with its protocol and metrics, in the transaction that submits the
/// sweep. One that is there already stays as it is.
///
/// # Errors
///
/// The database's; results of another sweep are kept under the name with another protocol.
pub(super) async fn note(
    connection: &mut PgConnection,
    sweep: SweepId,
    dataset: Benchmark,
) -> Result<(), StoreError> {
    let (name, kind) = (dataset.id(), dataset.kind());
    let definition =
        serde_json::to_value(kind.definition()).map_err(|error| StoreError::Stored {
            what: format!("the protocol of the dataset `{name}`"),
            reason: error.to_string(),
        })?;
    let written = sqlx::query(
        "INSERT INTO benchmark (name, follows, definition) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(kind.as_str())
    .bind(&definition)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if written == 0 {
        let row = sqlx::query(
            "SELECT follows, definition,
                    EXISTS (SELECT FROM job WHERE dataset = $1 AND sweep <> $2) AS used
             FROM benchmark WHERE name = $1 FOR UPDATE",
        )
        .bind(name)
        .bind(sweep.0)
        .fetch_one(&mut *connection)
        .await?;
        let follows: String = row.try_get("follows")?;
        let known = read(name, &follows, row.try_get("definition")?);
        if known.as_ref().is_ok_and(|known| *known == dataset) {
            return Ok(());
        }
        if row.try_get("used")? {
            let known = known?.kind();
            return Err(StoreError::OtherProtocol {
                name: name.to_owned(),
                known: known.to_string(),
                given: kind.to_string(),
            });
        }
        // Nothing is kept under the name any more.
        sqlx::query("UPDATE benchmark SET follows = $2, definition = $3 WHERE name = $1")
            .bind(name)
            .bind(kind.as_str())
            .bind(&definition)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM metric WHERE dataset = $1")
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
    for (position, metric) in (1i32..).zip(dataset.metrics()) {
        // Every metric is in one family: a test walks those of all protocols.
        let criterion = dataset.criterion_of(metric.id).map_or("", |found| found.id);
        sqlx::query(
            "INSERT INTO metric (dataset, metric, position, name, criterion, higher_is_better,
                                 percent, decimals, in_paper)
             VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $7 THEN 2 ELSE 3 END, $8)",
        )
        .bind(name)
        .bind(metric.id)
        .bind(position)
        .bind(metric.name)
        .bind(criterion)
        .bind(metric.higher_is_better)
        .bind(metric.percent)
        .bind(metric.in_paper())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
