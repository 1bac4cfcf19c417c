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
            // The means are those of views table_overall and table_missing_overall, which would sum up again.
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
            r#"WITH counted AS (
                   SELECT t.dataset, t.method, t.variant, t.case_id, case_kind(t.case_id) AS kind,
                          CASE case_kind(t.case_id) WHEN 'r' THEN case_rate(t.case_id)::text
                                                    ELSE case_missing(t.case_id) END AS place,
                          case_mask(t.case_id) AS mask, sum(t.jobs)::bigint AS expected,
                          coalesce(sum(t.jobs) FILTER (WHERE t.state = 'done'), 0)::bigint AS completed
                   FROM tally t JOIN config c ON c.id = t.config
                   WHERE t.sweep = $1 AND t.kind = 'eval'
                     AND c.spec #>> '{protocol,selection}' = 'both' AND NOT c.spec ? 'imported'
                   GROUP BY 1, 2, 3, 4 HAVING sum(t.jobs) > 0
               ), summed AS (
                   SELECT t.dataset, t.method, t.variant, t.case_id, t.metric,
                          sum(t.defined)::bigint AS defined, sum(t.total) AS total,
                          sum(t.squares) AS squares, min(t.low) AS min, max(t.high) AS max
                   FROM tally_metric t JOIN config c ON c.id = t.config
                   WHERE t.sweep = $1 AND t.on_test AND NOT c.spec ? 'imported'
                   GROUP BY 1, 2, 3, 4, 5
               ), chosen AS MATERIALIZED (
                   SELECT c.dataset, c.method, c.variant, c.case_id, c.kind, c.place, c.mask, m.metric,
                          fixed_mean(s.total, s.defined) AS mean,
                          fixed_std(s.total, s.squares, s.defined) AS std,
                          s.min, s.max, c.completed, c.expected
                   FROM counted c
                   JOIN metric m ON m.dataset = c.dataset
                   LEFT JOIN summed s ON s.dataset = c.dataset AND s.method = c.method
                        AND s.variant = c.variant AND s.case_id = c.case_id AND s.metric = m.metric
               ), of_kind AS (
                   SELECT dataset, method, variant, metric, kind || '=mean' AS kind, place, mean, std, completed
                   FROM chosen
                   WHERE kind IN ('r', 'missing') AND mask IS NULL
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
