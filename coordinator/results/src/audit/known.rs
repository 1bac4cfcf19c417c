//! Labels findings about the published tables by the known errata, which rules never see.

use super::{Finding, Place, Rule};
use halfheard_shared::published::{Erratum, ErratumKind, Number, errata, numbers};

/// Whether an erratum is about a number.
fn covers(erratum: &Erratum, place: &Place) -> bool {
    let is = |number: &&Number| {
        Some(number.table) == place.table
            && number.dataset == place.dataset
            && number.method == place.model.method
            && number.variant == place.model.variant
            && number.case == place.case_text()
            && number.metric == place.metric
    };
    numbers().iter().find(is).is_some_and(|n| erratum.covers(n))
}

/// Whether an erratum explains a finding of a rule: swapped labels and predictions in an F1 do not
/// explain why it is in another row.
fn fits(erratum: &Erratum, rule: Rule) -> bool {
    match erratum.kind {
        ErratumKind::LabelsSwapped => matches!(rule, Rule::ImpossibleF1 | Rule::OneClass),
        ErratumKind::Corrected(_) | ErratumKind::Retracted => true,
    }
}

/// The errata about any number of a finding, or one that depends on it.
pub(super) fn errata_of(finding: &Finding) -> Vec<&'static Erratum> {
    errata()
        .iter()
        .filter(|erratum| {
            let mut places = finding.places.iter().chain(&finding.carried);
            fits(erratum, finding.rule) && places.any(|place| covers(erratum, place))
        })
        .collect()
}

/// Labels findings. Equal errata of several tables are merged.
pub(super) fn label(findings: &mut [Finding]) {
    for finding in findings {
        let mut merged: Vec<(&str, &str, Vec<u8>)> = Vec::new();
        for erratum in errata_of(finding) {
            let (why, source) = (erratum.why, erratum.source);
            let known = merged
                .iter_mut()
                .find(|(w, s, _)| (*w, *s) == (why, source));
            match known {
                Some((_, _, tables)) => tables.push(erratum.table),
                None => merged.push((why, source, vec![erratum.table])),
            }
        }
        let texts = merged.into_iter().map(|(why, source, mut tables)| {
            tables.sort_unstable();
            tables.dedup();
            let plural = if tables.len() == 1 { "" } else { "s" };
            let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
            format!("Table{plural} {}: {why} ({source})", tables.join(", "))
        });
        finding.known = Some(texts.collect());
    }
}
