//! How a forward pass computes: for training or evaluation, and which work it may skip.

use std::cell::RefCell;
use tch::Tensor;

/// Optimizations that change no result, each with a switch so that benchmarks can measure it and
/// tests can compare results with and without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optimizations {
    /// Leave padding out of BERT where the method does not read its outputs.
    pub trim_padding: bool,
    /// Encode erased and complete inputs in one batch.
    pub encode_jointly: bool,
}

impl Optimizations {
    /// Every optimization.
    pub const ALL: Self = Self {
        trim_padding: true,
        encode_jointly: true,
    };
    /// No optimization.
    pub const NONE: Self = Self {
        trim_padding: false,
        encode_jointly: false,
    };

    /// Applies `encode` to `a` and `b`, samples of equal shape, in one batch if
    /// [`encode_jointly`](Self::encode_jointly) is set.
    pub(crate) fn encode_both(
        self,
        a: &Tensor,
        b: &Tensor,
        encode: impl Fn(&Tensor) -> Tensor,
    ) -> (Tensor, Tensor) {
        if !self.encode_jointly {
            return (encode(a), encode(b));
        }
        let both = encode(&Tensor::cat(&[a, b], 0));
        let (first, second) = (a.size()[0], b.size()[0]);
        (both.narrow(0, 0, first), both.narrow(0, first, second))
    }
}

/// How far texts are from their padding, as the host knows it. Texts are their tokens, then padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Tokens of all texts.
    tokens: i64,
    /// Tokens of the longest one.
    longest: i64,
}

impl Padding {
    /// Of texts with the given numbers of tokens.
    pub(crate) fn of(lengths: &[i64]) -> Self {
        Self {
            tokens: lengths.iter().sum(),
            longest: lengths.iter().copied().max().unwrap_or(0),
        }
    }

    /// Of both sets of texts.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            longest: self.longest.max(other.longest),
        }
    }

    /// Tokens of all texts.
    pub(crate) fn tokens(self) -> i64 {
        self.tokens
    }

    /// Tokens of the longest one.
    pub(crate) fn longest(self) -> i64 {
        self.longest
    }
}

/// The mode of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct ForwardContext<'a> {
    /// Whether dropout and batch statistics apply.
    pub train: bool,
    /// Reuses the text encoder's outputs.
    pub cache: Option<&'a EncoderCache>,
    /// The padding of the texts, if the host knows it: the encoder reads it from the device otherwise.
    pub padding: Option<Padding>,
}

impl<'a> ForwardContext<'a> {
    /// A training step.
    pub const TRAIN: Self = Self {
        train: true,
        cache: None,
        padding: None,
    };

    /// An evaluation.
    pub fn evaluation(cache: Option<&'a EncoderCache>) -> Self {
        Self {
            train: false,
            cache,
            padding: None,
        }
    }

    /// The same, with the padding of the texts.
    pub(crate) fn padded(self, padding: Option<Padding>) -> Self {
        Self { padding, ..self }
    }
}

/// A text `[B, 3, L]`, the weights and the form that encoded it, and the outputs.
#[derive(Debug)]
struct Entry {
    weights: usize,
    packed: bool,
    text: Tensor,
    states: Tensor,
}

/// Text encoder outputs of one evaluation over several cases: cases without audio or vision share
/// the text of r=0, and all cases without language share one text, so sixteen cases have eleven
/// distinct texts.
///
/// The weights must not change while entries exist.
#[derive(Debug, Default)]
pub struct EncoderCache {
    entries: RefCell<Vec<Entry>>,
}

impl EncoderCache {
    /// Drops all entries.
    pub fn clear(&self) {
        self.entries.borrow_mut().clear();
    }

    /// Returns the outputs for `text` under `weights`, encoding it if they are not cached. `packed`
    /// tells whether outputs at padded positions are left out. Outputs with a gradient are not
    /// cached.
    pub(crate) fn get_or_encode(
        &self,
        weights: &Tensor,
        text: &Tensor,
        packed: bool,
        encode: impl FnOnce() -> Tensor,
    ) -> Tensor {
        let weights = weights.data_ptr() as usize;
        let matches = |entry: &&Entry| {
            entry.weights == weights
                && entry.packed == packed
                && entry.text.size() == text.size()
                && entry.text.equal(text)
        };
        if let Some(entry) = self.entries.borrow().iter().find(matches) {
            return entry.states.shallow_clone();
        }
        let states = encode();
        if !states.requires_grad() {
            self.entries.borrow_mut().push(Entry {
                weights,
                packed,
                text: text.shallow_clone(),
                states: states.shallow_clone(),
            });
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tch::{Device, Kind};

    fn text(token: i64) -> Tensor {
        Tensor::full([2, 3, 4], token, (Kind::Int64, Device::Cpu))
    }

    #[test]
    fn text_is_encoded_once_per_weights_until_cleared() {
        let weights = [1.0, 2.0].map(|w| Tensor::from_slice(&[w]));
        let calls = Cell::new(0);
        let cache = EncoderCache::default();
        let encode = |by: usize, token: i64| {
            let states = cache.get_or_encode(&weights[by], &text(token), true, || {
                calls.set(calls.get() + 1);
                text(token) * &weights[by]
            });
            assert!(states.equal(&(text(token) * &weights[by])));
            calls.get()
        };
        assert_eq!((encode(0, 7), encode(0, 7)), (1, 1));
        assert_eq!((encode(0, 8), encode(1, 7), encode(1, 7)), (2, 3, 3));
        cache.clear();
        assert_eq!((encode(0, 7), encode(0, 7)), (4, 4));
    }

    #[test]
    fn outputs_with_a_gradient_are_not_cached() {
        let weights = Tensor::from_slice(&[1.0]).set_requires_grad(true);
        let calls = Cell::new(0);
        let cache = EncoderCache::default();
        for _ in 0..2 {
            drop(cache.get_or_encode(&weights, &text(7), true, || {
                calls.set(calls.get() + 1);
                text(7) * &weights
            }));
        }
        assert_eq!(calls.get(), 2);
    }
}
