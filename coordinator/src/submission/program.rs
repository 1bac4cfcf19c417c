//! The files of an external program: found by globs below the spec's folder, and bundled.

use bytes::Bytes;
use glob::{MatchOptions, Pattern};
use halfheard_shared::{
    bundle::{Bundle, BundleError},
    error::Hint,
    external::MAX_PROGRAM,
    hash::Hash,
    spec::{ExternalSpec, FoundProgram},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Component, Path, PathBuf},
};

/// The most entries of folders that are looked at for one glob: a spec may lie in a home folder.
const MAX_ENTRIES: usize = 100_000;

/// What a glob does not match by itself: Python writes it beside programs that run.
const CACHE: &str = "__pycache__";

/// A hidden file is matched only by a glob that names it, and `*` ends at a slash.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Why the files of a program cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("`{glob}` is not a glob: {what}")]
    Glob { glob: String, what: &'static str },
    #[error("no file matches `{glob}` in {folder}")]
    NoMatch {
        glob: String,
        folder: PathBuf,
        /// A folder that it matches.
        matched: Option<String>,
    },
    #[error("{path} is a link")]
    Link { path: PathBuf },
    #[error("the name of {path} is not UTF-8")]
    Name { path: PathBuf },
    #[error("`{glob}` looks at more than {MAX_ENTRIES} files and folders")]
    Wide { glob: String },
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Hint for FindError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMatch { matched, .. } => matched
                .as_ref()
                .map(|folder| format!("`{folder}` is a folder: write `{folder}/**`")),
            Self::Link { .. } => Some("put a copy in its place: links are not followed".to_owned()),
            Self::Wide { .. } => Some("put the program into a folder of its own".to_owned()),
            Self::Bundle(BundleError::TooLarge { .. }) => Some(
                "name only the program's own files; it can read large ones from a folder that \
                 machines share"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Encoded [`Bundle`]s by their hashes.
pub(crate) type Bundles = BTreeMap<Hash, Bytes>;

/// The files of a program, and their bundle.
pub(super) struct Found {
    pub(super) program: FoundProgram,
    pub(super) bundle: Vec<u8>,
}

/// Finds the files of `external` below `base`.
///
/// # Errors
///
/// A glob matches nothing; a file is a link, cannot be read, or they are too large.
pub(super) fn find(base: &Path, external: &ExternalSpec) -> Result<Found, FindError> {
    let base = match base.as_os_str().is_empty() {
        true => Path::new("."),
        false => base,
    };
    let mut names = BTreeSet::new();
    for glob in &external.files {
        names.extend(Search::new(base, glob)?.run()?);
    }
    let what = format!("the program `{}`", external.id);
    let mut bundle = Bundle::default();
    for name in &names {
        bundle.add(&base.join(name), name, MAX_PROGRAM, &what)?;
    }
    let files = bundle.files.iter();
    let files = files
        .map(|(name, content)| (name.clone(), Hash::of(content)))
        .collect();
    let bundle = bundle.encode()?;
    Ok(Found {
        program: FoundProgram {
            files,
            bundle: Hash::of(&bundle),
        },
        bundle,
    })
}

/// The search for what one glob matches.
struct Search<'a> {
    base: &'a Path,
    glob: &'a str,
    pattern: Pattern,
    /// The names in the glob, from the first folder on.
    parts: Vec<String>,
    found: Vec<String>,
    /// A folder that matches.
    folder: Option<String>,
    seen: usize,
}

impl<'a> Search<'a> {
    fn new(base: &'a Path, glob: &'a str) -> Result<Self, FindError> {
        let parts: Vec<String> = Path::new(glob)
            .components()
            .filter(|part| !matches!(part, Component::CurDir))
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let pattern = Pattern::new(&parts.join("/")).map_err(|error| FindError::Glob {
            glob: glob.to_owned(),
            what: error.msg,
        })?;
        Ok(Self {
            base,
            glob,
            pattern,
            parts,
            found: Vec::new(),
            folder: None,
            seen: 0,
        })
    }

    fn run(mut self) -> Result<Vec<String>, FindError> {
        self.folder(String::new(), 0)?;
        if self.found.is_empty() {
            return Err(FindError::NoMatch {
                glob: self.glob.to_owned(),
                folder: self.base.to_owned(),
                matched: self.folder,
            });
        }
        Ok(self.found)
    }

    /// Looks through a folder, whose name begins those of its entries. `depth` counts the folders
    /// above it.
    fn folder(&mut self, name: String, depth: usize) -> Result<(), FindError> {
        let path = self.base.join(&name);
        let unreadable = |source| FindError::Unreadable {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                return Err(FindError::Wide {
                    glob: self.glob.to_owned(),
                });
            }
            if self.passes_over(&entry.file_name(), depth) {
                continue;
            }
            let Ok(file) = entry.file_name().into_string() else {
                // Its folder is one that the glob looks into: leaving it out would go unnoticed.
                return Err(FindError::Name { path: entry.path() });
            };
            let name = match name.as_str() {
                "" => file,
                above => format!("{above}/{file}"),
            };
            self.entry(&entry, name, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &fs::DirEntry, name: String, depth: usize) -> Result<(), FindError> {
        let unreadable = |source| FindError::Unreadable {
            path: entry.path(),
            source,
        };
        let kind = entry.file_type().map_err(unreadable)?;
        let matches = self.pattern.matches_with(&name, OPTIONS);
        if kind.is_dir() {
            if matches {
                self.folder.get_or_insert_with(|| name.clone());
            }
            if self.leads_into(depth) {
                self.folder(name, depth + 1)?;
            }
        } else if kind.is_symlink() && (matches || self.names(depth, &entry.file_name())) {
            return Err(FindError::Link { path: entry.path() });
        } else if matches {
            self.found.push(name);
        }
        Ok(())
    }

    /// Whether the glob may match something in a folder at this depth.
    fn leads_into(&self, depth: usize) -> bool {
        depth + 1 < self.parts.len() || self.parts.iter().any(|part| part == "**")
    }

    /// Whether the glob has this very name at this depth, and more behind it.
    fn names(&self, depth: usize, name: &OsStr) -> bool {
        let part = self.parts.get(depth);
        depth + 1 < self.parts.len() && part.is_some_and(|part| name == part.as_str())
    }

    /// Whether an entry is left alone: the glob has another name at this depth, or would have to name
    /// this one.
    fn passes_over(&self, name: &OsStr, depth: usize) -> bool {
        let recursive = self.parts.iter().position(|part| part == "**");
        let before = recursive.is_none_or(|at| depth < at);
        let plain = |part: &&String| !part.contains(['*', '?', '[']);
        if let Some(part) = self.parts.get(depth).filter(plain)
            && before
        {
            return name != part.as_str();
        }
        let name = name.to_string_lossy();
        let named = |part: &String| match name.as_ref() {
            CACHE => part == CACHE,
            _ => part.starts_with('.'),
        };
        (name == CACHE || name.starts_with('.')) && !self.parts.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn external(files: &[&str]) -> ExternalSpec {
        ExternalSpec {
            id: "my-model".to_owned(),
            command: vec!["python".to_owned(), "train.py".to_owned()],
            needs: Vec::new(),
            files: files.iter().map(|&glob| glob.to_owned()).collect(),
            hyper: serde_json::Map::new(),
        }
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, file).unwrap();
        }
        folder
    }

    fn names(folder: &tempfile::TempDir, globs: &[&str]) -> Vec<String> {
        let found = find(folder.path(), &external(globs)).unwrap();
        found.program.files.into_keys().collect()
    }

    fn refused(folder: &tempfile::TempDir, globs: &[&str]) -> FindError {
        let found = find(folder.path(), &external(globs));
        found.err().expect("an error")
    }

    #[test]
    fn globs_match_files_below_the_folder() {
        let folder = folder(&[
            "train.py",
            "model.py",
            "notes.txt",
            ".hidden.py",
            "lib/layers.py",
            "lib/deep/more.py",
            "lib/__pycache__/layers.pyc",
            ".venv/lib/site.py",
        ]);
        assert_eq!(names(&folder, &["*.py"]), ["model.py", "train.py"]);
        assert_eq!(names(&folder, &["train.py", "train.*"]), ["train.py"]);
        assert_eq!(
            names(&folder, &["./train.py", "lib/*.py"]),
            ["lib/layers.py", "train.py"]
        );
        assert_eq!(
            names(&folder, &["**/*.py"]),
            ["lib/deep/more.py", "lib/layers.py", "model.py", "train.py"]
        );
        assert_eq!(
            names(&folder, &["lib/**"]),
            ["lib/deep/more.py", "lib/layers.py"]
        );
        // What is hidden is taken by its name.
        assert_eq!(names(&folder, &[".hidden.py"]), [".hidden.py"]);
        assert_eq!(names(&folder, &[".venv/**/*.py"]), [".venv/lib/site.py"]);
        assert_eq!(
            names(&folder, &["lib/__pycache__/*"]),
            ["lib/__pycache__/layers.pyc"]
        );
    }

    #[test]
    fn bundle_depends_on_contents_and_not_on_the_folder() {
        let files = ["train.py", "run.sh"];
        let (one, two) = (folder(&files), folder(&files));
        let bundle = |folder: &tempfile::TempDir| find(folder.path(), &external(&["*"])).unwrap();
        let (first, same) = (bundle(&one), bundle(&two));
        assert_eq!(first.program, same.program);
        assert_eq!(first.program.bundle, Hash::of(&first.bundle));
        let content = Bundle::decode(&first.bundle).unwrap();
        assert_eq!(content.files["train.py"], b"train.py");
        // Whether it can be executed is part of it.
        fs::set_permissions(two.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(bundle(&two).program.bundle, first.program.bundle);
        fs::write(one.path().join("train.py"), "other").unwrap();
        assert_ne!(bundle(&one).program, first.program);
    }

    #[test]
    fn glob_without_a_match_is_named() {
        let folder = folder(&["train.py", "lib/layers.py"]);
        let error = refused(&folder, &["*.py", "*.rs"]);
        assert!(
            error.to_string().contains("no file matches `*.rs`"),
            "{error}"
        );
        let error = refused(&folder, &["lib"]);
        assert_eq!(error.hint().unwrap(), "`lib` is a folder: write `lib/**`");
    }

    #[test]
    fn links_are_refused_with_their_path() {
        let folder = folder(&["train.py", "other/data.py"]);
        symlink("/etc/passwd", folder.path().join("secrets.py")).unwrap();
        let error = refused(&folder, &["*.py"]);
        assert!(
            error.to_string().ends_with("secrets.py is a link"),
            "{error}"
        );
        assert_eq!(names(&folder, &["train.py"]), ["train.py"]);
        symlink(folder.path().join("other"), folder.path().join("lib")).unwrap();
        let error = refused(&folder, &["lib/*.py"]);
        assert!(error.to_string().ends_with("lib is a link"), "{error}");
        // What no glob names is not followed.
        assert_eq!(names(&folder, &["*/*.py"]), ["other/data.py"]);
    }

    #[test]
    fn large_program_is_refused() {
        let folder = folder(&["train.py"]);
        let weights = fs::File::create(folder.path().join("weights.bin")).unwrap();
        weights.set_len(MAX_PROGRAM).unwrap();
        let error = refused(&folder, &["*"]);
        assert!(
            error.to_string().contains("the program `my-model` has"),
            "{error}"
        );
        assert!(error.hint().is_some());
        assert_eq!(names(&folder, &["*.py"]), ["train.py"]);
    }
}
