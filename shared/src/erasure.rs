//! Erasure: which steps of which samples are missing.
//!
//! As the reference draws it (`core/dataset.py` of LNLN, `generate_m`): one uniform number for each
//! step of each sample, in order, from NumPy's legacy generator, reseeded with the same seed for
//! each modality; a step is kept where its number exceeds the sample's rate and it is not padding.
//! Erased tokens become the unknown token of the encoder's vocabulary (BERT's `[UNK]`), erased audio
//! and vision steps zeros; the first and the last token of a text (BERT's `[CLS]` and `[SEP]`) are
//! always kept.
//!
//! Two things follow. What is erased of a sample depends on its place in the split, so a split is
//! always erased as a whole. And training erasure, too, compares the same numbers with new rates in
//! every epoch: a sample loses the same steps first each time. The reference does so, and so does
//! this.
//!
//! That is independent erasure. The other protocols of the field are beside it: whole modalities of
//! single samples ([`modalities`]), blocks and bursts of steps ([`block`], [`bursts`]), misheard words
//! ([`ConfusionTable`]), noise, exchanged and averaged features ([`ModalityDamage`]). [`damage`] is the
//! one entrance to all of them.

mod confusion;
mod damaged;
mod english;
mod features;
pub mod modalities;
mod rates;
mod runs;
mod steps;
mod text;
mod words;

pub use confusion::{ConfusionTable, Coverage};
pub use damaged::{DamageError, Damaged, Inputs, Resources, damage};
pub use features::{FeatureStatistics, ModalityDamage, Noise};
pub use rates::Rates;
pub use runs::{MEAN_BURST, block, bursts};
pub use steps::{kept, present};
pub use text::{ErasedText, erase_text};
pub use words::{WordConfusions, WordError};
