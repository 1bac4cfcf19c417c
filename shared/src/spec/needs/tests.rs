use super::*;
use crate::spec::needs_rules::resolve;
use crate::spec::{read, resolve as resolve_spec, tests::Everything};

const SPEC: &str = r#"
name = "needy"
methods = ["lnln", "almt", "lnln/wide", "lnln/wider", "lnln/no-dmc"]
seeds = [1]
rates = [0.0]
weight = 2.5
max_running = 8
max_failures = 0
[datasets.mosi]
file = "dataset:mosi"
[encoders.en]
path = "encoder:en"
[needs]
gpu_memory = "8GB"
label = "fast"
[needs.methods.lnln]
gpu_memory = "16GB"
[needs.methods."lnln/wider"]
label = "h100"
[[variant]]
id = "lnln/wide"
needs = { gpu_memory = "24GiB", label = "a100" }
[[variant]]
id = "lnln/wider"
base = "lnln/wide"
needs = { gpu_memory = "40GB" }
"#;

#[test]
fn nearer_setting_says_more() {
    let spec = read("test.toml", SPEC).unwrap();
    let needs = |method, variant| {
        let needs = resolve(&spec, method, variant);
        (needs.memory, needs.label.unwrap_or_default())
    };
    assert_eq!(needs("almt", ""), (8_000_000_000, "fast".to_owned()));
    assert_eq!(needs("lnln", ""), (16_000_000_000, "fast".to_owned()));
    assert_eq!(needs("lnln", "no-dmc"), (16_000_000_000, "fast".to_owned()));
    assert_eq!(needs("lnln", "wide"), (24 << 30, "a100".to_owned()));
    assert_eq!(needs("lnln", "wider"), (40_000_000_000, "h100".to_owned()));
    assert_eq!((spec.weight, spec.max_running), (Some(2.5), Some(8)));
    assert_eq!(spec.max_failures, Some(0));
}

#[test]
fn mistakes_are_reported_at_their_lines() {
    let mistakes = [
        (
            "gpu_memory = \"8GB\"",
            "gpu_memory = \"8 gigs\"",
            "`8 gigs` is not an amount of memory",
        ),
        (
            "label = \"fast\"",
            "label = \"fast\\u001b[2J\"",
            "a label has 1 to 64 letters",
        ),
        (
            "label = \"h100\"",
            "label = \"\"",
            "a label has 1 to 64 letters",
        ),
        ("\"24GiB\"", "\"24\"", "`24` is not an amount of memory"),
        (
            "needs.methods.lnln",
            "needs.methods.lmln",
            "the method `lmln` is not run",
        ),
        (
            "max_running = 8",
            "max_running = 0",
            "`max_running` must be 1 to 1,000,000",
        ),
        (
            "weight = 2.5",
            "weight = -1.0",
            "the weight must be 0.001 to 1000",
        ),
        (
            "weight = 2.5",
            "weight = nan",
            "the weight must be 0.001 to 1000",
        ),
        ("[needs]", "[need]", "unknown field `need`"),
        (
            "gpu_memory = \"16GB\"",
            "memory = \"16GB\"",
            "unknown field `memory`",
        ),
    ];
    for (good, bad, message) in mistakes {
        assert!(SPEC.contains(good), "{good}");
        let text = SPEC.replacen(good, bad, 1);
        let error = read("test.toml", &text).unwrap_err();
        let problem = error
            .problems
            .iter()
            .find(|problem| problem.message.contains(message))
            .unwrap_or_else(|| panic!("{bad}: {error:?}"));
        let span = problem.span.expect("a place");
        let line = |at: usize| text[..at].lines().count();
        let there = text.find(bad).unwrap();
        assert!(line(span.offset()).abs_diff(line(there)) <= 1, "{bad}");
    }
}

#[test]
fn needs_change_no_id() {
    let id = |text: &str| {
        let spec = read("test.toml", text).unwrap();
        let spec = resolve_spec("test.toml", text, &spec, &mut Everything).unwrap();
        assert_eq!(spec.methods[0].needs.is_none(), !text.contains("[needs]"));
        spec.sweep_id(None)
    };
    let bare = SPEC
        .replace("[needs]\ngpu_memory = \"8GB\"\nlabel = \"fast\"", "")
        .replace("[needs.methods.lnln]\ngpu_memory = \"16GB\"", "");
    assert_eq!(id(SPEC), id(&bare));
}

#[test]
fn needs_are_met_by_memory_and_label() {
    let none = ResolvedNeeds::default();
    assert!(none.met_by(0, &[]));
    let needs = ResolvedNeeds {
        memory: 10,
        label: Some("a".to_owned()),
    };
    let labels = ["b".to_owned(), "a".to_owned()];
    assert!(needs.met_by(10, &labels));
    assert!(!needs.met_by(9, &labels) && !needs.met_by(0, &labels) && !needs.met_by(10, &[]));
}
