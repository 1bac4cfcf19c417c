//! Writes the seeds of all targets, with this project's own writers: `seeds FOLDER` makes
//! `FOLDER/<target>/<seed>`. The same sources write the same seeds.

#[path = "../../../coordinator/import/tests/files/pickler/mod.rs"]
#[allow(dead_code, unused_imports)]
mod pickler;

use halfheard_fuzz::encoder_files;
use halfheard_shared::{
    bundle::Bundle,
    dataset::{
        Dataset, Kind, Manifest, Shapes, Source, TensorFile,
        layout::{self, Element, SplitSizes},
    },
    features::Features,
    wire::{Answer, Ask, Heartbeat, JobMessage, Tell, WorkerInfo},
};
use pickler::{Py, dataset, foreign};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

struct Seeds(PathBuf);

impl Seeds {
    fn put(&self, target: &str, name: &str, content: impl AsRef<[u8]>) -> Outcome {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), content)?)
    }

    /// With the byte that tells the target what follows.
    fn put_as(&self, target: &str, name: &str, which: u8, content: impl AsRef<[u8]>) -> Outcome {
        self.put(target, name, [&[which], content.as_ref()].concat())
    }

    fn program(&self) -> Outcome {
        let bundle = Bundle {
            files: [("train.py".to_owned(), b"print(1)".to_vec())].into(),
            executable: ["train.py".to_owned()].into(),
            about: serde_json::json!({"logs": []}),
        };
        self.put_as("program", "bundle", b'b', bundle.encode()?)?;
        for (name, event) in [
            ("epoch", r#"{"event":"epoch","epoch":1,"losses":{"loss":0.5},"predictions":[0.25,-1],"checkpoint":"c"}"#),
            ("file", r#"{"event":"predictions","case":"r=0.3","checkpoint":"c","predictions":"p"}"#),
            ("progress", r#"{"event":"progress","epoch":2,"step":3,"steps":10,"loss":0.5}"#),
            ("state", r#"{"event":"state","after_epoch":1,"path":"states/1"}"#),
            ("finished", r#"{"event":"finished"}"#),
        ] {
            self.put_as("program", name, b'e', event)?;
        }
        Ok(())
    }

    fn wire(&self) -> Outcome {
        let mut jobs = Vec::new();
        for entry in fs::read_dir(root().join("schemas/wire"))? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let bytes = fs::read(&path)?;
            if name.starts_with("job-") {
                self.put_as("wire", &name, b'j', &bytes)?;
                if let Ok(job) = halfheard_shared::wire::decode::<JobMessage>(&bytes) {
                    jobs.push(job);
                }
            } else if name.starts_with("result-") {
                self.put_as("wire", &name, b'r', &bytes)?;
            }
        }
        for (name, answer) in [
            ("answer", Answer::Grants(jobs)),
            ("refused", Answer::Refused("another store".to_owned())),
        ] {
            let bytes = answer.encode_for(halfheard_shared::wire::VERSION)?;
            self.put_as("wire", name, b'a', bytes)?;
        }
        let worker = WorkerInfo {
            name: "gpu7-0".into(),
            host: "gpu7".into(),
            device: "cpu".into(),
            version: "0.1.0".into(),
            processor: "portable".into(),
        };
        let ask: Ask = serde_json::from_value(serde_json::json!({
            "worker": worker, "session": uuid(), "number": 7, "received": 6, "trainings": 1,
            "evaluations": 16, "noops": 3, "wire": 4, "methods": ["lnln"], "labels": ["a100"],
            "memory": 1u64 << 34, "store": "s",
        }))?;
        self.put_as("wire", "ask", b'q', serde_json::to_vec(&ask)?)?;
        let beat: Heartbeat = serde_json::from_value(serde_json::json!({
            "worker": worker, "pid": 7, "session": uuid(), "at_ms": 1, "memory_bytes": 2,
            "holds": [{"attempt": uuid(), "job": uuid(), "begun": true, "progress": 3, "saved": 2,
                       "patience_s": 60}],
            "doing": {"sweep": uuid(), "job": uuid(), "what": "train", "epoch": 1, "max_epochs": 2,
                      "step": 3, "steps": 4, "loss": 0.5},
            "trouble": null,
        }))?;
        self.put_as("wire", "heartbeat", b'h', serde_json::to_vec(&beat)?)?;
        let tell = Tell::Released {
            attempts: Vec::new(),
        };
        self.put_as("wire", "tell", b't', serde_json::to_vec(&tell)?)?;
        self.put_as("wire", "prefix", b'n', "team-a")?;
        self.put_as("wire", "case", b'n', "missing=la")
    }

    fn specs(&self) -> Outcome {
        for name in ["benchmark", "demo", "eight-mosi", "lf-dnn", "real-mosi"] {
            let text = fs::read(root().join(format!("deploy/{name}.toml")))?;
            self.put("spec", name, text)?;
        }
        let own = "name = \"x\"\nmethods = [\"almt\"]\nseeds = [1]\nrates = [0.0]\nmissing = [\"l\"]\n\
                   [datasets.own]\nfile = \"dataset:own\"\n\
                   benchmark = { label_range = [-1, 1], language = \"zh\", classes = [2, 3, 5] }\n\
                   [encoders.en]\npath = \"enc\"\n";
        self.put("spec", "own", own)
    }

    fn pickles(&self) -> Outcome {
        for (name, value) in [
            ("mosi", dataset(Kind::Mosi)),
            ("foreign", foreign()),
            ("floats", Py::floats(&[2, 3], &[0.5; 6])),
            ("ints", Py::ints(&[2], &[1, -1])),
            ("doubles", Py::doubles(&[1, 2], &[0.1, f64::NAN])),
            (
                "objects",
                Py::objects(&[2], vec![Py::Int(1), Py::Text("a".into())]),
            ),
        ] {
            let bytes = value.pickle();
            self.put("pickle", name, &bytes)?;
            if name == "mosi" {
                self.put("import", name, &bytes)?;
            }
        }
        self.put(
            "pickle",
            "global",
            b"}X\x01\0\0\0acos\nsystem\nX\x01\0\0\0x\x85Rs.K\x07.",
        )
    }

    fn datasets(&self) -> Outcome {
        let shapes = Shapes {
            text_len: 3,
            audio_len: 2,
            audio_dim: 1,
            vision_len: 2,
            vision_dim: 1,
        };
        let sizes = [2, 1, 1].map(|samples| SplitSizes {
            samples,
            id_bytes: 0,
            raw_text_bytes: 0,
        });
        let folder = tempfile::tempdir()?;
        for kind in [Kind::Mosi, Kind::Sims] {
            let path = folder.path().join(format!("{kind}.safetensors"));
            let specs = layout::tensors(kind, shapes, sizes);
            let mut file = TensorFile::create(&path, kind, specs.clone())?;
            for spec in &specs {
                let count: usize = spec.shape.iter().product();
                match spec.element {
                    Element::F32 => file.write_f32(&spec.name, &vec![0.5; count])?,
                    Element::I64 if spec.name.ends_with("offsets") => {
                        file.write_i64(&spec.name, &vec![0; count])?;
                    }
                    Element::I64 => file.write_i64(&spec.name, &vec![2; count])?,
                    Element::I32 => {
                        let sample = [101, 120, 102, 1, 1, 1, 0, 0, 0];
                        file.write_i32(&spec.name, &sample.repeat(count / sample.len()))?;
                    }
                    Element::U8 => {}
                }
            }
            let (hash, _) = file.finish()?;
            self.put("dataset", kind.as_str(), fs::read(&path)?)?;
            let data = Dataset::open(&path)?;
            let source = Source::file("x.pkl".into(), "00".repeat(32), 1);
            let manifest = Manifest::of(&data, "x", hash, source, vec!["a note".into()]);
            let text = serde_json::to_vec(&manifest)?;
            self.put_as("manifest", kind.as_str(), b'm', text)?;
            let definition = serde_json::to_vec(kind.definition())?;
            self.put_as("manifest", &format!("{kind}-protocol"), b'p', definition)?;
        }
        self.put_as(
            "manifest",
            "address",
            b'u',
            "postgres://u:p@h:1/d?password=x&sslmode=a",
        )
    }

    fn others(&self) -> Outcome {
        let features = Features {
            width: 2,
            index: vec![0, 3],
            language: vec![0.5; 4],
            dominant: vec![-0.5; 4],
        };
        self.put("features", "two", features.to_bytes()?)?;
        let (config, weights) = encoder_files();
        self.put("encoder_safetensors", "bert", weights)?;
        self.put_as("encoder_config", "config", b'0', config)?;
        let special = r#"{"cls_token": "[CLS]", "mask_token": {"content": "[MASK]"}}"#;
        self.put_as("encoder_config", "special", b'1', special)?;
        self.put_as("encoder_config", "tokenizer-config", b'2', special)?;
        let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n";
        self.put_as("encoder_config", "vocab-text", b'3', words)?;
        let ids = r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5}"#;
        self.put_as("encoder_config", "vocab", b'4', ids)?;
        let tokenizer = format!(
            r#"{{"model": {{"vocab": {ids}}}, "added_tokens": [{{"id": 6, "content": "x"}}]}}"#
        );
        self.put_as("encoder_config", "tokenizer", b'5', tokenizer)?;
        self.put_as("encoder_config", "added", b'6', r#"{"<mask>": 7}"#)?;
        let index =
            r#"{"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}"#;
        self.put_as("encoder_config", "index", b'i', index)?;
        let list = format!("{} model.safetensors\n", "00".repeat(32));
        self.put_as("encoder_config", "list", b'l', list)
    }
}

fn uuid() -> &'static str {
    "00000000-0000-4000-8000-000000000001"
}

fn main() -> Outcome {
    let folder = std::env::args_os().nth(1).ok_or("usage: seeds FOLDER")?;
    let seeds = Seeds(folder.into());
    seeds.wire()?;
    seeds.program()?;
    seeds.specs()?;
    seeds.pickles()?;
    seeds.datasets()?;
    seeds.others()
}
