//! The reports about invalid specs: message, line, marked text, label, remedy.

use super::{
    SpecError,
    external::tests::EXTERNAL,
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

/// A mistake and its expected report.
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
        message: "unknown field `seedz` in the spec", label: "unknown", help: Some("did you mean `seeds`?") },
    Mistake { from: "\"almt\"", to: "\"amlt\"", line: 3, marked: "\"amlt\"",
        message: "unknown method `amlt`", label: "unknown", help: Some("did you mean `almt`?") },
    Mistake { from: "lnln/no-dmc", to: "lnln/no-dcm", line: 3, marked: "\"lnln/no-dcm\"",
        message: "unknown method `lnln/no-dcm`", label: "unknown", help: Some("did you mean `lnln/no-dmc`?") },
    Mistake { from: "\"almt\", ", to: "\"almt\", \"almt\", ", line: 3, marked: "\"almt\"",
        message: "the method almt is listed twice", label: "again", help: Some("remove one") },
    Mistake { from: "1112", to: "1111", line: 4, marked: "1111",
        message: "the seed 1111 is listed twice", label: "again", help: Some("remove one") },
    Mistake { from: "[1111, 1112]", to: "[]", line: 4, marked: "[]",
        message: "no seeds", label: "empty", help: None },
    Mistake { from: "[1111, 1112]", to: "\"1111\"", line: 4, marked: "\"1111\"",
        message: "`seeds` must be a list, not a text", label: "not a list", help: Some("write `seeds = [1111]`") },
    Mistake { from: "[1111, 1112]", to: "3", line: 4, marked: "3",
        message: "`seeds` must be a list, not a whole number", label: "not a list", help: Some("write `seeds = [3]`") },
    Mistake { from: "[1111, 1112]", to: "[-1]", line: 4, marked: "-1",
        message: "`seeds` cannot be negative, and -1 is", label: "negative", help: None },
    Mistake { from: "[1111, 1112]", to: "[1.0]", line: 4, marked: "1.0",
        message: "`seeds` must be a whole number, not a number with a fraction", label: "not whole", help: Some("write `1`") },
    Mistake { from: "[0.0, 0.3]", to: "[\"0.0\"]", line: 5, marked: "\"0.0\"",
        message: "`rates` must be a number, not a text", label: "a text", help: Some("write it without quotes: `0.0`") },
    Mistake { from: "[0.0, 0.3]", to: "[0, 10, 20, 30]", line: 5, marked: "10",
        message: "`10` is not a missing rate: rates are shares from 0 to 1, not percent", label: "not a rate",
        help: Some("did you mean `rates = [0.0, 0.1, 0.2, 0.3]`?") },
    Mistake { from: "[\"la\"]", to: "\"la\"", line: 6, marked: "\"la\"",
        message: "`missing` must be a list, not a text", label: "not a list", help: Some("write `missing = [\"la\"]`") },
    Mistake { from: "name = \"small\"", to: "name = 7", line: 2, marked: "7",
        message: "`name` must be a text, not a whole number", label: "no quotes", help: Some("put it into quotes: `\"7\"`") },
    Mistake { from: "name = \"small\"", to: "name = \"缺失 2\"", line: 2, marked: "\"缺失 2\"",
        message: "the name must have 1 to 64 of the letters a to z and A to Z, digits, `-`, `_` and `.`", label: "not a name",
        help: Some("for example `sweep-2`") },
    Mistake { from: "name = \"small\"", to: "name = \"my sweep: größer\"", line: 2, marked: "\"my sweep: größer\"",
        message: "the name must have 1 to 64 of the letters a to z and A to Z, digits, `-`, `_` and `.`", label: "not a name",
        help: Some("for example `my-sweep-gr-er`") },
    Mistake { from: "[hyper.lnln]\n", to: "[hyper]\n", line: 22, marked: "1e-3",
        message: "`learning_rate` must be a table, not a number with a fraction", label: "not a table",
        help: Some("settings stand below a method: write `[hyper.lnln]` and, below it, `learning_rate = 1e-3`") },
    Mistake { from: "epochs = 7", to: "protocol = 7", line: 7, marked: "7",
        message: "`protocol` must be a table, not a whole number", label: "not a table", help: Some("write `[protocol]`, or `protocol = { … }`") },
    Mistake { from: "epochs = 7", to: "protocol = { train_missing = true }", line: 7, marked: "true",
        message: "`train_missing` must be the name of a training regime, not true or false", label: "not a regime", help: Some("write `train_missing = \"redrawn\"`") },
    Mistake { from: "epochs = 7", to: "protocol = { train_missing = false }", line: 7, marked: "false",
        message: "`train_missing` must be the name of a training regime, not true or false", label: "not a regime", help: Some("write `train_missing = \"complete\"`") },
    Mistake { from: "epochs = 7", to: "protocol = { train_missing = 0.2 }", line: 7, marked: "0.2",
        message: "`train_missing` must be the name of a training regime, not a number with a fraction", label: "not a regime", help: Some("write `train_missing = \"fixed:0.2\"`") },
    Mistake { from: "epochs = 7", to: "protocol = { train_missing = \"redrwan\" }", line: 7, marked: "\"redrwan\"",
        message: "`redrwan` is not a training regime: write `complete`, `fixed:0.2` (a missing rate), `drawn-once`, `redrawn` or `lnln-loader`", label: "not a regime", help: Some("write `train_missing = \"redrawn\"`") },
    Mistake { from: "epochs = 7", to: "protocol = { train_missing = \"fixed:20\" }", line: 7, marked: "\"fixed:20\"",
        message: "`fixed:20` is not a training regime: write `complete`, `fixed:0.2` (a missing rate), `drawn-once`, `redrawn` or `lnln-loader`", label: "not a regime", help: None },
    Mistake { from: "epochs = 7", to: "protocol = { faults = { grl-on-prxy = false } }", line: 7, marked: "grl-on-prxy",
        message: "unknown fault `grl-on-prxy`", label: "unknown", help: Some("did you mean `grl-on-proxy`?") },
    Mistake { from: "epochs = 7", to: "protocol = { faults = [\"grl-on-proxy\"] }", line: 7, marked: "[\"grl-on-proxy\"]",
        message: "`faults` must be a table, not a list", label: "not a table", help: Some("write `faults = { grl-on-proxy = false }`") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnnl]\ntrain_missing = \"complete\"\n[hyper.lnln]", line: 21, marked: "lnnl",
        message: "unknown method `lnnl`", label: "unknown", help: Some("did you mean `lnln`?") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\ntrain_missing = true\n[hyper.lnln]", line: 22, marked: "true",
        message: "`train_missing` must be the name of a training regime, not true or false", label: "not a regime", help: Some("write `train_missing = \"redrawn\"`") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\ntrain_mising = \"complete\"\n[hyper.lnln]", line: 22, marked: "train_mising",
        message: "unknown field `train_mising` in `lnln`", label: "unknown", help: Some("did you mean `train_missing`?") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\nfaults = { tetfn-audio-kernel = false }\n[hyper.lnln]", line: 22, marked: "tetfn-audio-kernel",
        message: "lnln does not have the fault `tetfn-audio-kernel`", label: "unknown", help: Some("it is one of tetfn") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\nfiles = { mosei = \"dataset:mosei\" }\n[hyper.lnln]", line: 22, marked: "mosei",
        message: "unknown dataset `mosei`", label: "unknown", help: Some("did you mean `mosi`?") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\nfiles = { mosi = \"gone\" }\n[hyper.lnln]", line: 22, marked: "\"gone\"",
        message: "there is no file `gone`", label: "cannot be used", help: Some("put lnln/no-dmc into a spec of its own, whose `mosi` is this file") },
    Mistake { from: "[hyper.lnln]", to: "[method.lnln]\nfiles = { mosi = \"dataset:others\" }\n[hyper.lnln]", line: 22, marked: "\"dataset:others\"",
        message: "the file's samples have other labels than those of the dataset, or stand in another order: predictions could not be compared", label: "cannot be used", help: Some("put lnln/no-dmc into a spec of its own, whose `mosi` is this file") },
    Mistake { from: "about = \"twice as wide\"", to: "train_missing = \"sometimes\"", line: 30, marked: "\"sometimes\"",
        message: "`sometimes` is not a training regime: write `complete`, `fixed:0.2` (a missing rate), `drawn-once`, `redrawn` or `lnln-loader`", label: "not a regime", help: None },
    Mistake { from: "about = \"twice as wide\"", to: "faults = { misa-text-lengths = false }", line: 30, marked: "misa-text-lengths",
        message: "lnln does not have the fault `misa-text-lengths`", label: "unknown", help: Some("it is one of misa") },
    Mistake { from: "epochs = 7", to: "epochs = 7.5", line: 7, marked: "7.5",
        message: "`epochs` must be a whole number, not a number with a fraction", label: "not whole", help: None },
    Mistake { from: "epochs = 7", to: "epochs = -7", line: 7, marked: "-7",
        message: "`epochs` cannot be negative, and -7 is", label: "negative", help: None },
    Mistake { from: "epochs = 7", to: "priority = 3000000000", line: 7, marked: "3000000000",
        message: "`priority` cannot be 3000000000: it is at most 2147483647", label: "too large", help: None },
    Mistake { from: "\"almt\"", to: "\"ALMT\"", line: 3, marked: "\"ALMT\"",
        message: "unknown method `ALMT`", label: "unknown", help: Some("did you mean `almt`?") },
    Mistake { from: "\"almt\"", to: "\"LNLN\"", line: 3, marked: "\"LNLN\"",
        message: "unknown method `LNLN`", label: "unknown", help: Some("did you mean `lnln`?") },
    Mistake { from: "[datasets.mosi]", to: "[datasets.MOSI]", line: 9, marked: "[datasets.MOSI]",
        message: "the dataset `MOSI` does not say whose protocol it follows", label: "no benchmark", help: Some("did you mean `[datasets.mosi]`?") },
    Mistake { from: "0.3", to: "1.3", line: 5, marked: "1.3",
        message: "`1.3` is not a missing rate: give a number from 0 to 1 with at most three decimals", label: "not a rate", help: None },
    Mistake { from: "0.3", to: "0.00", line: 5, marked: "0.00",
        message: "the rate 0 is listed twice", label: "again", help: Some("remove one") },
    Mistake { from: "[\"la\"]", to: "[\"lav\"]", line: 6, marked: "\"lav\"",
        message: "`lav` is not a set of modalities: give one or two of l (text), a (audio), v (vision)", label: "not a set", help: Some("did you mean `av`?") },
    Mistake { from: "[\"la\"]", to: "[\"la\", \"al\"]", line: 6, marked: "\"al\"",
        message: "the set la is listed twice", label: "again", help: Some("remove one") },
    Mistake { from: "epochs = 7", to: "cases = [\"dropout=0.3\"]", line: 7, marked: "\"dropout=0.3\"",
        message: "`dropout=0.3` is not a case: write `r=0.3`, `missing=la`, `r=0.3+missing=la`, `mr=0.3`, `l=0.7,a=0.1,v=0.3`, `block=0.3`, `bursts=0.3`, `asr=0.3`, `noise=0.5`, `permuted=a` or `averaged=a`, with `@1112` after it for the erasure seed 1112", label: "not a case", help: None },
    Mistake { from: "epochs = 7", to: "cases = [\"burst=0.3\"]", line: 7, marked: "\"burst=0.3\"",
        message: "`burst=0.3` is not a case: write `r=0.3`, `missing=la`, `r=0.3+missing=la`, `mr=0.3`, `l=0.7,a=0.1,v=0.3`, `block=0.3`, `bursts=0.3`, `asr=0.3`, `noise=0.5`, `permuted=a` or `averaged=a`, with `@1112` after it for the erasure seed 1112", label: "not a case", help: Some("did you mean `bursts=0.3`?") },
    Mistake { from: "epochs = 7", to: "cases = [\"block=30\"]", line: 7, marked: "\"block=30\"",
        message: "`30` is not a missing rate: give a number from 0 to 1 with at most three decimals", label: "not a case", help: None },
    Mistake { from: "epochs = 7", to: "cases = [\"averaged=l\"]", line: 7, marked: "\"averaged=l\"",
        message: "`averaged=l` averages text, but tokens have no mean: give a, v or av", label: "not a case", help: None },
    Mistake { from: "epochs = 7", to: "cases = [\"l=0.3,a=0.3,v=0.3\"]", line: 7, marked: "\"l=0.3,a=0.3,v=0.3\"",
        message: "`l=0.3,a=0.3,v=0.3` is another name of `r=0.3`", label: "not its name", help: Some("write `\"r=0.3\"`") },
    Mistake { from: "epochs = 7", to: "cases = [\"mr=0.5\", \"mr=0.5\"]", line: 7, marked: "\"mr=0.5\"",
        message: "the case mr=0.5 is listed twice", label: "again", help: Some("remove one: `rates` and `missing` are cases, too") },
    Mistake { from: "epochs = 7", to: "cases = [\"r=0.3\"]", line: 7, marked: "\"r=0.3\"",
        message: "the case r=0.3 is listed twice", label: "again", help: Some("remove one: `rates` and `missing` are cases, too") },
    Mistake { from: "epochs = 7", to: "cases = [\"r=0.3@1111\"]", line: 7, marked: "\"r=0.3@1111\"",
        message: "`r=0.3@1111` is `r=0.3`: 1111 is the sweep's own erasure seed", label: "the same case", help: Some("write `\"r=0.3\"`, or another seed") },
    Mistake { from: "epochs = 7", to: "erasure_seeds = [1112, 1111]", line: 7, marked: "1111",
        message: "1111 is the sweep's own erasure seed: its cases are tested anyway", label: "the same masks", help: Some("leave it out, or write another") },
    Mistake { from: "epochs = 7", to: "erasure_seeds = [1112, 1112]", line: 7, marked: "1112",
        message: "the erasure seed 1112 is listed twice", label: "again", help: Some("remove one") },
    Mistake { from: "epochs = 7", to: "erasure_seeds = [1112]\ncases = [\"r=0.3@1112\"]", line: 7, marked: "1112",
        message: "the case r=0.3@1112 is tested twice: `cases` lists it, too", label: "again", help: Some("remove one") },
    Mistake { from: "epochs = 7", to: "cases = [\"mr=0.5\", \"asr=0.3\"]", line: 7, marked: "\"asr=0.3\"",
        message: "no table says what words of `zh` are heard as", label: "cannot be used",
        help: Some("add `[confusions]` with `zh = \"FILE\"`, whose lines are `word<TAB>heard as<TAB>weight`") },
    Mistake { from: "epochs = 7", to: "cases = [\"asr=0.3\"]\nconfusions = { en = \"gone\", zh = \"zh.tsv\" }", line: 8, marked: "\"gone\"",
        message: "cannot read the confusion table gone", label: "cannot be used", help: None },
    Mistake { from: "epochs = 7", to: "epochs = 0", line: 7, marked: "0",
        message: "the number of epochs must be 1 to 1,000,000", label: "out of range", help: None },
    Mistake { from: "epochs = 7", to: "epochs = 4294967295", line: 7, marked: "4294967295",
        message: "the number of epochs must be 1 to 1,000,000", label: "out of range", help: None },
    Mistake { from: "learning_rate = 1e-3", to: "learning_rat = 1e-3", line: 22, marked: "learning_rat",
        message: "lnln has no hyper-parameter `learning_rat`", label: "unknown", help: Some("did you mean `learning_rate`?") },
    Mistake { from: "learning_rate = 1e-3", to: "learning_rate = nan", line: 22, marked: "nan",
        message: "`learning_rate` of lnln is a number, not nan or inf", label: "another type", help: None },
    Mistake { from: "beta = 0.5", to: "beta = \"x\"", line: 24, marked: "\"x\"",
        message: "`beta` of lnln is a number, not a text", label: "another type", help: None },
    Mistake { from: "[hyper.lnln.sims]", to: "[hyper.lnln.smis]", line: 23, marked: "smis",
        message: "unknown dataset `smis`", label: "unknown", help: Some("did you mean `sims`?") },
    Mistake { from: "max_epochs = 9", to: "max_epochs = 5000000000", line: 26, marked: "5000000000",
        message: "`max_epochs` of lnln cannot be 5000000000: it must be 1 to 1,000,000", label: "out of range", help: None },
    Mistake { from: "max_epochs = 9", to: "batch_size = 0", line: 26, marked: "0",
        message: "`batch_size` of lnln cannot be 0: it must be 1 to 1,048,576", label: "out of range", help: None },
    Mistake { from: "max_epochs = 9", to: "heads = -4", line: 26, marked: "-4",
        message: "`heads` of lnln cannot be -4: it must be 1 to 128", label: "out of range", help: None },
    Mistake { from: "width = 256", to: "width = 2.5", line: 32, marked: "2.5",
        message: "`width` of lnln is a whole number, not a number", label: "another type", help: None },
    Mistake { from: "about =", to: "base = \"lnln/wide\"\nabout =", line: 30, marked: "\"lnln/wide\"",
        message: "unknown variant `lnln/wide` of lnln as base", label: "unknown", help: Some("known: lnln, lnln/alpha-0.5, lnln/alpha-1.0, lnln/beta-0.3, lnln/beta-0.5, lnln/beta-1.0, lnln/gamma-0.2, lnln/no-audio, lnln/no-dmc, lnln/no-dmc-reconstructor, lnln/no-dmml, lnln/no-l-adv, lnln/no-l-cc, lnln/no-l-rec, lnln/no-language, lnln/no-reconstructor, lnln/no-train-missing, lnln/no-vision") },
    Mistake { from: "about =", to: "base = \"lnln/no-dcm\"\nabout =", line: 30, marked: "\"lnln/no-dcm\"",
        message: "unknown variant `lnln/no-dcm` of lnln as base", label: "unknown", help: Some("did you mean `lnln/no-dmc`?") },
    Mistake { from: "file = \"dataset:sims\"", to: "file = \"gone\"", line: 13, marked: "\"gone\"",
        message: "there is no file `gone`", label: "cannot be used", help: None },
    Mistake { from: "dataset:mosi", to: "dataset:../../etc", line: 10, marked: "\"dataset:../../etc\"",
        message: "`../../etc` is not a valid dataset name", label: "not a name",
        help: Some("a name has 1 to 64 of the letters a to z and A to Z, digits, `-`, `_` and `.`; a file elsewhere is named by its path alone") },
    Mistake { from: "dataset:mosi", to: "dataset:foreign", line: 10, marked: "\"dataset:foreign\"",
        message: "the dataset `mosi` does not fit the text encoder for `en`: it has the token 30522, but the encoder has only 30522 tokens", label: "does not fit",
        help: Some("give `[encoders]` the encoder whose tokenizer wrote the dataset's texts, or create the dataset again with this one's") },
    Mistake { from: "[encoders.zh]", to: "[encoders.xx]", line: 12, marked: "[datasets.sims]",
        message: "the dataset `sims` needs a text encoder for `zh`", label: "no encoder for it",
        help: Some("add `[encoders.zh]` with `path` of a folder with config.json and model.safetensors") },
    Mistake { from: "epochs = 7", to: "resources = { workers = 0 }", line: 7, marked: "0",
        message: "the number of workers must be 1 to 256", label: "out of range", help: None },
    Mistake { from: "epochs = 7", to: "resources = { device = \"gpu\" }", line: 7, marked: "\"gpu\"",
        message: "unknown device `gpu`", label: "unknown", help: Some("write `auto`, `cpu`, `cuda:0`, or a list: `cuda:0,cuda:1`") },
    Mistake { from: "epochs = 7", to: "resources = { device = \"cuda:1,cuda:1\" }", line: 7, marked: "\"cuda:1,cuda:1\"",
        message: "cuda:1 is listed twice: list each GPU once, and let slots share them with --share-gpus (in a spec: `share_gpus = true`)", label: "listed twice", help: None },
    Mistake { from: "epochs = 7", to: "resources = { workers = 2, device = \"cuda:1\" }", line: 7, marked: "\"cuda:1\"",
        message: "2 slots on 1 GPU (cuda:1): a slot needs a GPU of its own; start 1 slot, name more GPUs, or let slots share them with --share-gpus (in a spec: `share_gpus = true`)", label: "too few", help: None },
    Mistake { from: "epochs = 7", to: "protocol = { selection = \"tset\" }", line: 7, marked: "\"tset\"",
        message: "unknown variant `tset`, expected one of `validation`, `test`, `both`", label: "unknown", help: Some("did you mean `test`?") },
    Mistake { from: "epochs = 7", to: "epochs = ", line: 7, marked: "",
        message: "string values must be quoted, expected literal string", label: "here", help: None },
];

#[rustfmt::skip]
const EXTERNAL_MISTAKES: &[Mistake] = &[
    Mistake { from: "id = \"my-model\"", to: "id = \"my model\"", line: 17, marked: "\"my model\"",
        message: "the name of a program has 1 to 64 of the letters a to z and A to Z, digits, `-`, `_` and `.`", label: "not a name",
        help: Some("for example `my-model`") },
    Mistake { from: "id = \"my-model\"", to: "id = \"almt\"", line: 17, marked: "\"almt\"",
        message: "`almt` is a method already", label: "taken", help: Some("give it another name: `my-almt`") },
    Mistake { from: "id = \"my-model\"", to: "id = \"external\"", line: 17, marked: "\"external\"",
        message: "a program cannot be called `external`", label: "taken", help: Some("give it another name: `my-external`") },
    Mistake { from: "id = \"unused\"", to: "id = \"other\"", line: 31, marked: "\"other\"",
        message: "the program `other` is defined twice", label: "again", help: Some("give it another name") },
    Mistake { from: "\"my-model\", ", to: "\"my-modle\", ", line: 3, marked: "\"my-modle\"",
        message: "unknown method `my-modle`", label: "unknown", help: Some("did you mean `my-model`?") },
    Mistake { from: "[\"python\", \"train.py\"]", to: "[]", line: 18, marked: "[]",
        message: "no command", label: "empty", help: Some("for example `command = [\"python\", \"train.py\"]`") },
    Mistake { from: "[\"python\", \"train.py\"]", to: "[\"python\", \"\"]", line: 18, marked: "\"\"",
        message: "an argument is empty", label: "empty", help: Some("for example `command = [\"python\", \"train.py\"]`") },
    Mistake { from: "[\"python\", \"train.py\"]", to: "[\"python train.py\"]", line: 18, marked: "\"python train.py\"",
        message: "`python train.py` is the name of a program, with its blanks: no shell reads it", label: "one argument",
        help: Some("write `command = [\"python\", \"train.py\"]`") },
    Mistake { from: "[\"python\", \"train.py\"]", to: "\"train.sh\"", line: 18, marked: "\"train.sh\"",
        message: "`command` must be a list, not a text", label: "not a list", help: Some("write `command = [\"train.sh\"]`") },
    Mistake { from: "[\"torch\"]", to: "[\"--version\"]", line: 19, marked: "\"--version\"",
        message: "`--version` is not the name of a program or a Python module", label: "not a name", help: Some("for example `torch`, `ffmpeg`") },
    Mistake { from: "files = [\"train.py\"]", to: "files = []", line: 20, marked: "[]",
        message: "no files", label: "empty", help: Some("name the program's files: `files = [\"*.py\"]`") },
    Mistake { from: "files = [\"train.py\"]", to: "files = [\"../train.py\"]", line: 20, marked: "\"../train.py\"",
        message: "`../train.py` does not stay in the spec's folder", label: "not relative",
        help: Some("name files in the spec's folder or below it: `*.py`, `lib/**/*.py`") },
    Mistake { from: "files = [\"train.py\"]", to: "files = [\"/etc/*\"]", line: 20, marked: "\"/etc/*\"",
        message: "`/etc/*` does not stay in the spec's folder", label: "not relative",
        help: Some("name files in the spec's folder or below it: `*.py`, `lib/**/*.py`") },
    Mistake { from: "files = [\"train.py\"]", to: "files = [\"[a.py\"]", line: 20, marked: "\"[a.py\"",
        message: "`[a.py` is not a glob: invalid range pattern", label: "not a glob", help: None },
    Mistake { from: "files = [\"train.py\"]", to: "files = [\"gone.py\"]", line: 20, marked: "[\"gone.py\"]",
        message: "no file matches `gone.py`", label: "cannot be used", help: None },
    Mistake { from: "files = [\"train.py\"]", to: "", line: 16, marked: "[[external]]",
        message: "missing field `files` in `external`", label: "it is not here",
        help: Some("`files`: Its files, as globs relative to the spec's folder: `[\"*.py\"]`. A method with another file is another method: its models are trained anew. Hidden files and `__pycache__` are taken only by a glob that names them.") },
    Mistake { from: "files = [\"train.py\"]", to: "file = [\"train.py\"]", line: 20, marked: "file",
        message: "unknown field `file` in `external`", label: "unknown", help: Some("did you mean `files`?") },
    Mistake { from: "label_bound = 3", to: "program = 3", line: 24, marked: "program",
        message: "a hyper-parameter cannot be called `program`", label: "taken", help: Some("give it another name") },
    Mistake { from: "label_bound = 3", to: "label_bound = { a = 3 }", line: 24, marked: "{ a = 3 }",
        message: "`label_bound` is neither a number, a text, nor true or false, nor a list of one of them", label: "another type", help: None },
    Mistake { from: "label_bound = 3", to: "label_bound = [1, \"a\"]", line: 24, marked: "[1, \"a\"]",
        message: "`label_bound` is neither a number, a text, nor true or false, nor a list of one of them", label: "another type", help: None },
    Mistake { from: "label_bound = 3", to: "label_bound = inf", line: 24, marked: "inf",
        message: "`label_bound` is neither a number, a text, nor true or false, nor a list of one of them", label: "another type", help: None },
    Mistake { from: "max_epochs = 20", to: "max_epochs = 0", line: 25, marked: "0",
        message: "`max_epochs` of my-model cannot be 0: it must be 1 to 1,000,000", label: "out of range", help: None },
    Mistake { from: "max_epochs = 20", to: "max_epochs = 1.5", line: 25, marked: "1.5",
        message: "`max_epochs` of my-model is a whole number, not a number", label: "another type", help: None },
    Mistake { from: "learning_rate = 1\n", to: "learning_rat = 1\n", line: 13, marked: "learning_rat",
        message: "my-model has no hyper-parameter `learning_rat`", label: "unknown", help: Some("did you mean `learning_rate`?") },
    Mistake { from: "learning_rate = 1\n", to: "depth = 1\n", line: 13, marked: "depth",
        message: "my-model has no hyper-parameter `depth`", label: "unknown",
        help: Some("known: label_bound, layers, learning_rate, max_epochs") },
    Mistake { from: "layers = [8]", to: "layers = [8.5]", line: 15, marked: "[8.5]",
        message: "`layers` of my-model is a list of whole numbers, not a list of numbers", label: "another type", help: None },
    Mistake { from: "layers = [128, 128, 128]", to: "layers = 1", line: 36, marked: "1",
        message: "`layers` of my-model is a list of whole numbers, not a whole number", label: "another type", help: None },
    Mistake { from: "id = \"other/slow\"", to: "id = \"other/slow\"\nbase = \"my-model\"", line: 40, marked: "\"my-model\"",
        message: "unknown variant `my-model` of other as base", label: "unknown", help: Some("known: other") },
];

#[test]
fn every_mistake_is_reported_with_place_and_remedy() {
    check_mistakes(GOOD, MISTAKES);
}

#[test]
fn every_mistake_about_programs_is_reported_with_place_and_remedy() {
    check_mistakes(EXTERNAL, EXTERNAL_MISTAKES);
}

fn check_mistakes(good: &str, mistakes: &[Mistake]) {
    let mut differences = Vec::new();
    for mistake in mistakes {
        let text = good.replacen(mistake.from, mistake.to, 1);
        assert_ne!(text, good, "{} is not in the good spec", mistake.from);
        let error = refused(&text);
        let problem = &error.problems[0];
        let span = problem.span.unwrap();
        let marked = &text[span.offset()..span.offset() + span.len()];
        let reported = (
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
        if reported != expected {
            differences.push(format!(
                "{}:
  reported {reported:?}
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
fn several_mistakes_are_reported_at_once() {
    let text = GOOD.replace("\"almt\"", "\"amlt\"").replace("0.3", "7");
    assert_eq!(refused(&text).problems.len(), 2);
}

#[test]
fn all_unknown_and_missing_keys_are_reported_at_once() {
    let text = GOOD
        .replacen("seeds = [1111, 1112]", "sedes = [1]", 1)
        .replacen("id = \"lnln/wide\"", "ident = \"lnln/wide\"", 1)
        .replacen(
            "path = \"encoder:en\"",
            "path = \"encoder:en\"\nlang = 1",
            1,
        );
    let error = refused(&text);
    let reported: Vec<_> = error
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
        assert!(reported.contains(&one), "{one:?} is not in {reported:?}");
    }
    assert_eq!(reported.len(), expected.len(), "{reported:?}");
    let missing = error
        .problems
        .iter()
        .find(|p| p.message.contains("`seeds`"));
    let help = missing.and_then(|p| p.help.as_deref());
    assert_eq!(
        help,
        Some("`seeds`: Random seeds: one training run per seed.")
    );
}

#[test]
fn wrong_blake3_is_rejected() {
    let wrong = format!("file = \"dataset:mosi\"\nblake3 = \"{}\"", "a".repeat(64));
    let error = refused(&GOOD.replacen("file = \"dataset:mosi\"", &wrong, 1));
    let problem = &error.problems[0];
    assert!(problem.message.contains(&"d".repeat(64)), "{problem:?}");
    assert_eq!(error.line(problem), Some(11));
}

#[test]
fn text_beyond_encoder_limit_is_rejected() {
    let error = refused(&GOOD.replacen("dataset:mosi", "dataset:long", 1));
    let message = &error.problems[0].message;
    assert!(
        message.contains("513 tokens") && message.contains("at most 512"),
        "{message}"
    );
}

#[test]
fn oversized_spec_is_rejected() {
    let reported = |text: &str| refused(text).problems[0].message.clone();
    let long = format!("{GOOD}# {}", "x".repeat(MAX_BYTES));
    assert!(reported(&long).contains("over the limit of 1048576"));
    let methods = GOOD.replacen("\"almt\"", &vec!["\"x\""; MAX_LIST + 1].join(","), 1);
    assert_eq!(
        reported(&methods),
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
fn mistakes_beyond_fifty_are_counted() {
    let sets = vec!["\"x\""; 200].join(", ");
    let error = refused(&GOOD.replacen("\"la\"", &sets, 1));
    assert_eq!(error.problems.len(), 51);
    assert_eq!(error.problems[50].message, "150 more things are wrong");
}

/// The reports about a dataset whose `benchmark` is `definition`.
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
fn invalid_definition_is_reported_at_its_key() {
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
            "no default edges for 8 classes",
            "[8]",
        ),
        (
            "{ label_range = [-1, 1], language = \"fr\", classes = [2] }",
            "needs a text encoder for `fr`",
            "[datasets.mine]",
        ),
    ] {
        let reported = own_refused(definition);
        assert!(
            reported
                .iter()
                .any(|(said, at, _)| said.contains(message) && at == marked),
            "{reported:?}"
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
        let reported = own_refused(definition);
        assert!(
            reported.iter().any(|(said, ..)| said.contains(part)),
            "{reported:?}"
        );
    }
}

#[test]
fn own_dataset_requires_a_benchmark() {
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
        message.contains("`my data` is not a valid dataset name"),
        "{message}"
    );
}
