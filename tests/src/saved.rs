//! What a training has saved of itself.

use anyhow::{Context as _, Result};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key, MAX_BYTES},
    ids::JobId,
};
use safetensors::SafeTensors;

/// The epoch that a training's saved state is in, from 1; `None` where nothing is saved.
pub async fn saved_epoch(store: &ArtifactStore, job: JobId) -> Result<Option<u64>> {
    let Some(state) = store.get(&Key::Resume(job), MAX_BYTES).await? else {
        return Ok(None);
    };
    let (_, header) = SafeTensors::read_metadata(&state)?;
    let metadata = header.metadata().as_ref().context("no metadata")?;
    let json: serde_json::Value =
        serde_json::from_str(metadata.get("json").context("no progress")?)?;
    let epoch = json["progress"]["epoch"].as_u64();
    Ok(Some(epoch.context("no epoch")?))
}
