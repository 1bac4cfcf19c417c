//! The folder of a run, and the files that a program names in it.
//!
//! ```text
//! RUN/lock          held while the run lasts
//! RUN/output.txt    what the program writes to standard error
//! RUN/job/          all that the program is told of
//!     job.json  program/  inputs/  checkpoints/  state/  tmp/
//! ```

use super::error::{machine, misbehaved};
use halfheard_models::train::TrainError;
use halfheard_shared::{bundle::Bundle, external::JobFile};
use nix::fcntl::{Flock, FlockArg, OFlag, OpenHow, ResolveFlag, openat2};
use safetensors::{Dtype, SafeTensors};
use std::{
    fs::{self, DirBuilder, File},
    io::{Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Bytes that a file of predictions may have beside them.
const HEADER: u64 = 1 << 20;

/// The folder of a run; removed with it.
pub(super) struct JobFolder {
    run: PathBuf,
    job: PathBuf,
    /// Tells other processes that somebody uses it.
    _lock: Flock<File>,
}

impl JobFolder {
    /// Makes the folder `name` in `root`, and removes those that killed processes have left behind.
    pub(super) fn create(root: &Path, name: &str) -> Result<Self, TrainError> {
        let cannot =
            |error: std::io::Error| machine("cannot make a folder for the program", &error);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(root).map_err(cannot)?;
        remove_abandoned(root);
        let run = root.join(name);
        // An earlier attempt of this process.
        remove(&run);
        let job = run.join("job");
        for folder in ["inputs", "tmp", "checkpoints"] {
            private.create(job.join(folder)).map_err(cannot)?;
        }
        let lock = File::create(run.join("lock")).map_err(cannot)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| cannot(error.into()))?;
        // As the kernel has it: what is named in it is compared with this.
        let job = job.canonicalize().map_err(cannot)?;
        Ok(Self {
            run,
            job,
            _lock: lock,
        })
    }

    /// The folder that the program is told of.
    pub(super) fn job(&self) -> &Path {
        &self.job
    }

    /// The file for what it writes to standard error.
    pub(super) fn output(&self) -> PathBuf {
        self.run.join("output.txt")
    }

    pub(super) fn write_job(&self, job: &JobFile) -> Result<PathBuf, TrainError> {
        let path = self.job.join("job.json");
        let json = serde_json::to_vec_pretty(job).unwrap_or_default();
        let written = File::create(&path).and_then(|mut file| file.write_all(&json));
        written.map_err(|error| machine("cannot write the job file", &error))?;
        Ok(path)
    }

    /// Writes the files of a bundle into a folder of the job.
    pub(super) fn unpack(&self, bundle: &Bundle, folder: &str) -> Result<PathBuf, TrainError> {
        let path = self.job.join(folder);
        bundle
            .write(&path)
            .map_err(|error| machine(format!("cannot write {folder}"), &error))?;
        Ok(path)
    }

    /// Opens what the program names, which must lie in its folder and be no link, nor behind one.
    fn open(&self, named: &str, flags: OFlag) -> Result<(File, PathBuf), TrainError> {
        let path = Path::new(named);
        let inside = path.strip_prefix(&self.job).unwrap_or(path);
        let folder = File::open(&self.job)
            .map_err(|error| machine("cannot open the program's folder", &error))?;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&folder, inside, how) {
            Ok(file) => Ok((file.into(), self.job.join(inside))),
            Err(nix::errno::Errno::EXDEV | nix::errno::Errno::ELOOP) => Err(misbehaved(format!(
                "it named `{}`, which is a link or leads out of its folder",
                excerpt(named)
            ))),
            Err(error) => Err(misbehaved(format!(
                "it named `{}`, which cannot be read: {}",
                excerpt(named),
                error.desc()
            ))),
        }
    }

    /// Reads a file of at most `limit` bytes that the program names.
    fn read(&self, named: &str, limit: u64, what: &str) -> Result<(Vec<u8>, PathBuf), TrainError> {
        let (file, path) = self.open(named, OFlag::O_RDONLY)?;
        let about = file
            .metadata()
            .map_err(|error| machine(format!("cannot read {what}"), &error))?;
        if !about.is_file() {
            return Err(misbehaved(format!(
                "it named `{}` as {what}, which is not a file",
                excerpt(named)
            )));
        }
        let mut content = Vec::new();
        // Its length may change meanwhile.
        if about.len() <= limit {
            (&file)
                .take(limit + 1)
                .read_to_end(&mut content)
                .map_err(|error| machine(format!("cannot read {what}"), &error))?;
        }
        let bytes = about.len().max(content.len() as u64);
        if bytes > limit {
            return Err(misbehaved(format!(
                "{what} has {bytes} bytes, over the limit of {limit}"
            )));
        }
        Ok((content, path))
    }

    /// Takes a file out of the folder.
    pub(super) fn take(&self, named: &str, limit: u64, what: &str) -> Result<Vec<u8>, TrainError> {
        let (content, path) = self.read(named, limit, what)?;
        remove(&path);
        Ok(content)
    }

    /// Takes a state, a file or a folder.
    pub(super) fn take_state(&self, named: &str, limit: u64) -> Result<Bundle, TrainError> {
        // Its place is checked; what is in it, by the bundle.
        let (_, path) = self.open(named, OFlag::O_RDONLY)?;
        if path == self.job {
            return Err(misbehaved("it named its whole folder as its state"));
        }
        let bundle = Bundle::read(&path, limit, "its state")
            .map_err(|error| misbehaved(error.to_string()))?;
        remove(&path);
        Ok(bundle)
    }

    /// Reads predictions for `samples` samples from a safetensors file.
    pub(super) fn predictions(&self, named: &str, samples: usize) -> Result<Vec<f32>, TrainError> {
        let limit = samples as u64 * 4 + HEADER;
        let content = self.take(named, limit, "the file of its predictions")?;
        let wrong = |what: String| {
            misbehaved(format!(
                "its predictions in `{}` cannot be read: {what}",
                excerpt(named)
            ))
        };
        let tensors = SafeTensors::deserialize(&content).map_err(|e| wrong(e.to_string()))?;
        let tensor = tensors
            .tensor("predictions")
            .map_err(|_| wrong("there is no tensor `predictions`".to_owned()))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(wrong(format!(
                "`predictions` is {:?}, not F32",
                tensor.dtype()
            )));
        }
        let values = tensor.data().chunks_exact(4);
        Ok(values
            .filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)))
            .collect())
    }

    /// The bytes of all that the program has written, inputs left out. Blocks count, not lengths: a file
    /// with holes takes little.
    pub(super) fn used(job: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fn bytes(folder: &Path, but: Option<&str>) -> u64 {
            let Ok(entries) = fs::read_dir(folder) else {
                return 0;
            };
            let counted = |entry: &fs::DirEntry| but.is_none_or(|name| entry.file_name() != name);
            let each = entries.flatten().filter(counted);
            each.map(|entry| match entry.metadata() {
                Ok(about) if about.is_dir() => bytes(&entry.path(), None),
                Ok(about) => about.blocks() * 512,
                Err(_) => 0,
            })
            .sum()
        }
        bytes(job, Some("inputs"))
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        remove(&self.run);
    }
}

/// What a program says is shown in part.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Removes a file, or a folder with all that is in it. What is left is removed with a later run.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::debug!(path = %path.display(), %error, "cannot remove what a program wrote");
    }
}

/// Removes the folders of runs whose process is gone.
fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(lock) = File::open(entry.path().join("lock")) else {
            continue;
        };
        if let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, JobFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = JobFolder::create(root.path(), "one").unwrap();
        (root, folder)
    }

    #[test]
    fn named_files_are_taken_and_nothing_outside() {
        let (root, folder) = folder();
        fs::write(folder.job().join("c"), b"weights").unwrap();
        let absolute = folder.job().join("c").display().to_string();
        assert_eq!(folder.take(&absolute, 100, "it").unwrap(), b"weights");
        assert!(!folder.job().join("c").exists(), "it is taken");
        fs::write(root.path().join("secret"), b"s").unwrap();
        symlink(root.path().join("secret"), folder.job().join("link")).unwrap();
        symlink(root.path(), folder.job().join("way")).unwrap();
        for outside in [
            "link",
            "way/secret",
            "../../secret",
            "/etc/passwd",
            "../lock",
        ] {
            let error = folder.take(outside, 100, "it").unwrap_err().to_string();
            assert!(error.contains("link or leads out"), "{outside}: {error}");
            assert!(folder.take_state(outside, 100).is_err(), "{outside}");
        }
        assert!(folder.take_state(".", 100).is_err());
        assert!(folder.take("none", 100, "it").is_err());
        let pipe = folder.job().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = folder.take("pipe", 100, "its checkpoint").unwrap_err();
        assert!(error.to_string().contains("not a file"), "{error}");
        fs::write(folder.job().join("big"), vec![0; 101]).unwrap();
        let error = folder.take("big", 100, "its checkpoint").unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
    }

    #[test]
    fn abandoned_folders_are_removed_and_used_ones_are_not() {
        let (root, folder) = folder();
        let abandoned = root.path().join("two");
        fs::create_dir_all(abandoned.join("job")).unwrap();
        fs::write(abandoned.join("lock"), "").unwrap();
        let other = JobFolder::create(root.path(), "three").unwrap();
        assert!(!abandoned.exists());
        assert!(folder.job().exists() && other.job().exists());
        let run = root.path().join("three");
        drop(other);
        assert!(!run.exists());
    }

    #[test]
    fn use_of_the_disk_is_counted_without_inputs_and_holes() {
        let (_root, folder) = folder();
        fs::write(folder.job().join("inputs/i"), vec![1; 1 << 20]).unwrap();
        fs::write(folder.job().join("tmp/t"), vec![1; 1 << 20]).unwrap();
        let sparse = File::create(folder.job().join("tmp/sparse")).unwrap();
        sparse.set_len(10 << 30).unwrap();
        let used = JobFolder::used(folder.job());
        assert!((1 << 20..3 << 20).contains(&used), "{used}");
    }

    #[test]
    fn predictions_are_read_from_tensors() {
        let (_root, folder) = folder();
        let write = |name: &str, bytes: &[u8]| {
            let view =
                safetensors::tensor::TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
            let file = safetensors::serialize([(name, view.unwrap())], None).unwrap();
            fs::write(folder.job().join("p"), file).unwrap();
        };
        let bytes: Vec<u8> = [0.5_f32, -1.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        write("predictions", &bytes);
        assert_eq!(folder.predictions("p", 2).unwrap(), [0.5, -1.0]);
        write("other", &bytes);
        let error = folder.predictions("p", 2).unwrap_err().to_string();
        assert!(error.contains("no tensor `predictions`"), "{error}");
        fs::write(folder.job().join("p"), "{}").unwrap();
        assert!(folder.predictions("p", 2).is_err());
    }
}
