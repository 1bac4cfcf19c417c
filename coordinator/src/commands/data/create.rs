//! `coord data import` and `coord data synthesize`.

use super::{
    args::{ImportArgs, OnNonFinite, SynthesizeArgs},
    describe::describe,
    progress_bar::Bar,
};
use crate::{
    local::programs::{Part, Programs},
    output::Output,
    submission::protocol::{As, in_spec},
};
use anyhow::Context as _;
use halfheard_import::{
    import::{self, Imported, Request},
    nonfinite::NonFinite,
    synthesize::{self, Vocabulary},
};
use halfheard_shared::{
    dataset::{DataFolder, Kind, Manifest, Shapes},
    error::hinted,
};
use serde::Serialize;
use std::{fmt, path::PathBuf, time::Instant};

/// A dataset that was created.
#[derive(Serialize)]
pub(super) struct Created {
    path: PathBuf,
    seconds: f64,
    manifest: Manifest,
    #[serde(skip)]
    verb: &'static str,
}

impl Created {
    fn new(verb: &'static str, started: Instant, imported: Imported) -> Self {
        Self {
            path: imported.path,
            seconds: started.elapsed().as_secs_f64(),
            manifest: imported.manifest,
            verb,
        }
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(
            f,
            "{} `{}` in {:.1} s",
            self.verb, manifest.name, self.seconds
        )?;
        f.write_str(&describe(&self.path, manifest))?;
        if let Kind::Own(_) = manifest.kind {
            writeln!(f, "  in a spec: benchmark = {}", in_spec(manifest.kind))?;
        }
        Ok(())
    }
}

/// Imports a feature pickle.
pub(super) fn import(
    args: &ImportArgs,
    folder: &DataFolder,
    output: Output,
) -> anyhow::Result<Created> {
    let As {
        name: protocol,
        kind,
        reference,
    } = args.protocol.resolve()?;
    let name = match (&args.name, kind) {
        (Some(name), _) => name,
        (None, Kind::Own(_)) => {
            let message = "a dataset with a custom protocol needs a name";
            return Err(hinted(message, "pass --name").into());
        }
        (None, _) => protocol,
    };
    let started = Instant::now();
    let bar = Bar::new(output);
    let request = Request {
        file: &args.file,
        kind,
        nonfinite: match args.nonfinite {
            None => NonFinite::Reference,
            Some(OnNonFinite::Zero) => NonFinite::Zero,
            Some(OnNonFinite::Refuse) => NonFinite::Refuse,
        },
        reference,
        name,
        folder,
        replace: args.replace,
        max_bytes: args.max_bytes,
    };
    let imported = import::import(&request, &mut |stage, done, total| {
        bar.show(stage, done, total);
    })
    .with_context(|| format!("cannot import {}; nothing was written", args.file.display()))?;
    bar.clear();
    Ok(Created::new("imported", started, imported))
}

/// Creates a synthetic dataset.
pub(super) fn synthesize(
    args: &SynthesizeArgs,
    folder: &DataFolder,
    output: Output,
) -> anyhow::Result<Created> {
    let vocabulary = match &args.vocab {
        Some(path) => path.clone(),
        None => Programs::discover()
            .find(Part::EncoderEn)?
            .path
            .join("vocab.txt"),
    };
    let vocabulary = Vocabulary::read(&vocabulary)?;
    let started = Instant::now();
    let bar = Bar::new(output);
    let settings = synthesize::Settings {
        kind: args.protocol.resolve()?.kind,
        samples: [args.train, args.valid, args.test],
        shapes: Shapes {
            text_len: args.text,
            audio_len: args.audio.0,
            audio_dim: args.audio.1,
            vision_len: args.vision.0,
            vision_dim: args.vision.1,
        },
        seed: args.seed,
    };
    let created = synthesize::synthesize(
        &settings,
        &vocabulary,
        &args.name,
        folder,
        args.replace,
        &mut |stage, done, total| bar.show(stage, done, total),
    )?;
    bar.clear();
    Ok(Created::new("created", started, created))
}
