use super::{layout::SplitSizes, *};
use crate::{
    case::Modality,
    hash::{Hash, hash_file},
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const SHAPES: Shapes = Shapes {
    text_len: 4,
    audio_len: 2,
    audio_dim: 3,
    vision_len: 5,
    vision_dim: 1,
};

/// A small dataset of `kind` with samples numbered through; returns its hash.
fn write(path: &Path, kind: Kind) -> blake3::Hash {
    let ns = [3usize, 1, 2];
    let sizes = ns.map(|n| SplitSizes {
        samples: n,
        id_bytes: 2 * n,
        raw_text_bytes: 5 * n,
    });
    let specs = layout::tensors(kind, SHAPES, sizes);
    let mut file = TensorFile::create(path, kind, specs.clone()).unwrap();
    for spec in specs {
        let (_, field) = spec.name.split_once('.').unwrap();
        let n = spec.shape[0];
        match field {
            "audio_lengths" | "vision_lengths" => file.write_i64(&spec.name, &vec![2; n]).unwrap(),
            "ids_offsets" => file
                .write_i64(
                    &spec.name,
                    &(0..n as i64).map(|i| 2 * i).collect::<Vec<_>>(),
                )
                .unwrap(),
            "raw_text_offsets" => file
                .write_i64(
                    &spec.name,
                    &(0..n as i64).map(|i| 5 * i).collect::<Vec<_>>(),
                )
                .unwrap(),
            "text" => {
                for i in 0..n as i32 {
                    file.write_i32(&spec.name, &[101, i, 102, 0, 1, 1, 1, 0, 0, 0, 0, 0])
                        .unwrap();
                }
            }
            "ids" => {
                (0..n / 2).for_each(|i| file.write(&spec.name, format!("#{i}").as_bytes()).unwrap())
            }
            "raw_text" => {
                (0..n / 5).for_each(|_| file.write(&spec.name, "häh?".as_bytes()).unwrap())
            }
            _ => {
                let count: usize = spec.shape.iter().product();
                let values: Vec<f32> = (0..count).map(|i| (i % 5) as f32 / 10.0 - 0.2).collect();
                file.write_f32(&spec.name, &values).unwrap();
            }
        }
    }
    file.finish().unwrap().0
}

fn made(kind: Kind) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.safetensors");
    write(&path, kind);
    (dir, path)
}

#[test]
fn dataset_round_trips() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let hash = write(&path, Kind::Sims);
    let data = Dataset::open(&path).unwrap();
    assert_eq!(data.kind(), Kind::Sims);
    assert_eq!(data.shapes(), SHAPES);
    assert_eq!(data.blake3(), hash);
    assert_eq!(hash_file(&path).unwrap(), Hash::from(hash));
    let train = data.split(Split::Train);
    assert_eq!(train.len(), 3);
    assert_eq!(train.text().len(), 3 * 3 * 4);
    assert_eq!(train.text()[12..16], [101, 1, 102, 0]);
    assert_eq!(train.audio().len(), 3 * 2 * 3);
    assert_eq!(train.vision().len(), 3 * 5);
    assert_eq!(train.labels(), [-0.2, -0.1, 0.0]);
    assert_eq!(train.labels_of(Modality::Audio).unwrap().len(), 3);
    assert_eq!(train.audio_lengths(), [2, 2, 2]);
    assert_eq!(
        (train.id(2), train.raw_text(1), train.id(3)),
        ("#2", "häh?", "")
    );
    data.check_features().unwrap();
    // The format is a plain safetensors file to anyone else.
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("test.vision").unwrap().shape(), [2, 5, 1]);
}

#[test]
fn writer_rejects_wrong_order_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [SplitSizes {
        samples: 1,
        id_bytes: 1,
        raw_text_bytes: 1,
    }; 3];
    let specs = layout::tensors(Kind::Mosi, SHAPES, sizes);
    let open =
        |name: &str| TensorFile::create(&dir.path().join(name), Kind::Mosi, specs.clone()).unwrap();
    assert!(matches!(
        open("a").write_f32("train.audio", &[1.0]),
        Err(WriteError::Order { .. })
    ));
    assert!(matches!(
        open("b").write_i64("train.audio_lengths", &[1, 2]),
        Err(WriteError::Size { .. })
    ));
    assert!(matches!(open("c").finish(), Err(WriteError::Size { .. })));
}

#[test]
fn truncated_file_is_rejected() {
    let (dir, path) = made(Kind::Mosi);
    let bytes = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut");
    for end in 0..bytes.len() {
        std::fs::write(&cut, &bytes[..end]).unwrap();
        assert!(Dataset::open(&cut).is_err(), "cut to {end}");
    }
}

/// Replaces `from` in the header by `to` of the same length.
fn patched(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    let mut out = bytes.to_vec();
    out[at..at + to.len()].copy_from_slice(to.as_bytes());
    out
}

#[test]
fn foreign_file_is_rejected_with_reason() {
    let (dir, path) = made(Kind::Mosi);
    let bytes = std::fs::read(&path).unwrap();
    let bad = dir.path().join("bad");
    for (from, to, says) in [
        ("halfheard-dataset", "halfheard-dataxxx", "does not say so"),
        ("\"version\":\"1\"", "\"version\":\"9\"", "layout version"),
        (
            "\"kind\":\"mosi\"",
            "\"kind\":\"sima\"",
            "not a dataset protocol",
        ),
        ("\"valid.vision\"", "\"valid.Vision\"", "is missing"),
        ("\"train.text\":", "\"train.tixt\":", "is missing"),
    ] {
        std::fs::write(&bad, patched(&bytes, from, to)).unwrap();
        let message = Dataset::open(&bad).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn values_outside_protocol_are_rejected() {
    let (dir, path) = made(Kind::Mosi);
    let good = std::fs::read(&path).unwrap();
    let data = Dataset::open(&path).unwrap();
    let base = data.bytes().as_ptr() as usize;
    let text = data.split(Split::Valid).text().as_ptr() as usize - base;
    let labels = data.split(Split::Test).labels().as_ptr() as usize - base;
    let lengths = data.split(Split::Train).audio_lengths().as_ptr() as usize - base;
    let audio = data.split(Split::Test).audio().as_ptr() as usize - base;
    let bad = dir.path().join("bad");
    let with = |at: usize, bytes: &[u8]| {
        let mut copy = good.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&bad, copy).unwrap();
        Dataset::open(&bad)
    };
    for (at, value, says) in [
        (text, (-1i32).to_le_bytes().to_vec(), "token id -1"),
        (
            text + 4 * 4,
            0i32.to_le_bytes().to_vec(),
            "not ones followed by zeros",
        ),
        (
            text + 7 * 4,
            2i32.to_le_bytes().to_vec(),
            "ones followed by zeros",
        ),
        (text + 8 * 4, 5i32.to_le_bytes().to_vec(), "segment"),
        (labels + 4, 3.5f32.to_le_bytes().to_vec(), "3.5 is outside"),
        (labels, f32::NAN.to_le_bytes().to_vec(), "outside"),
        (lengths, 3i64.to_le_bytes().to_vec(), "outside 0 to 2"),
        (lengths, i64::MIN.to_le_bytes().to_vec(), "outside 0 to 2"),
    ] {
        let message = with(at, &value).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    let with_nan = with(audio + 7 * 4, &f32::NAN.to_le_bytes()).unwrap();
    let message = with_nan.check_features().unwrap_err().to_string();
    assert!(
        message.contains("`test.audio`, sample 1") && message.contains("position 1 "),
        "{message}"
    );
}

#[test]
fn file_carries_own_protocol() {
    let spec: crate::benchmark::definition::DefinitionSpec = toml::from_str(
        "label_range = [-0.25, 0.25]\nlanguage = \"zh\"\nclasses = [2, [-0.1, 0.1]]",
    )
    .unwrap();
    let kind = Kind::own(spec.resolve().unwrap()).unwrap();
    let (dir, path) = made(kind);
    let data = Dataset::open(&path).unwrap();
    assert_eq!(data.kind(), kind);
    assert_eq!(data.split(Split::Test).labels_of(Modality::Text), None);
    let hash = data.blake3();
    let manifest = Manifest::of(&data, "mine", hash, source(), Vec::new());
    assert_eq!(manifest.classes, ["to -0.1", "-0.1 to 0.1", "over 0.1"]);
    let text = serde_json::to_string(&manifest).unwrap();
    let back: Manifest = serde_json::from_str(&text).unwrap();
    assert_eq!(back, manifest, "the manifest carries it, too");

    // A label outside of the range, and a definition that makes none.
    let bytes = std::fs::read(&path).unwrap();
    let at = |part: &[u8]| bytes.windows(part.len()).position(|w| w == part).unwrap();
    let edited = dir.path().join("edited");
    for (from, to, said) in [
        (
            "[-0.25,0.25]",
            "[-0.15,0.25]",
            "label -0.2 is outside [-0.15, 0.25]",
        ),
        (
            "[-0.25,0.25]",
            "[+0.25,0.25]",
            "its protocol cannot be used",
        ),
        (
            "[-0.25,0.25]",
            "[0.250,0.25]",
            "its protocol cannot be used",
        ),
    ] {
        let mut changed = bytes.clone();
        let place = at(from.as_bytes());
        changed[place..place + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&edited, changed).unwrap();
        let error = Dataset::open(&edited).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn classes_match_the_paper() {
    let seven = |y| Kind::Mosi.class_of(y);
    assert_eq!(
        [-3.0, -2.5, -0.5, 0.5, 1.5, 2.6, 9.0].map(seven),
        [0, 1, 3, 3, 5, 6, 6]
    );
    let five = |y| Kind::Sims.class_of(y);
    assert_eq!(
        [-1.0, -0.7, -0.6, -0.1, 0.0, 0.1, 0.2, 0.7, 0.8].map(five),
        [0, 0, 1, 1, 2, 2, 3, 3, 4]
    );
}

fn source() -> Source {
    Source::file("x.pkl".to_owned(), "0".repeat(64), 1)
}

#[test]
fn folder_finds_datasets_by_name_and_hash() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(dir.path());
    assert_eq!(folder.names().unwrap(), [""; 0]);
    let publish = |kind, replace| {
        let prepared = folder.prepare("small").unwrap();
        let hash = write(&prepared.data_file(), kind);
        let data = Dataset::open(&prepared.data_file()).unwrap();
        let manifest = Manifest::of(&data, "small", hash, source(), vec![]);
        prepared
            .publish(&manifest, replace)
            .map(|path| (path, manifest))
    };
    let (path, manifest) = publish(Kind::Mosi, false).unwrap();
    assert_eq!(path, folder.data_file("small"));
    assert_eq!(folder.manifest("small").unwrap(), manifest);
    assert_eq!(folder.names().unwrap(), ["small"]);
    assert_eq!(
        hash_file(&folder.blob(&manifest.blake3)).unwrap().as_str(),
        manifest.blake3
    );
    assert_eq!(
        manifest.splits[&Split::Train]
            .label_counts
            .iter()
            .sum::<u64>(),
        3
    );
    assert_eq!(manifest.splits[&Split::Train].text_lengths.max, 3);

    publish(Kind::Mosi, false).expect("the same content again is fine");
    assert!(matches!(
        publish(Kind::Mosei, false),
        Err(DatasetError::Taken { .. })
    ));
    let (_, other) = publish(Kind::Mosei, true).unwrap();
    assert_eq!(folder.manifest("small").unwrap().blake3, other.blake3);
    // A killed process' leftovers go with the next try (no process has this number).
    let left = dir.path().join("datasets/.small.4294967295.new");
    std::fs::create_dir(&left).unwrap();
    drop(folder.prepare("small").unwrap());
    assert!(!Path::new("/proc/self").exists() || !left.exists());
    // Nothing temporary stays, after success or refusal.
    let left: Vec<_> = std::fs::read_dir(dir.path().join("datasets"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        std::fs::read_dir(dir.path().join("blobs")).unwrap().count(),
        2
    );
    assert!(matches!(
        folder.manifest("smal"),
        Err(DatasetError::Missing { .. })
    ));
    assert!(matches!(folder.prepare("../x"), Err(DatasetError::Name(_))));
}

#[cfg(unix)]
#[test]
fn equal_content_is_stored_once() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(dir.path());
    let publish = |name: &str, kind, replace| {
        let prepared = folder.prepare(name).unwrap();
        let hash = write(&prepared.data_file(), kind);
        let data = Dataset::open(&prepared.data_file()).unwrap();
        let manifest = Manifest::of(&data, name, hash, source(), vec![]);
        prepared.publish(&manifest, replace).unwrap();
        manifest.blake3
    };
    let file = |path: &Path| {
        let about = std::fs::metadata(path).unwrap();
        (about.ino(), about.nlink())
    };
    let sound = |name: &str, hash: &str| {
        let found = hash_file(&folder.data_file(name)).unwrap();
        assert_eq!(found.as_str(), hash, "{name}");
        assert_eq!(folder.manifest(name).unwrap().name, name);
    };
    let hash = ["a", "b", "c"].map(|name| publish(name, Kind::Mosi, false));
    let blob = folder.blob(&hash[0]);
    for name in ["a", "b", "c"] {
        // Three names and the blob: one file.
        assert_eq!(file(&folder.data_file(name)), (file(&blob).0, 4));
        sound(name, &hash[0]);
    }
    // The same name again changes nothing; other content takes one name away from the file, and
    // removing another leaves the last.
    publish("a", Kind::Mosi, false);
    assert_eq!(file(&blob).1, 4);
    let other = publish("a", Kind::Mosei, true);
    assert_eq!(file(&blob).1, 3);
    sound("a", &other);
    std::fs::remove_dir_all(folder.dataset_dir("b")).unwrap();
    sound("c", &hash[0]);
    assert_eq!(file(&blob).1, 2);
    // A stored file that is damaged is not shared but replaced.
    let mut bytes = std::fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    publish("d", Kind::Mosi, false);
    sound("d", &hash[0]);
    assert_eq!(file(&blob), (file(&folder.data_file("d")).0, 2));
    // Nothing else is left.
    for (inside, count) in [("datasets", 3), ("blobs", 2)] {
        let entries = std::fs::read_dir(dir.path().join(inside)).unwrap();
        assert_eq!(entries.count(), count, "{inside}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No damage to the header makes opening panic.
    #[test]
    fn damaged_header_never_panics(edits in prop::collection::vec((0usize..2600, any::<u8>()), 1..6)) {
        let (dir, path) = made(Kind::Mosi);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let bad = dir.path().join("bad");
        std::fs::write(&bad, bytes).unwrap();
        if let Ok(data) = Dataset::open(&bad) {
            let _ = data.check_features();
            let source = source();
            let _ = Manifest::of(&data, "x", data.blake3(), source, vec![]);
        }
    }
}
