//! The tables of what words are heard as, for errors of speech recognition.

use super::{
    Files, ResolvedDataset, Spec,
    place::{Checker, Step},
    training::Inputs,
};
use crate::wire::BlobRef;
use std::collections::BTreeMap;

/// The table that is meant where a spec says nothing, by language.
const DEFAULT: (&str, &str) = ("en", "builtin");

/// Finds the tables for what datasets are read with, in their encoders' tokens. Without errors of speech
/// recognition there are none.
pub(super) fn of_datasets(
    spec: &Spec,
    datasets: &mut [ResolvedDataset],
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) {
    let mut finder = Finder::new(spec, files, checker);
    for dataset in datasets {
        let language = language(spec, dataset);
        dataset.confusions = finder.find(language, &dataset.encoder);
    }
}

/// Finds those of methods with encoders of their own.
pub(super) fn of_methods(
    spec: &Spec,
    datasets: &[ResolvedDataset],
    inputs: &mut Inputs<'_>,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) {
    let mut finder = Finder::new(spec, files, checker);
    for ((_, name), (inputs, _)) in inputs {
        let dataset = datasets.iter().find(|d| d.benchmark.id() == *name);
        if let Some(dataset) = dataset.filter(|dataset| dataset.encoder != inputs.encoder) {
            inputs.confusions = finder.find(language(spec, dataset), &inputs.encoder);
        }
    }
}

fn language<'s>(spec: &'s Spec, dataset: &ResolvedDataset) -> &'s str {
    let said = spec.datasets.get(dataset.benchmark.id());
    let said = said.and_then(|dataset| dataset.language.as_deref());
    said.unwrap_or_else(|| dataset.benchmark.kind().language())
}

struct Finder<'a, 's, 't> {
    spec: &'s Spec,
    files: &'a mut dyn Files,
    checker: &'a mut Checker<'t>,
    /// By language and encoder: the table's hash, nothing where the problem has been reported.
    found: BTreeMap<(String, String), Option<String>>,
}

impl<'a, 's, 't> Finder<'a, 's, 't> {
    fn new(spec: &'s Spec, files: &'a mut dyn Files, checker: &'a mut Checker<'t>) -> Self {
        Self {
            spec,
            files,
            checker,
            found: BTreeMap::new(),
        }
    }

    fn find(&mut self, language: &str, encoder: &BlobRef) -> Option<String> {
        // Where the first case stands that needs it.
        let case = self.spec.first_asr()?;
        let key = (language.to_owned(), encoder.blake3.clone());
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let said = self.spec.confusions.get(language).map(String::as_str);
        let default = (language == DEFAULT.0).then_some(DEFAULT.1);
        let found = match said.or(default) {
            Some(table) => {
                let found = self.files.confusions(language, table, &encoder.path);
                found.map_err(|reason| (reason, None))
            }
            None => Err((
                format!("no table says what words of `{language}` are heard as"),
                Some(format!(
                    "add `[confusions]` with `{language} = \"FILE\"`, whose lines are \
                     `word<TAB>heard as<TAB>weight`"
                )),
            )),
        };
        let found = match found {
            Ok(hash) => Some(hash.as_str().to_owned()),
            Err((reason, help)) => {
                let at = match said {
                    Some(_) => [Step::Key("confusions"), Step::Key(language)],
                    None => [Step::Key("cases"), Step::Index(case)],
                };
                self.checker.problem(&at, reason, "cannot be used", help);
                None
            }
        };
        self.found.insert(key, found.clone());
        found
    }
}
