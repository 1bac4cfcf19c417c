//! Loads the reference files into the database if they are missing or have changed.

use crate::{Store, StoreError};
use halfheard_shared::published::{ERRATA, ErratumKind, NUMBERS, errata, numbers};
use std::fmt::Write as _;

/// Advisory lock that serializes loaders; the number is arbitrary.
const LOCK: i64 = 0x6d62_7075_626c;

impl Store {
    /// Brings the tables `published` and `erratum` up to this program's files, in one transaction.
    pub(crate) async fn load_published(&self) -> Result<(), StoreError> {
        let wanted = [NUMBERS, ERRATA].map(|(name, text)| (name, blake3::hash(text.as_bytes())));
        let mut tx = self.pool().begin().await?;
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
            .execute(&mut *tx)
            .await?;
        let mut current = true;
        for (name, hash) in &wanted {
            let loaded =
                sqlx::query_scalar!("SELECT blake3 FROM reference_data WHERE name = $1", *name)
                    .fetch_optional(&mut *tx)
                    .await?;
            current &= loaded.as_deref() == Some(hash.to_hex().as_str());
        }
        if current {
            return Ok(());
        }
        sqlx::query!("DELETE FROM published")
            .execute(&mut *tx)
            .await?;
        sqlx::query!("DELETE FROM erratum")
            .execute(&mut *tx)
            .await?;
        let mut text = String::new();
        for n in numbers() {
            let std = n.std.map_or("\\N".to_owned(), |std| std.to_string());
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{std}",
                n.table, n.dataset, n.method, n.variant, n.case, n.metric, n.printed, n.value
            );
        }
        let mut copy = tx
            .copy_in_raw(
                "COPY published (table_number, dataset, method, variant, case_id, metric, printed,
                                 value, std)
                 FROM STDIN",
            )
            .await?;
        copy.send(text.as_bytes()).await?;
        copy.finish().await?;
        for e in errata() {
            let corrected = match e.kind {
                ErratumKind::Corrected(value) => Some(value),
                ErratumKind::Retracted | ErratumKind::LabelsSwapped => None,
            };
            sqlx::query!(
                "INSERT INTO erratum (table_number, dataset, method, variant, case_id, metric,
                                      kind, corrected, source, why)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                i32::from(e.table),
                e.dataset.id(),
                e.method,
                e.variant,
                e.case,
                e.metric,
                e.kind.id(),
                corrected,
                e.source,
                e.why
            )
            .execute(&mut *tx)
            .await?;
        }
        for (name, hash) in &wanted {
            let hash = hash.to_hex();
            sqlx::query!(
                "INSERT INTO reference_data (name, blake3) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET blake3 = excluded.blake3, loaded = now()",
                *name,
                hash.as_str()
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
