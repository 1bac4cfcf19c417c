//! Checks of files, memory and disk.

use super::finding::Finding;
use crate::{
    config::Settings,
    local::programs::{Part, Programs},
    submission::{self, memory},
};
use halfheard_shared::dataset::DataFolder;
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// Free disk space below which a sweep may not fit.
const MIN_FREE: u64 = 5 << 30;

/// Names the config file and the data folder.
pub(super) fn config(settings: &Settings) -> Finding {
    let file = match &settings.config_file {
        Some(path) => format!("config file {}", path.display()),
        None => "no config file".to_owned(),
    };
    Finding::ok(
        "settings",
        format!("{file}; data folder {}", settings.data_dir.display()),
    )
}

/// Checks the datasets of the data folder.
pub(super) fn datasets(settings: &Settings) -> Finding {
    const WHAT: &str = "datasets";
    let folder = DataFolder::new(&settings.data_dir);
    let none = || {
        Finding::warn(
            WHAT,
            format!("none in {}", settings.data_dir.display()),
            "run `coord data import --as mosi FILE.pkl`; the demo creates its own",
        )
    };
    let names = match folder.names() {
        Ok(names) if names.is_empty() => return none(),
        Ok(names) => names,
        Err(error) => {
            return Finding::bad(
                WHAT,
                error.to_string(),
                "check the permissions of the data folder",
            );
        }
    };
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for name in names {
        let manifest = folder.manifest(&name);
        match manifest {
            Ok(_) if !folder.data_file(&name).exists() => {
                wrong.push(format!("{name} (data file missing)"));
            }
            Ok(manifest) => good.push(format!("{name} ({})", manifest.kind)),
            Err(error) => wrong.push(format!("{name} ({error})")),
        }
    }
    if wrong.is_empty() {
        Finding::ok(WHAT, good.join(", "))
    } else {
        Finding::bad(
            WHAT,
            format!("damaged: {}", wrong.join(", ")),
            "import them again; check one with `coord data check NAME`",
        )
    }
}

/// Returns the nearest existing folder: `folder` itself may not exist yet.
fn nearest_existing(folder: &Path) -> &Path {
    folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"))
}

/// Checks that the data folder is writable, by writing a file: permissions, read-only mounts, quotas
/// and full disks show no other way.
pub(super) fn writable(data_dir: &Path) -> Finding {
    const WHAT: &str = "data folder";
    let existing = nearest_existing(data_dir);
    let written = tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(existing)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, &[0; 4096])?;
            file.as_file().sync_all()
        });
    match written {
        Ok(()) if existing == data_dir => {
            Finding::ok(WHAT, format!("{} is writable", data_dir.display()))
        }
        Ok(()) => Finding::ok(
            WHAT,
            format!(
                "{} can be created in {}",
                data_dir.display(),
                existing.display()
            ),
        ),
        Err(error) => Finding::bad(
            WHAT,
            format!("cannot write to {}: {error}", existing.display()),
            "fix its permissions, or choose another folder with --data-dir or HALFHEARD_DATA_DIR",
        ),
    }
}

/// Compares available memory with the need of the largest method on the datasets here.
pub(super) fn memory(settings: &Settings, programs: &Programs) -> Option<Finding> {
    const WHAT: &str = "memory";
    let folder = DataFolder::new(&settings.data_dir);
    let available = memory::available()?;
    let encoder = |language: &str| {
        let part = if language == "zh" {
            Part::EncoderZh
        } else {
            Part::EncoderEn
        };
        submission::encoder_shape(&programs.find(part).ok()?.path)
    };
    let names = folder.names().ok()?;
    let needs = names.iter().filter_map(|name| {
        let manifest = folder.manifest(name).ok()?;
        let kind = manifest.kind.as_str();
        let language = manifest.kind.language();
        memory::largest(kind, &submission::facts(&manifest), &encoder(language)?)
    });
    let largest = needs.max_by_key(|need| need.bytes)?;
    let found = format!(
        "{} free; a slot needs up to about {} on the CPU ({} on {})",
        memory::gigabytes(available),
        memory::gigabytes(largest.bytes),
        largest.method,
        largest.dataset
    );
    let slots = memory::DEFAULT_WORKERS as u64;
    if largest.bytes.saturating_mul(slots) <= available {
        return Some(Finding::ok(WHAT, found));
    }
    let remedy = "use fewer slots (`--workers 1`), a smaller `batch_size`, or a machine with more \
                  memory; `coord plan SPEC` shows the need of each method";
    Some(Finding::warn(WHAT, found, remedy))
}

/// Checks the free disk space.
pub(super) fn disk(settings: &Settings) -> Finding {
    const WHAT: &str = "disk";
    let existing = nearest_existing(&settings.data_dir);
    match statvfs(existing) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!(
                "{} free at {}",
                indicatif::HumanBytes(free),
                existing.display()
            );
            if free >= MIN_FREE {
                Finding::ok(WHAT, found)
            } else {
                Finding::warn(
                    WHAT,
                    found,
                    "free some, or use --data-dir: a model leaves up to five checkpoints of 100 MB to 500 MB",
                )
            }
        }
        Err(error) => Finding::warn(
            WHAT,
            format!("free space at {} is unknown: {error}", existing.display()),
            "check the data folder",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn data_folder_is_checked_by_writing() {
        let root = tempfile::tempdir().unwrap();
        let good = writable(root.path());
        assert_eq!(good.verdict, Verdict::Ok, "{}", good.found);
        let absent = root.path().join("not/yet");
        assert_eq!(writable(&absent).verdict, Verdict::Ok);
        assert!(!absent.exists());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        // A file in place of the folder: not even root can write into it.
        let file = root.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let bad = writable(&file);
        assert_eq!(bad.verdict, Verdict::Bad, "{}", bad.found);
        assert!(bad.remedy.unwrap().contains("--data-dir"));
    }
}
