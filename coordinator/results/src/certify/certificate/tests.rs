//! The published numbers, as if a sweep had measured them, and with planted differences.

use super::*;
use crate::certify::render;
use halfheard_shared::{
    benchmark::Benchmark,
    case::Rate,
    ids::SweepId,
    methods::faults::Fault,
    regime::Regime,
    results::{Cell, CellKey, Cells, DatasetFile, Protocol, Sweep},
    wire::{Fidelity, Selection},
};
use rand_mt::Mt64;
use std::{collections::BTreeSet, time::SystemTime};

/// A sweep that meets every condition, without results.
fn sweep(cells: Cells) -> Results {
    let models: BTreeSet<Model> = cells.keys().map(|key| key.model.clone()).collect();
    Results {
        sweep: Sweep {
            id: SweepId::derive(&[b"certified"]),
            name: "certified".to_owned(),
            created: SystemTime::UNIX_EPOCH,
            spec: String::new(),
        },
        known: Benchmark::ALL.to_vec(),
        cells,
        cells_on_test: Cells::default(),
        tally: Vec::new(),
        jobs: None,
        protocols: vec![Protocol {
            selection: Selection::Test,
            selection_rate: Rate::from_thousandths(500),
            erasure_seed: 1111,
            fidelity: Fidelity::Reference,
            train_missing: Regime::default(),
            switched: Vec::new(),
            models: models.into_iter().collect(),
        }],
        processors: Vec::new(),
        imported: Vec::new(),
        external: Vec::new(),
        files: Vec::new(),
        provenance: Vec::new(),
        checkpoints: Vec::new(),
        audit: None,
    }
}

/// The tables of single cases, and those of ablations, which have means only.
fn is_measured(number: &Number) -> bool {
    [9, 10, 13, 14].contains(&number.table) || !number.variant.is_empty()
}

/// The paper's single cases as `seeds` seeds, whose mean is the published value plus `shift` published
/// spreads and whose deviation is the published spread; for ablations the published mean at every rate.
/// Printed tables do not mark a swapped F1: it is the value of both metrics.
fn measured(seeds: usize, shift: impl Fn(&Number) -> f64) -> Results {
    let mut cells = Vec::new();
    for number in published::numbers().iter().filter(|n| is_measured(n)) {
        let spread = bound::spread(number).unwrap().std;
        let cell = Cell {
            mean: Some(number.value + shift(number) * spread),
            std: (seeds > 1).then_some(spread),
            completed: seeds as i64,
            expected: seeds as i64,
            ..Cell::default()
        };
        let swapped = format!("{}_swapped", number.metric);
        let rates = || (0..10).map(|tenths| format!("r={}", f64::from(tenths) / 10.0));
        let cases: Vec<String> = match number.case {
            "r=mean" => rates().collect(),
            case => vec![case.to_owned()],
        };
        for case in cases {
            for metric in [number.metric, &swapped] {
                let Some(metric) = number.dataset.metric(metric) else {
                    continue;
                };
                let key = CellKey {
                    dataset: number.dataset,
                    model: Model::new(number.method, number.variant),
                    case: case.parse().unwrap(),
                    metric: metric.id,
                };
                cells.push((key, cell));
            }
        }
    }
    sweep(cells.into_iter().collect())
}

/// Whether the paper prints another value of the same model, case and metric: Tables 5 and 7 exchange two
/// variants on SIMS, and differ in a digit on MOSI. A sweep has one value, so it cannot reproduce both.
fn is_contradicted(number: &Number) -> bool {
    let what = |n: &Number| (n.dataset, n.method, n.variant, n.case, n.metric);
    let mut numbers = published::numbers().iter();
    !number.variant.is_empty()
        && numbers.any(|n| what(n) == what(number) && (n.value - number.value).abs() > 1e-9)
}

fn certified(results: &Results) -> Certificate {
    certify(results, Options::default())
}

/// The published numbers with their verdicts, which are in the same order.
fn pairs(certificate: &Certificate) -> impl Iterator<Item = (&'static Number, &Certified)> {
    published::numbers().iter().zip(&certificate.numbers)
}

/// The same, without errata and contradictions.
fn sound(certificate: &Certificate) -> impl Iterator<Item = (&'static Number, &Certified)> {
    let sound = |number: &Number| number.erratum().is_none() && !is_contradicted(number);
    pairs(certificate).filter(move |(number, _)| sound(number))
}

#[test]
fn every_published_number_has_an_address_of_its_own() {
    let certificate = certified(&sweep(Cells::default()));
    assert_eq!(certificate.numbers.len(), 3506);
    let addresses: BTreeSet<&str> = certificate
        .numbers
        .iter()
        .map(|n| n.address.as_str())
        .collect();
    assert_eq!(addresses.len(), 3506);
    assert!(addresses.contains("9:mosi:lnln:r=0.3:acc7"));
    for (number, certified) in pairs(&certificate) {
        assert_eq!(certified.address, address(number));
    }
    assert!(addresses.contains("4:sims:lnln/no-dmc:r=mean:f1"));
    assert_eq!(certificate.count(Verdict::NotMeasured), 3506);
    assert_eq!(certificate.tested(), 0);
}

#[test]
fn published_details_reproduce_every_number_but_errata() {
    for seeds in [3, 5, 10] {
        let certificate = certified(&measured(seeds, |_| 0.0));
        assert_eq!(certificate.count(Verdict::NotMeasured), 0);
        for (_, certified) in sound(&certificate) {
            assert_eq!(certified.verdict, Verdict::Reproduced, "{certified:?}");
        }
        for (number, certified) in pairs(&certificate) {
            let verdict = certified.verdict;
            match number.erratum().map(|erratum| erratum.kind) {
                Some(ErratumKind::Retracted) => {
                    assert_eq!(verdict, Verdict::NotComparable, "{certified:?}");
                    assert!(certified.reason.starts_with("retracted ("), "{certified:?}");
                }
                Some(ErratumKind::LabelsSwapped) if !is_contradicted(number) => {
                    assert_eq!(verdict, Verdict::Reproduced, "{certified:?}");
                    assert!(certified.reason.contains("our swapped F1"), "{certified:?}");
                }
                // Its details, as printed, need not give the corrected value.
                Some(ErratumKind::Corrected(value)) => {
                    assert_eq!(certified.published, Some(value));
                }
                Some(ErratumKind::LabelsSwapped) | None => {}
            }
        }
        println!("{seeds} seeds: {:?}", certificate.counts);
    }
}

/// A sweep that has what Table 7 prints of a variant does not have what Table 5 prints.
#[test]
fn contradiction_in_print_is_not_reproduced_twice() {
    let certificate = certified(&measured(10, |_| 0.0));
    let contradicted = pairs(&certificate).filter(|(number, _)| is_contradicted(number));
    let contradicted: Vec<_> = contradicted.collect();
    assert!(
        contradicted
            .iter()
            .all(|(number, _)| [5, 7].contains(&number.table))
    );
    for (number, certified) in contradicted {
        let reproduced = certified.verdict == Verdict::Reproduced;
        assert!(
            reproduced || number.table == 5 || number.erratum().is_some(),
            "{certified:?}"
        );
    }
}

/// One case in each of a random third of the rows (dataset, method and metric) is shifted.
#[test]
fn planted_shifts_are_found_and_nothing_else() {
    type Row = (Benchmark, &'static str, &'static str, bool);
    for (shift, expected) in [
        (0.5, Verdict::Reproduced),
        (1.0, Verdict::TooFewSeeds),
        (2.0, Verdict::Different),
        (4.0, Verdict::Different),
    ] {
        let mut random = Mt64::new(7);
        let mut planted: BTreeMap<Row, (&str, f64)> = BTreeMap::new();
        let mut rows: BTreeMap<Row, Vec<&Number>> = BTreeMap::new();
        for number in published::numbers() {
            // Errata have verdicts of their own.
            if is_measured(number) && number.variant.is_empty() && number.erratum().is_none() {
                let missing = number.case.starts_with("missing");
                let row = (number.dataset, number.method, number.metric, missing);
                rows.entry(row).or_default().push(number);
            }
        }
        for (row, numbers) in &rows {
            if random.next_u64().is_multiple_of(3) {
                let place = random.next_u64() as usize % numbers.len();
                let sign = if random.next_u64().is_multiple_of(2) {
                    1.0
                } else {
                    -1.0
                };
                planted.insert(*row, (numbers[place].case, sign * shift));
            }
        }
        let shift_of = |number: &Number| {
            let missing = number.case.starts_with("missing");
            let row = (number.dataset, number.method, number.metric, missing);
            let planted = planted.get(&row);
            let here =
                planted.filter(|(case, _)| *case == number.case && number.variant.is_empty());
            here.map_or(0.0, |(_, shift)| *shift)
        };
        let results = measured(5, shift_of);
        let mut found = 0;
        let certificate = certified(&results);
        for (number, certified) in sound(&certificate) {
            let is_planted = is_measured(number) && shift_of(number) != 0.0;
            found += usize::from(is_planted);
            let expected = if is_planted {
                expected
            } else {
                Verdict::Reproduced
            };
            // Four spreads in one of six sets move their mean by two thirds of one.
            if !is_planted && shift > 3.0 && number.case.ends_with("mean") {
                assert_ne!(certified.verdict, Verdict::Different, "{certified:?}");
                continue;
            }
            assert_eq!(certified.verdict, expected, "{shift}: {certified:?}");
        }
        assert_eq!(found, planted.len());
        assert!(found > 80, "{found}");
        println!(
            "shift of {shift} spreads: {found} planted, all {}",
            expected.text()
        );
    }
}

/// The means follow when every case is shifted.
#[test]
fn shift_of_every_case_is_found_in_the_means() {
    for (shift, expected) in [
        (0.5, Verdict::Reproduced),
        (1.0, Verdict::TooFewSeeds),
        (2.0, Verdict::Different),
        (-2.0, Verdict::Different),
    ] {
        let certificate = certified(&measured(5, |_| shift));
        for (_, certified) in sound(&certificate) {
            assert_eq!(certified.verdict, expected, "{certified:?}");
        }
    }
}

#[test]
fn number_of_seeds_is_said_where_they_are_too_few() {
    let certificate = certified(&measured(1, |_| 0.0));
    let acc7 = |certificate: &Certificate| {
        let mut numbers = certificate.numbers.iter();
        numbers
            .find(|n| n.address == "9:mosi:lnln:r=0.3:acc7")
            .unwrap()
            .clone()
    };
    let one = acc7(&certificate);
    assert_eq!(one.verdict, Verdict::TooFewSeeds);
    assert_eq!(one.reason, "one seed has no deviation; 3 would do");
    let two = acc7(&certified(&measured(3, |_| 0.5)));
    assert_eq!(two.reason, "undecided with 3 seeds; 4 would do");
    assert_eq!(
        acc7(&certified(&measured(4, |_| 0.5))).verdict,
        Verdict::Reproduced
    );
    let never = acc7(&certified(&measured(5, |_| 1.0)));
    assert!(never.reason.contains("not even 100 would do"), "{never:?}");
}

#[test]
fn other_conditions_are_not_comparable_and_say_why() {
    let reason = |change: fn(&mut Results), address: &str| {
        let mut results = measured(5, |_| 0.0);
        change(&mut results);
        let certificate = certified(&results);
        let mut numbers = certificate.numbers.into_iter();
        let number = numbers.find(|n| n.address == address).unwrap();
        (number.verdict == Verdict::NotComparable).then_some(number.reason)
    };
    let cell = "9:mosi:lnln:r=0.3:acc7";
    let almt = "9:mosi:almt:r=0.3:acc7";
    assert_eq!(reason(|_| (), cell), None);
    for (change, contained) in [
        (
            (|r| r.protocols[0].selection = Selection::Validation) as fn(&mut Results),
            "validation split",
        ),
        (
            |r| r.protocols[0].fidelity = Fidelity::Corrected,
            "follow the papers",
        ),
        (
            |r| r.protocols[0].erasure_seed = 7,
            "erased with the seed 7",
        ),
        (
            |r| r.protocols[0].selection_rate = Rate::from_thousandths(0),
            "selected at the missing rate 0",
        ),
        (
            |r| r.protocols[0].switched = vec![Fault::GrlOnProxy],
            "`grl-on-proxy` is corrected",
        ),
        (|r| r.imported.push(Model::new("lnln", "")), "imported"),
        (
            |r| {
                r.files.push(DatasetFile {
                    dataset: Benchmark::Mosi,
                    blake3: String::new(),
                    sizes: [9, 9, 60],
                    test_labels: [].into(),
                });
            },
            "60 samples, the paper's 686",
        ),
    ] {
        let reason = reason(change, cell).unwrap();
        assert!(reason.contains(contained), "{reason}");
    }
    // Faults and imports are of single methods.
    assert_eq!(
        reason(|r| r.protocols[0].switched = vec![Fault::GrlOnProxy], almt),
        None
    );
    assert_eq!(
        reason(|r| r.imported.push(Model::new("lnln", "")), almt),
        None
    );
    // No regime is known of the paper's.
    assert_eq!(
        reason(|r| r.protocols[0].train_missing = Regime::Complete, cell),
        None
    );
}

/// Where both splits choose checkpoints, those of the test split are the paper's kind.
#[test]
fn checkpoints_of_the_test_split_are_compared() {
    let mut results = measured(5, |_| 2.0);
    results.cells_on_test = measured(5, |_| 0.0).cells;
    results.protocols[0].selection = Selection::Both;
    let certificate = certified(&results);
    assert!(sound(&certificate).all(|(_, n)| n.verdict == Verdict::Reproduced));
    assert!(certificate.count(Verdict::Reproduced) > 3300);
}

#[test]
fn mean_over_fewer_cases_is_not_the_papers() {
    let mut results = measured(5, |_| 0.0);
    let cells = results.cells.iter();
    let kept = cells.filter(|(key, _)| !["r=0.4", "r=0.9"].contains(&&*key.case.to_string()));
    results.cells = kept.map(|(key, cell)| (key.clone(), *cell)).collect();
    let certificate = certified(&results);
    let find = |address: &str| {
        let mut numbers = certificate.numbers.iter();
        numbers.find(|n| n.address == address).unwrap()
    };
    let mean = find("2:mosi:lnln:r=mean:acc7");
    assert_eq!(mean.verdict, Verdict::NotComparable);
    assert!(
        mean.reason
            .ends_with("8 of the mean's 10 cases: it lacks r=0.4, r=0.9"),
        "{mean:?}"
    );
    assert_eq!(find("9:mosi:lnln:r=0.4:acc7").verdict, Verdict::NotMeasured);
    assert_eq!(find("9:mosi:lnln:r=0.3:acc7").verdict, Verdict::Reproduced);
    assert_eq!(
        find("11:mosi:lnln:missing=mean:acc7").verdict,
        Verdict::Reproduced
    );
}

#[test]
fn every_number_is_in_every_format() {
    let certificate = certified(&measured(5, |_| 2.0));
    let text = render::csv(&certificate).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3506);
    let json: serde_json::Value =
        serde_json::from_str(&render::json(&certificate).unwrap()).unwrap();
    assert_eq!(json["numbers"].as_array().unwrap().len(), 3506);
    let different = json["counts"]["different"].as_u64().unwrap();
    assert_eq!(different as usize, certificate.count(Verdict::Different));
    let in_csv = records
        .iter()
        .filter(|record| &record[7] == "different")
        .count();
    assert_eq!(in_csv, different as usize);

    let text = render::text(&certificate);
    assert!(
        text.starts_with("Certificate of sweep certified ("),
        "{text}"
    );
    for part in [
        "Verdicts by table",
        "Verdicts by method",
        "Different",
        "more: see --csv",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = crate::report::certificate(&certificate);
    let page = crate::report::html::render(&report);
    let markdown = crate::report::markdown::render(&report);
    let addresses = |text: &str, before: &str, after: char| -> BTreeSet<String> {
        let cells = text.split(before).skip(1);
        cells
            .filter_map(|cell| Some(cell.split_once(after)?.0.trim().to_owned()))
            .collect()
    };
    let (on_page, in_text) = (
        addresses(&page, "<th scope=\"row\">", '<'),
        addresses(&markdown, "\n| ", '|'),
    );
    for number in &certificate.numbers {
        assert!(on_page.contains(&number.address), "{}", number.address);
        assert!(in_text.contains(&number.address), "{}", number.address);
    }
    assert!(!page.contains("<script"));
}
