//! Features as a model makes them of test samples, for figures that look inside it: the paper's
//! Figure 8 shows LNLN's text feature against the dominant feature that its correction makes.
//!
//! An evaluation leaves them in the artifact store under [`Key::Features`], for missing rates and
//! the checkpoint of [`CRITERION`], before its result is published. They depend on the checkpoint,
//! the data and the erasure alone, so writing them again writes the same bytes.
//!
//! [`Key::Features`]: crate::artifacts::Key::Features

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

/// The selection criterion whose checkpoint's features are kept.
pub const CRITERION: &str = "mae";

/// Test samples whose features are kept: the first in the dataset's order.
pub const MAX_SAMPLES: usize = 1000;

/// The widest feature that is kept.
pub const MAX_WIDTH: usize = 8192;

/// The most bytes that features can have: what reading asks of the artifact store.
pub const MAX_BYTES: u64 =
    (MAX_SAMPLES * (2 * MAX_WIDTH * size_of::<f32>() + size_of::<i64>())) as u64 + HEADER;

/// Bytes for the names and shapes of three tensors.
const HEADER: u64 = 4096;

/// Two features of each sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Features per sample, W.
    pub width: usize,
    /// Positions in the test split, `[N]`, rising.
    pub index: Vec<i64>,
    /// The text feature before its correction, `[N, W]`, sample by sample.
    pub language: Vec<f32>,
    /// The dominant feature that the correction makes of it, `[N, W]`, sample by sample.
    pub dominant: Vec<f32>,
}

/// Why features cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FeaturesError {
    /// More than the limit.
    #[error("features of {bytes} bytes: at most {MAX_BYTES} are read")]
    TooLarge {
        /// Their size.
        bytes: u64,
    },
    /// Not a safetensors file.
    #[error("the features are not a safetensors file; evaluate the case again to renew them")]
    Unreadable(#[from] SafeTensorError),
    /// A missing tensor.
    #[error("the features have no tensor `{name}`; evaluate the case again to renew them")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// A tensor of another kind.
    #[error("the features' `{name}` is of kind {found}, not {expected}")]
    Kind {
        /// The name.
        name: &'static str,
        /// Its kind.
        found: Dtype,
        /// What is expected.
        expected: Dtype,
    },
    /// Tensors with inconsistent shapes, or beyond the limits.
    #[error(
        "the features' `{name}` has shape {found:?}: it must be [samples, width] for the samples \
         of `index`, at most {MAX_SAMPLES} x {MAX_WIDTH}, and the same in both features"
    )]
    Shape {
        /// The name.
        name: &'static str,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Invalid positions.
    #[error("the features' `index` does not rise from 0 or later at place {at}")]
    Index {
        /// The first place that is wrong.
        at: usize,
    },
    /// A number that is not finite.
    #[error("the features' `{name}` holds a number that is not finite, of sample {sample}")]
    NonFinite {
        /// The tensor.
        name: &'static str,
        /// The first sample with one, as a row.
        sample: usize,
    },
}

impl Features {
    /// The number of samples, N.
    pub fn samples(&self) -> usize {
        self.index.len()
    }

    /// The features of a sample by its row, `[W]` both: language, dominant. `None` past the end.
    pub fn row(&self, sample: usize) -> Option<(&[f32], &[f32])> {
        let start = sample.checked_mul(self.width)?;
        let range = start..start.checked_add(self.width)?;
        (sample < self.samples())
            .then(|| Some((self.language.get(range.clone())?, self.dominant.get(range)?)))?
    }

    /// Checks that the fields are consistent.
    fn check(&self) -> Result<(), FeaturesError> {
        let samples = self.samples();
        let rising = |at: usize| self.index[at] > at.checked_sub(1).map_or(-1, |i| self.index[i]);
        if let Some(at) = (0..samples).find(|&at| !rising(at)) {
            return Err(FeaturesError::Index { at });
        }
        for (name, values) in [("language", &self.language), ("dominant", &self.dominant)] {
            let fits = samples <= MAX_SAMPLES
                && (1..=MAX_WIDTH).contains(&self.width)
                && values.len() == samples * self.width;
            if !fits {
                let found = vec![samples, self.width, values.len()];
                return Err(FeaturesError::Shape { name, found });
            }
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let sample = at / self.width;
                return Err(FeaturesError::NonFinite { name, sample });
            }
        }
        Ok(())
    }

    /// As a safetensors file of `index` `[N]` i64, `language` and `dominant` `[N, W]` f32. The same
    /// features give the same bytes.
    ///
    /// # Errors
    ///
    /// Fields that are inconsistent, beyond the limits, or not finite.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FeaturesError> {
        self.check()?;
        let samples = self.samples();
        let floats = |values: &[f32]| -> Vec<u8> {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            bytes.collect()
        };
        let index: Vec<u8> = self.index.iter().flat_map(|i| i.to_le_bytes()).collect();
        let (language, dominant) = (floats(&self.language), floats(&self.dominant));
        let shape = || vec![samples, self.width];
        let tensors = [
            ("index", TensorView::new(Dtype::I64, vec![samples], &index)?),
            ("language", TensorView::new(Dtype::F32, shape(), &language)?),
            ("dominant", TensorView::new(Dtype::F32, shape(), &dominant)?),
        ];
        Ok(safetensors::serialize(tensors, None)?)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Accepts any bytes: their
    /// claims are checked before anything is allocated.
    ///
    /// # Errors
    ///
    /// Bytes that are not features.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FeaturesError> {
        let size = bytes.len() as u64;
        if size > MAX_BYTES {
            return Err(FeaturesError::TooLarge { bytes: size });
        }
        let file = SafeTensors::deserialize(bytes)?;
        let find = |name: &'static str, expected: Dtype| {
            let tensor = match file.tensor(name) {
                Err(SafeTensorError::TensorNotFound(_)) => {
                    return Err(FeaturesError::Missing { name });
                }
                tensor => tensor?,
            };
            if tensor.dtype() == expected {
                Ok(tensor)
            } else {
                Err(FeaturesError::Kind {
                    name,
                    found: tensor.dtype(),
                    expected,
                })
            }
        };
        let wrong = |name: &'static str, tensor: &TensorView<'_>| FeaturesError::Shape {
            name,
            found: tensor.shape().to_vec(),
        };
        let index = find("index", Dtype::I64)?;
        let [samples] = *index.shape() else {
            return Err(wrong("index", &index));
        };
        let language = find("language", Dtype::F32)?;
        let [_, width] = *language.shape() else {
            return Err(wrong("language", &language));
        };
        let dominant = find("dominant", Dtype::F32)?;
        for (name, tensor) in [("language", &language), ("dominant", &dominant)] {
            if tensor.shape() != [samples, width] {
                return Err(wrong(name, tensor));
            }
        }
        let floats = |tensor: &TensorView<'_>| {
            let values = tensor.data().as_chunks().0.iter();
            values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let index = index.data().as_chunks().0.iter();
        let features = Self {
            width,
            index: index.map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            language: floats(&language),
            dominant: floats(&dominant),
        };
        features.check()?;
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn features() -> Features {
        Features {
            width: 2,
            index: vec![0, 1, 5],
            language: vec![0.5, -1.0, 2.0, 3.5, 0.0, 1e-30],
            dominant: vec![1.5, 1.0, 0.25, -3.5, 7.0, 0.0],
        }
    }

    #[test]
    fn features_round_trip_deterministically() {
        let bytes = features().to_bytes().unwrap();
        assert_eq!(Features::from_bytes(&bytes).unwrap(), features());
        assert_eq!(features().to_bytes().unwrap(), bytes);
        let features = features();
        let last: (&[f32], &[f32]) = (&[0.0, 1e-30], &[7.0, 0.0]);
        assert_eq!(features.row(2), Some(last));
        assert_eq!(features.row(3), None);
        assert_eq!(features.row(usize::MAX), None);
    }

    #[test]
    fn wide_features_of_full_split_fit_the_limit() {
        let all = MAX_SAMPLES * MAX_WIDTH;
        let largest = Features {
            width: MAX_WIDTH,
            index: (0..MAX_SAMPLES as i64).collect(),
            language: vec![0.5; all],
            dominant: vec![0.25; all],
        };
        let bytes = largest.to_bytes().unwrap();
        assert!(bytes.len() as u64 <= MAX_BYTES);
        assert_eq!(Features::from_bytes(&bytes).unwrap(), largest);
    }

    #[test]
    fn inconsistent_fields_are_rejected() {
        let refused = |change: fn(&mut Features)| {
            let mut changed = features();
            change(&mut changed);
            changed.to_bytes().unwrap_err().to_string()
        };
        let error = refused(|f| f.width = 3);
        assert!(error.contains("`language` has shape"), "{error}");
        let error = refused(|f| {
            f.dominant.pop();
        });
        assert!(error.contains("`dominant` has shape"), "{error}");
        let error = refused(|f| f.index = vec![0, 1, 1]);
        assert!(error.contains("at place 2"), "{error}");
        let error = refused(|f| f.index[0] = -1);
        assert!(error.contains("at place 0"), "{error}");
        let error = refused(|f| f.dominant[3] = f32::NAN);
        assert!(error.contains("of sample 1"), "{error}");
        let error = refused(|f| {
            f.index = (0..1001).collect();
            f.language = vec![0.0; 2002];
            f.dominant = vec![0.0; 2002];
        });
        assert!(error.contains("1001"), "{error}");
    }

    fn file(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
        let zeros = [0; 256];
        let views = tensors.iter().map(|(name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let view = TensorView::new(*dtype, shape.to_vec(), &zeros[..bytes]);
            (*name, view.unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn foreign_features_file_is_rejected_with_reason() {
        let read = |tensors: &[(&str, Dtype, &[usize])]| {
            let error = Features::from_bytes(&file(tensors)).unwrap_err();
            error.to_string()
        };
        let index: (&str, Dtype, &[usize]) = ("index", Dtype::I64, &[1]);
        let language: (&str, Dtype, &[usize]) = ("language", Dtype::F32, &[1, 4]);
        let error = read(&[language]);
        assert!(error.contains("no tensor `index`"), "{error}");
        let error = read(&[index, ("language", Dtype::F64, &[1, 4])]);
        assert!(error.contains("F64"), "{error}");
        let error = read(&[index, language, ("dominant", Dtype::F32, &[4, 1])]);
        assert!(error.contains("[4, 1]"), "{error}");
        let error = read(&[index, ("language", Dtype::F32, &[4])]);
        assert!(error.contains("[4]"), "{error}");
        let error = read(&[
            index,
            ("language", Dtype::F32, &[1, 0]),
            ("dominant", Dtype::F32, &[1, 0]),
        ]);
        assert!(error.contains("must be [samples, width]"), "{error}");
        let long = vec![0; MAX_BYTES as usize + 1];
        let error = Features::from_bytes(&long).unwrap_err();
        assert!(matches!(error, FeaturesError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Features::from_bytes(&bytes);
        }

        /// A good file with one byte changed is read or refused, and what is read holds together.
        #[test]
        fn changed_byte_never_panics(at in 0..10_000_usize, to in any::<u8>()) {
            let mut bytes = features().to_bytes().unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(read) = Features::from_bytes(&bytes) {
                prop_assert!(read.to_bytes().is_ok());
            }
        }
    }
}
