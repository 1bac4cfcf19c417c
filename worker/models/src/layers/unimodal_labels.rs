//! ULGM, the unimodal label generation of Self-MM (Yu et al., AAAI 2021), which TETFN uses too:
//! labels for text, audio and vision are guessed from the multimodal label and from how much nearer
//! a sample's representation is to the positive or the negative centre than the fused one is.

use crate::{error::MethodError, state::MethodState};
use tch::{Device, Kind, Tensor};

/// Added to what is divided by.
const TINY: f64 = 1e-8;

/// What a task predicts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// All modalities fused.
    Fusion = 0,
    /// Language.
    Text = 1,
    /// Audio.
    Audio = 2,
    /// Vision.
    Vision = 3,
}

impl Task {
    /// In the order in which the reference adds up their losses.
    pub const ALL: [Task; 4] = [Task::Fusion, Task::Text, Task::Audio, Task::Vision];
    const NAMES: [&'static str; 4] = ["fusion", "text", "audio", "vision"];
}

/// The memory of labels and representations over the training split of N samples.
#[derive(Debug)]
pub struct UnimodalLabels {
    /// `[N]` a task.
    labels: [Tensor; 4],
    /// `[N, width]` a task: the representation when the sample was last seen.
    features: [Tensor; 4],
    /// Positive and negative centre, `[width]` each.
    centres: [[Tensor; 2]; 4],
    /// Generated labels stay within ± this.
    bound: f64,
    /// Whether samples with label 0 belong to no centre, rather than to the positive one.
    exclude_zero: bool,
}

impl UnimodalLabels {
    /// An empty memory for `samples` samples and representations of the given widths.
    pub fn new(
        samples: i64,
        widths: [i64; 4],
        bound: f64,
        exclude_zero: bool,
        device: Device,
    ) -> Self {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, device));
        Self {
            labels: Task::ALL.map(|_| zeros(&[samples])),
            features: widths.map(|width| zeros(&[samples, width])),
            centres: widths.map(|width| [zeros(&[width]), zeros(&[width])]),
            bound,
            exclude_zero,
        }
    }

    /// Before training every task has the multimodal label. `index` and `labels` are `[B]`.
    pub fn begin(&mut self, index: &Tensor, labels: &Tensor) {
        for task in &mut self.labels {
            let _ = task.index_copy_(0, index, labels);
        }
    }

    /// The labels of `task` for the samples `index`: `[B]`.
    pub fn of(&self, task: Task, index: &Tensor) -> Tensor {
        self.labels[task as usize].index_select(0, index)
    }

    /// A task's loss: the mean absolute error, weighted for a single modality by how far its label
    /// is from the multimodal one (equations 15 and 16). `prediction` is `[B]`.
    pub fn loss(&self, task: Task, prediction: &Tensor, index: &Tensor) -> Tensor {
        let labels = self.of(task, index);
        let error = (prediction - &labels).abs();
        match task {
            Task::Fusion => error,
            _ => (labels - self.of(Task::Fusion, index)).abs().tanh() * error,
        }
        .mean(Kind::Float)
    }

    /// Behind a step of `epoch` (from 1): new labels from the second epoch on, then the
    /// representations (`[B, width]` a task, without gradient) and the centres.
    pub fn update(&mut self, epoch: u32, index: &Tensor, features: [&Tensor; 4]) {
        if epoch > 1 {
            self.update_labels(epoch, index, features);
        }
        for (memory, features) in self.features.iter_mut().zip(features) {
            let _ = memory.index_copy_(0, index, features);
        }
        for task in Task::ALL {
            let labels = &self.labels[task as usize];
            let positive = if self.exclude_zero {
                labels.gt(0.0)
            } else {
                labels.ge(0.0)
            };
            self.centres[task as usize] =
                [positive, labels.lt(0.0)].map(|chosen| self.centre(task, &chosen));
        }
    }

    /// The mean representation of the chosen samples: on a GPU without a read-back of how many they
    /// are, on the CPU rounded as the reference's.
    fn centre(&self, task: Task, chosen: &Tensor) -> Tensor {
        if chosen.device() == Device::Cpu {
            let rows = chosen.nonzero().squeeze_dim(1);
            return self.features[task as usize]
                .index_select(0, &rows)
                .mean_dim(0, false, Kind::Float);
        }
        let weight = chosen.to_kind(Kind::Float);
        let count = weight.sum(Kind::Float);
        self.features[task as usize].tr().mv(&weight) / count
    }

    /// How much nearer representations are to the positive centre than to the negative one, `[B]`
    /// (equations 8 to 10).
    fn lean(&self, task: Task, features: &Tensor) -> Tensor {
        let [positive, negative] = &self.centres[task as usize];
        let distance =
            |centre: &Tensor| (features - centre).norm_scalaropt_dim(2.0, [-1i64], false);
        let (to_positive, to_negative) = (distance(positive), distance(negative));
        (to_negative - &to_positive) / (to_positive + TINY)
    }

    /// Equations 11 to 14.
    fn update_labels(&mut self, epoch: u32, index: &Tensor, features: [&Tensor; 4]) {
        let fused_label = self.of(Task::Fusion, index);
        let fused = self.lean(Task::Fusion, features[Task::Fusion as usize]);
        let epoch = f64::from(epoch);
        for task in [Task::Text, Task::Audio, Task::Vision] {
            let single = self.lean(task, features[task as usize]);
            let ratio = &single / (&fused + TINY);
            let guess = ratio * &fused_label * 0.5 + (&fused_label + single - &fused) * 0.5;
            let guess = guess.clamp(-self.bound, self.bound);
            let old = self.of(task, index);
            let new = old * ((epoch - 1.0) / (epoch + 1.0)) + guess * (2.0 / (epoch + 1.0));
            let _ = self.labels[task as usize].index_copy_(0, index, &new);
        }
    }

    fn named(&self) -> Vec<(String, &Tensor)> {
        let mut named = Vec::new();
        for (i, name) in Task::NAMES.iter().enumerate() {
            named.push((format!("ulgm.{name}.labels"), &self.labels[i]));
            named.push((format!("ulgm.{name}.features"), &self.features[i]));
            named.push((format!("ulgm.{name}.positive"), &self.centres[i][0]));
            named.push((format!("ulgm.{name}.negative"), &self.centres[i][1]));
        }
        named
    }

    /// Adds itself to `state`.
    pub fn save(&self, state: &mut MethodState) {
        for (name, tensor) in self.named() {
            state
                .tensors
                .insert(name, tensor.to_device(Device::Cpu).copy());
        }
    }

    /// Takes back what [`save`](Self::save) wrote.
    pub fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
        for (name, tensor) in self.named() {
            let saved = state
                .tensors
                .get(&name)
                .filter(|saved| saved.size() == tensor.size())
                .ok_or_else(|| {
                    MethodError::State(format!("`{name}` is missing or has another shape"))
                })?;
            tensor.shallow_clone().copy_(saved);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_towards_what_the_modality_says() {
        let mut ulgm = UnimodalLabels::new(2, [1, 1, 1, 1], 3.0, true, Device::Cpu);
        let index = Tensor::from_slice(&[0i64, 1]);
        ulgm.begin(&index, &Tensor::from_slice(&[1.0f32, -1.0]));
        let at = |values: [f32; 2]| Tensor::from_slice(&values).unsqueeze(1);
        let plain = at([1.0, -1.0]);
        ulgm.update(1, &index, [&plain; 4]);
        // Sample 0's text looks negative now, while the fusion stays where it was.
        let text = at([-0.5, -1.0]);
        let fused = at([0.5, -0.5]);
        ulgm.update(2, &index, [&fused, &text, &fused, &fused]);
        let labels = |task| Vec::<f32>::try_from(ulgm.of(task, &index)).unwrap();
        assert_eq!(
            labels(Task::Fusion),
            [1.0, -1.0],
            "the annotated label stays"
        );
        assert!(labels(Task::Text)[0] < 1.0);
        assert!(
            (labels(Task::Audio)[0] - 1.0).abs() < 1e-5,
            "as the fusion says"
        );
    }
}
