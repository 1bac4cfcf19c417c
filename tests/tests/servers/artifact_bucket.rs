//! Artifacts in the broker's own object bucket.

use anyhow::Result;
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, worker},
    stage::Stage,
    sweeps::sweep,
    tiny::{Tiny, jobs},
};
use halfheard_shared::{
    artifacts::{ArtifactError, ArtifactStore, Key},
    hash::Hash,
    ids::JobId,
};

#[tokio::test(flavor = "multi_thread")]
async fn object_put_in_the_bucket_is_read_back() -> Result<()> {
    let stage = Stage::start().await?;
    let store = ArtifactStore::open("nats://", Some(&stage.broker)).await?;
    let job = JobId::derive(&[b"j"]);
    // Longer than one message, and not a multiple of it.
    let content: Vec<u8> = (0..1_300_001_u32).map(|i| (i % 251) as u8).collect();
    let key = Key::Checkpoint(Hash::of(&content));
    assert!(store.get(&key, 10).await?.is_none());
    store.put(&key, content.clone().into()).await?;
    store.put(&key, content.clone().into()).await?;
    assert_eq!(store.size(&key).await?, Some(content.len() as u64));
    let limit = 2_000_000;
    assert_eq!(store.get(&key, limit).await?.as_deref(), Some(&content[..]));
    let error = store.get(&key, 1000).await.unwrap_err();
    assert!(matches!(error, ArtifactError::TooLarge { .. }), "{error}");
    let copy = stage.data_dir().join("copy");
    assert!(store.fetch_to(&key, &copy, limit).await?);
    assert_eq!(std::fs::read(&copy)?, content);

    let resume = Key::Resume(job);
    for text in ["first", "second", ""] {
        store.put(&resume, text.into()).await?;
        assert_eq!(
            store.get(&resume, 10).await?.as_deref(),
            Some(text.as_bytes())
        );
    }
    store.delete(&resume).await?;
    store.delete(&resume).await?;
    assert!(store.get(&resume, 10).await?.is_none());

    let id = Key::StoreId;
    assert_eq!(store.put_first(&id, "1".into()).await?, "1");
    assert_eq!(store.put_first(&id, "2".into()).await?, "1");
    Ok(())
}

/// Without a shared folder, checkpoints, saved states and the dataset travel through the broker.
#[tokio::test(flavor = "multi_thread")]
async fn workers_share_artifacts_through_the_bucket() -> Result<()> {
    let stage = Stage::start().await?;
    let store = ArtifactStore::open("nats://", Some(&stage.broker)).await?;
    let origin = tempfile::tempdir()?;
    let tiny = Tiny::make(origin.path(), 64)?;
    let mut spec = tiny.spec("almt", 1111, 2)?;
    // As `--push` does for workers elsewhere.
    let weights = std::path::Path::new(&spec.encoder.path).join("model.safetensors");
    let config = std::path::Path::new(&spec.encoder.path).join("config.json");
    let encoder: Hash = spec.encoder.blake3.parse()?;
    store
        .put_file(&Key::EncoderConfig(encoder.clone()), &config)
        .await?;
    store.put_file(&Key::Blob(encoder), &weights).await?;
    let data: Hash = spec.data.blake3.parse()?;
    store
        .put_file(&Key::Blob(data), spec.data.path.as_ref())
        .await?;
    spec.data.path = "/nowhere".to_owned();
    spec.encoder.path = "/nowhere".to_owned();

    let sweep = sweep("apart", 0);
    stage
        .store
        .submit(&sweep, jobs(&sweep, &spec, &["r=0", "r=0.9"])?)
        .await?;
    let _coordinator = stage.serve();
    let worker = Process::spawn(worker(&stage)?.args(["--artifacts", "nats://"]))?;
    let progress = stage.finished(sweep.id, PATIENCE).await?;
    assert_eq!((progress.done, progress.failed), (3, 0));
    worker.terminate(PATIENCE)?;
    assert!(
        !stage.data_dir().join("artifacts").exists(),
        "nothing lies in a folder"
    );
    Ok(())
}
