//! What a person is told about a wrong spec: message, line, the text pointed at, label, remedy.

use super::{
    SpecError,
    tests::{Everything, GOOD},
    *,
};

fn refused(text: &str) -> SpecError {
    match read("test.toml", text) {
        Err(error) => error,
        Ok(spec) => match resolve("test.toml", text, &spec, &mut Everything) {
            Err(error) => error,
            Ok(_) => panic!("accepted:\n{text}"),
        },
    }
}

/// A mistake and what is told of it.
struct Mistake {
    from: &'static str,
    to: &'static str,
    line: usize,
    marked: &'static str,
    message: &'static str,
    label: &'static str,
    help: Option<&'static str>,
}

#[rustfmt::skip]
const MISTAKES: &[Mistake] = &[
    Mistake { from: "seeds =", to: "seedz =", line: 4, marked: "seedz",
        message: "unknown field `seedz` in the spec", label: "not known", help: Some("did you mean `seeds`?") },
    Mistake { from: "\"almt\"", to: "\"amlt\"", line: 3, marked: "\"amlt\"",
        message: "there is no method `amlt`", label: "not known", help: Some("did you mean `almt`?") },
    Mistake { from: "lnln/no-dmc", to: "lnln/no-dcm", line: 3, marked: "\"lnln/no-dcm\"",
        message: "there is no method `lnln/no-dcm`", label: "not known", help: Some("did you mean `lnln/no-dmc`?") },
    Mistake { from: "\"almt\", ", to: "\"almt\", \"almt\", ", line: 3, marked: "\"almt\"",
        message: "the method almt is named twice", label: "again", help: Some("leave one away") },
    Mistake { from: "1112", to: "1111", line: 4, marked: "1111",
        message: "the seed 1111 is named twice", label: "again", help: Some("leave one away") },
    Mistake { from: "[1111, 1112]", to: "[]", line: 4, marked: "[]",
        message: "there is no seed", label: "empty", help: None },
    Mistake { from: "[1111, 1112]", to: "\"1111\"", line: 4, marked: "\"1111\"",
        message: "invalid type: string \"1111\", expected a sequence", label: "here", help: None },
    Mistake { from: "0.3", to: "1.3", line: 5, marked: "1.3",
        message: "`1.3` is no missing rate: give a number from 0 to 1 with at most three decimals", label: "not a rate", help: None },
    Mistake { from: "0.3", to: "0.00", line: 5, marked: "0.00",
        message: "the rate 0 is named twice", label: "again", help: Some("leave one away") },
    Mistake { from: "[\"la\"]", to: "[\"lav\"]", line: 6, marked: "\"lav\"",
        message: "`lav` is no set of modalities: give one or two of l (language), a (audio), v (vision)", label: "not a set", help: Some("did you mean `av`?") },
    Mistake { from: "[\"la\"]", to: "[\"la\", \"al\"]", line: 6, marked: "\"al\"",
        message: "the set la is named twice", label: "again", help: Some("leave one away") },
    Mistake { from: "epochs = 7", to: "epochs = 0", line: 7, marked: "0",
        message: "a training has 1 to 1,000,000 epochs", label: "out of range", help: None },
    Mistake { from: "epochs = 7", to: "epochs = 4294967295", line: 7, marked: "4294967295",
        message: "a training has 1 to 1,000,000 epochs", label: "out of range", help: None },
    Mistake { from: "learning_rate = 1e-3", to: "learning_rat = 1e-3", line: 22, marked: "1e-3",
        message: "lnln has no hyper-parameter `learning_rat`", label: "not known", help: Some("did you mean `learning_rate`?") },
    Mistake { from: "learning_rate = 1e-3", to: "learning_rate = nan", line: 22, marked: "nan",
        message: "`learning_rate` of lnln is a number, not nan or inf", label: "another type", help: None },
    Mistake { from: "beta = 0.5", to: "beta = \"x\"", line: 24, marked: "\"x\"",
        message: "`beta` of lnln is a number, not a text", label: "another type", help: None },
    Mistake { from: "[hyper.lnln.sims]", to: "[hyper.lnln.smis]", line: 23, marked: "[hyper.lnln.smis]",
        message: "there is no dataset `smis`", label: "not known", help: Some("did you mean `sims`?") },
    Mistake { from: "max_epochs = 9", to: "max_epochs = 5000000000", line: 26, marked: "5000000000",
        message: "`max_epochs` of lnln cannot be 5000000000: it must be 1 to 1,000,000", label: "out of range", help: None },
    Mistake { from: "max_epochs = 9", to: "batch_size = 0", line: 26, marked: "0",
        message: "`batch_size` of lnln cannot be 0: it must be 1 to 1,048,576", label: "out of range", help: None },
    Mistake { from: "max_epochs = 9", to: "heads = -4", line: 26, marked: "-4",
        message: "`heads` of lnln cannot be -4: it must not be negative", label: "out of range", help: None },
    Mistake { from: "width = 256", to: "width = 2.5", line: 32, marked: "2.5",
        message: "`width` of lnln is a whole number, not a number", label: "another type", help: None },
    Mistake { from: "about =", to: "base = \"lnln/wide\"\nabout =", line: 30, marked: "\"lnln/wide\"",
        message: "there is no variant `lnln/wide` of lnln to start from", label: "not known", help: Some("there are: lnln, lnln/alpha-0.5, lnln/alpha-1.0, lnln/beta-0.3, lnln/beta-0.5, lnln/beta-1.0, lnln/gamma-0.2, lnln/no-audio, lnln/no-dmc, lnln/no-dmc-reconstructor, lnln/no-dmml, lnln/no-l-adv, lnln/no-l-cc, lnln/no-l-rec, lnln/no-language, lnln/no-reconstructor, lnln/no-train-missing, lnln/no-vision") },
    Mistake { from: "about =", to: "base = \"lnln/no-dcm\"\nabout =", line: 30, marked: "\"lnln/no-dcm\"",
        message: "there is no variant `lnln/no-dcm` of lnln to start from", label: "not known", help: Some("did you mean `lnln/no-dmc`?") },
    Mistake { from: "file = \"dataset:sims\"", to: "file = \"gone\"", line: 13, marked: "\"gone\"",
        message: "there is no file `gone`", label: "cannot be used", help: None },
    Mistake { from: "dataset:mosi", to: "dataset:../../etc", line: 10, marked: "\"dataset:../../etc\"",
        message: "`../../etc` is no dataset's name", label: "not a name",
        help: Some("a name has 1 to 64 letters, digits, `-`, `_` or `.`; a file elsewhere is named by its path alone") },
    Mistake { from: "dataset:mosi", to: "dataset:foreign", line: 10, marked: "\"dataset:foreign\"",
        message: "the dataset `mosi` does not fit the text encoder for `en`: it has the token 30522, but the encoder knows only 30522 tokens", label: "does not fit",
        help: Some("give `[encoders]` the encoder whose tokenizer wrote the dataset's texts, or make the dataset anew with this one's") },
    Mistake { from: "[encoders.zh]", to: "[encoders.xx]", line: 12, marked: "[datasets.sims]",
        message: "the dataset `sims` needs a text encoder for `zh`", label: "no encoder for it",
        help: Some("add `[encoders.zh]` with `path` of a folder with config.json and model.safetensors") },
    Mistake { from: "epochs = 7", to: "resources = { workers = 0 }", line: 7, marked: "0",
        message: "there can be 1 to 256 workers", label: "out of range", help: None },
    Mistake { from: "epochs = 7", to: "resources = { device = \"gpu\" }", line: 7, marked: "\"gpu\"",
        message: "`gpu` is no device", label: "not known", help: Some("write `auto`, `cpu`, `cuda:0`, or a list: `cuda:0,cuda:1`") },
    Mistake { from: "epochs = 7", to: "resources = { device = \"cuda:1,cuda:1\" }", line: 7, marked: "\"cuda:1,cuda:1\"",
        message: "cuda:1 is named twice: name each GPU once, and let slots share them with --share-gpus (in a spec: `share_gpus = true`)", label: "named twice", help: None },
    Mistake { from: "epochs = 7", to: "resources = { workers = 2, device = \"cuda:1\" }", line: 7, marked: "\"cuda:1\"",
        message: "2 slots on 1 GPU (cuda:1): a slot needs a GPU of its own; start 1 slot, name more GPUs, or let slots share them with --share-gpus (in a spec: `share_gpus = true`)", label: "too few", help: None },
    Mistake { from: "epochs = 7", to: "protocol = { selection = \"tset\" }", line: 7, marked: "\"tset\"",
        message: "unknown variant `tset`, expected `validation` or `test`", label: "not known", help: Some("did you mean `test`?") },
    Mistake { from: "epochs = 7", to: "epochs = ", line: 7, marked: "",
        message: "string values must be quoted, expected literal string", label: "here", help: None },
];

#[test]
fn every_mistake_is_told_with_its_place_and_a_remedy() {
    let mut differences = Vec::new();
    for mistake in MISTAKES {
        let text = GOOD.replacen(mistake.from, mistake.to, 1);
        assert_ne!(text, GOOD, "{} is not in the good spec", mistake.from);
        let error = refused(&text);
        let problem = &error.problems[0];
        let span = problem.span.unwrap();
        let marked = &text[span.offset()..span.offset() + span.len()];
        let told = (
            problem.message.as_str(),
            error.line(problem),
            marked,
            problem.label.as_str(),
            problem.help.as_deref(),
        );
        let expected = (
            mistake.message,
            Some(mistake.line),
            mistake.marked,
            mistake.label,
            mistake.help,
        );
        if told != expected {
            differences.push(format!(
                "{}:
  told {told:?}
  not  {expected:?}",
                mistake.to
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{}",
        differences.join(
            "
"
        )
    );
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = GOOD.replace("\"almt\"", "\"amlt\"").replace("0.3", "7");
    assert_eq!(refused(&text).problems.len(), 2);
}

#[test]
fn all_unknown_and_missing_keys_are_told_at_once() {
    let text = GOOD
        .replacen("seeds = [1111, 1112]", "sedes = [1]", 1)
        .replacen("id = \"lnln/wide\"", "ident = \"lnln/wide\"", 1)
        .replacen(
            "path = \"encoder:en\"",
            "path = \"encoder:en\"\nlang = 1",
            1,
        );
    let error = refused(&text);
    let told: Vec<_> = error
        .problems
        .iter()
        .map(|problem| (error.line(problem), problem.message.as_str()))
        .collect();
    let expected = [
        (Some(4), "unknown field `sedes` in the spec"),
        (Some(17), "unknown field `lang` in `en`"),
        (Some(30), "unknown field `ident` in `variant`"),
        (Some(29), "missing field `id` in `variant`"),
        (Some(1), "missing field `seeds` in the spec"),
    ];
    for one in expected {
        assert!(told.contains(&one), "{one:?} is not in {told:?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:?}");
    let missing = error
        .problems
        .iter()
        .find(|p| p.message.contains("`seeds`"));
    let help = missing.and_then(|p| p.help.as_deref());
    assert_eq!(
        help,
        Some("`seeds`: Random seeds: each is a training of its own.")
    );
}

#[test]
fn another_hash_than_the_files_is_refused() {
    let wrong = format!("file = \"dataset:mosi\"\nblake3 = \"{}\"", "a".repeat(64));
    let error = refused(&GOOD.replacen("file = \"dataset:mosi\"", &wrong, 1));
    let problem = &error.problems[0];
    assert!(problem.message.contains(&"d".repeat(64)), "{problem:?}");
    assert_eq!(error.line(problem), Some(11));
}

#[test]
fn texts_longer_than_the_encoder_takes_are_refused() {
    let error = refused(&GOOD.replacen("dataset:mosi", "dataset:long", 1));
    let message = &error.problems[0].message;
    assert!(
        message.contains("513 tokens") && message.contains("at most 512"),
        "{message}"
    );
}

#[test]
fn a_spec_is_bounded() {
    let told = |text: &str| refused(text).problems[0].message.clone();
    let long = format!("{GOOD}# {}", "x".repeat(MAX_BYTES));
    assert!(told(&long).contains("over the limit of 1048576"));
    let methods = GOOD.replacen("\"almt\"", &vec!["\"x\""; MAX_LIST + 1].join(","), 1);
    assert_eq!(
        told(&methods),
        "`methods` has 1003 entries, over the limit of 1000"
    );
    // Nesting that would exhaust the stack of a parser that follows it.
    for deep in ["[".repeat(900_000), "{a=".repeat(300_000)] {
        assert_eq!(refused(&format!("x = {deep}")).problems.len(), 1);
    }
    assert!(
        !refused(&format!("{}a = 1", "a.".repeat(400_000)))
            .problems
            .is_empty()
    );
}

#[test]
fn many_mistakes_are_counted_not_listed() {
    let sets = vec!["\"x\""; 200].join(", ");
    let error = refused(&GOOD.replacen("\"la\"", &sets, 1));
    assert_eq!(error.problems.len(), 51);
    assert_eq!(error.problems[50].message, "150 more things are wrong");
}

/// What is told of a dataset whose `benchmark` is `definition`, and where.
fn own_refused(definition: &str) -> Vec<(String, String, Option<String>)> {
    let text = GOOD.replace(
        "[datasets.sims]",
        &format!("[datasets.mine]\nbenchmark = {definition}"),
    );
    let error = refused(&text);
    let problems = error.problems.iter();
    problems
        .map(|problem| {
            let span = problem.span.unwrap();
            let marked = &text[span.offset()..span.offset() + span.len()];
            (
                problem.message.clone(),
                marked.to_owned(),
                problem.help.clone(),
            )
        })
        .collect()
}

#[test]
fn a_definition_that_makes_no_protocol_is_told_where_it_is_wrong() {
    for (definition, message, marked) in [
        (
            "{ label_range = [1, -1], language = \"zh\", classes = [2] }",
            "it runs from 1 to -1: write the smaller number first",
            "[1, -1]",
        ),
        (
            "{ label_range = [-3, 3], language = \"zh\", classes = [2, 4] }",
            "cannot be rounded to 4 classes: there can be 2, 3, 5, 7",
            "[2, 4]",
        ),
        (
            "{ label_range = [-1, 1], language = \"zh\", classes = [8] }",
            "there are no usual edges for 8 classes",
            "[8]",
        ),
        (
            "{ label_range = [-1, 1], language = \"fr\", classes = [2] }",
            "needs a text encoder for `fr`",
            "[datasets.mine]",
        ),
    ] {
        let told = own_refused(definition);
        assert!(
            told.iter()
                .any(|(said, at, _)| said.contains(message) && at == marked),
            "{told:?}"
        );
    }
    // The parser's own refusals name the key, too.
    for (definition, part) in [
        (
            "{ label_range = [-1, 1], language = \"zh\" }",
            "missing field `classes`",
        ),
        (
            "{ label_range = [-1, 1], language = \"zh\", classes = [2], clases = 3 }",
            "unknown field `clases`",
        ),
        ("\"mosii\"", "mosii"),
        (
            "{ label_range = [-1, 1], language = \"zh\", classes = [\"two\"] }",
            "a number of classes, or a list of the edges between them",
        ),
    ] {
        let told = own_refused(definition);
        assert!(
            told.iter().any(|(said, ..)| said.contains(part)),
            "{told:?}"
        );
    }
}

#[test]
fn a_dataset_says_whose_protocol_it_follows_under_a_name_of_its_own() {
    let error = refused(&GOOD.replace("[datasets.sims]", "[datasets.mine]"));
    let problem = &error.problems[0];
    assert!(
        problem.message.contains("does not say whose protocol"),
        "{problem:?}"
    );
    let help = problem.help.clone().unwrap();
    assert!(help.contains("label_range = [-1, 1]"), "{help}");
    let error = refused(&GOOD.replace(
        "file = \"dataset:sims\"",
        "file = \"dataset:sims\"\nbenchmark = \"mosi\"",
    ));
    let message = &error.problems[0].message;
    assert!(
        message.contains("`sims` is the name of a protocol"),
        "{message}"
    );
    let error = refused(&GOOD.replace(
        "[datasets.sims]",
        "[datasets.\"my data\"]\nbenchmark = \"sims\"",
    ));
    let message = &error.problems[0].message;
    assert!(
        message.contains("`my data` is no dataset's name"),
        "{message}"
    );
}
