//! Predictions of a split, and the features that some methods show.

use super::{
    TrainError,
    data::{Erased, PREDICTION_BATCH, SplitData, to_host},
};
use crate::{
    context::EncoderCache,
    methods::{self, Batch, Method},
};
use halfheard_shared::features::{Features, MAX_SAMPLES, MAX_WIDTH};
use tch::{Kind, Tensor};

/// Predicts a split after erasure: `[N]`, on the device. Calls `advanced` after each batch.
pub(super) fn predict_split(
    method: &dyn Method,
    id: &str,
    split: &SplitData,
    erased: &Erased,
    advanced: &mut dyn FnMut(),
) -> Result<Tensor, TrainError> {
    let _guard = tch::no_grad_guard();
    let mut predicted = Predicted::default();
    for batch in batches(method, split, erased) {
        predicted.add(method, id, &batch?, false, None)?;
        advanced();
    }
    predicted.values()
}

/// One erasure of a split to predict.
pub(super) struct Request<'a> {
    /// The erasure.
    pub(super) erased: &'a Erased,
    /// Whether to return features of the first samples, from the same forward passes, if the method
    /// shows some.
    pub(super) features: bool,
}

/// Predictions `[N]` for one erasure, and the requested features.
pub(super) type Response = (Tensor, Result<Option<Features>, TrainError>);

/// The number of batches of a split.
pub(super) fn batches_of(split: &SplitData) -> usize {
    split.samples().div_ceil(PREDICTION_BATCH as usize)
}

/// Predicts several erasures of a split batch by batch, so a text that several share is encoded
/// once. The predictions of one do not depend on the others. Returns `None` if `should_continue`,
/// called before each batch, returns false.
pub(super) fn predict_together(
    method: &dyn Method,
    id: &str,
    split: &SplitData,
    requests: &[Request<'_>],
    should_continue: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<Response>>, TrainError> {
    let _guard = tch::no_grad_guard();
    let cache = EncoderCache::default();
    let mut each: Vec<_> = requests
        .iter()
        .map(|request| {
            let batches = batches(method, split, request.erased);
            (request.features, batches, Predicted::default())
        })
        .collect();
    for _ in 0..batches_of(split) {
        cache.clear();
        for (features, batches, predicted) in &mut each {
            if !should_continue() {
                return Ok(None);
            }
            if let Some(batch) = batches.next() {
                predicted.add(method, id, &batch?, *features, Some(&cache))?;
            }
        }
    }
    let responses = each
        .into_iter()
        .map(|(_, _, predicted)| Ok((predicted.values()?, first(&predicted.features))));
    responses.collect::<Result<_, TrainError>>().map(Some)
}

fn batches<'a>(
    method: &dyn Method,
    split: &'a SplitData,
    erased: &'a Erased,
) -> impl Iterator<Item = Result<Batch, TrainError>> + use<'a> {
    split.in_order(
        PREDICTION_BATCH,
        erased,
        method.needs().complete_in_evaluation,
    )
}

/// The predictions so far, batch by batch.
#[derive(Default)]
struct Predicted {
    values: Vec<Tensor>,
    features: Vec<methods::Features>,
    /// Samples whose features were requested.
    shown: i64,
}

impl Predicted {
    fn add(
        &mut self,
        method: &dyn Method,
        id: &str,
        batch: &Batch,
        features: bool,
        cache: Option<&EncoderCache>,
    ) -> Result<(), TrainError> {
        let predictions = if features && self.shown < MAX_SAMPLES as i64 {
            let (predictions, features) = method.predict_with_features(batch, cache)?;
            self.shown += batch.len();
            self.features.extend(features);
            predictions
        } else {
            method.predict(batch, cache)?
        };
        if predictions.size() != [batch.len()] {
            return Err(TrainError::Shape {
                method: id.to_owned(),
                found: predictions.size(),
                samples: batch.len(),
            });
        }
        self.values.push(predictions.f_to_kind(Kind::Float)?);
        Ok(())
    }

    fn values(&self) -> Result<Tensor, TrainError> {
        Ok(Tensor::f_cat(&self.values, 0)?)
    }
}

/// The features of the first samples over all batches, on the host.
fn first(batches: &[methods::Features]) -> Result<Option<Features>, TrainError> {
    let Some(width) = batches
        .first()
        .map(|batch| batch.language.size()[1] as usize)
    else {
        return Ok(None);
    };
    if width > MAX_WIDTH {
        tracing::warn!(width, "features exceed {MAX_WIDTH} columns; not stored");
        return Ok(None);
    }
    let rows = |part: fn(&methods::Features) -> &Tensor| {
        let parts: Vec<&Tensor> = batches.iter().map(part).collect();
        let all = Tensor::f_cat(&parts, 0)?.f_to_kind(Kind::Float)?;
        let samples = all.size()[0].min(MAX_SAMPLES as i64);
        to_host(&all.f_narrow(0, 0, samples)?.f_flatten(0, -1)?)
    };
    let language = rows(|batch| &batch.language)?;
    Ok(Some(Features {
        width,
        index: (0..(language.len() / width.max(1)) as i64).collect(),
        language,
        dominant: rows(|batch| &batch.dominant)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn batch(from: i64, samples: i64, width: i64) -> methods::Features {
        let rows = Tensor::arange_start(from, from + samples, (Kind::Float, Device::Cpu));
        let language = rows.unsqueeze(1).repeat([1, width]);
        methods::Features {
            dominant: -&language,
            language,
        }
    }

    #[test]
    fn features_of_first_samples_keep_their_order() {
        let kept = first(&[batch(0, 600, 2), batch(600, 600, 2)]);
        let kept = kept.unwrap().unwrap();
        assert_eq!((kept.samples(), kept.width), (MAX_SAMPLES, 2));
        let row: (&[f32], &[f32]) = (&[999.0, 999.0], &[-999.0, -999.0]);
        assert_eq!(kept.row(999), Some(row));
        assert!(kept.to_bytes().is_ok());
        assert!(first(&[]).unwrap().is_none());
        let wide = batch(0, 1, MAX_WIDTH as i64 + 1);
        assert!(first(&[wide]).unwrap().is_none());
    }
}
