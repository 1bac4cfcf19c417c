use super::{definition::Rule, *};
use serde::Serialize;

#[test]
fn every_metric_is_reported_from_exactly_one_checkpoint() {
    for benchmark in Benchmark::ALL {
        for metric in benchmark.metrics() {
            let families = benchmark.criteria().iter();
            let count = families.filter(|c| c.family.contains(&metric.id)).count();
            assert_eq!(count, 1, "{} on {benchmark}", metric.id);
        }
    }
}
#[test]
fn criteria_are_metrics_of_their_family() {
    for benchmark in Benchmark::ALL {
        for criterion in benchmark.criteria() {
            let metric = benchmark.metric(criterion.id).unwrap();
            assert_eq!(metric.higher_is_better, criterion.higher_is_better);
            assert_eq!(benchmark.criterion_of(criterion.id), Some(criterion));
            assert_eq!(benchmark.criterion(criterion.id), Some(criterion));
        }
        assert_eq!(benchmark.metric("nothing"), None);
        assert_eq!(benchmark.id().parse(), Ok(benchmark));
    }
    assert!("mosii".parse::<Benchmark>().is_err());
}

#[test]
fn only_strictly_better_value_wins() {
    let improves = |benchmark: Benchmark, id, new, old| {
        benchmark.improves(benchmark.criterion(id).unwrap(), new, old)
    };
    let mosi = |id, new, old| improves(Benchmark::Mosi, id, new, old);
    assert!(mosi("acc7", Some(0.31), Some(0.3)));
    assert!(!mosi("acc7", Some(0.3), Some(0.3)));
    assert!(!mosi("acc7", Some(0.3), Some(0.31)));
    assert!(mosi("mae", Some(0.8), Some(0.9)));
    assert!(!mosi("mae", Some(0.9), Some(0.8)));
    assert!(mosi("mae", Some(0.9), None));
    assert!(!mosi("mae", None, Some(0.9)));
    assert!(!mosi("mae", None, None));
    // Less than the fourth decimal is nothing on MOSI, and something on SIMS.
    assert!(!mosi("mae", Some(0.900_01), Some(0.900_04)));
    assert!(improves(
        Benchmark::Sims,
        "mae",
        Some(0.900_01),
        Some(0.900_04)
    ));
}

/// A definition as a spec writes it.
pub(crate) fn own(text: &str) -> Result<Kind, definition::DefinitionError> {
    let spec: definition::DefinitionSpec = toml::from_str(text).unwrap();
    Kind::own(spec.resolve()?)
}

const LIKE_MOSI: &str = "label_range = [-3, 3]\nlanguage = \"en\"\nclasses = [7, 2, 5]";
const LIKE_SIMS: &str =
    "label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [2, 3, 5]\nunimodal = true";

#[test]
fn definition_equal_to_builtin_gives_equal_metrics_and_criteria() {
    for (text, built_in) in [(LIKE_MOSI, Benchmark::Mosi), (LIKE_SIMS, Benchmark::Sims)] {
        let kind = own(text).unwrap();
        assert_eq!(kind.definition(), built_in.kind().definition());
        let mine = Benchmark::new("mine", kind).unwrap();
        assert_eq!(mine.metrics(), built_in.metrics());
        assert_eq!(mine.criteria(), built_in.criteria());
        assert_eq!(mine.kind().classes(), built_in.kind().classes());
        assert_eq!(mine.published(), None);
    }
}

#[test]
fn builtin_metrics_and_criteria_match_the_paper() {
    let metrics = |b: Benchmark| b.metrics().iter().map(|m| m.id).collect::<Vec<_>>();
    assert_eq!(
        metrics(Benchmark::Mosei),
        [
            "acc7",
            "acc5",
            "acc2_nonzero",
            "acc2_nonneg",
            "f1_nonzero",
            "f1_nonneg",
            "mae",
            "corr",
            "f1_nonzero_swapped",
            "f1_nonneg_swapped",
            "laziness"
        ]
    );
    assert_eq!(
        metrics(Benchmark::Sims),
        [
            "acc5",
            "acc3",
            "acc2",
            "f1",
            "mae",
            "corr",
            "f1_swapped",
            "laziness"
        ]
    );
    let name = |b: Benchmark, id| b.metric(id).unwrap().name;
    assert_eq!(name(Benchmark::Mosi, "acc2_nonneg"), "Acc-2 (neg/non-neg)");
    assert_eq!(
        name(Benchmark::Mosi, "f1_nonzero_swapped"),
        "F1 swapped (neg/pos)"
    );
    assert_eq!(name(Benchmark::Sims, "f1_swapped"), "F1 swapped");
    let families = |b: Benchmark| {
        let criteria = b.criteria().iter();
        criteria.map(|c| (c.id, c.family)).collect::<Vec<_>>()
    };
    assert_eq!(
        families(Benchmark::Mosi),
        [
            (
                "acc2_nonzero",
                &["acc2_nonzero", "f1_nonzero", "f1_nonzero_swapped"][..]
            ),
            (
                "acc2_nonneg",
                &["acc2_nonneg", "f1_nonneg", "f1_nonneg_swapped"]
            ),
            ("acc5", &["acc5"]),
            ("acc7", &["acc7", "laziness"]),
            ("mae", &["mae", "corr"]),
        ]
    );
    assert_eq!(
        families(Benchmark::Sims),
        [
            ("acc2", &["acc2", "f1", "f1_swapped"][..]),
            ("acc3", &["acc3"]),
            ("acc5", &["acc5", "laziness"]),
            ("mae", &["mae", "corr"]),
        ]
    );
}

#[test]
fn every_defined_metric_is_reported_from_one_checkpoint() {
    for text in [
        "label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 4, 6]",
        "label_range = [1, 10]\nlanguage = \"en\"\nclasses = [10]",
        "label_range = [-3, 3]\nlanguage = \"en\"\nclasses = [2]",
        "label_range = [0, 100]\nlanguage = \"en\"\nclasses = [2]",
        "label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [[-0.5, 0.5], 2]",
    ] {
        let mine = Benchmark::new("mine", own(text).unwrap()).unwrap();
        for metric in mine.metrics() {
            let families = mine.criteria().iter();
            let count = families.filter(|c| c.family.contains(&metric.id)).count();
            assert_eq!(count, 1, "{} of {text}", metric.id);
        }
        for criterion in mine.criteria() {
            assert!(mine.metric(criterion.id).is_some(), "{criterion:?}");
        }
    }
}

#[test]
fn stars_round_around_the_middle_of_the_range() {
    let kind = own("label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 4, 6]").unwrap();
    assert_eq!(kind.definition().rule, Rule::Rounded);
    assert_eq!((kind.neutral(), kind.label_range()), (2.5, [0.0, 5.0]));
    assert_eq!(kind.classes(), ["0", "1", "2", "3", "4", "5"]);
    let rules = kind.rules();
    let four = rules.scale("acc4").unwrap();
    assert_eq!(four.names, ["1", "2", "3", "4"]);
    assert_eq!(
        [0.0, 1.4, 1.5, 2.5, 3.6, 9.0].map(|v| four.of(v)),
        [0, 0, 1, 1, 3, 3]
    );
    let [nonzero, nonneg] = &rules.binaries[..] else {
        panic!("two conventions");
    };
    assert!(!nonzero.counts(2.5) && nonzero.counts(2.4) && nonneg.counts(2.5));
    assert!(!nonzero.positive(2.5) && nonneg.positive(2.5) && !nonneg.positive(2.4));
}

#[test]
fn sims_edges_scale_to_range_or_are_given() {
    let kind = own("label_range = [0, 100]\nlanguage = \"zh\"\nclasses = [2, 3, 5]").unwrap();
    let edges = |i: usize| kind.definition().classes[i].edges.clone();
    assert_eq!(edges(0), [50.0]);
    assert_eq!(edges(1), [45.0, 55.0]);
    assert_eq!(edges(2), [15.0, 45.0, 55.0, 85.0]);
    assert_eq!(kind.classes()[1], "weakly negative");
    // Each belongs to the class below; what is beyond the range is clipped.
    assert_eq!(
        [-9.0, 15.0, 15.1, 50.0, 85.0, 99.0, 500.0].map(|v| kind.class_of(v)),
        [0, 0, 1, 2, 3, 4, 4]
    );
    let given = "label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [[-0.5, 0, 0.5]]";
    let kind = own(given).unwrap();
    assert_eq!(
        kind.classes(),
        ["to -0.5", "-0.5 to 0", "0 to 0.5", "over 0.5"]
    );
    assert_eq!(kind.rules().fine.accuracy, "acc4");
    // MOSI's range may be cut into intervals, and SIMS' be rounded, where the definition says so.
    let cut = own("label_range = [-3, 3]\nlanguage = \"en\"\nclasses = [3]\nrule = \"intervals\"");
    assert_eq!(cut.unwrap().definition().classes[0].edges[0], 3.0 * -0.1);
    let rounded =
        own("label_range = [-1, 1]\nlanguage = \"en\"\nclasses = [3]\nrule = \"rounded\"");
    assert_eq!(rounded.unwrap().classes(), ["-1", "0", "1"]);
}

#[test]
fn invalid_definition_is_rejected_by_key() {
    let refused = |range: &str, classes: &str, more: &str| {
        let text = format!("label_range = {range}\nlanguage = \"en\"\nclasses = {classes}\n{more}");
        own(&text).unwrap_err()
    };
    for (range, classes, more, key, part) in [
        ("[1, -1]", "[2]", "", "label_range", "smaller number first"),
        ("[2, 2]", "[2]", "", "label_range", "smaller number first"),
        ("[nan, 1]", "[2]", "", "label_range", "is not within"),
        ("[0, 1e9]", "[2]", "", "label_range", "is not within"),
        ("[1000, 1000.5]", "[2]", "", "label_range", "too narrow"),
        ("[-3, 3]", "[]", "", "classes", "empty"),
        ("[-3, 3]", "[4]", "", "classes", "there can be 2, 3, 5, 7"),
        ("[-3, 3]", "[9]", "", "classes", "cannot be rounded to 9"),
        ("[-3, 3]", "[1]", "", "classes", "2 to 21 classes, not 1"),
        ("[-3, 3]", "[5, 5]", "", "classes", "listed twice"),
        ("[-3, 3]", "[[0.5]]", "", "classes", "edges need"),
        ("[-1, 1]", "[7]", "", "classes", "no default edges for 7"),
        (
            "[-1, 1]",
            "[[0.5, 0.1]]",
            "",
            "classes",
            "must be 2 rising numbers",
        ),
        ("[-1, 1]", "[[1.5]]", "", "classes", "between -1 and 1"),
        (
            "[-1.5, 1]",
            "[3]",
            "rule = \"rounded\"",
            "rule",
            "intervals",
        ),
    ] {
        let error = refused(range, classes, more);
        assert_eq!(error.key, key, "{range} {classes}: {error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = own("label_range = [0, 5]\nlanguage = \"\"\nclasses = [2]").unwrap_err();
    assert_eq!(error.key, "language");
}

#[test]
fn protocol_names_are_reserved() {
    let kind = own(LIKE_MOSI).unwrap();
    let taken = Benchmark::new("sims", kind).unwrap_err();
    assert!(taken.to_string().contains("another name"), "{taken}");
    for bad in ["", "a b", ".x", &"n".repeat(65)] {
        assert!(Benchmark::new(bad, kind).is_err(), "{bad}");
    }
    assert_eq!(Benchmark::new("mosi", Kind::Mosi), Ok(Benchmark::Mosi));
    // A second dataset of a built-in protocol: another name, the same published numbers.
    let aligned = Benchmark::new("mosi-aligned", Kind::Mosi).unwrap();
    assert_ne!(aligned, Benchmark::Mosi);
    assert_eq!(aligned.published(), Some(Benchmark::Mosi));
    assert_eq!(
        (aligned.title(), Benchmark::Mosi.title()),
        ("mosi-aligned".into(), "MOSI".into())
    );
    // The same name with another definition is another dataset.
    let [a, b] =
        [LIKE_MOSI, LIKE_SIMS].map(|text| Benchmark::new("a", own(text).unwrap()).unwrap());
    assert_ne!(a, b);
    let differences = a.kind().definition().differences(b.kind().definition());
    assert_eq!(
        differences,
        [
            "label_range [-3, 3], not [-1, 1]",
            "language en, not zh",
            "rule rounded, not intervals",
            "classes [2, 5, 7], not [2, 3, 5]",
            "unimodal false, not true"
        ]
    );
}

#[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
struct Carried {
    #[serde(with = "whole")]
    dataset: Benchmark,
}

#[test]
fn protocol_round_trips_with_dataset_and_hostile_one_is_rejected() {
    let mine = Benchmark::new("mine", own(LIKE_SIMS).unwrap()).unwrap();
    for dataset in [
        mine,
        Benchmark::Sims,
        Benchmark::new("m2", Kind::Mosei).unwrap(),
    ] {
        let carried = Carried { dataset };
        let json = serde_json::to_string(&carried).unwrap();
        assert_eq!(
            serde_json::from_str::<Carried>(&json).unwrap(),
            carried,
            "{json}"
        );
        // Through a tree, as the database keeps it.
        let tree = serde_json::to_value(&carried).unwrap();
        assert_eq!(serde_json::from_value::<Carried>(tree).unwrap(), carried);
        let bytes = crate::wire::encode(&carried).unwrap();
        assert_eq!(crate::wire::decode::<Carried>(&bytes).unwrap(), carried);
    }
    // As earlier releases wrote it, so that ids stay.
    assert_eq!(
        serde_json::to_string(&Carried {
            dataset: Benchmark::Mosi
        })
        .unwrap(),
        r#"{"dataset":"mosi"}"#
    );
    assert_eq!(serde_json::to_string(&mine).unwrap(), r#""mine""#);
    let json = serde_json::to_string(&Carried { dataset: mine }).unwrap();
    for (from, to) in [
        ("[-1.0,1.0]", "[1.0,-1.0]"),
        ("\"count\":5", "\"count\":500"),
        ("\"mine\"", "\"sims\""),
        ("\"mine\"", "\"../mine\""),
        ("[0.0]", "[0.0,0.0]"),
    ] {
        assert!(json.contains(from), "{json}");
        let bad = json.replace(from, to);
        assert!(serde_json::from_str::<Carried>(&bad).is_err(), "{bad}");
    }
}
