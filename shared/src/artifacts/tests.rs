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

#[tokio::test]
async fn inventory_has_artifacts_and_leftovers_and_nothing_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let checkpoint = Key::Checkpoint(Hash::of(b"w"));
    store
        .put(&checkpoint, Bytes::from_static(b"w"))
        .await
        .unwrap();
    let resume = Key::Resume(job());
    store
        .put(&resume, Bytes::from_static(b"state"))
        .await
        .unwrap();
    let abandoned = folder.path().join("checkpoints/.halfheard-Ab12");
    std::fs::write(&abandoned, b"half").unwrap();
    std::fs::write(folder.path().join("checkpoints/notes.txt"), b"mine").unwrap();
    std::fs::create_dir(folder.path().join("figures")).unwrap();
    std::fs::write(folder.path().join("figures/2.svg"), b"mine").unwrap();

    let now = store.now().await.unwrap();
    let found = store.inventory().await.unwrap();
    let mut keys: Vec<_> = found.entries.iter().map(|e| (&e.key, e.bytes)).collect();
    keys.sort_by_key(|(key, _)| key.to_string());
    assert_eq!(keys, [(&checkpoint, 1), (&resume, 5)]);
    assert!(
        found
            .entries
            .iter()
            .all(|e| age(now, e.modified) < Duration::from_secs(60))
    );
    let amount = Amount { count: 1, bytes: 4 };
    assert_eq!((found.leftover(), found.foreign), (amount, 1));
    assert_eq!(
        found.by_kind()[&ArtifactKind::States],
        Amount { count: 1, bytes: 5 }
    );

    // One that is being written to is not removed.
    std::fs::File::options()
        .write(true)
        .open(&abandoned)
        .unwrap()
        .set_modified(now + Duration::from_secs(5))
        .unwrap();
    store.remove(&found.leftovers[0]).await.unwrap();
    assert!(abandoned.exists());
    let found = store.inventory().await.unwrap();
    store.remove(&found.leftovers[0]).await.unwrap();
    assert!(!abandoned.exists());
    assert!(store.delete_all([checkpoint, resume]).await.is_empty());
    let found = store.inventory().await.unwrap();
    assert!(found.entries.is_empty() && found.leftovers.is_empty());
    assert!(folder.path().join("figures/2.svg").exists());
}

#[tokio::test]
async fn artifact_written_again_becomes_young() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let key = Key::Checkpoint(Hash::of(b"w"));
    store.put(&key, Bytes::from_static(b"w")).await.unwrap();
    let path = folder.path().join(key.to_string());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let old = SystemTime::now() - 2 * GRACE;
    file.set_modified(old).unwrap();
    store.put(&key, Bytes::from_static(b"w")).await.unwrap();
    let found = store.inventory().await.unwrap();
    let now = store.now().await.unwrap();
    assert!(age(now, found.entries[0].modified) < GRACE / 2);
    assert_eq!(std::fs::read(&path).unwrap(), b"w");
}

#[tokio::test]
async fn store_keeps_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path()).await;
    assert_eq!(one.current_id().await.unwrap(), None);
    let id = one.id().await.unwrap();
    let two = store(folder.path()).await;
    assert_eq!(two.id().await.unwrap(), id);
    assert_eq!(two.current_id().await.unwrap(), Some(id));
    std::fs::write(folder.path().join("store-id"), "something else").unwrap();
    assert!(two.current_id().await.is_err());
}

/// The mount is gone: an empty folder is in its place, and then another store.
#[tokio::test]
async fn folder_in_place_of_the_store_is_not_the_store() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("store");
    let store = ArtifactStore::open(&ArtifactStore::url_of(&root), None)
        .await
        .unwrap();
    let content = Bytes::from_static(b"weights");
    let key = Key::Checkpoint(Hash::of(&content));
    store.id().await.unwrap();
    store.put(&key, content.clone()).await.unwrap();

    let away = place.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    for other in [None, Some("2b6a1c7e-0000-4000-8000-000000000000")] {
        std::fs::create_dir_all(&root).unwrap();
        if let Some(id) = other {
            std::fs::write(root.join("store-id"), id).unwrap();
        }
        let errors = [
            store.put(&key, content.clone()).await.err(),
            store.get(&key, 100).await.err(),
            store.size(&key).await.err(),
            store.delete(&key).await.err(),
            store.inventory().await.err(),
            store.probe("w").await.err(),
        ];
        for error in errors {
            let error = error.expect("it is refused");
            assert!(error.is_retryable(), "{error}");
        }
        let left = std::fs::read_dir(&root).unwrap().count();
        assert_eq!(left, usize::from(other.is_some()), "nothing was written");
        std::fs::remove_dir_all(&root).unwrap();
    }
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(store.get(&key, 100).await.unwrap(), Some(content));
}
