use super::*;
use crate::submission::{programs, report};
use halfheard_shared::{
    dataset::{DataFolder, Dataset, Split},
    error::{Printer, hint_of},
    hash::Hash,
};

const PRINTER: Printer = Printer::new(&[hint_of::<LoadError>]).drawing(report::draw);

fn write(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("spec.toml");
    std::fs::write(&path, text).unwrap();
    path
}

const SPEC: &str = "name = \"x\"\nmethods = [\"almt\"]\nseeds = [1]\nrates = [0.0]\n\
                    [datasets.mosi]\nfile = \"dataset:toy\"\n\
                    [encoders.en]\npath = \"enc\"\n";

const MADE: &str = "[datasets.mosi.synthesize]\ntrain = 8\nvalid = 4\ntest = 4\nseed = 3\n";

/// An encoder folder beside the spec: a configuration, weights and the words of synthetic texts.
fn encoder(folder: &Path, vocab_size: usize, positions: usize) {
    let encoder = folder.join("enc");
    std::fs::create_dir_all(&encoder).unwrap();
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": vocab_size, "hidden_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": positions,
    });
    std::fs::write(encoder.join("config.json"), config.to_string()).unwrap();
    let config = halfheard_shared::encoder::Config::read(&encoder).unwrap();
    let zeros = vec![0; 4 * 4 * vocab_size.max(positions)];
    let tensors = config.tensors().map(|(name, shape)| {
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        (name, view.unwrap())
    });
    let weights = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(encoder.join("model.safetensors"), weights).unwrap();
    let mut words: Vec<String> = (0..200).map(|i| format!("[unused{i}]")).collect();
    for (id, token) in [(0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]")] {
        words[id] = token.to_owned();
    }
    let sentences = "terrible bad weak normal fine good amazing hated disliked endured saw liked \
                     enjoyed loved movie story really and the was i thought felt to me";
    words.extend(sentences.split_whitespace().map(str::to_owned));
    std::fs::write(encoder.join("vocab.txt"), words.join("\n")).unwrap();
}

/// Returns the report on a refused spec, without the line breaks in long paths.
fn refused(path: &Path, data: &Path, synthesize: Synthesize) -> String {
    let error = PRINTER.plain(&load(path, data, synthesize).unwrap_err());
    error.replace("\n  │ ", " ")
}

#[test]
fn missing_files_are_reported_with_their_line_and_nothing_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), SPEC);
    let data = folder.path().join("data");
    let error = refused(&path, &data, Synthesize::Create);
    assert!(error.contains("coord data import --as mosi"), "{error}");
    assert!(error.contains("no such folder"), "{error}");
    assert!(error.contains("spec.toml:6"), "{error}");
    assert!(!data.exists());
}

/// What `deploy/paper.toml` needs that nobody may pass on: features and encoders.
#[test]
fn paper_spec_lacks_only_files() {
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../../../../deploy/paper.toml");
    let path = write(folder.path(), text);
    let Err(LoadError::Invalid(error)) =
        load(&path, &folder.path().join("data"), Synthesize::PlanOnly)
    else {
        panic!("its datasets cannot be here");
    };
    assert_eq!(error.problems.len(), 5, "{:?}", error.problems);
    for problem in &error.problems {
        assert_eq!(problem.label, "cannot be used", "{problem:?}");
    }
}

#[test]
fn unknown_key_is_reported_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &SPEC.replace("seeds", "seedz"));
    let error = refused(&path, folder.path(), Synthesize::PlanOnly);
    assert!(error.contains("did you mean `seeds`?"), "{error}");
}

#[test]
fn synthetic_dataset_uses_the_vocabulary_of_the_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), &format!("{SPEC}{MADE}"));

    let noted = load(&path, &data, Synthesize::PlanOnly).unwrap();
    assert_eq!(noted.pending, ["toy"]);
    assert!(!data.exists(), "planning creates nothing");

    let made = load(&path, &data, Synthesize::Create).unwrap();
    assert!(made.pending.is_empty());
    let found = &made.resolved.datasets[0];
    let opened = Dataset::open(Path::new(&found.data.path)).unwrap();
    assert_eq!(opened.blake3().to_hex().as_str(), found.data.blake3);
    let weights = std::fs::read(folder.path().join("enc/model.safetensors")).unwrap();
    assert_eq!(
        found.encoder.blake3,
        blake3::hash(&weights).to_hex().as_str()
    );

    let again = load(&path, &data, Synthesize::PlanOnly).unwrap();
    assert!(again.pending.is_empty());
    assert_eq!(again.resolved.sweep_id(None), made.resolved.sweep_id(None));
}

#[test]
fn synthetic_dataset_with_other_settings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), &format!("{SPEC}{MADE}"));
    load(&path, &data, Synthesize::Create).unwrap();
    for (from, to) in [("train = 8", "train = 9"), ("seed = 3", "seed = 4")] {
        let path = write(folder.path(), &format!("{SPEC}{MADE}").replace(from, to));
        let error = refused(&path, &data, Synthesize::Create);
        assert!(
            error.contains("was made with seed 3 and [8,4,4]"),
            "{error}"
        );
    }
}

#[test]
fn damaged_dataset_and_unsuitable_encoder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), &format!("{SPEC}{MADE}"));
    load(&path, &data, Synthesize::Create).unwrap();

    encoder(folder.path(), 150, 512);
    let error = refused(&path, &data, Synthesize::PlanOnly);
    assert!(error.contains("the encoder has only 150 tokens"), "{error}");
    encoder(folder.path(), 300, 12);
    let error = refused(&path, &data, Synthesize::PlanOnly);
    assert!(error.contains("takes at most 12"), "{error}");
    encoder(folder.path(), 300, 512);
    std::fs::write(folder.path().join("enc/config.json"), "{").unwrap();
    let error = refused(&path, &data, Synthesize::PlanOnly);
    assert!(error.contains("is not an encoder configuration"), "{error}");

    encoder(folder.path(), 300, 512);
    let file = DataFolder::new(&data).data_file("toy");
    let half = std::fs::read(&file).unwrap()[..100].to_vec();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, half).unwrap();
    let error = refused(&path, &data, Synthesize::PlanOnly);
    assert!(
        error.contains("has 100 bytes, its manifest says"),
        "{error}"
    );
}

#[test]
fn dataset_file_is_identified_by_content_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), &format!("{SPEC}{MADE}"));
    let named = load(&path, &data, Synthesize::Create).unwrap();
    let copy = folder.path().join("copy.safetensors");
    std::fs::copy(DataFolder::new(&data).data_file("toy"), &copy).unwrap();
    let path = write(
        folder.path(),
        &SPEC.replace("dataset:toy", "copy.safetensors"),
    );
    let copied = load(&path, &data, Synthesize::PlanOnly).unwrap();
    // The same content is the same sweep, whatever it is called.
    assert_eq!(
        copied.resolved.sweep_id(None),
        named.resolved.sweep_id(None)
    );
}

#[test]
fn oversized_file_is_not_read_completely() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.toml");
    // Sparse: a terabyte that takes no room.
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = refused(&path, folder.path(), Synthesize::PlanOnly);
    assert!(error.contains("over the limit"), "{error}");
}

/// `plan` reports what a method cannot use, with the place where it is set, and what is worth
/// knowing of the rest.
#[test]
fn misfits_are_refused_and_ineffective_settings_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let spec = format!("{SPEC}{MADE}").replace("\"almt\"", "\"tfr-net\", \"almt\"");

    // The demo's sizes, 20, 30 and 24, have no 25 in them; the heads are set in the spec.
    let wrong = format!("{spec}[hyper.almt]\nhyper_heads = 7\n");
    let error = refused(&write(folder.path(), &wrong), &data, Synthesize::PlanOnly);
    for part in [
        "tfr-net cannot be trained on mosi: num_temporal_head 25 must divide",
        "set `num_temporal_head` to one of 1, 2",
        "almt cannot be trained on mosi: width 128 is not a multiple of hyper_heads 7",
        "spec.toml:15",
        "× ",
    ] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    assert!(!error.contains("Error:"), "{error}");

    let odd = format!(
        "{spec}[hyper.tfr-net]\nnum_temporal_head = 2\nbatch_size = 7\n[hyper.misa]\ndropout = 0.1\n"
    );
    let odd = odd.replace("train = 8", "train = 15");
    let loaded = load(&write(folder.path(), &odd), &data, Synthesize::PlanOnly).unwrap();
    let notes = loaded.notes.join("\n");
    for part in [
        "line 17: `misa` is not in `methods`: its settings have no effect",
        "tfr-net on mosi: 15 training samples in batches of 7 leave one over",
    ] {
        assert!(notes.contains(part), "no `{part}` in {notes}");
    }
}

#[test]
fn results_too_large_for_a_message_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path(), 300, 512);
    let many = format!("{SPEC}{MADE}").replace("test = 4", "test = 300000");
    let error = refused(
        &write(folder.path(), &many),
        folder.path(),
        Synthesize::PlanOnly,
    );
    assert!(
        error.contains("the test split has 300000 samples"),
        "{error}"
    );
}

#[test]
fn text_in_another_encoding_is_identified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.toml");
    let wide: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(SPEC.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    std::fs::write(&path, wide).unwrap();
    let error = refused(&path, folder.path(), Synthesize::PlanOnly);
    assert!(
        error.contains("it is UTF-16") && error.contains("save it as UTF-8"),
        "{error}"
    );
    std::fs::write(&path, b"name = \"x\"\n# \xd6\xd0\xce\xc4\n").unwrap();
    let error = refused(&path, folder.path(), Synthesize::PlanOnly);
    assert!(error.contains("line 2 has the byte 0xd6"), "{error}");
}

#[test]
fn single_problem_is_reported_without_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &SPEC.replace("[1]", "3"));
    let error = refused(&path, folder.path(), Synthesize::PlanOnly);
    assert!(
        error.starts_with("× `seeds` must be a list")
            || error.starts_with("  × `seeds` must be a list"),
        "{error}"
    );
    assert!(error.contains("write `seeds = [3]`"), "{error}");
}

#[test]
fn protocol_mismatch_is_reported_before_a_missing_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    load(
        &write(folder.path(), &format!("{SPEC}{MADE}")),
        &data,
        Synthesize::Create,
    )
    .unwrap();
    let path = write(
        folder.path(),
        &SPEC.replace("datasets.mosi", "datasets.sims"),
    );
    let error = refused(&path, &data, Synthesize::PlanOnly);
    assert!(
        error.contains("was imported with the protocol of mosi"),
        "{error}"
    );
    assert!(!error.contains("text encoder for `zh`"), "{error}");
}

/// The sizes of dataset and encoder reach the estimate of a slot's memory.
#[test]
fn memory_of_a_slot_is_known_from_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), &format!("{SPEC}{MADE}"));
    let loaded = load(&path, folder.path(), Synthesize::PlanOnly).unwrap();
    let needs = crate::submission::memory::of_sweep(&loaded);
    assert_eq!((needs.len(), needs[0].method.as_str()), (1, "almt"));
    assert!(
        (150_000_000..1_000_000_000).contains(&needs[0].bytes),
        "{needs:?}"
    );
}

/// A spec of a dataset with a protocol of its own, made where it is missing.
const OWN: &str = "name = \"x\"\nmethods = [\"almt\"]\nseeds = [1]\nrates = [0.0]\n\
                   [datasets.mine]\nfile = \"dataset:mine\"\n\
                   benchmark = { label_range = [0, 5], language = \"xx\", classes = [2, 6] }\n\
                   [encoders.xx]\npath = \"enc\"\n\
                   [datasets.mine.synthesize]\ntrain = 30\nvalid = 4\ntest = 4\n";

#[test]
fn definition_that_differs_from_the_file_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    encoder(folder.path(), 300, 512);
    let path = write(folder.path(), OWN);
    let made = load(&path, &data, Synthesize::Create).unwrap();
    let file = Path::new(&made.resolved.datasets[0].data.path);
    let opened = Dataset::open(file).unwrap();
    assert_eq!(opened.kind(), made.resolved.datasets[0].benchmark.kind());
    let labels = opened.split(Split::Train).labels();
    assert!(labels.iter().any(|label| *label > 4.0) && labels.iter().any(|label| *label < 1.0));

    for (from, to, said) in [
        ("[0, 5]", "[0, 7]", "label_range [0, 7], not [0, 5]"),
        ("[2, 6]", "[2, 4, 6]", "classes [2, 4, 6], not [2, 6]"),
        (
            "classes = [2, 6]",
            "classes = [2, 6], unimodal = true",
            "unimodal true, not false",
        ),
    ] {
        let path = write(folder.path(), &OWN.replace(from, to));
        let error = refused(&path, &data, Synthesize::PlanOnly);
        assert!(
            error.contains("imported with another definition"),
            "{error}"
        );
        assert!(error.contains(said), "{error}");
    }
    let (start, end) = (
        OWN.find("benchmark").unwrap(),
        OWN.find("[encoders").unwrap(),
    );
    let mosi = format!(
        "{}benchmark = \"mosi\"\nlanguage = \"xx\"\n{}",
        &OWN[..start],
        &OWN[end..]
    );
    let error = refused(&write(folder.path(), &mosi), &data, Synthesize::PlanOnly);
    assert!(error.contains("import it with `--as mosi`"), "{error}");
}

#[test]
fn missing_dataset_is_reported_with_import_options() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path(), 300, 512);
    let text = &OWN[..OWN.find("[datasets.mine.synthesize]").unwrap()];
    let error = refused(
        &write(folder.path(), text),
        &folder.path().join("data"),
        Synthesize::PlanOnly,
    );
    assert!(
        error.contains("--label-range=0..5 --language xx --classes 2,6"),
        "{error}"
    );
}

/// Returns a folder with a spec that runs an external program.
fn external() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path(), 300, 64);
    let text = SPEC.replace("[\"almt\"]", "[\"my-model\", \"my-model/wide\"]")
        + MADE
        + "[[external]]\nid = \"my-model\"\ncommand = [\"python\", \"train it.py\"]\n\
           files = [\"*.py\"]\nhyper = { width = 8 }\n\
           [[external]]\nid = \"other\"\ncommand = [\"x\"]\nfiles = [\"gone\"]\n\
           [[variant]]\nid = \"my-model/wide\"\nhyper = { width = 16 }\n";
    write(folder.path(), &text);
    for file in ["train it.py", "model.py"] {
        std::fs::write(folder.path().join(file), file).unwrap();
    }
    folder
}

#[test]
fn external_program_is_bundled_and_planned() {
    let folder = external();
    let (path, data) = (folder.path().join("spec.toml"), folder.path().join("data"));
    let loaded = load(&path, &data, Synthesize::Create).unwrap();
    let (hash, bundle) = loaded.bundles.first_key_value().unwrap();
    assert_eq!(loaded.bundles.len(), 1);
    assert_eq!(*hash, Hash::of(bundle));
    let files = halfheard_shared::bundle::Bundle::decode(bundle)
        .unwrap()
        .files;
    assert_eq!(
        files.into_keys().collect::<Vec<_>>(),
        ["model.py", "train it.py"]
    );
    let planned = programs::of_sweep(&loaded.resolved);
    assert_eq!(
        planned.to_string(),
        format!(
            "external program my-model: python 'train it.py' (2 files, bundle {})\n\
             note: only workers started with `--allow-external` run external programs\n",
            &hash.as_str()[..8]
        )
    );
    let json = serde_json::to_value(&planned).unwrap();
    assert_eq!(
        (&json[0]["files"], &json[0]["method"]),
        (&2.into(), &"my-model".into())
    );
}

#[test]
fn ids_follow_the_program_and_not_its_folder() {
    let (one, two) = (external(), external());
    let id = |folder: &tempfile::TempDir| {
        let (path, data) = (folder.path().join("spec.toml"), folder.path().join("data"));
        let loaded = load(&path, &data, Synthesize::Create).unwrap();
        loaded.resolved.sweep_id(None)
    };
    let before = id(&one);
    assert_eq!(id(&two), before);
    std::fs::write(two.path().join("model.py"), "changed").unwrap();
    assert_ne!(id(&two), before);
    std::fs::remove_file(two.path().join("model.py")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", two.path().join("model.py")).unwrap();
    let report = refused(
        &two.path().join("spec.toml"),
        &two.path().join("data"),
        Synthesize::Create,
    );
    assert!(report.contains("model.py is a link"), "{report}");
    assert!(report.contains("files = ["), "{report}");
}
