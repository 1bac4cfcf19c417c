//! Files that are not feature pickles are recognized, with a hint.

use crate::pickler::{dataset, import_as, import_bytes, report};
use halfheard_import::{ImportError, input::InputError};
use halfheard_shared::dataset::Kind;
use std::io::Write as _;

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive's first block, and a second one.
fn tar() -> Vec<u8> {
    let mut bytes = vec![0u8; 1024];
    bytes[..10].copy_from_slice(b"mosi/x.pkl");
    bytes[257..263].copy_from_slice(b"ustar\0");
    bytes
}

/// A zip whose first entry has this name.
fn zip(entry: &str) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04\x00\x00\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend((entry.len() as u16).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(entry.as_bytes());
    bytes.extend(b"\x80\x02}q\x00.");
    bytes
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn other_formats_are_recognized() {
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (
            b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning".to_vec(),
            "a web page (HTML)",
            "in a browser",
        ),
        (
            b"\xef\xbb\xbf\n\n <HTML>".to_vec(),
            "a web page (HTML)",
            "in a browser",
        ),
        (
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied".to_vec(),
            "an XML document",
            "the server's message",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 367\n".to_vec(),
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (
            zip("archive/data.pkl"),
            "a zip written by PyTorch's torch.save",
            "torch.load",
        ),
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec(),
            "a file of PyTorch's torch.save in its old format",
            "torch.load",
        ),
        (
            zip("train_audio.npy"),
            "a zip of NumPy arrays (.npz)",
            "numpy.load",
        ),
        (zip("mosi/unaligned_50.pkl"), "a zip archive", "unzip"),
        (
            b"d,text,label\n1,hello,0.5\n".to_vec(),
            "a CSV table: `d,text,label`",
            "the pickle with the features",
        ),
        (
            b"video_id\tclip_id\ttext\nx\t1\thello".to_vec(),
            "a TSV table",
            "the pickle with the features",
        ),
        (tar(), "a tar archive", "tar xf"),
        (gzipped(&tar()), "a tar archive", "tar xf"),
        (
            gzipped(&gzipped(b"x")),
            "a gzip file inside a gzip file",
            "gzip -d",
        ),
        (gzipped(b"<html>"), "a web page (HTML)", "in a browser"),
        (b"\xfd7zXZ\x00\x00\x04".to_vec(), "an xz file", "xz -d"),
        (b"BZh91AY&SY".to_vec(), "a bzip2 file", "bzip2 -d"),
        (b"\x28\xb5\x2f\xfd\x24".to_vec(), "a zstd file", "zstd -d"),
        (
            b"7z\xbc\xaf\x27\x1c\x00\x04".to_vec(),
            "a 7z archive",
            "7z x",
        ),
        (b"Rar!\x1a\x07\x01\x00".to_vec(), "a rar archive", "unrar x"),
        (b"\x89HDF\r\n\x1a\n\x00".to_vec(), "an HDF5 file", "h5py"),
        (
            b"MATLAB 5.0 MAT-file, Platform: GLNXA64".to_vec(),
            "a MATLAB file",
            "loadmat",
        ),
        (
            b"\x93NUMPY\x01\x00v\x00".to_vec(),
            "a single NumPy array (.npy)",
            "all three splits",
        ),
        (
            br#"{"error": {"code": 403}}"#.to_vec(),
            "JSON",
            "an error instead of the file",
        ),
        (b"[1, 2]".to_vec(), "JSON", "an error instead of the file"),
        (
            vec![0; 1024],
            "only zeros at its start",
            "download it again",
        ),
        (
            b"404 Not Found".to_vec(),
            "text: `404 Not Found`",
            "download the feature file itself",
        ),
        (b"%PDF-1.7\n".to_vec(), "a PDF document", "download"),
    ];
    for (bytes, format, hint) in cases {
        let error = import_bytes(Kind::Mosi, &bytes).unwrap_err();
        let message = report(&error);
        assert!(
            matches!(error, ImportError::NotPickle { .. }),
            "{format}: {message}"
        );
        assert!(
            message.contains(&format!("features.pkl is not a pickle but {format}")),
            "{format}: {message}"
        );
        assert!(message.contains(hint), "{hint}: {message}");
    }
    // Anything else is rejected by its first opcode.
    let message = report(&import_bytes(Kind::Mosi, b"\xfe\xfe\xfe").unwrap_err());
    assert!(
        message.contains("at byte 0: 0xfe is not a pickle opcode"),
        "{message}"
    );
}

#[test]
fn imported_dataset_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.pkl");
    std::fs::write(&file, dataset(Kind::Mosi).pickle()).unwrap();
    let imported = import_as(Kind::Mosi, &file, dir.path()).unwrap();
    let error = import_as(Kind::Mosi, &imported.path, dir.path()).unwrap_err();
    let message = report(&error);
    for part in [
        "is not a pickle but a safetensors file",
        "if `coord data import` wrote it, it is already imported",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn truncated_file_reports_its_end() {
    let whole = dataset(Kind::Mosi).pickle();
    for end in [1, 2, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let error = import_bytes(Kind::Mosi, &whole[..end]).unwrap_err();
        let message = report(&error);
        assert!(
            message.contains(&format!("features.pkl is truncated at byte {end}, inside ")),
            "{message}"
        );
        assert!(
            message.ends_with("hint: copy or download it again\n"),
            "{message}"
        );
    }
    // Protocol 0 is text; truncated, it is still not a table.
    let text = include_bytes!("../data/numpy2-protocol0.pkl");
    let message = report(&import_bytes(Kind::Mosi, &text[..500]).unwrap_err());
    assert!(
        message.contains("is truncated at byte 500, inside "),
        "{message}"
    );
    // The size of a compressed file is the compressed one.
    let packed = gzipped(&whole);
    let end = packed.len() / 2;
    let error = import_bytes(Kind::Mosi, &packed[..end]).unwrap_err();
    assert!(
        matches!(error, ImportError::Input(InputError::GzipTruncated { .. })),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("is truncated at byte {end}, inside its gzip data")),
        "{error}"
    );
    // Damage inside the data.
    let mut damaged = gzipped(&whole);
    let middle = damaged.len() - 6;
    damaged[middle] ^= 0xff;
    let message = report(&import_bytes(Kind::Mosi, &damaged).unwrap_err());
    assert!(
        message.contains("the gzip data of ") && message.contains(" is damaged"),
        "{message}"
    );
}

#[test]
fn folders_and_empty_files_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("Processed");
    std::fs::create_dir(&folder).unwrap();
    let message = report(&import_as(Kind::Mosi, &folder, dir.path()).unwrap_err());
    assert!(
        message.ends_with("Processed is a folder\n  hint: name the feature file itself\n"),
        "{message}"
    );
    for name in ["unaligned_50.pkl", "aligned_50.pkl.gz", "readme.txt"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let message = report(&import_as(Kind::Mosi, &folder, dir.path()).unwrap_err());
    assert!(
        message.ends_with("it contains aligned_50.pkl.gz, unaligned_50.pkl\n"),
        "{message}"
    );
    let message =
        report(&import_as(Kind::Mosi, &folder.join("unaligned_50.pkl"), dir.path()).unwrap_err());
    assert!(message.contains("unaligned_50.pkl is empty"), "{message}");
}
