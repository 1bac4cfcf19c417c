//! Labels findings about the published tables by the known errata. Rules never see these.

use super::{Finding, Place, Rule};
use crate::published::{Erratum, ErratumKind, Number, errata, numbers};

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
        ErratumKind::Swapped => matches!(rule, Rule::ImpossibleF1 | Rule::OneClass),
        ErratumKind::Corrected(_) | ErratumKind::Void => true,
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

/// Labels findings.
pub(super) fn label(findings: &mut [Finding]) {
    for finding in findings {
        let texts = errata_of(finding).into_iter().map(|erratum| {
            format!(
                "Table {}: {} ({})",
                erratum.table, erratum.why, erratum.source
            )
        });
        finding.known = Some(texts.collect());
    }
}
