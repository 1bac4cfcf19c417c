//! Where a reference's code departs from its paper, as named switches.
//!
//! `fidelity` names a bundle: `reference` keeps every fault, `corrected` none. A spec may switch
//! single ones. docs/reference/methods.md has a line for each, with its source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What to do where the reference code departs from the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// As the reference code does: comparable with the published numbers.
    Reference,
    /// As the paper says.
    Corrected,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $id:literal of [$($method:literal),*];)*) => {
        /// A departure of a reference's code from its paper.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        pub enum Fault {
            $($(#[$doc])* #[serde(rename = $id)] $name,)*
        }

        impl Fault {
            /// All, in the order of the methods.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is written in specs and tables.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// The methods that have it.
            pub fn methods(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($method),*],)* }
            }
        }
    };
}

faults! {
    /// Schedules and early stopping go by the mean of batch means, rounded to four digits, on the
    /// complete validation split (TFR-Net: erased at 0.2); corrected, by the mean over all samples of
    /// the split erased at the selection rate.
    BatchMeanLoss = "batch-mean-loss"
        of ["misa", "self-mm", "mmim", "cenet", "tetfn", "tfr-net", "almt", "lf-dnn", "emt-dlfr"];
    /// An incomplete group of accumulated gradients at the end of an epoch is dropped.
    DroppedGroups = "dropped-groups" of ["misa", "self-mm", "tetfn", "tfr-net", "emt-dlfr"];
    /// Audio and vision are cut to the lengths of the texts.
    MisaTextLengths = "misa-text-lengths" of ["misa"];
    /// The configured weight decay is not used.
    MisaNoWeightDecay = "misa-no-weight-decay" of ["misa"];
    /// The entropy's projection is never trained.
    MmimUntrainedEntropy = "mmim-untrained-entropy" of ["mmim"];
    /// The attention scores of the enhancement are multiplied by eight.
    CenetScaledScores = "cenet-scaled-scores" of ["cenet"];
    /// The encoder's embeddings are not trained.
    CenetFrozenEmbeddings = "cenet-frozen-embeddings" of ["cenet"];
    /// The vision's convolution has the audio's kernel.
    TetfnAudioKernel = "tetfn-audio-kernel" of ["tetfn"];
    /// Every batch is followed by an update while gradients accumulate, and a group by one more.
    TfrDoubleStep = "tfr-double-step" of ["tfr-net"];
    /// The transformers before the generators see samples as time steps.
    TfrSamplesAsSteps = "tfr-samples-as-steps" of ["tfr-net"];
    /// Chinese text is encoded by the English encoder.
    TfrEnglishEncoder = "tfr-english-encoder" of ["tfr-net"];
    /// The configured clipping of gradients is not used.
    AlmtNoClipping = "almt-no-clipping" of ["almt"];
    /// Hyper-modality learning adds to the normalized state, in place.
    InPlaceResidual = "in-place-residual" of ["almt", "lnln"];
    /// The warm-up starts at a rate of 0, and the cosine one epoch late.
    WarmUpFromZero = "warm-up-from-zero" of ["almt", "lnln"];
    /// The gradient of every loss that reaches the proxy is reversed, not only the adversarial one's.
    GrlOnProxy = "grl-on-proxy" of ["lnln"];
    /// The discriminator judges the mixed feature, not the proxy (equation 9).
    MixedDiscriminator = "mixed-discriminator" of ["lnln"];
    /// Features are rebuilt instead of the inputs (equations 11 and 12).
    RebuiltFeatures = "rebuilt-features" of ["lnln"];
    /// The target of the reconstruction is not detached, so it is trained, too.
    TrainedTarget = "trained-target" of ["lnln"];
    /// The fusion has fewer layers than the paper's four on MOSI.
    ShallowFusion = "shallow-fusion" of ["lnln"];
    /// Training erasure compares new rates with the same uniform numbers in every epoch.
    RepeatedNumbers = "repeated-numbers" of [];
    /// The recurrent network reads the text's padding, too.
    LfPaddedText = "lf-padded-text" of ["lf-dnn"];
    /// Audio and vision are averaged over padding, too.
    LfPaddedMean = "lf-padded-mean" of ["lf-dnn"];
    /// The configured dropout of the text's network is not used.
    LfNoTextDropout = "lf-no-text-dropout" of ["lf-dnn"];
}

impl Fault {
    /// Whether it concerns this method. One without methods concerns all.
    pub fn concerns(self, method: &str) -> bool {
        self.methods().is_empty() || self.methods().contains(&method)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// A name that no fault has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown fault `{0}`")]
pub struct UnknownFault(pub String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut all = Self::ALL.iter();
        let found = all.find(|fault| fault.id() == text).copied();
        found.ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

/// The faults that a training keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults(u64);

impl Faults {
    /// None: as the papers say.
    pub const CORRECTED: Self = Self(0);
    /// All: as the references do.
    pub const REFERENCE: Self = Self((1 << Fault::ALL.len()) - 1);

    fn bit(fault: Fault) -> u64 {
        1 << fault as u64
    }

    /// Whether `fault` is kept.
    pub fn keeps(self, fault: Fault) -> bool {
        self.0 & Self::bit(fault) != 0
    }

    /// The same, but for `fault`.
    #[must_use]
    pub fn with(self, fault: Fault, kept: bool) -> Self {
        match kept {
            true => Self(self.0 | Self::bit(fault)),
            false => Self(self.0 & !Self::bit(fault)),
        }
    }
}

impl From<Fidelity> for Faults {
    fn from(fidelity: Fidelity) -> Self {
        match fidelity {
            Fidelity::Reference => Self::REFERENCE,
            Fidelity::Corrected => Self::CORRECTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_methods_are_known() {
        for (i, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, i);
            assert_eq!(fault.id().parse(), Ok(*fault));
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.id());
        }
        assert!("grl".parse::<Fault>().is_err());
    }

    #[test]
    fn bundles_keep_all_or_none_and_single_ones_can_be_switched() {
        for &fault in Fault::ALL {
            assert!(Faults::REFERENCE.keeps(fault) && !Faults::CORRECTED.keeps(fault));
            let but = Faults::REFERENCE.with(fault, false);
            let kept = Fault::ALL.iter().filter(|one| but.keeps(**one)).count();
            assert_eq!((kept, but.keeps(fault)), (Fault::ALL.len() - 1, false));
            assert_eq!(but.with(fault, true), Faults::REFERENCE);
        }
    }
}
