//! Text encoders as users have them: `coord plan`, `submit` and `doctor` reject the unusable ones
//! before anything is queued; the usable ones train, also on machines that fetch them from the
//! artifact store.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, coord, output, worker},
    stage::Stage,
    tiny::Tiny,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A folder written by Hugging Face's libraries (`shared/tests/data/encoders/make.py`).
fn fixture(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tests/data/encoders");
    data.join(name)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn config(folder: &Path, key: &str, value: Value) -> Result<()> {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config[key] = value;
    Ok(fs::write(path, config.to_string())?)
}

/// Rewrites the weights of `folder` with only the tensors that `keep` accepts.
fn weights(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let path = folder.join("model.safetensors");
    let content = fs::read(&path)?;
    let tensors = safetensors::SafeTensors::deserialize(&content)?;
    let kept = tensors.tensors().into_iter().filter(|(name, _)| keep(name));
    Ok(fs::write(path, safetensors::serialize(kept, None)?)?)
}

fn spec(folder: &Path, encoder: &Path) -> Result<PathBuf> {
    let text = format!(
        "name = \"tiny\"\nmethods = [\"cenet\"]\nseeds = [1]\nrates = [0.5]\nepochs = 2\n\
         [datasets.mosi]\nfile = \"tiny.safetensors\"\n\
         [encoders.en]\npath = {:?}\n[hyper.cenet]\nbatch_size = 8\nlearning_rate = 1e-3\n",
        encoder.display().to_string()
    );
    let path = folder.join("tiny.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// A program's output, without the frames and line breaks of a terminal's width.
fn said(bytes: &[u8]) -> String {
    squeezed(&String::from_utf8_lossy(bytes).replace(['│', '╰', '─', '▶', '×'], " "))
}

/// Removes whitespace: a line may be broken within a path.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

type Breaking = fn(&Path) -> Result<()>;

/// Unusable folders: a name, the expected finding, the expected remedy, and how to produce one.
const UNUSABLE: &[(&str, &str, &str, Breaking)] = &[
    (
        "a git-LFS pointer",
        "its model.safetensors is a git-LFS pointer",
        "git lfs pull",
        |at| {
            let pointer =
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 440449768\n";
            Ok(fs::write(at.join("model.safetensors"), pointer)?)
        },
    ),
    (
        "an error page",
        "its model.safetensors is a page of HTML",
        "hf auth login",
        |at| {
            Ok(fs::write(
                at.join("model.safetensors"),
                "<!DOCTYPE html>\n<html></html>",
            )?)
        },
    ),
    (
        "cut off",
        "its model.safetensors is cut off: it has 20000 bytes",
        "download the file again",
        |at| {
            let content = fs::read(at.join("model.safetensors"))?;
            Ok(fs::write(at.join("model.safetensors"), &content[..20_000])?)
        },
    ),
    (
        "cut off in the header",
        "is cut off: it has 100 bytes, its header alone",
        "download",
        |at| {
            let content = fs::read(at.join("model.safetensors"))?;
            Ok(fs::write(at.join("model.safetensors"), &content[..100])?)
        },
    ),
    (
        "empty",
        "its model.safetensors is empty",
        "download the file again",
        |at| Ok(fs::write(at.join("model.safetensors"), "")?),
    ),
    (
        "a tensor missing",
        "has no tensor `encoder.layer.1.output.dense.bias`",
        "download the weights",
        |at| weights(at, |name| name != "encoder.layer.1.output.dense.bias"),
    ),
    (
        "another width",
        "has shape [512, 8], config.json asks for [512, 16]",
        "of the same model",
        |at| config(at, "hidden_size", json!(16)),
    ),
    (
        "more layers configured",
        "has no tensor `encoder.layer.2.",
        "how many layers there are",
        |at| config(at, "num_hidden_layers", json!(4)),
    ),
    (
        "fewer layers configured",
        "more layers (`encoder.layer.1.",
        "of the same model",
        |at| config(at, "num_hidden_layers", json!(1)),
    ),
    (
        "another activation",
        "hidden_act is `gelu_new`; only `gelu` is computed here",
        "trained so",
        |at| config(at, "hidden_act", json!("gelu_new")),
    ),
    (
        "relative positions",
        "position_embedding_type is `relative_key`",
        "trained so",
        |at| config(at, "position_embedding_type", json!("relative_key")),
    ),
    (
        "heads that do not divide",
        "hidden_size 8 is not a multiple of num_attention_heads 3",
        "config.json",
        |at| config(at, "num_attention_heads", json!(3)),
    ),
    (
        "DistilBERT",
        "it is a `distilbert`",
        "BERT or RoBERTa",
        |at| {
            Ok(fs::write(
                at.join("config.json"),
                r#"{"model_type": "distilbert", "dim": 8, "n_layers": 2}"#,
            )?)
        },
    ),
    ("ALBERT", "it is a `albert`", "BERT or RoBERTa", |at| {
        config(at, "model_type", json!("albert"))
    }),
    (
        "RoBERTa named a BERT",
        "but its weights are a RoBERTa's",
        "published with the weights",
        |at| {
            fs::copy(
                fixture("roberta").join("model.safetensors"),
                at.join("model.safetensors"),
            )?;
            Ok(())
        },
    ),
    (
        "RoBERTa without a vocabulary",
        "none of vocab.json, tokenizer.json",
        "tokenizer's files",
        |at| {
            copy(&fixture("roberta"), at)?;
            Ok(fs::remove_file(at.join("vocab.json"))?)
        },
    ),
    (
        "TensorFlow only",
        "only tf_model.h5 (TensorFlow)",
        "from_tf=True",
        |at| {
            Ok(fs::rename(
                at.join("model.safetensors"),
                at.join("tf_model.h5"),
            )?)
        },
    ),
    (
        "no weights",
        "no model.safetensors and no pytorch_model.bin",
        "docs/reference/encoders.md",
        |at| Ok(fs::remove_file(at.join("model.safetensors"))?),
    ),
    (
        "no configuration",
        "it has no config.json",
        "docs/reference/encoders.md",
        |at| Ok(fs::remove_file(at.join("config.json"))?),
    ),
    (
        "an invalid configuration",
        "is not an encoder configuration",
        "published with",
        |at| Ok(fs::write(at.join("config.json"), "{")?),
    ),
    (
        "NaN in a weight",
        "has a weight that is not finite (NaN at position 91 of 96)",
        "training broke there",
        |at| {
            let mut content = fs::read(at.join("model.safetensors"))?;
            let place = content.len() - 4 * 5;
            content[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            Ok(fs::write(at.join("model.safetensors"), content)?)
        },
    ),
    ("quantized", "holds numbers I8", "not quantized", |at| {
        let path = at.join("model.safetensors");
        let content = fs::read(&path)?;
        let tensors = safetensors::SafeTensors::deserialize(&content)?;
        let zeros = vec![0; 4096];
        let low = tensors.tensors().into_iter().map(|(name, view)| {
            let bytes = &zeros[..view.shape().iter().product()];
            let low = safetensors::tensor::TensorView::new(
                safetensors::Dtype::I8,
                view.shape().to_vec(),
                bytes,
            );
            (name, low)
        });
        let low = low
            .map(|(name, low)| Ok((name, low?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(fs::write(path, safetensors::serialize(low, None)?)?)
    }),
    (
        "a foreign class in a .bin",
        "an object of `os.system`",
        "save_pretrained",
        |at| {
            fs::remove_file(at.join("model.safetensors"))?;
            // The legacy format: a magic number, a version, a machine, and then the weights.
            let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
            let rest = b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}X\x01\0\0\0acos\nsystem\nX\x04\0\0\0true\x85Rs.";
            Ok(fs::write(
                at.join("pytorch_model.bin"),
                [&magic[..], rest].concat(),
            )?)
        },
    ),
    (
        "a shard missing",
        "which is not there",
        "download the file again",
        |at| {
            copy(&fixture("bert-shards"), at)?;
            fs::remove_file(at.join("model.safetensors"))?;
            Ok(fs::remove_file(
                at.join("model-00002-of-00002.safetensors"),
            )?)
        },
    ),
    (
        "an index that leads outside",
        "in the same folder is expected",
        "download the file again",
        |at| {
            fs::remove_file(at.join("model.safetensors"))?;
            let index = json!({ "weight_map": { "a": "../other/model.safetensors" } });
            Ok(fs::write(
                at.join("model.safetensors.index.json"),
                index.to_string(),
            )?)
        },
    ),
    (
        "files of two vocabularies",
        "gives `[CLS]` the id 3, its tokenizer.json the id 4",
        "of one model",
        |at| {
            fs::write(at.join("vocab.txt"), "[PAD]\n[SEP]\n[UNK]\n[CLS]\n")?;
            let fast = json!({ "added_tokens": [{ "id": 4, "content": "[CLS]" }] });
            Ok(fs::write(at.join("tokenizer.json"), fast.to_string())?)
        },
    ),
];

/// Usable encoders that do not fit texts written by BERT's tokenizer.
const MISFITS: &[(&str, &str, Breaking)] = &[
    (
        "RoBERTa",
        "another vocabulary: all of its texts start with the token 101, this encoder's start with 0",
        |at| copy(&fixture("roberta"), at),
    ),
    (
        "another BERT vocabulary",
        "another vocabulary: all of its texts start with the token 101, this encoder's start with 3",
        |at| {
            Ok(fs::write(
                at.join("vocab.txt"),
                "[PAD]\n[SEP]\n[UNK]\n[CLS]\n",
            )?)
        },
    ),
    (
        "too few positions",
        "its texts have 12 tokens, but the encoder takes at most 8",
        |at| {
            let path = at.join("model.safetensors");
            config(at, "max_position_embeddings", json!(8))?;
            let content = fs::read(&path)?;
            let tensors = safetensors::SafeTensors::deserialize(&content)?;
            let mut short = Vec::new();
            for (name, view) in tensors.tensors() {
                let rows = if name.contains("position_embeddings") {
                    8
                } else {
                    view.shape()[0]
                };
                let shape = [&[rows], &view.shape()[1..]].concat();
                let bytes = &content[view.data().as_ptr() as usize - content.as_ptr() as usize..];
                let bytes = &bytes[..4 * shape.iter().product::<usize>()];
                short.push((
                    name,
                    safetensors::tensor::TensorView::new(view.dtype(), shape, bytes)?,
                ));
            }
            Ok(fs::write(&path, safetensors::serialize(short, None)?)?)
        },
    ),
];

/// The output of a command that must fail.
fn refused(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let all = [output.stdout, output.stderr].concat();
    ensure!(!output.status.success(), "not rejected: {}", said(&all));
    Ok(said(&all))
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_encoder_is_rejected_before_anything_is_queued() -> Result<()> {
    let stage = Stage::start().await?;
    let place = tempfile::tempdir()?;
    Tiny::make(place.path(), 16)?;
    let encoder = place.path().join("encoder");
    let fresh = || -> Result<()> {
        let _ = fs::remove_dir_all(&encoder);
        copy(&fixture("bert"), &encoder)
    };
    let spec = spec(place.path(), &encoder)?;
    for (what, found, remedy, breaking) in UNUSABLE {
        fresh()?;
        breaking(&encoder).context(*what)?;
        for command in ["plan", "submit"] {
            let said = refused(coord(&stage)?.arg(command).arg(&spec)).context(*what)?;
            for part in [found, remedy] {
                ensure!(
                    said.contains(&squeezed(part)),
                    "{what}: `coord {command}` says: {said}"
                );
            }
        }
        // This test is not about the worker, and asking it is slow.
        let mut doctor = coord(&stage)?;
        doctor.arg("doctor").arg("--json");
        doctor.env("HALFHEARD_ENCODER_EN", &encoder);
        doctor.env("HALFHEARD_WORKER", "/nowhere");
        let findings: Vec<Value> = serde_json::from_slice(&doctor.output()?.stdout)?;
        let of_it = |finding: &&Value| finding["what"] == "encoder (en)";
        let finding = findings
            .iter()
            .find(of_it)
            .context("no finding of doctor")?;
        let says = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        ensure!(says("verdict") == "bad", "{what}: {finding}");
        ensure!(says("found").contains(found), "{what}: {finding}");
        ensure!(says("remedy").contains(remedy), "{what}: {finding}");
        ensure!(
            !says("found").contains(&says("remedy")),
            "the finding repeats the remedy: {finding}"
        );
    }
    for (what, found, breaking) in MISFITS {
        fresh()?;
        breaking(&encoder).context(*what)?;
        for command in ["plan", "submit"] {
            let said = refused(coord(&stage)?.arg(command).arg(&spec)).context(*what)?;
            ensure!(
                said.contains(&squeezed(found)),
                "{what}: `coord {command}` says: {said}"
            );
        }
    }
    assert_eq!(stage.count("SELECT count(*) FROM sweep").await?, 0);
    // The intact folder is accepted.
    fresh()?;
    output(coord(&stage)?.arg("plan").arg(&spec))?;
    output(coord(&stage)?.arg("submit").arg(&spec))?;
    assert_eq!(stage.count("SELECT count(*) FROM sweep").await?, 1);
    Ok(())
}

/// The file formats of one encoder, pushed under their own hashes, reach a worker without its files
/// and train to the same bits.
#[tokio::test(flavor = "multi_thread")]
async fn every_encoder_format_is_fetched_from_the_artifact_store() -> Result<()> {
    let stage = Stage::start().await?;
    let place = tempfile::tempdir()?;
    let forms = ["bert", "bert-published", "bert-zip", "bert-bin-shards"];
    let artifacts = ["--artifacts", "nats://"];
    for form in forms {
        // Neither dataset nor encoder remains where it was submitted from.
        let origin = place.path().join(form);
        fs::create_dir_all(&origin)?;
        Tiny::make(&origin, 16)?;
        copy(&fixture(form), &origin.join("encoder"))?;
        let spec = spec(&origin, Path::new("encoder"))?;
        output(
            coord(&stage)?
                .args(artifacts)
                .arg("submit")
                .arg(&spec)
                .arg("--push"),
        )?;
        fs::remove_dir_all(&origin)?;
    }
    // The submitting side imported them into the data folder; the worker has nothing.
    let _ = fs::remove_dir_all(stage.data_dir().join("blobs"));
    let _coordinator = stage.serve();
    let worker = Process::spawn(worker(&stage)?.args(artifacts))?;
    let sweeps: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM sweep")
        .fetch_all(stage.store.pool())
        .await?;
    assert_eq!(sweeps.len(), forms.len(), "each format has its own hash");
    for sweep in sweeps {
        let sweep = halfheard_shared::ids::SweepId(sweep);
        let progress = stage.finished(sweep, Duration::from_secs(240)).await?;
        assert_eq!((progress.done, progress.failed), (2, 0));
    }
    worker.terminate(Duration::from_secs(30))?;
    let trained: Vec<(String, String)> = sqlx::query_as("SELECT criterion, blake3 FROM checkpoint")
        .fetch_all(stage.store.pool())
        .await?;
    let distinct: BTreeSet<_> = trained.iter().collect();
    assert_eq!(trained.len(), forms.len() * distinct.len(), "{trained:?}");
    Ok(())
}
