//! A dataset's splits as tensors on the device, their erasure, and batches.
//!
//! A split is moved to the device once; batches are selected from it there by index. Only the masks
//! of an erasure are transferred: erased audio and vision are the product of complete features and
//! mask, computed per batch.

use super::{TrainError, order};
use crate::methods::{Batch, DataShape, Inputs, PerModality};
use halfheard_shared::{
    case::{Case, Modality},
    dataset::{Dataset, Kind as Protocol, Split},
    encoder::{TextFacts, TokenIds},
    erasure::{self, Rates},
    wire::{self, Fidelity},
};
use std::{cell::OnceCell, rc::Rc, sync::Arc};
use tch::{Device, Kind, Tensor};

/// Samples per prediction batch. It affects the last bits, so it must not depend on what is
/// evaluated together.
pub const PREDICTION_BATCH: i64 = 128;

/// A dataset for one device, where splits are loaded on first use.
#[derive(Debug)]
pub struct Data {
    file: Arc<Dataset>,
    device: Device,
    splits: [OnceCell<Rc<SplitData>>; 3],
}

/// One split on the device. N samples.
#[derive(Debug)]
pub struct SplitData {
    /// `[N, 3, L]` int64.
    text: Tensor,
    /// `[N, Ta, Da]` float.
    audio: Tensor,
    /// `[N, Tv, Dv]` float.
    vision: Tensor,
    audio_lengths: Tensor,
    vision_lengths: Tensor,
    /// 1 where a step is not padding, float.
    present: PerModality<Tensor>,
    labels: Tensor,
    unimodal_labels: Option<PerModality<Tensor>>,
    /// The middle of the label range: 0 for the built-in datasets.
    neutral: f32,
    /// The inputs of erasure, on the host.
    host: Host,
    /// Keeps the file mapped until the tensors above, which may borrow from it, are dropped: fields
    /// drop in this order.
    _file: Arc<Dataset>,
}

#[derive(Debug)]
struct Host {
    ids: Vec<i64>,
    present: PerModality<Vec<u8>>,
    labels: Vec<f32>,
}

/// An erasure of a split, on the device.
#[derive(Debug)]
pub struct Erased {
    /// `[N, 3, L]` int64, erased tokens replaced.
    text: Tensor,
    /// 1 where a step is neither padding nor erased, float.
    kept: PerModality<Tensor>,
    /// `[N]` float.
    rates: PerModality<Tensor>,
}

impl Erased {
    /// Whether both erasures leave the same texts.
    pub fn has_same_text(&self, other: &Erased) -> bool {
        self.text.size() == other.text.size() && self.text.equal(&other.text)
    }
}

impl Data {
    /// The dataset in `file` for `device`.
    pub fn new(file: Arc<Dataset>, device: Device) -> Self {
        Self {
            file,
            device,
            splits: Default::default(),
        }
    }

    /// Whose protocol it follows.
    pub fn kind(&self) -> Protocol {
        self.file.kind()
    }

    /// The sizes, which a model is built for.
    pub fn shape(&self) -> DataShape {
        let shapes = self.file.shapes();
        DataShape {
            text_length: shapes.text_len as i64,
            audio_length: shapes.audio_len as i64,
            audio_dim: shapes.audio_dim as i64,
            vision_length: shapes.vision_len as i64,
            vision_dim: shapes.vision_dim as i64,
            train_samples: self.file.split(Split::Train).len() as i64,
            unimodal_labels: self.kind().has_unimodal_labels(),
        }
    }

    /// The number of samples in a split.
    pub fn samples(&self, split: Split) -> usize {
        self.file.split(split).len()
    }

    /// The properties of its texts that an encoder must support.
    pub fn texts(&self) -> TextFacts {
        TextFacts::of(&self.file)
    }

    /// A split, on the device.
    pub fn split(&self, split: Split) -> Result<Rc<SplitData>, TrainError> {
        let cell = &self.splits[split as usize];
        if let Some(loaded) = cell.get() {
            return Ok(loaded.clone());
        }
        let loaded = Rc::new(SplitData::load(&self.file, split, self.device)?);
        Ok(cell.get_or_init(|| loaded).clone())
    }
}

/// A tensor of the file's numbers on `device`. On the CPU it borrows from the mapped file, whose pages
/// all processes share.
///
/// The caller keeps the file mapped as long as the tensor exists, and never writes to the tensor.
fn mapped(numbers: &[f32], size: &[i64], device: Device) -> Result<Tensor, TrainError> {
    debug_assert_eq!(numbers.len() as i64, size.iter().product::<i64>());
    // SAFETY: the numbers are in the mapped file, aligned and of this length (`Dataset` checks
    // both). `SplitData` holds the mapping longer than the tensor, keeps the tensor private, and
    // only reads it by `index_select`, which copies.
    let tensor = unsafe {
        Tensor::f_from_blob(numbers.as_ptr().cast(), size, &[], Kind::Float, Device::Cpu)
    }?;
    Ok(tensor.f_to_device(device)?)
}

/// A 0-or-1 mask as floats on the device, transferred as bytes.
fn mask(bytes: &[u8], samples: i64, device: Device) -> Result<Tensor, TrainError> {
    Ok(Tensor::f_from_slice(bytes)?
        .f_view([samples, -1])?
        .f_to_device(device)?
        .f_to_kind(Kind::Float)?)
}

impl SplitData {
    fn load(file: &Arc<Dataset>, split: Split, device: Device) -> Result<Self, TrainError> {
        let view = file.split(split);
        let shapes = file.shapes();
        let n = view.len() as i64;
        let length = shapes.text_len;
        let mut ids = Vec::with_capacity(view.len() * length);
        let mut text_present = Vec::with_capacity(view.len() * length);
        for sample in view.text().chunks_exact(3 * length) {
            ids.extend(sample[..length].iter().map(|&id| i64::from(id)));
            text_present.extend(sample[length..2 * length].iter().map(|&m| m as u8));
        }
        let present = PerModality {
            text: text_present,
            audio: erasure::present(view.audio_lengths(), shapes.audio_len),
            vision: erasure::present(view.vision_lengths(), shapes.vision_len),
        };
        // Methods distinguish positive from negative by the sign, and bound absolute values, so they
        // see labels centered on the middle of the range.
        let neutral = file.kind().neutral();
        let labels = |labels: &[f32]| -> Result<Tensor, TrainError> {
            let labels: Vec<f32> = labels.iter().map(|label| label - neutral).collect();
            Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?)
        };
        let lengths = |lengths: &[i64]| -> Result<Tensor, TrainError> {
            Ok(Tensor::f_from_slice(lengths)?.f_to_device(device)?)
        };
        let unimodal = (
            view.labels_of(Modality::Text),
            view.labels_of(Modality::Audio),
            view.labels_of(Modality::Vision),
        );
        Ok(Self {
            text: Tensor::f_from_slice(view.text())?
                .f_view([n, 3, length as i64])?
                .f_to_device(device)?
                .f_to_kind(Kind::Int64)?,
            audio: mapped(
                view.audio(),
                &[n, shapes.audio_len as i64, shapes.audio_dim as i64],
                device,
            )?,
            vision: mapped(
                view.vision(),
                &[n, shapes.vision_len as i64, shapes.vision_dim as i64],
                device,
            )?,
            audio_lengths: lengths(view.audio_lengths())?,
            vision_lengths: lengths(view.vision_lengths())?,
            present: PerModality {
                text: mask(&present.text, n, device)?,
                audio: mask(&present.audio, n, device)?,
                vision: mask(&present.vision, n, device)?,
            },
            labels: labels(view.labels())?,
            unimodal_labels: match unimodal {
                (Some(text), Some(audio), Some(vision)) => Some(PerModality {
                    text: labels(text)?,
                    audio: labels(audio)?,
                    vision: labels(vision)?,
                }),
                _ => None,
            },
            neutral,
            host: Host {
                ids,
                present,
                labels: view.labels().to_vec(),
            },
            _file: file.clone(),
        })
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.host.labels.len()
    }

    /// Labels, `[N]`, on the host.
    pub fn labels(&self) -> &[f32] {
        &self.host.labels
    }

    /// Copies predictions `[N]` to the host and converts them to the dataset's labels, since methods
    /// see centered labels.
    pub fn to_labels(&self, predictions: &Tensor) -> Result<Vec<f32>, TrainError> {
        let mut values = to_host(predictions)?;
        if self.neutral != 0.0 {
            for value in &mut values {
                *value += self.neutral;
            }
        }
        Ok(values)
    }

    /// Labels minus the middle of their range, `[N]`, on the device, as methods see them.
    pub fn device_labels(&self) -> &Tensor {
        &self.labels
    }

    /// The erasure of a case, as the reference draws it from `seed`. `tokens` are those of the
    /// encoder that will read the texts.
    pub fn erase_case(
        &self,
        case: &Case,
        seed: u32,
        tokens: TokenIds,
    ) -> Result<Erased, TrainError> {
        self.erase(&Rates::of_case(case, self.samples()), seed, tokens)
    }

    /// The training erasure of an epoch. The reference redraws the rates but compares them with the
    /// same uniform numbers in every epoch and run, those of the protocol's erasure seed. Corrected
    /// training redraws these numbers, too.
    pub fn erase_training(
        &self,
        missing: bool,
        seed: u64,
        epoch: u32,
        protocol: &wire::Protocol,
        tokens: TokenIds,
    ) -> Result<Erased, TrainError> {
        let rates = if missing {
            Rates::of_training(self.samples(), seed, epoch)
        } else {
            Rates::complete(self.samples())
        };
        let draw = match protocol.fidelity {
            Fidelity::Reference => protocol.erasure_seed,
            Fidelity::Corrected => order::step_seed(seed, epoch, usize::MAX, 0) as u32,
        };
        self.erase(&rates, draw, tokens)
    }

    fn erase(&self, rates: &Rates, seed: u32, tokens: TokenIds) -> Result<Erased, TrainError> {
        let n = self.samples() as i64;
        let device = self.text.device();
        let present = &self.host.present;
        let text = erasure::erase_text(&self.host.ids, &present.text, &rates.text, seed, tokens);
        let audio = erasure::kept(&present.audio, &rates.audio, seed);
        let vision = erasure::kept(&present.vision, &rates.vision, seed);
        let ids = Tensor::f_from_slice(&text.ids)?
            .f_view([n, 1, -1])?
            .f_to_device(device)?;
        let rate = |rates: &[f64]| -> Result<Tensor, TrainError> {
            let rates: Vec<f32> = rates.iter().map(|&r| r as f32).collect();
            Ok(Tensor::f_from_slice(&rates)?.f_to_device(device)?)
        };
        Ok(Erased {
            text: Tensor::f_cat(&[ids, self.text.f_narrow(1, 1, 2)?], 1)?,
            kept: PerModality {
                text: mask(&text.kept, n, device)?,
                audio: mask(&audio, n, device)?,
                vision: mask(&vision, n, device)?,
            },
            rates: PerModality {
                text: rate(&rates.text)?,
                audio: rate(&rates.audio)?,
                vision: rate(&rates.vision)?,
            },
        })
    }

    /// The samples at `index` (`[B]` int64, on the device).
    pub fn batch(
        &self,
        index: Tensor,
        erased: &Erased,
        complete: bool,
    ) -> Result<Batch, TrainError> {
        let pick = |of: &Tensor| of.f_index_select(0, &index);
        let three = |of: &PerModality<Tensor>| -> Result<PerModality<Tensor>, TrainError> {
            Ok(PerModality {
                text: pick(&of.text)?,
                audio: pick(&of.audio)?,
                vision: pick(&of.vision)?,
            })
        };
        let audio = pick(&self.audio)?;
        let vision = pick(&self.vision)?;
        let kept = three(&erased.kept)?;
        let audio_lengths = pick(&self.audio_lengths)?;
        let vision_lengths = pick(&self.vision_lengths)?;
        Ok(Batch {
            input: Inputs {
                text: pick(&erased.text)?,
                audio: audio.f_mul(&kept.audio.f_unsqueeze(2)?)?,
                vision: vision.f_mul(&kept.vision.f_unsqueeze(2)?)?,
                audio_lengths: audio_lengths.shallow_clone(),
                vision_lengths: vision_lengths.shallow_clone(),
            },
            complete: if complete {
                Some(Inputs {
                    text: pick(&self.text)?,
                    audio,
                    vision,
                    audio_lengths,
                    vision_lengths,
                })
            } else {
                None
            },
            kept,
            present: three(&self.present)?,
            missing_rate: three(&erased.rates)?,
            labels: pick(&self.labels)?,
            unimodal_labels: self.unimodal_labels.as_ref().map(three).transpose()?,
            index,
        })
    }

    /// All samples in order, in batches of at most `size`.
    pub fn in_order<'a>(
        &'a self,
        size: i64,
        erased: &'a Erased,
        complete: bool,
    ) -> impl Iterator<Item = Result<Batch, TrainError>> + 'a {
        let n = self.samples() as i64;
        let device = self.text.device();
        (0..n).step_by(size.max(1) as usize).map(move |start| {
            let end = (start + size).min(n);
            let index = Tensor::f_arange_start(start, end, (Kind::Int64, device))?;
            self.batch(index, erased, complete)
        })
    }
}

/// Copies a tensor to the host: `[N]`.
pub(super) fn to_host(tensor: &Tensor) -> Result<Vec<f32>, TrainError> {
    Ok(Vec::try_from(tensor)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::{dataset, dataset_of};
    use halfheard_shared::benchmark::definition::DefinitionSpec;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    /// Methods distinguish positive from negative by the sign: they see centered labels, and their
    /// predictions are shifted back.
    #[test]
    fn labels_are_centered_and_predictions_shifted_back() {
        let text = "label_range = [0, 16]\nlanguage = \"en\"\nclasses = [2, 17]";
        let spec: DefinitionSpec = toml::from_str(text).unwrap();
        let kind = Protocol::own(spec.resolve().unwrap()).unwrap();
        let (_moved_folder, moved) = dataset_of(kind, 20);
        let (_folder, plain) = dataset(20);
        let split = |file: &Arc<Dataset>| {
            let data = Data::new(file.clone(), Device::Cpu);
            data.split(Split::Test).unwrap()
        };
        let (moved, plain) = (split(&moved), split(&plain));
        let (there, here) = (values(moved.device_labels()), values(plain.device_labels()));
        for ((there, here), original) in there.iter().zip(here).zip(moved.labels()) {
            assert!((there - here).abs() < 1e-5, "{there} {here}");
            assert_eq!(there + 8.0, *original);
        }
        let predictions = Tensor::from_slice(&[-0.5f32, 0.0, 2.0]);
        assert_eq!(moved.to_labels(&predictions).unwrap(), [7.5, 8.0, 10.0]);
        assert_eq!(plain.to_labels(&predictions).unwrap(), [-0.5, 0.0, 2.0]);
    }

    #[test]
    fn batch_contains_samples_and_their_erasure() {
        let (_folder, file) = dataset(20);
        let data = Data::new(file.clone(), Device::Cpu);
        let split = data.split(Split::Test).unwrap();
        let case: Case = "missing=la".parse().unwrap();
        let erased = split.erase_case(&case, 1111, TokenIds::BERT).unwrap();
        let batch = split
            .batch(Tensor::from_slice(&[3_i64, 1]), &erased, true)
            .unwrap();
        let view = file.split(Split::Test);
        let size = file.shapes().audio_len * file.shapes().audio_dim;
        let complete = batch.complete.as_ref().unwrap();
        assert_eq!(
            values(&complete.audio),
            [
                &view.audio()[3 * size..4 * size],
                &view.audio()[size..2 * size]
            ]
            .concat()
        );
        assert!(values(&batch.input.audio).iter().all(|&x| x == 0.0));
        assert_eq!(values(&batch.labels), [view.labels()[3], view.labels()[1]]);
        // Vision is complete up to its length; [CLS] stays, the first word does not.
        assert_eq!(values(&batch.kept.vision), values(&batch.present.vision));
        let ids = |t: &Tensor| Vec::<i64>::try_from(t.get(0).get(0)).unwrap();
        let (was, is) = (ids(&complete.text), ids(&batch.input.text));
        assert_eq!((is[0], is[1]), (was[0], TokenIds::BERT.unknown));
        assert_eq!(values(&batch.missing_rate.text), [1.0, 1.0]);
        assert_eq!(values(&batch.missing_rate.vision), [0.0, 0.0]);
    }

    fn protocol(fidelity: Fidelity) -> wire::Protocol {
        wire::Protocol {
            selection: wire::Selection::Validation,
            train_missing: true,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity,
        }
    }

    #[test]
    fn training_erasure_is_a_pure_function_of_seed_and_epoch() {
        let (_folder, file) = dataset(20);
        let split = Data::new(file, Device::Cpu).split(Split::Train).unwrap();
        for fidelity in [Fidelity::Reference, Fidelity::Corrected] {
            let protocol = protocol(fidelity);
            let draw = |seed, epoch| {
                let erased = split
                    .erase_training(true, seed, epoch, &protocol, TokenIds::BERT)
                    .unwrap();
                values(&erased.kept.audio)
            };
            assert_eq!(draw(1111, 2), draw(1111, 2));
            assert_ne!(draw(1111, 2), draw(1111, 3));
            assert_ne!(draw(1111, 2), draw(1112, 2));
        }
        let complete = split
            .erase_training(
                false,
                1111,
                1,
                &protocol(Fidelity::Reference),
                TokenIds::BERT,
            )
            .unwrap();
        assert_eq!(values(&complete.kept.audio), values(&split.present.audio));
    }
}
