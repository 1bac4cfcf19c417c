//! Signs that a file belongs to another dataset than the requested one.

use crate::{official, root, samples::SplitSamples};
use halfheard_shared::{
    dataset::{Kind, Split},
    pickle::{Pickle, Value},
};

/// Minimum number of labels from which their range is judged.
const ENOUGH: usize = 100;

/// Notes about labels, texts and a hash that suggest another `--as`.
pub(crate) fn signs<'a>(
    kind: Kind,
    pickle: &Pickle<'a>,
    root: Value<'a>,
    splits: &[SplitSamples<'_, '_>; 3],
    sha256: &str,
) -> Vec<String> {
    use crate::assemble::Samples as _;
    let mut notes = Vec::new();
    notes.extend(official_of_another(kind, sha256));
    let unimodal = root::split(pickle, root, Split::Train).is_ok_and(|(train, _)| {
        ["T", "A", "V"].iter().all(|modality| {
            let field = format!("regression_labels_{modality}");
            pickle.get(train, &field).is_some()
        })
    });
    if unimodal && !kind.has_unimodal_labels() {
        notes.push(match kind {
            Kind::Own(_) => "the file has labels for each modality, which its definition does not use: keep them with --unimodal".to_owned(),
            built_in => format!(
                "the file has labels for each modality, as SIMS has, and is imported as {built_in}, which does not use them: did you mean --as sims?"
            ),
        });
    }
    let labels = || splits.iter().flat_map(|split| split.labels());
    let [_, limit] = kind.label_range();
    if !matches!(kind, Kind::Own(_))
        && limit > 1.0
        && labels().count() >= ENOUGH
        && labels().all(|label| label.abs() <= 1.0)
    {
        notes.push(format!(
            "all labels are within [-1, 1], as those of SIMS are; labels of {kind} range from -{limit} to {limit}"
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
    if all > 0 && kind.language() == "en" && chinese * 2 > all {
        notes.push(match kind {
            Kind::Own(_) => {
                "most texts are Chinese: did you mean --language zh instead of en?".to_owned()
            }
            built_in => {
                format!(
                    "most texts are Chinese, and {built_in} is English: did you mean --as sims?"
                )
            }
        });
    }
    if all > 0 && kind == Kind::Sims && chinese == 0 {
        notes.push(
            "no text is Chinese, and sims is: did you mean --as mosi or --as mosei?".to_owned(),
        );
    }
    notes
}

/// A published file of another dataset.
fn official_of_another(kind: Kind, sha256: &str) -> Option<String> {
    let official = official::by_sha256(sha256).filter(|official| official.kind != kind)?;
    Some(format!(
        "this is {}, a file of {}, imported as {kind}: did you mean --as {}?",
        official.name, official.kind, official.kind
    ))
}

/// Whether `c` is a common Chinese character.
fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c) || ('\u{3400}'..='\u{4dbf}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_file_of_another_dataset_is_noted() {
        let sims = "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f";
        let note = official_of_another(Kind::Mosi, sims).unwrap();
        assert!(note.contains("SIMS/Processed/unaligned_39.pkl") && note.ends_with("--as sims?"));
        assert_eq!(official_of_another(Kind::Sims, sims), None);
        assert_eq!(official_of_another(Kind::Mosi, "0"), None);
    }
}
