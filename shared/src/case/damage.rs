//! What is done to a split.

use super::{CaseError, Level, MissingSet, Modality, Rate, order::order_as_text};
use std::{fmt, str::FromStr};

/// What the field calls the rate at which one modality of each sample is kept (`zeroQiaoba/GCNet`).
const MAX_RANDOM: Rate = Rate::of_thousandths(700);

/// What is done to every sample of a split. [`Rate`]s are of steps, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// `r=0.3`: every step of every modality is erased with this probability.
    Rate(Rate),
    /// `missing=la`: these modalities are erased wholly, the others are complete.
    Missing(MissingSet),
    /// `r=0.3+missing=la`: these modalities are erased wholly, steps of the others with this
    /// probability.
    RateMissing(Rate, MissingSet),
    /// `mr=0.3`: modalities of a sample are erased wholly, so that this share of all is missing; one
    /// at least is kept.
    RandomModality(Rate),
    /// `l=0.7,a=0.1,v=0.3`: each modality's steps are erased with its own probability.
    PerModality {
        /// Of language.
        text: Rate,
        /// Of audio.
        audio: Rate,
        /// Of vision.
        vision: Rate,
    },
    /// `block=0.3`: one contiguous block of every modality is erased, this share of its steps.
    Block(Rate),
    /// `bursts=0.3`: steps are erased in bursts, this share of them in the mean.
    Bursts(Rate),
    /// `asr=0.3`: words are replaced, dropped and inserted as speech recognition does, at this word
    /// error rate; audio and vision are complete.
    Asr(Rate),
    /// `noise=0.5`: noise is added to audio and vision features, in their standard deviations.
    Noise(Level),
    /// `permuted=a`: these modalities are those of other samples.
    Permuted(MissingSet),
    /// `averaged=a`: these modalities' features are replaced by their mean over the training split.
    Averaged(MissingSet),
}

impl Damage {
    /// Its kind, as the database names it: `r`, `missing`, `r+missing`, `mr`, `l,a,v`, `block`,
    /// `bursts`, `asr`, `noise`, `permuted` or `averaged`.
    pub fn kind(&self) -> &'static str {
        match self {
            Damage::Rate(_) => "r",
            Damage::Missing(_) => "missing",
            Damage::RateMissing(..) => "r+missing",
            Damage::RandomModality(_) => "mr",
            Damage::PerModality { .. } => "l,a,v",
            Damage::Block(_) => "block",
            Damage::Bursts(_) => "bursts",
            Damage::Asr(_) => "asr",
            Damage::Noise(_) => "noise",
            Damage::Permuted(_) => "permuted",
            Damage::Averaged(_) => "averaged",
        }
    }

    /// How much of it there is, where one number says so: the place on a curve of its kind.
    pub fn amount(&self) -> Option<f64> {
        match self {
            Damage::Rate(rate)
            | Damage::RateMissing(rate, _)
            | Damage::RandomModality(rate)
            | Damage::Block(rate)
            | Damage::Bursts(rate)
            | Damage::Asr(rate) => Some(rate.value()),
            Damage::Noise(level) => Some(level.value()),
            Damage::Missing(_)
            | Damage::PerModality { .. }
            | Damage::Permuted(_)
            | Damage::Averaged(_) => None,
        }
    }

    /// The modalities that are damaged as a whole, where it says which.
    pub fn set(&self) -> Option<MissingSet> {
        match self {
            Damage::Missing(set)
            | Damage::RateMissing(_, set)
            | Damage::Permuted(set)
            | Damage::Averaged(set) => Some(*set),
            _ => None,
        }
    }

    /// The probability with which every step of `modality` is erased, each on its own; `None` for
    /// damage of another form.
    pub fn rate_of(&self, modality: Modality) -> Option<f64> {
        let of_set = |set: &MissingSet, others: Rate| match set.contains(modality) {
            true => Rate::ONE,
            false => others,
        };
        let rate = match self {
            Damage::Rate(rate) => *rate,
            Damage::Missing(set) => of_set(set, Rate::ZERO),
            Damage::RateMissing(rate, set) => of_set(set, *rate),
            Damage::PerModality {
                text,
                audio,
                vision,
            } => match modality {
                Modality::Text => *text,
                Modality::Audio => *audio,
                Modality::Vision => *vision,
            },
            _ => return None,
        };
        Some(rate.value())
    }

    /// Whether chance takes part, so that another erasure seed damages other steps or samples.
    pub fn is_drawn(&self) -> bool {
        match self {
            Damage::Rate(rate) => *rate != Rate::ZERO && *rate != Rate::ONE,
            Damage::Missing(_) | Damage::Averaged(_) => false,
            _ => true,
        }
    }

    /// The same damage in its simplest form, which is the one that has a text.
    fn simplest(self) -> Self {
        let nothing = Damage::Rate(Rate::ZERO);
        match self {
            Damage::RateMissing(Rate::ZERO, set) => Damage::Missing(set),
            Damage::RateMissing(Rate::ONE, _) => Damage::Rate(Rate::ONE),
            Damage::RandomModality(Rate::ZERO)
            | Damage::Block(Rate::ZERO)
            | Damage::Bursts(Rate::ZERO)
            | Damage::Asr(Rate::ZERO)
            | Damage::Noise(Level::ZERO) => nothing,
            // Two of three modalities are missing, whatever the rate.
            Damage::RandomModality(rate) if rate.value() > 2.0 / 3.0 => {
                Damage::RandomModality(MAX_RANDOM)
            }
            Damage::PerModality {
                text,
                audio,
                vision,
            } => {
                let all = [text, audio, vision];
                let mut others = all.into_iter().filter(|rate| *rate != Rate::ONE);
                let other = others.next().unwrap_or(Rate::ONE);
                let set = MissingSet {
                    text: text == Rate::ONE,
                    audio: audio == Rate::ONE,
                    vision: vision == Rate::ONE,
                };
                match others.all(|rate| rate == other) {
                    false => self,
                    true if all.iter().all(|rate| *rate == other) => Damage::Rate(other),
                    true => Damage::RateMissing(other, set).simplest(),
                }
            }
            damage => damage,
        }
    }
}

order_as_text!(Damage);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Damage::RateMissing(rate, set) => write!(f, "r={rate}+missing={set}"),
            Damage::PerModality {
                text,
                audio,
                vision,
            } => write!(f, "l={text},a={audio},v={vision}"),
            Damage::Missing(set) | Damage::Permuted(set) | Damage::Averaged(set) => {
                write!(f, "{kind}={set}")
            }
            Damage::Noise(level) => write!(f, "{kind}={level}"),
            Damage::Rate(rate)
            | Damage::RandomModality(rate)
            | Damage::Block(rate)
            | Damage::Bursts(rate)
            | Damage::Asr(rate) => write!(f, "{kind}={rate}"),
        }
    }
}

impl FromStr for Damage {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        let form = || CaseError::Form(s.to_owned());
        let (kind, value) = s.split_once('=').ok_or_else(form)?;
        let damage = match kind {
            "r" => match value.split_once("+missing=") {
                Some((rate, set)) => Damage::RateMissing(rate.parse()?, set.parse()?),
                None => Damage::Rate(value.parse()?),
            },
            "missing" => Damage::Missing(value.parse()?),
            "mr" => match value.parse()? {
                rate if rate > MAX_RANDOM => {
                    return Err(CaseError::RandomModality(s.to_owned()));
                }
                rate => Damage::RandomModality(rate),
            },
            "l" => {
                let (text, rest) = value.split_once(",a=").ok_or_else(form)?;
                let (audio, vision) = rest.split_once(",v=").ok_or_else(form)?;
                Damage::PerModality {
                    text: text.parse()?,
                    audio: audio.parse()?,
                    vision: vision.parse()?,
                }
            }
            "block" => Damage::Block(value.parse()?),
            "bursts" => Damage::Bursts(value.parse()?),
            "asr" => Damage::Asr(value.parse()?),
            "noise" => Damage::Noise(value.parse()?),
            "permuted" => Damage::Permuted(value.parse()?),
            "averaged" => match value.parse()? {
                MissingSet { text: true, .. } => return Err(CaseError::Averaged(s.to_owned())),
                set => Damage::Averaged(set),
            },
            _ => return Err(form()),
        };
        let simplest = damage.simplest();
        let canonical = simplest.to_string();
        if canonical == s {
            return Ok(simplest);
        }
        Err(CaseError::Name {
            given: s.to_owned(),
            canonical,
        })
    }
}
