//! Signs that a file is another dataset's than the one whose protocol was asked for.

use super::{official, root, samples::SplitSamples};
use missbench_shared::{
    dataset::{Kind, Split},
    pickle::{Pickle, Value},
};

/// Labels that are few say nothing of their range.
const ENOUGH: usize = 100;

/// What is suspicious, for notes: the file's labels, texts and hash speak for another `--as`.
pub(super) fn signs<'a>(
    kind: Kind,
    pickle: &Pickle<'a>,
    root: Value<'a>,
    splits: &[SplitSamples<'_, '_>; 3],
    sha256: &str,
) -> Vec<String> {
    use super::assemble::Samples as _;
    let mut notes = Vec::new();
    if let Some(official) = official::by_sha256(sha256)
        && official.kind != kind
    {
        notes.push(format!(
            "this is {}, a file of {}, imported as {kind}: did you mean --as {}?",
            official.name, official.kind, official.kind
        ));
    }
    let unimodal = root::split(pickle, root, Split::Train).is_ok_and(|(train, _)| {
        ["T", "A", "V"].iter().all(|modality| {
            let field = format!("regression_labels_{modality}");
            pickle.get(train, &field).is_some()
        })
    });
    if unimodal && !kind.has_unimodal_labels() {
        notes.push(format!(
            "the file has labels of each modality alone, as SIMS has, and is imported as {kind}, which does not use them: did you mean --as sims?"
        ));
    }
    let labels = || splits.iter().flat_map(|split| split.labels());
    if kind.label_limit() > 1.0
        && labels().count() >= ENOUGH
        && labels().all(|label| label.abs() <= 1.0)
    {
        notes.push(format!(
            "all labels are within [-1, 1], as those of SIMS are; labels of {kind} reach from -{limit} to {limit}",
            limit = kind.label_limit()
        ));
    }
    let texts = || {
        splits
            .iter()
            .flat_map(|split| split.texts())
            .filter(|text| !text.trim().is_empty())
    };
    let chinese = texts().filter(|text| text.chars().any(is_chinese)).count();
    let all = texts().count();
    if all > 0 && kind != Kind::Sims && chinese * 2 > all {
        notes.push(format!(
            "most texts are Chinese, and {kind} is English: did you mean --as sims?"
        ));
    }
    if all > 0 && kind == Kind::Sims && chinese == 0 {
        notes.push(
            "no text is Chinese, and sims is: did you mean --as mosi or --as mosei?".to_owned(),
        );
    }
    notes
}

/// The common Chinese characters.
fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c) || ('\u{3400}'..='\u{4dbf}').contains(&c)
}
