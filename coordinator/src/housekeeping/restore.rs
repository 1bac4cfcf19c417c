//! Restoring a backup.

use super::{
    archive::{Archive, Manifest, Table},
    missing, own_store,
};
use crate::config::Settings;
use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::stream;
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    error::{Hint, chain},
};
use halfheard_store::{
    Store, StoreError,
    backup::{Applied, Occupied, Refill, TableShape},
};
use serde::Serialize;
use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Why a backup is not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The database is in use.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// Its tables have another form.
    #[error(
        "the backup was made with migrations up to {backup}, and the database has those up to {database}"
    )]
    Migrations {
        /// The last one of the backup.
        backup: i64,
        /// The last one of the database.
        database: i64,
    },
    /// A migration of the same number with another text.
    #[error("migration {version} of the backup and of the database differ")]
    Migration {
        /// Which.
        version: i64,
    },
    /// A table has other rows than it had.
    #[error("table {table} has {found} rows in the backup, not {expected}")]
    Rows {
        /// Which.
        table: String,
        /// How many it has.
        found: u64,
        /// How many it had.
        expected: u64,
    },
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file's.
    #[error("cannot read the backup")]
    Read(#[from] std::io::Error),
}

impl Hint for RestoreError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Occupied(Occupied::NotEmpty { .. }) => {
                Some("restore into a new database: createdb, `coord migrate`".to_owned())
            }
            Self::Occupied(Occupied::Served { .. }) => {
                Some("stop `coord serve`, wait 10 s and try again".to_owned())
            }
            Self::Migrations { .. } | Self::Migration { .. } => Some(
                "restore with the release that made the backup, then `coord migrate` with this one"
                    .to_owned(),
            ),
            Self::Rows { .. } | Self::Read(_) => Some("use another backup".to_owned()),
            Self::Store(error) => error.hint(),
        }
    }
}

/// What was restored.
#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    /// The installation's name.
    pub(crate) installation: String,
    /// Rows in all tables.
    pub(crate) rows: u64,
    /// Checkpoints that were put back into the store.
    pub(crate) checkpoints: u64,
    /// Checkpoints that results refer to and that are not in the store; unknown without a store.
    pub(crate) missing_checkpoints: Option<u64>,
    /// Why the store could not be looked at.
    pub(crate) store: Option<String>,
}

/// Fills the empty, migrated database from the backup in `folder`, and puts the checkpoints in it into
/// the store of the settings unless they are there.
///
/// # Errors
///
/// [`RestoreError`]: nothing was changed. A store that cannot be used is only noted.
pub(crate) async fn restore(
    folder: &Path,
    settings: &Settings,
    database: &Store,
) -> anyhow::Result<Restored> {
    let (archive, manifest) = Archive::open(folder)?;
    let rows = refill(&archive, &manifest, database).await?;
    let mut restored = Restored {
        installation: manifest.installation.name.clone(),
        rows,
        checkpoints: 0,
        missing_checkpoints: None,
        store: None,
    };
    if let Err(error) = put_back(&archive, &manifest, settings, database, &mut restored).await {
        // The first worker that asks says which store it is.
        database.replace_store(None).await?;
        restored.store = Some(chain(error.as_ref()));
    }
    Ok(restored)
}

async fn refill(
    archive: &Archive,
    manifest: &Manifest,
    database: &Store,
) -> Result<u64, RestoreError> {
    let mut refill = database.refill().await??;
    check_migrations(manifest, &refill.migrations)?;
    let mut sum = 0;
    for table in &manifest.tables {
        let rows = fill(archive, table, &mut refill).await?;
        if rows != table.rows {
            return Err(RestoreError::Rows {
                table: table.name.clone(),
                found: rows,
                expected: table.rows,
            });
        }
        sum += rows;
    }
    refill.commit().await?;
    Ok(sum)
}

fn check_migrations(manifest: &Manifest, applied: &[Applied]) -> Result<(), RestoreError> {
    let last = |version: Option<i64>| version.unwrap_or(0);
    let backup = last(manifest.migrations.last().map(|m| m.version));
    let database = last(applied.last().map(|m| m.version));
    if backup != database || manifest.migrations.len() != applied.len() {
        return Err(RestoreError::Migrations { backup, database });
    }
    for (old, new) in manifest.migrations.iter().zip(applied) {
        if old.version != new.version || old.checksum != new.checksum {
            return Err(RestoreError::Migration {
                version: old.version,
            });
        }
    }
    Ok(())
}

async fn fill(archive: &Archive, table: &Table, refill: &mut Refill) -> Result<u64, RestoreError> {
    let file = BufReader::with_capacity(PIECE, File::open(archive.table(&table.name))?);
    let content = stream::unfold(GzDecoder::new(file), |mut file| async move {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(RestoreError::Read(error)), file)),
        }
    });
    let shape = TableShape {
        name: table.name.clone(),
        columns: table.columns.clone(),
    };
    refill.copy(&shape, Box::pin(content)).await
}

async fn put_back(
    archive: &Archive,
    manifest: &Manifest,
    settings: &Settings,
    database: &Store,
    restored: &mut Restored,
) -> anyhow::Result<()> {
    // The one of the backup may be gone.
    database.replace_store(None).await?;
    let artifacts = own_store::open(settings, database).await?;
    database.replace_store(Some(&artifacts.id().await?)).await?;
    if manifest.with_checkpoints {
        let folder = archive.artifacts();
        let copy = ArtifactStore::open(&ArtifactStore::url_of(&folder), None).await?;
        let lacking = missing::find(&artifacts, database).await?;
        for checkpoint in &lacking.missing {
            let key = Key::Checkpoint(checkpoint.blake3.parse()?);
            if copy.size(&key).await?.is_some() {
                artifacts
                    .put_checked(&key, &folder.join(key.to_string()))
                    .await?;
                restored.checkpoints += 1;
            }
        }
    }
    let lacking = missing::find(&artifacts, database).await?;
    restored.missing_checkpoints = Some(lacking.missing.len() as u64);
    Ok(())
}
