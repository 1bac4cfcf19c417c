//! Damage that changes what is there instead of erasing it: samples are picked in another order, their
//! features averaged or made noisy, batch by batch. Nothing is kept of a split twice.

use super::{Rows, TrainError};
use halfheard_shared::erasure::{ModalityDamage, Noise};
use tch::{Device, Kind, Tensor};

/// How the features of one modality are changed before steps are erased. N samples of D features.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The sample that each sample's steps come from, `[N]`.
    rows: Option<Rows>,
    /// What every kept step becomes, `[1, 1, D]`.
    average: Option<Tensor>,
    /// What is added to every kept step.
    noise: Option<Noise>,
}

/// The sample that each sample's steps come from, on the device.
fn rows(rows: &[u32], device: Device) -> Result<Rows, TrainError> {
    Rows::new(rows.iter().map(|&row| i64::from(row)).collect(), device)
}

impl Changes {
    /// Those of damaged audio or vision.
    pub(super) fn new(damage: &ModalityDamage, device: Device) -> Result<Self, TrainError> {
        let average = damage.average.as_deref().map(|mean| {
            let mean = Tensor::f_from_slice(mean)?.f_view([1, 1, -1])?;
            mean.f_to_device(device)
        });
        Ok(Self {
            average: average.transpose()?,
            noise: damage.noise.clone(),
            ..Self::of_rows(damage.rows.as_deref(), device)?
        })
    }

    /// Samples in another order, if there is one.
    pub(super) fn of_rows(order: Option<&[u32]>, device: Device) -> Result<Self, TrainError> {
        Ok(Self {
            rows: order.map(|order| rows(order, device)).transpose()?,
            ..Self::default()
        })
    }

    /// What belongs to the samples at `index` (`[B]`): `of` is `[N, ...]`.
    pub(super) fn pick(&self, of: &Tensor, index: &Tensor) -> Result<Tensor, TrainError> {
        Ok(match &self.rows {
            None => of.f_index_select(0, index)?,
            Some(rows) => of.f_index_select(0, &rows.device.f_index_select(0, index)?)?,
        })
    }

    /// As [`pick`](Self::pick), on the host.
    pub(super) fn pick_known(&self, of: &[i64], index: &[i64]) -> Vec<i64> {
        let row = |&sample: &i64| match &self.rows {
            None => sample,
            Some(rows) => rows.host[sample as usize],
        };
        index
            .iter()
            .map(|sample| of[row(sample) as usize])
            .collect()
    }

    /// Features `[B, T, D]` of the samples at `index`, whose steps at 1 of `kept` `[B, T]` are kept; what
    /// the others hold means nothing. `of` is `[N, T, D]`.
    pub(super) fn features(
        &self,
        of: &Tensor,
        kept: &Tensor,
        index: &Tensor,
    ) -> Result<Tensor, TrainError> {
        if let Some(average) = &self.average {
            let size = [kept.size(), vec![of.size()[2]]].concat();
            return Ok(average.f_expand(&size[..], false)?);
        }
        let features = self.pick(of, index)?;
        match &self.noise {
            None => Ok(features),
            Some(noise) => noisy(noise, &features, kept, index),
        }
    }
}

impl Changes {
    /// The complete features of a batch, of which `features` are the changed ones: the same, where nothing
    /// is changed.
    pub(super) fn complete(
        &self,
        features: Tensor,
        of: &Tensor,
        index: &Tensor,
    ) -> Result<Tensor, TrainError> {
        match self {
            Changes {
                rows: None,
                average: None,
                noise: None,
            } => Ok(features),
            _ => Ok(of.f_index_select(0, index)?),
        }
    }
}

/// Noise is drawn on the host: the same numbers on every device, and in exported files.
fn noisy(
    noise: &Noise,
    features: &Tensor,
    kept: &Tensor,
    index: &Tensor,
) -> Result<Tensor, TrainError> {
    let mut values: Vec<f32> = Vec::try_from(features.f_flatten(0, -1)?)?;
    let kept: Vec<u8> = Vec::try_from(kept.f_flatten(0, -1)?.f_to_kind(Kind::Uint8)?)?;
    let samples: Vec<i64> = Vec::try_from(index)?;
    let (row, steps) = (values.len() / samples.len(), kept.len() / samples.len());
    let rows = values.chunks_exact_mut(row.max(1));
    for ((features, kept), sample) in rows.zip(kept.chunks_exact(steps.max(1))).zip(samples) {
        noise.add(features, kept, sample as usize);
    }
    let noisy = Tensor::f_from_slice(&values)?.f_view(&features.size()[..])?;
    Ok(noisy.f_to_device(features.device())?)
}

#[cfg(test)]
mod tests {
    use crate::train::{
        Data,
        testing::{dataset, dataset_with},
    };
    use halfheard_shared::{
        dataset::{Kind as Protocol, Split},
        encoder::TokenIds,
        erased_split::ErasedSplit,
        erasure::{ConfusionTable, WordConfusions},
    };
    use tch::{Device, Kind, Tensor};

    fn floats(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Float)).unwrap()
    }

    const CASES: [&str; 14] = [
        "r=0",
        "r=0.5",
        "missing=la",
        "r=0.5+missing=v",
        "mr=0.5",
        "l=0.7,a=0.1,v=0.3",
        "block=0.5",
        "bursts=0.5@7",
        "asr=1",
        "noise=0.5",
        "permuted=la",
        "permuted=v@7",
        "averaged=a",
        "averaged=av",
    ];

    fn confusions() -> ConfusionTable {
        let heard: String = (300..320)
            .map(|id| format!("w{id}\tw{}\n", id + 1))
            .collect();
        let words = WordConfusions::parse(heard.as_bytes()).unwrap();
        let vocabulary = (300..=320).map(|id| (format!("w{id}"), id)).collect();
        ConfusionTable::of_words(&words, &vocabulary).unwrap().0
    }

    /// Models here are given what files for others have, to the last bit, however samples are batched.
    #[test]
    fn batches_are_the_exported_split() {
        let (_folder, file) = dataset(20);
        let split = Data::new(file.clone(), Device::Cpu)
            .split(Split::Test)
            .unwrap();
        let (table, tokens) = (confusions(), TokenIds::BERT);
        for case in CASES {
            let case = case.parse().unwrap();
            let erased = split
                .damage_case(&case, 1111, tokens, Some(&table))
                .unwrap();
            let exported = ErasedSplit::new(&file, Split::Test, &case, 1111, tokens, Some(&table));
            let exported = exported.unwrap();
            let batches: Vec<_> = split
                .in_order(4, &erased, true)
                .map(Result::unwrap)
                .collect();
            let all = |of: &dyn Fn(&crate::methods::Batch) -> Tensor| -> Vec<f32> {
                let parts: Vec<Tensor> = batches.iter().map(of).collect();
                floats(&Tensor::cat(&parts, 0))
            };
            // Zeros are negative where a negative feature is erased.
            let same = |ours: Vec<f32>, theirs: &[f32]| ours == theirs;
            let bytes = |bytes: &[u8]| bytes.iter().map(|b| f32::from(*b)).collect::<Vec<_>>();
            let numbers = |numbers: &[i64]| numbers.iter().map(|n| *n as f32).collect::<Vec<_>>();
            let text: Vec<f32> = exported.text.iter().map(|id| *id as f32).collect();
            assert!(
                same(all(&|b| b.input.text.shallow_clone()), &text),
                "{case}"
            );
            assert!(
                same(all(&|b| b.input.audio.shallow_clone()), &exported.audio),
                "{case}"
            );
            assert!(
                same(all(&|b| b.input.vision.shallow_clone()), &exported.vision),
                "{case}"
            );
            assert_eq!(
                all(&|b| b.kept.text.shallow_clone()),
                bytes(&exported.text_kept),
                "{case}"
            );
            assert_eq!(
                all(&|b| b.kept.audio.shallow_clone()),
                bytes(&exported.audio_kept),
                "{case}"
            );
            assert_eq!(
                all(&|b| b.kept.vision.shallow_clone()),
                bytes(&exported.vision_kept),
                "{case}"
            );
            let lengths = all(&|b| b.input.audio_lengths.shallow_clone());
            assert_eq!(lengths, numbers(&exported.audio_lengths), "{case}");
            for mut batch in split.in_order(4, &erased, true).map(Result::unwrap) {
                let known = |batch: &mut crate::methods::Batch| {
                    let complete = batch.complete.as_mut().unwrap().host_lengths.take();
                    let lengths = batch.input.host_lengths.take();
                    (lengths, complete, batch.host_labels.take())
                };
                let put_together = known(&mut batch);
                let read = known(&mut batch.known_on_host().unwrap());
                assert_eq!(put_together, read, "{case}");
            }
            // The truth beside it stays as it is.
            let whole = floats(&Tensor::from_slice(file.split(Split::Test).audio()));
            let complete = all(&|b| b.complete.as_ref().unwrap().audio.shallow_clone());
            assert_eq!(complete, whole, "{case}");
        }
    }

    #[test]
    fn case_without_its_table_is_an_error() {
        let (_folder, file) = dataset_with(Protocol::Mosi, 20, |i| [101, 300 + i, 102, 0, 0, 0]);
        let split = Data::new(file, Device::Cpu).split(Split::Test).unwrap();
        let case = "asr=0.5".parse().unwrap();
        let error = split.erase_case(&case, 1111, TokenIds::BERT).unwrap_err();
        assert_eq!(error.to_string(), "the case cannot be made");
    }
}
