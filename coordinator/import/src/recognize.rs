//! Recognizes files that are not pickles by their first bytes.

/// A format and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognized {
    /// The format, as in "not a pickle but a tar archive".
    pub format: String,
    /// What to do about it.
    pub hint: &'static str,
}

const DOWNLOAD: &str = "download the feature file itself";

const TORCH: &str = "load it with torch.load, convert tensors to arrays with .numpy() and write it with pickle.dump";

/// PyTorch's format before it was a zip: several pickles, then data.
pub fn torch_save() -> Recognized {
    Recognized {
        format: "a file of PyTorch's torch.save in its old format".to_owned(),
        hint: TORCH,
    }
}

/// First bytes that no pickle has.
const MAGIC: [(&[u8], &str, &str); 21] = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer to the file",
        "fetch the file itself with `git lfs pull`",
    ),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert it with h5py"),
    (
        b"MATLAB 5.0 MAT-file",
        "a MATLAB file",
        "convert it with scipy.io.loadmat",
    ),
    (
        b"\x93NUMPY",
        "a single NumPy array (.npy)",
        "one file holds the dict of all three splits: write it with pickle",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it (7z x)"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it (xz -d)"),
    (b"BZh", "a bzip2 file", "unpack it (bzip2 -d)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it (zstd -d)"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unpack it (lz4 -d)"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it (unrar x)"),
    (b"%PDF-", "a PDF document", DOWNLOAD),
    (b"\x89PNG\r\n", "a PNG image", DOWNLOAD),
    (b"\xff\xd8\xff", "a JPEG image", DOWNLOAD),
    (b"GIF8", "a GIF image", DOWNLOAD),
    (b"PAR1", "a Parquet file", "convert it with pandas"),
    (b"ARROW1", "an Arrow file", "convert it with pandas"),
    (b"SQLite format 3\0", "an SQLite database", DOWNLOAD),
    (b"\x7fELF", "a program", DOWNLOAD),
    (b"RIFF", "a RIFF file (audio or video)", DOWNLOAD),
    (b"#!", "a script", DOWNLOAD),
    (
        b"\x1f\x8b",
        "a gzip file inside a gzip file",
        "unpack it once (gzip -d)",
    ),
];

/// The format of a file that begins with `bytes`, if it is certain and not a pickle.
pub fn recognize(bytes: &[u8]) -> Option<Recognized> {
    let found = |format: &str, hint: &'static str| {
        Some(Recognized {
            format: format.to_owned(),
            hint,
        })
    };
    for (magic, format, hint) in MAGIC {
        if bytes.starts_with(magic) {
            return found(format, hint);
        }
    }
    if bytes.starts_with(b"PK\x03\x04") {
        // The names of the entries precede their contents.
        let start = &bytes[..bytes.len().min(4096)];
        let has = |name: &[u8]| start.windows(name.len()).any(|w| w == name);
        return if has(b"/data.pkl") || has(b"/byteorder") || has(b"/version") {
            found("a zip written by PyTorch's torch.save", TORCH)
        } else if has(b".npy") {
            found(
                "a zip of NumPy arrays (.npz)",
                "load it with numpy.load and write the dict of all three splits with pickle.dump",
            )
        } else {
            found(
                "a zip archive",
                "unpack it (unzip) and import the .pkl inside",
            )
        };
    }
    // A pickle of protocol 2 or newer begins with 0x80, the name of a tar's first file never does.
    if bytes.get(257..262) == Some(b"ustar") && bytes[0] != 0x80 {
        return found(
            "a tar archive",
            "unpack it (tar xf) and import the .pkl inside",
        );
    }
    // safetensors: the size of a header, then its JSON.
    if let Some(size) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))
        && (2..=100 << 20).contains(&size)
        && bytes.get(8..10) == Some(b"{\"")
    {
        return found(
            "a safetensors file",
            "if `coord data import` wrote it, it is already imported: see `coord data check FILE`",
        );
    }
    if !bytes.is_empty() && bytes.iter().take(512).all(|&b| b == 0) {
        return found(
            "only zeros at its start: an unfinished download or lost data",
            "download it again",
        );
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = text.trim_ascii_start();
    let start = text[..text.len().min(256)].to_ascii_lowercase();
    if start.starts_with(b"<?xml") && !start.windows(5).any(|w| w == b"<html") {
        return found(
            "an XML document",
            "download the file itself; this is the server's message",
        );
    }
    // `<` begins no pickle.
    if start.starts_with(b"<") {
        return found(
            "a web page (HTML): the server sent a sign-in or confirmation page instead of the file",
            "open the link in a browser and download the file from there",
        );
    }
    // Neither do `{` and `[`.
    if start.starts_with(b"{") || start.starts_with(b"[") {
        return found(
            "JSON",
            "the server may have sent an error instead of the file; features are a pickle",
        );
    }
    None
}

/// The likely format of a text file that could not be read as a pickle.
pub fn guess(bytes: &[u8]) -> Option<Recognized> {
    // A container in protocol 0 begins so, and protocol 0 is text as well.
    if bytes.starts_with(b"(") {
        return None;
    }
    let start = &bytes[..bytes.len().min(4096)];
    // The last character may be incomplete.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        return None;
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next()?;
    for (separator, name) in [(',', "CSV"), ('\t', "TSV"), (';', "CSV")] {
        let columns = first.matches(separator).count();
        if columns > 0 && lines.next().is_none_or(|line| line.contains(separator)) {
            return Some(Recognized {
                format: format!("a {name} table: `{}`", shortened(first)),
                hint: "labels alone are not enough; import the pickle with the features",
            });
        }
    }
    Some(Recognized {
        format: format!("text: `{}`", shortened(first)),
        hint: DOWNLOAD,
    })
}

fn shortened(line: &str) -> String {
    let mut short: String = line.chars().take(60).flat_map(char::escape_debug).collect();
    if line.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
