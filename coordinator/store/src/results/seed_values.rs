//! Values of single seeds.

use super::{ResultsError, Snapshot};
use halfheard_shared::{
    case::Case,
    results::{Model, SeedValue},
};

impl Snapshot {
    /// Every metric of every seed on these cases, of finished evaluations: by dataset, model, case,
    /// metric and seed.
    ///
    /// # Errors
    ///
    /// The database's; a dataset or case that this program does not know.
    pub async fn seed_values(&mut self, cases: &[Case]) -> Result<Vec<SeedValue>, ResultsError> {
        let cases: Vec<String> = cases.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            r#"SELECT dataset AS "dataset!", method AS "method!", variant AS "variant!",
                      seed AS "seed!", case_id AS "case_id!", metric AS "metric!", value
               FROM measurement
               WHERE sweep = $1 AND state = 'done' AND case_id = ANY ($2)
               ORDER BY dataset, method, variant, case_id, metric, seed"#,
            self.sweep.0,
            &cases
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            let dataset = self.known.named(&row.dataset)?;
            // A database of a newer program may have further metrics.
            let Some(metric) = dataset.metric(&row.metric) else {
                continue;
            };
            values.push(SeedValue {
                dataset,
                model: Model::new(row.method, row.variant),
                seed: row.seed.cast_unsigned(),
                case: row.case_id.parse()?,
                metric: metric.id,
                value: row.value,
            });
        }
        Ok(values)
    }
}
