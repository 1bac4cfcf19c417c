//! Writing a backup.

use super::archive::{Archive, FORMAT, Manifest, Migration, Owner, Table};
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt as _;
use halfheard_shared::{
    artifacts::{ArtifactStore, Key, MAX_BYTES},
    atomic_file::{AtomicFile, DEFAULT_MODE},
    hash::{Hash, hash_file},
};
use halfheard_store::{
    Store,
    backup::{Dump, TableShape},
};
use serde::Serialize;
use std::{
    io::{BufWriter, Write as _},
    path::Path,
};

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    /// Rows in all tables.
    pub(crate) rows: u64,
    /// Bytes of the tables' files.
    pub(crate) bytes: u64,
    /// Checkpoints that results refer to.
    pub(crate) checkpoints: u64,
    /// Those of them that are in the backup.
    pub(crate) saved_checkpoints: u64,
    /// Their bytes.
    pub(crate) checkpoint_bytes: u64,
    /// Those that the store does not have.
    pub(crate) missing_checkpoints: u64,
}

/// Writes a backup of the database as it is now into `folder` and, from `artifacts`, the checkpoints that
/// its results refer to. What a backup that was not finished left there is used.
///
/// # Errors
///
/// The folder is not empty or cannot be written; the database or the store fails.
pub(crate) async fn write(
    folder: &Path,
    database: &Store,
    artifacts: Option<&ArtifactStore>,
) -> anyhow::Result<Written> {
    let archive = Archive::create(folder)?;
    let mut dump = database.dump().await?;
    let mut tables = Vec::new();
    for shape in dump.tables.clone() {
        tables.push(table(&archive, &mut dump, &shape).await?);
    }
    let checkpoints = dump.checkpoints().await?;
    let mut written = Written {
        rows: tables.iter().map(|table| table.rows).sum(),
        bytes: tables.iter().map(|table| table.bytes).sum(),
        checkpoints: checkpoints.len() as u64,
        saved_checkpoints: 0,
        checkpoint_bytes: 0,
        missing_checkpoints: 0,
    };
    let (installation, migrations) = (dump.installation.clone(), dump.migrations.clone());
    // Artifacts are content: they need no snapshot.
    dump.close().await?;
    if let Some(artifacts) = artifacts {
        save_checkpoints(&archive, artifacts, &checkpoints, &mut written).await?;
    }
    archive.seal(&Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        installation: Owner {
            id: installation.id,
            name: installation.name,
        },
        migrations: migrations
            .into_iter()
            .map(|applied| Migration {
                version: applied.version,
                checksum: applied.checksum,
            })
            .collect(),
        tables,
        checkpoints: written.checkpoints,
        with_checkpoints: artifacts.is_some(),
    })?;
    Ok(written)
}

async fn table(archive: &Archive, dump: &mut Dump, shape: &TableShape) -> anyhow::Result<Table> {
    let path = archive.table(&shape.name);
    let file = AtomicFile::create(&path, DEFAULT_MODE)?;
    let mut file = GzEncoder::new(BufWriter::new(file), Compression::fast());
    let mut rows = 0;
    let mut content = dump.copy(shape).await?;
    while let Some(piece) = content.next().await {
        let piece = piece?;
        // A line break within a value is written as \n.
        rows += piece.iter().filter(|&&byte| byte == b'\n').count() as u64;
        file.write_all(&piece)?;
    }
    drop(content);
    let file = file
        .finish()?
        .into_inner()
        .map_err(|error| error.into_error())?;
    file.persist()?;
    Ok(Table {
        name: shape.name.clone(),
        columns: shape.columns.clone(),
        rows,
        bytes: std::fs::metadata(&path)?.len(),
        blake3: hash_file(&path)?,
    })
}

async fn save_checkpoints(
    archive: &Archive,
    artifacts: &ArtifactStore,
    checkpoints: &[(String, i64)],
    written: &mut Written,
) -> anyhow::Result<()> {
    let folder = archive.artifacts();
    let copy = ArtifactStore::open(&ArtifactStore::url_of(&folder), None).await?;
    for (hash, bytes) in checkpoints {
        let key = Key::Checkpoint(hash.parse::<Hash>()?);
        let bytes = bytes.cast_unsigned();
        let there = copy.size(&key).await? == Some(bytes);
        if !there
            && !artifacts
                .fetch_to(&key, &folder.join(key.to_string()), MAX_BYTES)
                .await?
        {
            written.missing_checkpoints += 1;
            continue;
        }
        written.saved_checkpoints += 1;
        written.checkpoint_bytes += bytes;
    }
    Ok(())
}
