//! Work that no result depends on and that is left out, each kind with a switch: so that it can be
//! measured what is saved, and tested that nothing else changes. All are on unless a bench or a
//! test says otherwise.

use std::cell::Cell;
use tch::Tensor;

/// What is saved on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savings {
    /// Padding does not go through BERT, where a method reads nothing of it.
    pub trim: bool,
    /// Erased and complete inputs go through an encoder in one batch.
    pub together: bool,
    /// A text that several cases of an evaluation have goes through BERT once.
    pub remember: bool,
}

thread_local! {
    static CURRENT: Cell<Savings> = const { Cell::new(Savings::ALL) };
}

impl Savings {
    /// Everything is saved that can be.
    pub const ALL: Self = Self {
        trim: true,
        together: true,
        remember: true,
    };
    /// Nothing is saved.
    pub const NONE: Self = Self {
        trim: false,
        together: false,
        remember: false,
    };

    /// What this thread saves.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// From now on this thread saves that.
    pub fn apply(self) {
        CURRENT.set(self);
    }
}

/// `encode` of `a` and `b`, samples of equal shape: in one batch, where that is saved.
pub fn together(a: &Tensor, b: &Tensor, encode: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
    if !Savings::current().together {
        return (encode(a), encode(b));
    }
    let both = encode(&Tensor::cat(&[a, b], 0));
    let (first, second) = (a.size()[0], b.size()[0]);
    (both.narrow(0, 0, first), both.narrow(0, first, second))
}
