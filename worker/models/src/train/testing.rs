//! A small dataset and a small method for tests.

use super::Data;
use crate::{
    context::EncoderCache,
    layers::dropout::dropout,
    methods::{
        Batch, Features, Losses, Method, MethodError, MethodState, Needs, Position, StepOutcome,
    },
};
use halfheard_shared::{
    benchmark::Benchmark,
    dataset::{
        Dataset, Kind as Protocol, Shapes, Split, TensorFile,
        layout::{self, SplitSizes},
    },
    encoder::TokenIds,
    wire::{BlobRef, Fidelity, Protocol as Training, Selection, TrainSpec},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tch::{Device, Kind, Reduction, Tensor, nn};

const SHAPES: Shapes = Shapes {
    text_len: 6,
    audio_len: 4,
    audio_dim: 3,
    vision_len: 5,
    vision_dim: 2,
};

/// A dataset of MOSI's protocol with `train` training, 9 validation and 11 test samples, whose labels
/// depend on the audio.
pub(crate) fn dataset(train: usize) -> (tempfile::TempDir, Arc<Dataset>) {
    dataset_of(Protocol::Mosi, train)
}

/// As [`dataset`], with labels shifted to the middle of another protocol's range, which must be at
/// least as wide.
pub(crate) fn dataset_of(kind: Protocol, train: usize) -> (tempfile::TempDir, Arc<Dataset>) {
    dataset_with(kind, train, |i| [101, 200 + i, 300 + i, 400, 102, 0])
}

/// As [`dataset_of`], with texts by sample index: five tokens and padding.
pub(crate) fn dataset_with(
    kind: Protocol,
    train: usize,
    text: impl Fn(i32) -> [i32; 6],
) -> (tempfile::TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let sizes = [train, 9, 11].map(|samples| SplitSizes {
        samples,
        id_bytes: 0,
        raw_text_bytes: 0,
    });
    let specs = layout::tensors(kind, SHAPES, sizes);
    let mut file = TensorFile::create(&path, kind, specs.clone()).unwrap();
    let mut rng = halfheard_shared::numpy_rng::RandomState::new(5);
    let mut labels: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for spec in &specs {
        let n = spec.shape[0];
        let (split, field) = spec.name.split_once('.').unwrap();
        match field {
            "audio_lengths" => file.write_i64(&spec.name, &vec![4; n]).unwrap(),
            "vision_lengths" => file.write_i64(&spec.name, &vec![3; n]).unwrap(),
            "ids_offsets" | "raw_text_offsets" => {
                file.write_i64(&spec.name, &vec![0; n]).unwrap();
            }
            "text" => {
                for i in 0..n as i32 {
                    let sample = [text(i), [1, 1, 1, 1, 1, 0], [0; 6]].concat();
                    file.write_i32(&spec.name, &sample).unwrap();
                }
            }
            "ids" | "raw_text" => {}
            "labels" => file.write_f32(&spec.name, &labels[split]).unwrap(),
            _ => {
                let size: usize = spec.shape[1..].iter().product();
                let values: Vec<f32> = (0..n * size).map(|_| rng.uniform() as f32 - 0.5).collect();
                if field == "audio" {
                    let means = values.chunks(size).map(|c| c.iter().sum::<f32>() * 0.6);
                    labels.insert(
                        split.to_owned(),
                        means.map(|m| m.clamp(-3.0, 3.0) + kind.neutral()).collect(),
                    );
                }
                file.write_f32(&spec.name, &values).unwrap();
            }
        }
    }
    file.finish().unwrap();
    let file = Arc::new(Dataset::open(&path).unwrap());
    assert_eq!(file.split(Split::Train).len(), train);
    (folder, file)
}

/// A spec for the toy method.
pub(crate) fn spec(max_epochs: u32) -> TrainSpec {
    let blob = || BlobRef {
        blake3: "0".repeat(64),
        path: "x".to_owned(),
    };
    TrainSpec {
        method: "toy".to_owned(),
        variant: String::new(),
        dataset: Benchmark::Mosi,
        data: blob(),
        encoder: blob(),
        tokens: TokenIds::BERT,
        seed: 1111,
        max_epochs,
        hyper: "{}".to_owned(),
        protocol: Training {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: halfheard_shared::numerics::Numerics::Machine,
    }
}

/// A method with everything that complicates resuming: dropout, momentum, two passes, gradients
/// accumulated over two batches, a memory filled during a pass, a step size that falls with the
/// validation loss, and data read before the first epoch.
pub(crate) struct Toy {
    vars: nn::VarStore,
    w: Tensor,
    velocity: Tensor,
    memory: Tensor,
    read: f64,
    rate: f64,
    added: u32,
    /// Fails with a NaN loss at this epoch.
    pub(crate) nan_at: Option<u32>,
    /// Computes a part of the loss that no step uses; infinite in one step of this epoch.
    pub(crate) unused: Option<u32>,
    /// Panics at this epoch.
    pub(crate) panic_at: Option<u32>,
    /// Epochs without a better validation loss before it stops.
    pub(crate) patience: Option<u32>,
}

impl Toy {
    pub(crate) fn new(seed: i64) -> Self {
        tch::manual_seed(seed);
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().randn("w", &[12], 0.0, 0.1);
        Self {
            velocity: w.zeros_like().detach(),
            memory: w.zeros_like().detach(),
            w,
            vars,
            read: 0.0,
            rate: 0.05,
            added: 0,
            nan_at: None,
            unused: None,
            panic_at: None,
            patience: None,
        }
    }

    fn forward(&self, batch: &Batch, train: bool) -> Tensor {
        let x = dropout(&batch.input.audio.flatten(1, 2), 0.3, train);
        x.matmul(&self.w) + self.read
    }
}

impl Method for Toy {
    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn needs(&self) -> Needs {
        Needs {
            complete_in_training: true,
            complete_in_evaluation: false,
        }
    }

    fn batch_size(&self) -> usize {
        8
    }

    fn prepare(&mut self, batch: &Batch) -> Result<(), MethodError> {
        self.read += batch.labels.sum(Kind::Double).double_value(&[]) * 1e-3;
        Ok(())
    }

    fn passes(&self) -> usize {
        2
    }

    fn begin_pass(&mut self, at: Position) -> Result<(), MethodError> {
        assert_eq!((at.step, self.added), (0, 0));
        self.memory = self.memory.zeros_like();
        Ok(())
    }

    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        assert!(self.panic_at != Some(at.epoch), "the toy broke");
        let prediction = self.forward(batch, true);
        let mut task = prediction.mse_loss(&batch.labels, Reduction::Mean);
        if self.nan_at == Some(at.epoch) {
            task *= f64::NAN;
        }
        let complete = batch.complete.as_ref().unwrap().audio.mean(Kind::Float);
        let loss = &task + (&self.w * &self.memory).sum(Kind::Float) * 0.01 * complete;
        let overflows = self.unused == Some(at.epoch) && at.step == 1;
        let unused = Tensor::from(if overflows { f32::INFINITY } else { 2.0 });
        let unused = self.unused.map(|_| ("unused", &unused));
        let losses = Losses::new(&[("loss", &loss), ("task", &task)], unused.as_slice());
        loss.backward();
        self.added += 1;
        let _guard = tch::no_grad_guard();
        self.memory = &self.memory * 0.5 + self.w.detach();
        if self.added == 2 || at.step + 1 == at.steps {
            self.velocity = &self.velocity * 0.9 + self.w.grad();
            let _ = self.w.g_sub_(&(&self.velocity * self.rate));
            self.w.zero_grad();
            self.added = 0;
        }
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn predict(&self, batch: &Batch, _cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        Ok(self.forward(batch, false))
    }

    fn predict_with_features(
        &self,
        batch: &Batch,
        cache: Option<&EncoderCache>,
    ) -> Result<(Tensor, Option<Features>), MethodError> {
        let audio = batch.input.audio.flatten(1, 2);
        let features = Features {
            dominant: (&audio * &self.w).detach(),
            language: audio,
        };
        Ok((self.predict(batch, cache)?, Some(features)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        prediction
            .mse_loss(labels, Reduction::Mean)
            .double_value(&[])
    }

    fn end_epoch(&mut self, _epoch: u32, validation_loss: f64) -> Result<(), MethodError> {
        self.rate *= 1.0 - validation_loss.min(0.5) / 3.0;
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        self.patience
    }

    fn can_save(&self) -> bool {
        self.added == 0
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = MethodState::default();
        for (name, tensor) in [
            ("w", &self.w),
            ("velocity", &self.velocity),
            ("memory", &self.memory),
        ] {
            state
                .tensors
                .insert(name.to_owned(), tensor.detach().copy());
        }
        state.scalars.insert("read".to_owned(), json!(self.read));
        state.scalars.insert("rate".to_owned(), json!(self.rate));
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        let get = |name: &str| {
            let tensor = state.tensors.get(name);
            tensor.ok_or_else(|| MethodError::State(format!("`{name}` is missing")))
        };
        tch::no_grad(|| self.w.copy_(get("w").unwrap()));
        self.velocity = get("velocity")?.copy();
        self.memory = get("memory")?.copy();
        self.read = state.scalars["read"].as_f64().unwrap();
        self.rate = state.scalars["rate"].as_f64().unwrap();
        Ok(())
    }
}

/// The toy dataset on the CPU.
pub(crate) fn data(file: &Arc<Dataset>) -> Data {
    Data::new(file.clone(), Device::Cpu)
}

/// A lock held by every test that trains: libtorch has one generator per process.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    crate::numerics::initialize(crate::numerics::Numerics::Machine).unwrap();
    // A test that failed with the lock held leaves no state behind.
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
