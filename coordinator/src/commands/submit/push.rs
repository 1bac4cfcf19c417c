//! Uploads a spec's files to the artifact store, for workers that cannot see them.

use crate::{
    config::Settings,
    housekeeping::own_store,
    output::Output,
    submission::{Loaded, encoders},
};
use anyhow::Context as _;
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    encoder,
    error::hinted,
    hash::Hash,
    hash_cache::HashCache,
};
use halfheard_store::Store;
use std::path::Path;

/// Uploads datasets and encoders under their hashes, unless they are there.
///
/// # Errors
///
/// A file cannot be read; the artifact store fails or is another installation's.
pub(super) async fn push(
    loaded: &Loaded,
    settings: &Settings,
    database: &Store,
) -> anyhow::Result<()> {
    let mut upload = Upload {
        artifacts: own_store::open_own(settings, database).await?,
        hashes: HashCache::open(&settings.data_dir),
        output: Output::of(settings),
    };
    for (data, encoder) in loaded.resolved.inputs() {
        let (file, folder) = (Path::new(&data.path), Path::new(&encoder.path));
        upload.file(Key::Blob(hash(&data.blake3)?), file).await?;
        upload.encoder(hash(&encoder.blake3)?, folder).await?;
    }
    Ok(())
}

struct Upload {
    artifacts: ArtifactStore,
    hashes: HashCache,
    output: Output,
}

impl Upload {
    /// Uploads an encoder: its configuration, its weights and, unless they are a single
    /// `model.safetensors`, the list of their files.
    async fn encoder(&mut self, identity: Hash, folder: &Path) -> anyhow::Result<()> {
        let files = encoders::files(folder, &mut self.hashes)?;
        let named = encoders::named(&files);
        if encoder::identity(&named) != identity {
            let message = format!("the weights in {} have changed meanwhile", folder.display());
            return Err(hinted(message, "submit again").into());
        }
        let config = Key::EncoderConfig(identity.clone());
        self.file(config, &folder.join("config.json")).await?;
        for file in &files {
            self.file(Key::Blob(file.hash.clone()), &file.path).await?;
        }
        if !matches!(named.as_slice(), [(name, _)] if name == "model.safetensors") {
            let list = encoder::write_list(&named);
            self.artifacts
                .put(&Key::EncoderFiles(identity), list.into())
                .await?;
        }
        Ok(())
    }

    async fn file(&self, key: Key, path: &Path) -> anyhow::Result<()> {
        if self.artifacts.size(&key).await?.is_none() {
            self.output.note(format_args!("pushing {}", path.display()));
        }
        // One that is there becomes young again: `coord gc` leaves it alone until the sweep is there.
        Ok(self.artifacts.put_file(&key, path).await?)
    }
}

fn hash(text: &str) -> anyhow::Result<Hash> {
    text.parse().ok().context("invalid hash in the spec")
}
