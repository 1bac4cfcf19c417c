//! Why a text is no case.

/// An invalid case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// A rate outside 0 to 1 or finer than a thousandth.
    #[error("`{0}` is not a missing rate: give a number from 0 to 1 with at most three decimals")]
    Rate(String),
    /// A level of noise outside 0 to 10 or finer than a thousandth.
    #[error(
        "`{0}` is not a level of noise: give a number from 0 to 10, in standard deviations, with at \
         most three decimals"
    )]
    Level(String),
    /// A set with an unknown or repeated letter, or an empty one.
    #[error("`{0}` is not a set of modalities: give one or two of l (text), a (audio), v (vision)")]
    Set(String),
    /// The mean of a text.
    #[error("`{0}` averages text, but tokens have no mean: give a, v or av")]
    Averaged(String),
    /// More missing modalities than there can be.
    #[error(
        "`{0}`: one modality of each sample is kept, so two thirds can be missing at most, which the \
         field calls mr=0.7"
    )]
    RandomModality(String),
    /// A mask that is not a seed.
    #[error("`{0}` is not an erasure seed: give a whole number from 0 to 4294967295 after the @")]
    Mask(String),
    /// A case under another name than its own.
    #[error("`{given}` is another name of `{canonical}`: write that")]
    Name {
        /// As given.
        given: String,
        /// The name.
        canonical: String,
    },
    /// None of the forms.
    #[error(
        "`{0}` is not a case: write `r=0.3`, `missing=la`, `r=0.3+missing=la`, `mr=0.3`, \
         `l=0.7,a=0.1,v=0.3`, `block=0.3`, `bursts=0.3`, `asr=0.3`, `noise=0.5`, `permuted=a` or \
         `averaged=a`, with `@1112` after it for the erasure seed 1112"
    )]
    Form(String),
}
