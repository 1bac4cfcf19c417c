//! Text forms of cases: round trips, order, refusals.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const FORMS: [&str; 20] = [
    "r=0",
    "r=0.3",
    "r=1",
    "r=0.3@1112",
    "missing=l",
    "missing=av",
    "r=0.3+missing=la",
    "r=0.3+missing=la@0",
    "mr=0.3",
    "mr=0.7@4294967295",
    "l=0.7,a=0.1,v=0.3",
    "l=0,a=0.125,v=1@7",
    "block=0.3",
    "bursts=0.3@1112",
    "asr=0.05",
    "noise=0.5",
    "noise=10@3",
    "permuted=a",
    "permuted=lv@9",
    "averaged=av",
];

#[test]
fn text_form_round_trips() {
    for text in FORMS {
        let case: Case = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(case.to_string(), text);
        let json = serde_json::to_string(&case).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Case>(&json).unwrap(), case);
    }
}

#[test]
fn order_is_that_of_the_text_form() {
    let texts = [
        "missing=a",
        "missing=av",
        "missing=l",
        "missing=la",
        "missing=lv",
        "missing=mean",
        "missing=v",
        "r=0",
        "r=0.05",
        "r=0.3",
        "r=0.3+missing=a",
        "r=0.3@1112",
        "r=0.95",
        "r=1",
        "r=mean",
    ];
    let mut cases: Vec<CaseOrMean> = texts.iter().rev().map(|t| t.parse().unwrap()).collect();
    cases.sort();
    let sorted: Vec<String> = cases.iter().map(ToString::to_string).collect();
    assert_eq!(sorted, texts);
}

#[test]
fn refuses_what_is_no_case() {
    for text in [
        "",
        "0.3",
        "r",
        "r=",
        "r=1.1",
        "r=-0.1",
        "r=0.12345",
        "r=NaN",
        "r=inf",
        "r=0.3@",
        "r=0.3@-1",
        "r=0.3@4294967296",
        "r=0.3@1@2",
        "r=0.3+missing=",
        "r=0.3+missing=lav",
        "missing=",
        "missing=lav",
        "missing=ll",
        "missing=x",
        "MR=0.3",
        "mr=2",
        "mr=0.71",
        "mr=1",
        "l=0.3",
        "l=0.3,a=0.2",
        "l=0.3,v=0.2,a=0.1",
        "l=0.3,a=0.2,v=0.1,x=1",
        "noise=10.1",
        "noise=-1",
        "permuted=lav",
        "averaged=l",
        "averaged=la",
        "dropout=0.3",
        " r=0.3",
    ] {
        let refused = text.parse::<Case>();
        assert!(
            refused.is_err() && !matches!(refused, Err(CaseError::Name { .. })),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn every_case_has_one_name_and_others_are_refused_with_it() {
    for (given, canonical) in [
        ("r=0.30", "r=0.3"),
        ("r=+0.3", "r=0.3"),
        ("r=0.0", "r=0"),
        ("r=1e-1", "r=0.1"),
        ("missing=al", "missing=la"),
        ("r=0.3@007", "r=0.3@7"),
        ("r=0@7", "r=0"),
        ("r=1@7", "r=1"),
        ("missing=la@7", "missing=la"),
        ("averaged=a@7", "averaged=a"),
        ("mr=0", "r=0"),
        ("mr=0.667", "mr=0.7"),
        ("block=0", "r=0"),
        ("bursts=0", "r=0"),
        ("asr=0", "r=0"),
        ("noise=0", "r=0"),
        ("r=0+missing=la", "missing=la"),
        ("r=1+missing=la", "r=1"),
        ("l=0.3,a=0.3,v=0.3", "r=0.3"),
        ("l=1,a=1,v=1", "r=1"),
        ("l=1,a=0,v=1", "missing=lv"),
        ("l=0.3,a=1,v=1", "r=0.3+missing=av"),
        ("l=0.3,a=1,v=0.3", "r=0.3+missing=a"),
    ] {
        let expected = CaseError::Name {
            given: given.to_owned(),
            canonical: canonical.to_owned(),
        };
        assert_eq!(given.parse::<Case>(), Err(expected));
        assert!(canonical.parse::<Case>().is_ok(), "{canonical}");
    }
}

#[test]
fn rates_of_modalities_follow_the_damage() {
    let rates = |text: &str| {
        let damage = text.parse::<Case>().unwrap().damage;
        Modality::ALL.map(|modality| damage.rate_of(modality))
    };
    assert_eq!(rates("missing=la"), [Some(1.0), Some(1.0), Some(0.0)]);
    assert_eq!(rates("r=0.3+missing=l"), [Some(1.0), Some(0.3), Some(0.3)]);
    assert_eq!(rates("l=0.7,a=0.1,v=0"), [Some(0.7), Some(0.1), Some(0.0)]);
    assert_eq!(rates("block=0.3"), [None; 3]);
}

#[test]
fn tables_means_are_over_the_sweeps_own_mask_only() {
    let kind = |text: &str| text.parse::<Case>().unwrap().kind();
    assert_eq!(kind("r=0.3"), Some(CaseKind::Rate));
    assert_eq!(kind("missing=la"), Some(CaseKind::Missing));
    for other in ["r=0.3@1112", "r=0.3+missing=la", "mr=0.3", "averaged=a"] {
        assert_eq!(kind(other), None, "{other}");
    }
}

/// Texts near to cases: most are one, under its own or another name.
fn nearly_a_case() -> impl Strategy<Value = String> {
    let rate = || (0..=1000_u16).prop_map(|rate| Rate::from_thousandths(rate).to_string());
    let set = || prop::sample::select(&["l", "a", "v", "la", "al", "lv", "av", "lav"][..]);
    let rated = prop::sample::select(&["r", "mr", "block", "bursts", "asr", "noise"][..]);
    let of_set = prop::sample::select(&["missing", "permuted", "averaged"][..]);
    let damage = prop_oneof![
        (rated, rate()).prop_map(|(kind, rate)| format!("{kind}={rate}")),
        (of_set, set()).prop_map(|(kind, set)| format!("{kind}={set}")),
        (rate(), set()).prop_map(|(rate, set)| format!("r={rate}+missing={set}")),
        [rate(), rate(), rate()].prop_map(|[l, a, v]| format!("l={l},a={a},v={v}")),
    ];
    (damage, prop::option::of(any::<u32>())).prop_map(|(damage, mask)| match mask {
        Some(seed) => format!("{damage}@{seed}"),
        None => damage,
    })
}

proptest! {
    #[test]
    fn what_parses_prints_as_it_was_and_sorts_as_text(
        texts in prop::collection::vec(nearly_a_case(), 1..20)
    ) {
        let cases: Vec<Case> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let sorted: BTreeSet<Case> = cases.iter().copied().collect();
        let printed: BTreeSet<String> = cases.iter().map(ToString::to_string).collect();
        for text in &printed {
            prop_assert!(texts.contains(text), "{text}");
        }
        let sorted: Vec<String> = sorted.iter().map(ToString::to_string).collect();
        prop_assert_eq!(sorted, Vec::from_iter(printed));
    }

    #[test]
    fn another_name_leads_to_the_case(text in nearly_a_case()) {
        if let Err(CaseError::Name { canonical, .. }) = text.parse::<Case>() {
            prop_assert!(canonical.parse::<Case>().is_ok(), "{canonical}");
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<CaseOrMean>();
    }
}
