//! Means over seeds, and the means of these over cases: of the checkpoints that count, and of those that the
//! test split chose beside them.

use super::{ResultsError, Snapshot};
use crate::benchmarks::Benchmarks;
use halfheard_shared::{
    case::CaseOrMean,
    results::{Cell, CellKey, Cells, Model},
};

/// A mean as the database has it.
struct Row {
    dataset: String,
    method: String,
    variant: String,
    case_id: String,
    metric: String,
    mean: Option<f64>,
    std: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    completed: i64,
    expected: i64,
}

impl Snapshot {
    /// Of the checkpoints that count: chosen on the split that the spec names, of both on validation.
    pub(super) async fn cells(&mut self) -> Result<Cells, ResultsError> {
        let rows = sqlx::query_as!(
            Row,
            // The means are those of views table_overall and table_missing_overall, which would read each result again.
            r#"WITH cells AS MATERIALIZED (SELECT * FROM cell WHERE sweep = $1)
               SELECT dataset AS "dataset!", method AS "method!", variant AS "variant!",
                      case_id AS "case_id!", metric AS "metric!", mean, std, min,
                      max, seeds_completed AS "completed!", seeds_expected AS "expected!"
               FROM cells
               UNION ALL
               SELECT dataset, method, variant, 'r=mean', metric,
                      CASE WHEN bool_and(seeds_completed > 0) THEN avg(mean ORDER BY rate) END,
                      CASE WHEN bool_and(seeds_completed > 0) THEN avg(std ORDER BY rate) END,
                      NULL, NULL, count(*) FILTER (WHERE seeds_completed > 0), count(*)
               FROM cells WHERE kind = 'r' AND mask IS NULL
               GROUP BY dataset, method, variant, metric
               UNION ALL
               SELECT dataset, method, variant, 'missing=mean', metric,
                      CASE WHEN bool_and(seeds_completed > 0) THEN avg(mean ORDER BY missing) END,
                      CASE WHEN bool_and(seeds_completed > 0) THEN avg(std ORDER BY missing) END,
                      NULL, NULL, count(*) FILTER (WHERE seeds_completed > 0), count(*)
               FROM cells WHERE kind = 'missing'
               GROUP BY dataset, method, variant, metric"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        cells(rows, &self.known)
    }

    /// Of the checkpoints that the test split chose, where both splits choose: formed as the others are, over the
    /// same cases.
    pub(super) async fn cells_on_test(&mut self) -> Result<Cells, ResultsError> {
        let rows = sqlx::query_as!(
            Row,
            r#"WITH chosen AS MATERIALIZED (
                   SELECT dataset, method, variant, case_id, metric,
                          avg(test_chosen ORDER BY seed) AS mean,
                          stddev_samp(test_chosen ORDER BY seed) AS std,
                          min(test_chosen) AS min, max(test_chosen) AS max,
                          count(*) FILTER (WHERE state = 'done') AS completed,
                          count(*) AS expected
                   FROM optimism WHERE sweep = $1
                   GROUP BY dataset, method, variant, case_id, metric
               ), of_kind AS (
                   SELECT *, CASE case_kind(case_id) WHEN 'r' THEN case_rate(case_id)::text
                                                     ELSE case_missing(case_id) END AS place,
                          case_kind(case_id) || '=mean' AS kind
                   FROM chosen
                   WHERE case_kind(case_id) IN ('r', 'missing') AND case_mask(case_id) IS NULL
               )
               SELECT dataset AS "dataset!", method AS "method!", variant AS "variant!",
                      case_id AS "case_id!", metric AS "metric!", mean, std, min, max,
                      completed AS "completed!", expected AS "expected!"
               FROM chosen
               UNION ALL
               SELECT dataset, method, variant, kind, metric,
                      CASE WHEN bool_and(completed > 0) THEN avg(mean ORDER BY place) END,
                      CASE WHEN bool_and(completed > 0) THEN avg(std ORDER BY place) END,
                      NULL, NULL, count(*) FILTER (WHERE completed > 0), count(*)
               FROM of_kind
               GROUP BY dataset, method, variant, kind, metric"#,
            self.sweep.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        cells(rows, &self.known)
    }
}

fn cells(rows: Vec<Row>, known: &Benchmarks) -> Result<Cells, ResultsError> {
    let mut cells = Vec::with_capacity(rows.len());
    for row in rows {
        let dataset = known.named(&row.dataset)?;
        // A database of a newer program may have further metrics.
        let Some(metric) = dataset.metric(&row.metric) else {
            continue;
        };
        let key = CellKey {
            dataset,
            model: Model::new(row.method, row.variant),
            case: row.case_id.parse::<CaseOrMean>()?,
            metric: metric.id,
        };
        let cell = Cell {
            mean: row.mean,
            std: row.std,
            min: row.min,
            max: row.max,
            completed: row.completed,
            expected: row.expected,
        };
        cells.push((key, cell));
    }
    Ok(cells.into_iter().collect())
}
