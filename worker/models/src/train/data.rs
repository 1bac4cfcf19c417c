//! A dataset's splits as tensors on the device, their erasure, and batches.
//!
//! A split is moved to the device once; batches are selected from it there by index. Only the masks
//! of an erasure are transferred: erased audio and vision are the product of complete features and
//! mask, computed per batch.

mod damage;

use self::damage::Changes;
use super::{TrainError, order};
use crate::methods::{Batch, DataShape, Inputs, PerModality};
use halfheard_shared::{
    case::{Case, Damage, Modality},
    dataset::{Dataset, Kind as Protocol, Split},
    encoder::{TextFacts, TokenIds},
    erased_split::training_statistics,
    erasure::{self, ConfusionTable, FeatureStatistics, Rates, Resources},
    methods::faults::Fault,
    regime::{Pass, Regime},
    wire,
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
    /// Of audio and vision in the training split, for damage that needs them.
    statistics: OnceCell<[FeatureStatistics; 2]>,
    /// Keeps the file mapped until the tensors above, which may borrow from it, are dropped: fields
    /// drop in this order.
    file: Arc<Dataset>,
}

#[derive(Debug)]
struct Host {
    ids: Vec<i64>,
    present: PerModality<Vec<u8>>,
    /// Steps before padding.
    lengths: PerModality<Vec<i64>>,
    labels: Vec<f32>,
}

/// Positions of samples in a split, on the host and on the device: `[B]` int64.
#[derive(Debug)]
pub(super) struct Rows {
    host: Vec<i64>,
    device: Tensor,
}

impl Rows {
    /// Copies them to the device.
    pub(super) fn new(host: Vec<i64>, device: Device) -> Result<Self, TrainError> {
        let device = Tensor::f_from_slice(&host)?.f_to_device(device)?;
        Ok(Self { host, device })
    }

    /// From `start` to `end`.
    fn range(start: i64, end: i64, device: Device) -> Result<Self, TrainError> {
        Ok(Self {
            host: (start..end).collect(),
            device: Tensor::f_arange_start(start, end, (Kind::Int64, device))?,
        })
    }

    /// At most `length` of them, from `start`.
    pub(super) fn part(&self, start: usize, length: usize) -> Result<Self, TrainError> {
        let host: Vec<i64> = self.host.iter().skip(start).take(length).copied().collect();
        let device = self.device.f_narrow(0, start as i64, host.len() as i64)?;
        Ok(Self { host, device })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.host.len()
    }

    /// On the device.
    pub(super) fn device(&self) -> &Tensor {
        &self.device
    }
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
    /// What else happens to the features, and where they come from.
    changes: PerModality<Changes>,
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

    /// Where its splits are.
    pub fn device(&self) -> Device {
        self.device
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

/// The tokens of texts before padding, from their masks `[N, L]`: ones, then zeros (`Dataset` checks it).
fn tokens(masks: &[u8], length: usize) -> Vec<i64> {
    let each = masks.chunks_exact(length.max(1));
    each.map(|mask| mask.iter().map(|&m| i64::from(m)).sum())
        .collect()
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
        let host_lengths = PerModality {
            text: tokens(&text_present, length),
            audio: view.audio_lengths().to_vec(),
            vision: view.vision_lengths().to_vec(),
        };
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
                lengths: host_lengths,
                labels: view.labels().to_vec(),
            },
            statistics: OnceCell::new(),
            file: file.clone(),
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

    /// The split as a case leaves it, drawn from the case's own seed or from `seed`, that of the
    /// protocol. `tokens` are those of the encoder that will read the texts, and `confusions` the words
    /// that it can be given in place of others.
    ///
    /// # Errors
    ///
    /// The case needs `confusions`, and there are none.
    pub fn damage_case(
        &self,
        case: &Case,
        seed: u32,
        tokens: TokenIds,
        confusions: Option<&ConfusionTable>,
    ) -> Result<Erased, TrainError> {
        let statistics = Resources::needs_statistics(&case.damage).then(|| {
            let computed = || training_statistics(&self.file);
            self.statistics.get_or_init(computed)
        });
        let resources = Resources {
            audio: statistics.map(|[audio, _]| audio),
            vision: statistics.map(|[_, vision]| vision),
            confusions,
        };
        self.damage(&case.damage, &resources, case.seed(seed), tokens)
    }

    /// As [`damage_case`](Self::damage_case), of a case without errors of speech recognition.
    pub fn erase_case(
        &self,
        case: &Case,
        seed: u32,
        tokens: TokenIds,
    ) -> Result<Erased, TrainError> {
        self.damage_case(case, seed, tokens, None)
    }

    /// The erasure of a pass over the training split. The reference redraws the rates but compares them
    /// with the same uniform numbers in every epoch and run, those of the protocol's erasure seed.
    /// Corrected training redraws these numbers, too, where it redraws all rates.
    pub fn erase_training(
        &self,
        regime: Regime,
        pass: Pass<'_>,
        protocol: &wire::Protocol,
        tokens: TokenIds,
    ) -> Result<Erased, TrainError> {
        let rates = regime.rates(self.samples(), pass);
        let repeats = protocol.faults().keeps(Fault::RepeatedNumbers);
        let draw = match regime.redraws_numbers() && !repeats {
            true => order::step_seed(pass.seed, pass.epoch, usize::MAX, 0) as u32,
            false => protocol.erasure_seed,
        };
        self.erase(&rates, draw, tokens)
    }

    fn damage(
        &self,
        damage: &Damage,
        resources: &Resources<'_>,
        seed: u32,
        tokens: TokenIds,
    ) -> Result<Erased, TrainError> {
        let device = self.text.device();
        let present = &self.host.present;
        let inputs = erasure::Inputs {
            samples: self.samples(),
            ids: &self.host.ids,
            text: &present.text,
            audio: &present.audio,
            vision: &present.vision,
        };
        let damaged = erasure::damage(damage, &inputs, resources, seed, tokens)?;
        let kept = PerModality {
            text: damaged.text.kept.as_slice(),
            audio: &damaged.audio.kept,
            vision: &damaged.vision.kept,
        };
        let changes = PerModality {
            text: Changes::of_rows(damaged.text_rows.as_deref(), device)?,
            audio: Changes::new(&damaged.audio, device)?,
            vision: Changes::new(&damaged.vision, device)?,
        };
        self.erased(&damaged.text.ids, kept, &damaged.rates, changes)
    }

    fn erase(&self, rates: &Rates, seed: u32, tokens: TokenIds) -> Result<Erased, TrainError> {
        let present = &self.host.present;
        let text = erasure::erase_text(&self.host.ids, &present.text, &rates.text, seed, tokens);
        let kept = PerModality {
            text: text.kept.as_slice(),
            audio: &erasure::kept(&present.audio, &rates.audio, seed),
            vision: &erasure::kept(&present.vision, &rates.vision, seed),
        };
        self.erased(&text.ids, kept, rates, PerModality::default())
    }

    /// What is left of the split, on the device: token ids `[N, L]`, masks `[N, steps]`.
    fn erased(
        &self,
        ids: &[i64],
        kept: PerModality<&[u8]>,
        rates: &Rates,
        changes: PerModality<Changes>,
    ) -> Result<Erased, TrainError> {
        let n = self.samples() as i64;
        let device = self.text.device();
        let ids = Tensor::f_from_slice(ids)?
            .f_view([n, 1, -1])?
            .f_to_device(device)?;
        let all = Tensor::f_arange(n, (Kind::Int64, device))?;
        // Mask and segments of the same text.
        let rest = changes.text.pick(&self.text.f_narrow(1, 1, 2)?, &all)?;
        let rate = |rates: &[f64]| -> Result<Tensor, TrainError> {
            let rates: Vec<f32> = rates.iter().map(|&r| r as f32).collect();
            Ok(Tensor::f_from_slice(&rates)?.f_to_device(device)?)
        };
        Ok(Erased {
            text: Tensor::f_cat(&[ids, rest], 1)?,
            kept: PerModality {
                text: mask(kept.text, n, device)?,
                audio: mask(kept.audio, n, device)?,
                vision: mask(kept.vision, n, device)?,
            },
            rates: PerModality {
                text: rate(&rates.text)?,
                audio: rate(&rates.audio)?,
                vision: rate(&rates.vision)?,
            },
            changes,
        })
    }

    /// The samples at `rows`.
    pub(super) fn batch(
        &self,
        rows: Rows,
        erased: &Erased,
        complete: bool,
    ) -> Result<Batch, TrainError> {
        let Rows { host, device } = rows;
        let (index, known) = (device, &self.host);
        let host_lengths = PerModality {
            text: erased.changes.text.pick_known(&known.lengths.text, &host),
            audio: erased.changes.audio.pick_known(&known.lengths.audio, &host),
            vision: erased
                .changes
                .vision
                .pick_known(&known.lengths.vision, &host),
        };
        let centered = |row: i64| known.labels[row as usize] - self.neutral;
        let unchanged = |of: &[i64]| host.iter().map(|&row| of[row as usize]).collect();
        let pick = |of: &Tensor| of.f_index_select(0, &index);
        let three = |of: &PerModality<Tensor>| -> Result<PerModality<Tensor>, TrainError> {
            Ok(PerModality {
                text: pick(&of.text)?,
                audio: pick(&of.audio)?,
                vision: pick(&of.vision)?,
            })
        };
        let kept = three(&erased.kept)?;
        let PerModality {
            text: of_text,
            audio: of_audio,
            vision: of_vision,
        } = &erased.changes;
        let audio = of_audio.features(&self.audio, &kept.audio, &index)?;
        let vision = of_vision.features(&self.vision, &kept.vision, &index)?;
        Ok(Batch {
            input: Inputs {
                text: pick(&erased.text)?,
                audio: audio.f_mul(&kept.audio.f_unsqueeze(2)?)?,
                vision: vision.f_mul(&kept.vision.f_unsqueeze(2)?)?,
                audio_lengths: of_audio.pick(&self.audio_lengths, &index)?,
                vision_lengths: of_vision.pick(&self.vision_lengths, &index)?,
                host_lengths: Some(host_lengths),
            },
            complete: if complete {
                Some(Inputs {
                    text: pick(&self.text)?,
                    audio: of_audio.complete(audio, &self.audio, &index)?,
                    vision: of_vision.complete(vision, &self.vision, &index)?,
                    audio_lengths: pick(&self.audio_lengths)?,
                    vision_lengths: pick(&self.vision_lengths)?,
                    host_lengths: Some(PerModality {
                        text: unchanged(&known.lengths.text),
                        audio: unchanged(&known.lengths.audio),
                        vision: unchanged(&known.lengths.vision),
                    }),
                })
            } else {
                None
            },
            kept,
            present: PerModality {
                text: of_text.pick(&self.present.text, &index)?,
                audio: of_audio.pick(&self.present.audio, &index)?,
                vision: of_vision.pick(&self.present.vision, &index)?,
            },
            missing_rate: three(&erased.rates)?,
            labels: pick(&self.labels)?,
            host_labels: Some(host.iter().map(|&row| centered(row)).collect()),
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
            self.batch(Rows::range(start, end, device)?, erased, complete)
        })
    }
}

/// Copies a tensor to the host: `[N]`.
pub(super) fn to_host(tensor: &Tensor) -> Result<Vec<f32>, TrainError> {
    Ok(Vec::try_from(tensor)?)
}

#[cfg(test)]
mod tests;
