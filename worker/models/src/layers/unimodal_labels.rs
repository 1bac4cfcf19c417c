//! ULGM, the unimodal label generation of Self-MM (Yu et al., AAAI 2021), used by TETFN, too. Labels
//! for text, audio and vision follow from the multimodal label and from how much closer a sample's
//! representation is to the positive or the negative center than the fused one.

use crate::{error::MethodError, state::MethodState};
use tch::{Device, Kind, Tensor};

/// Added to denominators.
const EPSILON: f64 = 1e-8;

/// A prediction task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// All modalities fused.
    Fusion = 0,
    /// Text.
    Text = 1,
    /// Audio.
    Audio = 2,
    /// Vision.
    Vision = 3,
}

impl Task {
    /// All tasks, in the order in which the reference sums their losses.
    pub(crate) const ALL: [Task; 4] = [Task::Fusion, Task::Text, Task::Audio, Task::Vision];
    const NAMES: [&'static str; 4] = ["fusion", "text", "audio", "vision"];
}

/// The memory of labels and representations over the training split of N samples.
#[derive(Debug)]
pub(crate) struct UnimodalLabels {
    /// `[N]` per task.
    labels: [Tensor; 4],
    /// `[N, width]` per task: the latest representation of each sample.
    features: [Tensor; 4],
    /// Positive and negative center, `[width]` each.
    centers: [[Tensor; 2]; 4],
    /// Bound of the absolute generated labels.
    bound: f64,
    /// Whether samples with label 0 belong to neither center, rather than to the positive one.
    exclude_zero: bool,
}

impl UnimodalLabels {
    /// An empty memory for `samples` samples and representations of the given widths.
    pub(crate) fn new(
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
            centers: widths.map(|width| [zeros(&[width]), zeros(&[width])]),
            bound,
            exclude_zero,
        }
    }

    /// Sets the labels of every task to the multimodal ones. `index` and `labels` are `[B]`.
    pub(crate) fn begin(&mut self, index: &Tensor, labels: &Tensor) {
        for task in &mut self.labels {
            let _ = task.index_copy_(0, index, labels);
        }
    }

    /// The labels of `task` for the samples `index`: `[B]`.
    pub(crate) fn of(&self, task: Task, index: &Tensor) -> Tensor {
        self.labels[task as usize].index_select(0, index)
    }

    /// A task's loss: the mean absolute error, weighted for a single modality by how far its label
    /// is from the multimodal one (equations 15 and 16). `prediction` is `[B]`.
    pub(crate) fn loss(&self, task: Task, prediction: &Tensor, index: &Tensor) -> Tensor {
        let labels = self.of(task, index);
        let error = (prediction - &labels).abs();
        match task {
            Task::Fusion => error,
            _ => (labels - self.of(Task::Fusion, index)).abs().tanh() * error,
        }
        .mean(Kind::Float)
    }

    /// Updates after a step of `epoch` (from 1): the labels from the second epoch on, then the
    /// representations (`[B, width]` per task, detached) and the centers.
    pub(crate) fn update(&mut self, epoch: u32, index: &Tensor, features: [&Tensor; 4]) {
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
            self.centers[task as usize] =
                [positive, labels.lt(0.0)].map(|chosen| self.center(task, &chosen));
        }
    }

    /// The mean representation of the chosen samples: on a GPU without reading back their number, on
    /// the CPU with the reference's rounding.
    fn center(&self, task: Task, chosen: &Tensor) -> Tensor {
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

    /// How much closer representations are to the positive center than to the negative one, `[B]`
    /// (equations 8 to 10).
    fn lean(&self, task: Task, features: &Tensor) -> Tensor {
        let [positive, negative] = &self.centers[task as usize];
        let distance =
            |center: &Tensor| (features - center).norm_scalaropt_dim(2.0, [-1i64], false);
        let (to_positive, to_negative) = (distance(positive), distance(negative));
        (to_negative - &to_positive) / (to_positive + EPSILON)
    }

    /// Equations 11 to 14.
    fn update_labels(&mut self, epoch: u32, index: &Tensor, features: [&Tensor; 4]) {
        let fused_label = self.of(Task::Fusion, index);
        let fused = self.lean(Task::Fusion, features[Task::Fusion as usize]);
        let epoch = f64::from(epoch);
        for task in [Task::Text, Task::Audio, Task::Vision] {
            let single = self.lean(task, features[task as usize]);
            let ratio = &single / (&fused + EPSILON);
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
            named.push((format!("ulgm.{name}.positive"), &self.centers[i][0]));
            named.push((format!("ulgm.{name}.negative"), &self.centers[i][1]));
        }
        named
    }

    /// Saves labels, representations and centers.
    pub(crate) fn save(&self, state: &mut MethodState) {
        for (name, tensor) in self.named() {
            state
                .tensors
                .insert(name, tensor.to_device(Device::Cpu).copy());
        }
    }

    /// Restores what [`save`](Self::save) wrote.
    pub(crate) fn load(&mut self, state: &MethodState) -> Result<(), MethodError> {
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
    fn labels_move_toward_the_modality() {
        let mut ulgm = UnimodalLabels::new(2, [1, 1, 1, 1], 3.0, true, Device::Cpu);
        let index = Tensor::from_slice(&[0i64, 1]);
        ulgm.begin(&index, &Tensor::from_slice(&[1.0f32, -1.0]));
        let at = |values: [f32; 2]| Tensor::from_slice(&values).unsqueeze(1);
        let plain = at([1.0, -1.0]);
        ulgm.update(1, &index, [&plain; 4]);
        // Sample 0's text looks negative now, while the fusion stays the same.
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
        assert!((labels(Task::Audio)[0] - 1.0).abs() < 1e-5, "as the fusion");
    }
}
