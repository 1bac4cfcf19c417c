//! Labels findings about the published tables by the known errata. Rules never see these.

use super::{Finding, Place, Rule};
use halfheard_shared::published::{Erratum, ErratumKind, Number, errata, numbers};

/// Whether an erratum speaks of a number.
fn covers(erratum: &Erratum, place: &Place) -> bool {
    let is = |number: &&Number| {
        Some(number.table) == place.table
            && number.dataset == place.dataset
            && number.method == place.method
            && number.variant == place.variant
            && number.case == place.case
            && number.metric == place.metric
    };
    numbers().iter().find(is).is_some_and(|n| erratum.covers(n))
}

/// Whether an erratum is of the kind that a rule finds: that truth and prediction were swapped in an
/// F1 says nothing of how it came into another row.
fn fits(erratum: &Erratum, rule: Rule) -> bool {
    match erratum.kind {
        ErratumKind::LabelsSwapped => matches!(rule, Rule::ImpossibleF1 | Rule::OneClass),
        ErratumKind::Corrected(_) | ErratumKind::Retracted => true,
    }
}

/// The errata that speak of any number of a finding, or of one that rests on it.
pub(super) fn errata_of(finding: &Finding) -> Vec<&'static Erratum> {
    errata()
        .iter()
        .filter(|erratum| {
            let mut places = finding.places.iter().chain(&finding.carried);
            fits(erratum, finding.rule) && places.any(|place| covers(erratum, place))
        })
        .collect()
}

/// Labels findings: an erratum that speaks of several tables in the same words is told once.
pub(super) fn label(findings: &mut [Finding]) {
    for finding in findings {
        let mut told: Vec<(&str, &str, Vec<u8>)> = Vec::new();
        for erratum in errata_of(finding) {
            let (why, source) = (erratum.why, erratum.source);
            let known = told.iter_mut().find(|(w, s, _)| (*w, *s) == (why, source));
            match known {
                Some((_, _, tables)) => tables.push(erratum.table),
                None => told.push((why, source, vec![erratum.table])),
            }
        }
        let texts = told.into_iter().map(|(why, source, mut tables)| {
            tables.sort_unstable();
            tables.dedup();
            let plural = if tables.len() == 1 { "" } else { "s" };
            let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
            format!("Table{plural} {}: {why} ({source})", tables.join(", "))
        });
        finding.known = Some(texts.collect());
    }
}
