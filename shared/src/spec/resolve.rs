//! Looks at the files that a spec names and fills in everything that it leaves open.

use super::{
    Problem, Spec, SpecError, confusions, effect,
    files::{Files, FoundEncoder, FoundProgram},
    ground::Ground,
    place::{Checker, Step},
    resolve_methods::Resolver,
    resolved::{ResolvedDataset, ResolvedSpec},
    training::{self, Common},
};
use crate::{
    benchmark::{Benchmark, Kind},
    case::Rate,
    external::Program,
    methods::results_fit,
    wire::Protocol,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Resolves a spec that [`read`](super::read) has checked. `path` and `text` are for messages.
///
/// # Errors
///
/// All missing or unsuitable files, each with its place in the spec.
pub fn resolve(
    path: &str,
    text: &str,
    spec: &Spec,
    files: &mut dyn Files,
) -> Result<ResolvedSpec, SpecError> {
    resolve_noting(path, text, spec, files, &mut Vec::new())
}

/// As [`resolve`], with what can be run and is worth knowing all the same: settings without effect,
/// batches that come out odd.
///
/// # Errors
///
/// As those of [`resolve`].
pub fn resolve_noting(
    path: &str,
    text: &str,
    spec: &Spec,
    files: &mut dyn Files,
    notes: &mut Vec<Problem>,
) -> Result<ResolvedSpec, SpecError> {
    let mut checker = Checker::new(text);
    let mut noted = Checker::new(text);
    let encoders = find_encoders(spec, files, &mut checker);
    let (mut datasets, grounds) = find_datasets(spec, files, &encoders, &mut checker);
    confusions::of_datasets(spec, &mut datasets, files, &mut checker);
    let programs = find_programs(spec, files, &mut checker);
    let protocol = Protocol {
        selection: spec.protocol.selection,
        train_missing: spec.protocol.train_missing,
        erasure_seed: spec.protocol.erasure_seed,
        selection_rate: Rate::new(spec.protocol.selection_rate).map_or(500, Rate::thousandths),
        fidelity: spec.protocol.fidelity,
        switched: training::sweep_switches(spec),
    };
    let common = Common {
        datasets: &datasets,
        grounds: &grounds,
        encoders: &encoders,
    };
    let mut inputs = training::find_inputs(spec, &protocol, common, files, &mut checker);
    confusions::of_methods(spec, &datasets, &mut inputs, files, &mut checker);
    let resolver = Resolver {
        spec,
        protocol: &protocol,
        grounds: &grounds,
        inputs: &inputs,
        programs: &programs,
    };
    let methods = resolver.methods(&mut checker, &mut noted);
    if !checker.is_empty() {
        return Err(SpecError::new(path, text, checker.into_problems()));
    }
    notes.extend(effect::idle(text, spec, &protocol, &methods));
    notes.extend(noted.into_problems());
    Ok(ResolvedSpec {
        name: spec.name.clone(),
        methods,
        datasets,
        seeds: spec.seeds.clone(),
        cases: spec.cases().iter().map(ToString::to_string).collect(),
        protocol,
        numerics: spec.protocol.numerics,
    })
}

fn find_encoders(
    spec: &Spec,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) -> BTreeMap<String, FoundEncoder> {
    let mut found = BTreeMap::new();
    for (language, encoder) in &spec.encoders {
        match files.encoder(language, &encoder.path) {
            Ok(encoder) => {
                found.insert(language.clone(), encoder);
            }
            Err(reason) => checker.problem(
                &[
                    Step::Key("encoders"),
                    Step::Key(language),
                    Step::Key("path"),
                ],
                reason,
                "cannot be used",
                None,
            ),
        }
    }
    found
}

/// The external programs that are run, by their ids, as trainings are given them.
fn find_programs(
    spec: &Spec,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (i, external) in spec.used_externals() {
        match files.program(external) {
            Ok(FoundProgram { files, bundle }) => {
                let program = Program {
                    command: external.command.clone(),
                    needs: external.needs.clone(),
                    files,
                    bundle,
                };
                // Strings by strings: it always serializes.
                let program = serde_json::to_value(program).unwrap_or_default();
                found.insert(external.id.clone(), program);
            }
            Err(reason) => checker.problem(
                &[Step::Key("external"), Step::Index(i), Step::Key("files")],
                reason,
                "cannot be used",
                None,
            ),
        }
    }
    found
}

#[expect(
    clippy::too_many_lines,
    reason = "one check of a dataset after the other"
)]
fn find_datasets(
    spec: &Spec,
    files: &mut dyn Files,
    encoders: &BTreeMap<String, FoundEncoder>,
    checker: &mut Checker<'_>,
) -> (Vec<ResolvedDataset>, BTreeMap<String, Ground>) {
    let (mut found, mut grounds) = (Vec::new(), BTreeMap::new());
    for (name, dataset) in &spec.datasets {
        let file = [Step::Key("datasets"), Step::Key(name), Step::Key("file")];
        let here = match files.dataset(name, dataset) {
            Ok(here) => here,
            Err(reason) => {
                checker.problem(&file, reason, "cannot be used", None);
                continue;
            }
        };
        let kind = dataset.kind(name).unwrap_or(here.kind);
        if here.kind != kind {
            let (message, help) = other_protocol(name, kind, here.kind);
            checker.problem(&file, message, "another protocol", Some(help));
            continue;
        }
        let Ok(benchmark) = Benchmark::new(name, kind) else {
            continue; // `read` has refused it
        };
        if let Some(hash) = &dataset.blake3
            && !hash.eq_ignore_ascii_case(&here.blob.blake3)
        {
            checker.problem(
                &[Step::Key("datasets"), Step::Key(name), Step::Key("blake3")],
                format!("the file has the hash {}", here.blob.blake3),
                "another file was meant",
                Some("put the right file there, or the right hash here".to_owned()),
            );
            continue;
        }
        if let Some(facts) = &here.facts
            && let Err(message) = results_fit(benchmark, spec.protocol.selection, facts.samples[2])
        {
            checker.problem(
                &file,
                format!("the dataset `{name}`: {message}"),
                "too large",
                None,
            );
        }
        let language = dataset
            .language
            .as_deref()
            .unwrap_or_else(|| kind.language());
        grounds.insert(
            name.clone(),
            Ground {
                data: here.facts,
                encoder: encoders.get(language).and_then(|encoder| encoder.shape),
                texts: here.texts.clone(),
                labels: here.labels,
            },
        );
        let Some(encoder) = encoders.get(language) else {
            if !spec.encoders.contains_key(language) {
                checker.problem(
                    &[Step::Key("datasets"), Step::Key(name)],
                    format!("the dataset `{name}` needs a text encoder for `{language}`"),
                    "no encoder for it",
                    Some(format!(
                        "add `[encoders.{language}]` with `path` of a folder with config.json and \
                         model.safetensors"
                    )),
                );
            }
            continue; // reported with the encoders
        };
        let misfit = here
            .texts
            .as_ref()
            .and_then(|texts| texts.misfit(&encoder.facts));
        if let Some(what) = misfit {
            checker.problem(
                &file,
                format!(
                    "the dataset `{name}` does not fit the text encoder for `{language}`: {what}"
                ),
                "does not fit",
                Some(
                    "give `[encoders]` the encoder whose tokenizer wrote the dataset's texts, or \
                     create the dataset again with this one's"
                        .to_owned(),
                ),
            );
            continue;
        }
        found.push(ResolvedDataset {
            benchmark,
            data: here.blob,
            encoder: encoder.blob.clone(),
            tokens: encoder.facts.tokens,
            confusions: None,
        });
    }
    found.sort_by_key(|dataset| dataset.benchmark);
    (found, grounds)
}

/// What to say of a dataset that was imported for another protocol than the spec says, and what to
/// do.
fn other_protocol(name: &str, wanted: Kind, found: Kind) -> (String, String) {
    if let (Kind::Own(_), Kind::Own(_)) = (wanted, found) {
        let differences = wanted.definition().differences(found.definition());
        let message = format!(
            "the file of the dataset `{name}` was imported with another definition than the spec's \
             `benchmark`: {}",
            differences.join("; ")
        );
        let help = "write there what the file was imported with, or import it again with \
                    `--replace` and this definition";
        return (message, help.to_owned());
    }
    let written = |kind: Kind| match kind {
        Kind::Own(_) => format!("a definition of its own ({kind})"),
        built_in => format!("the protocol of {built_in}"),
    };
    let help = match wanted {
        Kind::Own(_) => "import it with the definition that `benchmark` has (`coord data import \
                         --label-range …`, docs/guide/own-dataset.md)"
            .to_owned(),
        built_in => format!("import it with `--as {built_in}`"),
    };
    let message = format!(
        "the dataset `{name}` is to follow {}, but its file was imported with {}",
        written(wanted),
        written(found)
    );
    (message, help)
}
