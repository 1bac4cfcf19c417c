use super::*;
use crate::ids::JobId;

async fn store(folder: &Path) -> ArtifactStore {
    ArtifactStore::open(&ArtifactStore::url_of(folder), None)
        .await
        .unwrap()
}

fn job() -> JobId {
    JobId::derive(&[b"j"])
}

#[tokio::test]
async fn artifact_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    // A blank and a percent sign in the path survive the address.
    let store = store(&folder.path().join("a b%20c")).await;
    let key = Key::Resume(job());
    let features = Key::Features(Hash::of(b"w"), "r=0.3".parse().unwrap());
    store
        .put(&features, Bytes::from_static(b"f"))
        .await
        .unwrap();
    let named = format!("features/{}-r=0.3.safetensors", Hash::of(b"w"));
    assert!(folder.path().join("a b%20c").join(named).is_file());
    assert!(store.get(&key, 10).await.unwrap().is_none());
    store.put(&key, Bytes::from_static(b"first")).await.unwrap();
    store
        .put(&key, Bytes::from_static(b"second"))
        .await
        .unwrap();
    assert_eq!(store.get(&key, 10).await.unwrap().unwrap(), "second");
    assert_eq!(store.size(&key).await.unwrap(), Some(6));
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(store.get(&key, 10).await.unwrap().is_none());
    assert!(folder.path().join("a b%20c").is_dir());
}

#[tokio::test]
async fn first_store_id_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let key = Key::StoreId;
    let first = store
        .put_first(&key, Bytes::from_static(b"1"))
        .await
        .unwrap();
    let second = store
        .put_first(&key, Bytes::from_static(b"2"))
        .await
        .unwrap();
    assert_eq!((first.as_ref(), second.as_ref()), (&b"1"[..], &b"1"[..]));
}

#[tokio::test]
async fn damaged_artifact_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let key = Key::Checkpoint(Hash::of(b"weights"));
    store
        .put(&key, Bytes::from_static(b"weights"))
        .await
        .unwrap();
    let copy = folder.path().join("copy");
    assert!(store.fetch_to(&key, &copy, 100).await.unwrap());
    assert_eq!(std::fs::read(&copy).unwrap(), b"weights");
    std::fs::write(folder.path().join(key.to_string()), b"weightz").unwrap();
    let error = store.get(&key, 100).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Damaged { .. }), "{error}");
    std::fs::remove_file(&copy).unwrap();
    assert!(store.fetch_to(&key, &copy, 100).await.is_err());
    assert!(!copy.exists(), "a damaged file is not left behind");
}

#[tokio::test]
async fn artifact_size_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let key = Key::Resume(job());
    store.put(&key, Bytes::from(vec![0; 11])).await.unwrap();
    let error = store.get(&key, 10).await.unwrap_err();
    assert!(matches!(error, ArtifactError::TooLarge { bytes: 11, .. }));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn invalid_store_address_is_rejected() {
    for url in ["folder", "ftp://x", "file://relative", "nats://"] {
        let error = ArtifactStore::open(url, None).await.unwrap_err();
        let hint = error.hint().unwrap();
        assert!(hint.contains("file:///folder"), "{hint}");
    }
    for url in ["s3://a:hush@b", "hush@b", "nats://a:hush@b", "ftp://hush@x"] {
        let error = ArtifactStore::open(url, None).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
}
