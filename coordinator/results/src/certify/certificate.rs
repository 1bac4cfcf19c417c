//! A verdict for each of the published numbers.

use super::{
    bound, conditions,
    lookup::{self, Found},
    number::{self, Certified, Verdict},
    tost,
};
use halfheard_shared::{
    published::{self, ErratumKind, Number},
    results::{Model, Results},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// How to certify.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Options {
    /// The bound of equivalence, in published standard deviations over seeds.
    pub factor: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { factor: 2.0 }
    }
}

/// The published numbers, each with what a sweep says about it.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// The name of the sweep.
    pub sweep: String,
    /// The id of the sweep.
    pub id: String,
    /// How models were selected and trained, in lines.
    pub protocols: Vec<String>,
    /// The level of each test.
    pub level: f64,
    /// How it was certified.
    pub options: Options,
    /// How many numbers have each verdict.
    pub counts: BTreeMap<&'static str, usize>,
    /// Every number of Tables 2 to 14, in the paper's order.
    pub numbers: Vec<Certified>,
}

impl Certificate {
    /// How many numbers have `verdict`.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.counts.get(verdict.id()).copied().unwrap_or(0)
    }

    /// How many numbers were tested.
    pub fn tested(&self) -> usize {
        let tested = self.numbers.iter();
        tested
            .filter(|n| n.evidence.is_some_and(|e| e.tost.is_some()))
            .count()
    }
}

/// Certifies the published numbers by the results of a sweep: those of the checkpoints that the test split
/// chose, as the paper's were, where both splits choose.
pub fn certify(results: &Results, options: Options) -> Certificate {
    let on_test = results.chosen_on_test();
    let results = on_test.as_ref().unwrap_or(results);

    let numbers: Vec<Certified> = published::numbers()
        .iter()
        .map(|number| one(number, results, options))
        .collect();
    let mut counts = BTreeMap::new();
    for verdict in Verdict::ALL {
        let own = numbers.iter().filter(|n| n.verdict == verdict).count();
        counts.insert(verdict.id(), own);
    }
    Certificate {
        sweep: results.sweep.name.clone(),
        id: results.sweep.id.to_string(),
        protocols: crate::tables::protocols::lines(&results.protocols, |_| true),
        level: tost::LEVEL,
        options,
        counts,
        numbers,
    }
}

/// The address of a number: table, dataset, model, case and metric.
fn address(number: &Number) -> String {
    let model = Model::new(number.method, number.variant);
    let Number {
        table,
        case,
        metric,
        ..
    } = number;
    format!("{table}:{}:{model}:{case}:{metric}", number.dataset.id())
}

/// What a number is compared as.
struct Claim {
    /// The value that is right; `None` if it was retracted.
    value: Option<f64>,
    /// Our metric that it is compared with.
    metric: String,
    /// What an erratum changes.
    remark: String,
}

fn claim(number: &Number) -> Claim {
    let mut claim = Claim {
        value: Some(number.value),
        metric: number.metric.to_owned(),
        remark: String::new(),
    };
    let Some(erratum) = number.erratum() else {
        return claim;
    };
    match erratum.kind {
        ErratumKind::Corrected(value) => {
            claim.value = Some(value);
            claim.remark = format!("corrected ({}): {}", erratum.source, erratum.why);
        }
        ErratumKind::Retracted => {
            claim.value = None;
            claim.remark = format!("retracted ({}): {}", erratum.source, erratum.why);
        }
        ErratumKind::LabelsSwapped => {
            claim.metric.push_str("_swapped");
            claim.remark = format!(
                "compared with our swapped F1 ({}): {}",
                erratum.source, erratum.why
            );
        }
    }
    claim
}

fn one(number: &Number, results: &Results, options: Options) -> Certified {
    let model = Model::new(number.method, number.variant);
    let spread = bound::spread(number);
    let claim = claim(number);
    let found = lookup::find(
        &results.cells,
        number.dataset,
        &model,
        number.case,
        &claim.metric,
    );
    let mut certified = Certified {
        address: address(number),
        table: number.table,
        dataset: number.dataset.id(),
        method: number.method,
        variant: number.variant,
        case: number.case,
        metric: number.metric,
        printed: number.printed,
        published: claim.value,
        verdict: Verdict::NotComparable,
        reason: claim.remark,
        spread: spread.as_ref().map(|spread| spread.std),
        spread_source: spread
            .as_ref()
            .map(|s| s.source.clone())
            .unwrap_or_default(),
        evidence: None,
    };
    let measured = match found {
        Found::Measured(measured) => measured,
        Found::Absent(reason) => {
            certified.verdict = Verdict::NotMeasured;
            certified.reason = reason;
            return certified;
        }
        Found::Unlike(reason) => {
            certified.reason = reason;
            return certified;
        }
    };
    let Some(published) = claim.value else {
        return certified;
    };
    if let Some(objection) = conditions::objection(results, number.dataset, &model) {
        certified.reason = objection;
        return certified;
    }
    let Some(spread) = spread else {
        certified.reason = "Table 8 has no deviation to derive a bound from".to_owned();
        return certified;
    };
    let over_cases = number.case.ends_with("=mean");
    let (verdict, reason, evidence) =
        number::test(measured, published, &spread, options.factor, over_cases);
    certified.verdict = verdict;
    let parts = [reason, certified.reason];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    certified.reason = parts.join("; ");
    certified.evidence = Some(evidence);
    certified
}

#[cfg(test)]
mod tests;
