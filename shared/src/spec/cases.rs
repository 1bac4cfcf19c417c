//! The cases of a spec: rates, sets, further cases, and the masks under which drawn ones are repeated.

use super::{
    Spec,
    names::duplicates,
    place::{Checker, Step},
};
use crate::{
    case::{Case, CaseError, Damage, MissingSet, Rate},
    methods::nearest,
};
use std::collections::BTreeSet;

/// Checks what is tested.
pub(super) fn check(spec: &Spec, checker: &mut Checker<'_>) {
    if spec.rates.is_empty() && spec.missing.is_empty() && spec.cases.is_empty() {
        checker.problem(
            &[Step::Key("name")],
            "there is nothing to test: `rates`, `missing` and `cases` are all empty",
            "this spec",
            Some(
                "add `rates = [0.0, 0.1, …]`, `missing = [\"l\", …]` or `cases = [\"block=0.5\", …]`"
                    .to_owned(),
            ),
        );
    }
    check_rates(spec, checker);
    check_sets(spec, checker);
    check_further(spec, checker);
    check_masks(spec, checker);
}

/// The first of the rates that are percent, and what was meant; nothing where any is neither a rate
/// nor a percentage.
fn in_percent(rates: &[f64]) -> Option<(usize, String)> {
    let first = rates.iter().position(|&rate| rate > 1.0)?;
    let share = |rate: f64| Rate::new((rate * 10.0).round() / 1000.0).ok();
    let meant: Option<Vec<Rate>> = rates
        .iter()
        .map(|&rate| share(rate).filter(|_| rate.is_finite() && rate.fract() == 0.0))
        .collect();
    let said: Vec<String> = meant?
        .into_iter()
        .take(12)
        .map(|rate| format!("{:?}", rate.value()))
        .collect();
    let more = if rates.len() > said.len() {
        ", …"
    } else {
        ""
    };
    Some((
        first,
        format!("did you mean `rates = [{}{more}]`?", said.join(", ")),
    ))
}

fn check_rates(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let mut seen = BTreeSet::new();
    let percent = in_percent(&spec.rates);
    if let Some((i, help)) = &percent {
        // One report for all: if one rate is in percent, the others are too.
        let rate = spec.rates.get(*i).copied().unwrap_or_default();
        checker.problem(
            &[Key("rates"), Index(*i)],
            format!("`{rate}` is not a missing rate: rates are shares from 0 to 1, not percent"),
            "not a rate",
            Some(help.clone()),
        );
    }
    for (i, &rate) in spec.rates.iter().enumerate() {
        let at = [Key("rates"), Index(i)];
        match Rate::new(rate) {
            Err(_) if percent.is_some() && rate > 1.0 => {}
            Ok(rate) if seen.insert(rate) => {}
            Ok(rate) => checker.problem(
                &at,
                format!("the rate {rate} is listed twice"),
                "again",
                Some("remove one".to_owned()),
            ),
            Err(error) => checker.problem(&at, error, "not a rate", None),
        }
    }
}

fn check_sets(spec: &Spec, checker: &mut Checker<'_>) {
    let mut seen = BTreeSet::new();
    for (i, set) in spec.missing.iter().enumerate() {
        let at = [Step::Key("missing"), Step::Index(i)];
        match set.parse::<MissingSet>() {
            Ok(parsed) if seen.insert(parsed) => {}
            // `la` and `al` are the same set.
            Ok(parsed) => checker.problem(
                &at,
                format!("the set {parsed} is listed twice"),
                "again",
                Some("remove one".to_owned()),
            ),
            Err(error) => {
                let near = nearest(set, MissingSet::PAPER);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                checker.problem(&at, error, "not a set", help);
            }
        }
    }
}

fn check_further(spec: &Spec, checker: &mut Checker<'_>) {
    let mut seen: BTreeSet<Case> = spec.rates_and_sets().collect();
    for (i, text) in spec.cases.iter().enumerate() {
        let at = [Step::Key("cases"), Step::Index(i)];
        match text.parse::<Case>() {
            Err(CaseError::Name { given, canonical }) => checker.problem(
                &at,
                format!("`{given}` is another name of `{canonical}`"),
                "not its name",
                Some(format!("write `\"{canonical}\"`")),
            ),
            Err(error) => {
                let help = mistaken(text).map(|meant| format!("did you mean `{meant}`?"));
                checker.problem(&at, error, "not a case", help);
            }
            Ok(case) if case.mask == Some(spec.protocol.erasure_seed) => checker.problem(
                &at,
                format!(
                    "`{case}` is `{}`: {} is the sweep's own erasure seed",
                    case.damage, spec.protocol.erasure_seed
                ),
                "the same case",
                Some(format!("write `\"{}\"`, or another seed", case.damage)),
            ),
            Ok(case) if seen.insert(case) => {}
            Ok(case) => checker.problem(
                &at,
                format!("the case {case} is listed twice"),
                "again",
                Some("remove one: `rates` and `missing` are cases, too".to_owned()),
            ),
        }
    }
}

/// The case that a text was meant to be: a kind that is misspelled.
fn mistaken(text: &str) -> Option<String> {
    const KINDS: [&str; 9] = [
        "r", "missing", "mr", "block", "bursts", "asr", "noise", "permuted", "averaged",
    ];
    let (kind, value) = text.split_once('=')?;
    let near = nearest(kind.trim(), KINDS)?;
    let meant = format!("{near}={}", value.trim());
    meant.parse::<Case>().ok().map(|_| meant)
}

fn check_masks(spec: &Spec, checker: &mut Checker<'_>) {
    let own = spec.protocol.erasure_seed;
    let listed: BTreeSet<Case> = spec.cases.iter().filter_map(|c| c.parse().ok()).collect();
    for (i, &seed) in spec.erasure_seeds.iter().enumerate() {
        let at = [Step::Key("erasure_seeds"), Step::Index(i)];
        if seed == own {
            checker.problem(
                &at,
                format!("{seed} is the sweep's own erasure seed: its cases are tested anyway"),
                "the same masks",
                Some("leave it out, or write another".to_owned()),
            );
        } else if let Some(twice) = listed.iter().find(|case| case.mask == Some(seed))
            && spec.drawn().any(|case| case.damage == twice.damage)
        {
            checker.problem(
                &at,
                format!("the case {twice} is tested twice: `cases` lists it, too"),
                "again",
                Some("remove one".to_owned()),
            );
        }
    }
    duplicates(
        &spec.erasure_seeds,
        "erasure_seeds",
        "erasure seed",
        checker,
    );
}

impl Spec {
    /// The cases: rates first, then sets, then further ones, in the spec's order; then drawn ones
    /// under each further mask. Invalid ones are left out; [`read`](super::read) refuses them.
    pub fn cases(&self) -> Vec<Case> {
        let masks = self.erasure_seeds.iter();
        let repeated = masks.flat_map(|&seed| {
            let mask = Some(seed);
            self.drawn().map(move |case| Case { mask, ..case })
        });
        self.own_cases().chain(repeated).collect()
    }

    /// How many [`cases`](Self::cases) there are, at most.
    pub(super) fn case_count(&self) -> usize {
        let drawn = self
            .drawn()
            .count()
            .saturating_mul(self.erasure_seeds.len());
        self.own_cases().count().saturating_add(drawn)
    }

    /// The place in `cases` of the first with errors of speech recognition.
    pub(super) fn first_asr(&self) -> Option<usize> {
        let is_asr = |case: Case| matches!(case.damage, Damage::Asr(_));
        let mut cases = self.cases.iter();
        cases.position(|case| case.parse().is_ok_and(is_asr))
    }

    /// Those that are repeated under each further mask.
    pub(super) fn drawn(&self) -> impl Iterator<Item = Case> {
        self.own_cases()
            .filter(|case| case.mask.is_none() && case.damage.is_drawn())
    }

    fn own_cases(&self) -> impl Iterator<Item = Case> {
        let further = self.cases.iter().filter_map(|case| case.parse().ok());
        self.rates_and_sets().chain(further)
    }

    fn rates_and_sets(&self) -> impl Iterator<Item = Case> {
        let rates = self.rates.iter().filter_map(|&rate| Rate::new(rate).ok());
        let sets = self.missing.iter().filter_map(|set| set.parse().ok());
        rates.map(Case::at_rate).chain(sets.map(Case::without))
    }
}
