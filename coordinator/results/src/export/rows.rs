//! Reads rows from the views, a piece at a time.

use super::{Column, Kind, Piece, What};
use futures::TryStreamExt as _;
use halfheard_store::{
    Store, StoreError,
    predictions::{Filter, PredictionsError},
    sweeps::SweepRow,
};
use sqlx::Row as _;

/// Rows of a piece, about.
const ROWS: usize = 100_000;

/// Why rows could not be read or handed on.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The database.
    #[error("cannot read the results from the database")]
    Store(#[from] StoreError),
    /// The predictions.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
    /// Whoever takes the pieces.
    #[error(transparent)]
    Taker(#[from] super::file::FileError),
}

impl From<sqlx::Error> for RowsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Hands all rows of `what` to `take`, in pieces; returns how many there were.
///
/// # Errors
///
/// The database's, or `take`'s.
pub async fn read(
    store: &Store,
    sweep: &SweepRow,
    what: What,
    mut take: impl FnMut(&Piece) -> Result<(), super::file::FileError>,
) -> Result<u64, RowsError> {
    let query = match what {
        What::Results => {
            "SELECT $2 AS sweep, method, variant, dataset, seed, case_id AS case,
                    split_part(case_id, '=', 1) AS kind,
                    CASE WHEN case_id LIKE 'r=%' THEN substr(case_id, 3)::float8 END AS rate,
                    CASE WHEN case_id LIKE 'missing=%' THEN substr(case_id, 9) ELSE '' END AS missing,
                    metric, m.criterion, state::text AS state, value,
                    coalesce(t.processor, '') AS trained_processor,
                    coalesce(a.processor, '') AS evaluated_processor
             FROM measurement m
             LEFT JOIN evaluation v ON v.job = m.job AND v.criterion = m.criterion
             LEFT JOIN attempt a ON a.id = v.attempt
             LEFT JOIN checkpoint k ON k.job = m.train_job AND k.criterion = m.criterion
             LEFT JOIN attempt t ON t.id = k.attempt
             WHERE sweep = $1
             ORDER BY dataset, method, variant, case_id, seed, metric"
        }
        What::Comparison => {
            "SELECT $2 AS sweep, table_number::bigint AS table, method, variant, dataset,
                    case_id AS case, metric, reproduced, reproduced_std, published, valid,
                    difference, coalesce(erratum, '') AS erratum, seeds_completed, seeds_expected
             FROM comparison WHERE sweep = $1
             ORDER BY table_number, dataset, method, variant, case_id, metric"
        }
        What::Epochs => {
            "SELECT $2 AS sweep, method, variant, dataset, seed, epoch::bigint AS epoch,
                    q.key AS quantity, q.value::text::float8 AS value
             FROM epoch e
             CROSS JOIN LATERAL (
                 SELECT 'loss.' || key AS key, value FROM jsonb_each(e.losses)
                 UNION ALL
                 SELECT key, CASE jsonb_typeof(value) WHEN 'number' THEN value END
                 FROM jsonb_each(e.metrics)
                 UNION ALL
                 SELECT 'train_seconds', to_jsonb(e.train_seconds)
                 UNION ALL
                 SELECT 'eval_seconds', to_jsonb(e.eval_seconds)
             ) q
             WHERE e.sweep = $1
             ORDER BY dataset, method, variant, seed, epoch, quantity"
        }
        What::Predictions => return predictions(store, sweep, take).await,
    };
    let fields = what.fields();
    let mut rows = sqlx::query(query)
        .bind(sweep.id.0)
        .bind(&sweep.name)
        .fetch(store.pool());
    let mut piece = Piece::new(fields);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        for ((name, kind), column) in fields.iter().zip(&mut piece.columns) {
            match (kind, column) {
                (Kind::Text, Column::Text(values)) => values.push(row.try_get(name)?),
                (Kind::Whole, Column::Whole(values)) => values.push(row.try_get(name)?),
                (Kind::Real, Column::Real(values)) => values.push(row.try_get(name)?),
                // Piece::new makes columns of the fields' kinds.
                _ => {}
            }
        }
        count += 1;
        if piece.rows() >= ROWS {
            take(&piece)?;
            piece = Piece::new(fields);
        }
    }
    if piece.rows() > 0 {
        take(&piece)?;
    }
    Ok(count)
}

/// One row a sample. A method's predictions on a dataset are in memory at once.
async fn predictions(
    store: &Store,
    sweep: &SweepRow,
    mut take: impl FnMut(&Piece) -> Result<(), super::file::FileError>,
) -> Result<u64, RowsError> {
    let methods: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT dataset, method FROM job
         WHERE sweep = $1 AND kind = 'eval' AND state = 'done' ORDER BY 1, 2",
    )
    .bind(sweep.id.0)
    .fetch_all(store.pool())
    .await?;
    let known = store.benchmarks().await?;
    let mut count = 0;
    for (dataset, method) in methods {
        let dataset = known.named(&dataset)?;
        let filter = Filter {
            methods: vec![method],
            datasets: vec![dataset],
            cases: Vec::new(),
        };
        let loaded = store.predictions(sweep.id, &filter).await?;
        let Some(labels) = loaded.labels.get(&dataset) else {
            continue;
        };
        for evaluation in &loaded.evaluations {
            for (criterion, values) in &evaluation.by_criterion {
                let rows = values.len();
                let text = |text: &str| Column::Text(vec![text.to_owned(); rows]);
                let real = |values: &[f32]| {
                    Column::Real(values.iter().map(|v| Some(f64::from(*v))).collect())
                };
                take(&Piece {
                    columns: vec![
                        text(&sweep.name),
                        text(&evaluation.method),
                        text(&evaluation.variant),
                        text(dataset.id()),
                        Column::Whole(vec![evaluation.seed.cast_signed(); rows]),
                        text(&evaluation.case),
                        text(criterion),
                        Column::Whole((0..rows as i64).collect()),
                        real(labels),
                        real(values),
                    ],
                })?;
                count += rows as u64;
            }
        }
    }
    Ok(count)
}
