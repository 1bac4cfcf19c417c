//! All kinds of damage to a split behind one function.

use super::{
    confusion::ConfusionTable,
    features::{FeatureStatistics, ModalityDamage, Noise, pick},
    rates::Rates,
    runs, steps,
    text::{ErasedText, erase_text, erase_tokens},
};
use crate::{
    case::{Damage, MissingSet, Modality},
    encoder::TokenIds,
    numpy_rng::RandomState,
};

/// A whole split: what is damaged of a sample depends on its place in it. Masks are 1 where a step is not
/// padding.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// How many samples there are.
    pub samples: usize,
    /// Token ids, `[samples, tokens]`.
    pub ids: &'a [i64],
    /// The mask of the text, `[samples, tokens]`.
    pub text: &'a [u8],
    /// The mask of audio, `[samples, steps]`.
    pub audio: &'a [u8],
    /// The mask of vision, `[samples, steps]`.
    pub vision: &'a [u8],
}

/// What single kinds of damage need beside the split: [`Resources::needs_statistics`] and
/// [`Resources::needs_confusions`] say which.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resources<'a> {
    /// Of audio in the training split.
    pub audio: Option<&'a FeatureStatistics>,
    /// Of vision in the training split.
    pub vision: Option<&'a FeatureStatistics>,
    /// Words that are heard as others, for the encoder that will read the text.
    pub confusions: Option<&'a ConfusionTable>,
}

impl Resources<'_> {
    /// Whether `damage` needs the statistics of audio and vision.
    pub fn needs_statistics(damage: &Damage) -> bool {
        matches!(damage, Damage::Noise(_) | Damage::Averaged(_))
    }

    /// Whether `damage` needs a confusion table.
    pub fn needs_confusions(damage: &Damage) -> bool {
        matches!(damage, Damage::Asr(_))
    }
}

/// What damage leaves of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Damaged {
    /// Token ids and which of them are kept.
    pub text: ErasedText,
    /// The sample whose text each sample gets, `[samples]`, where texts are permuted: mask and segments
    /// come with it, as the ids in `text` have done.
    pub text_rows: Option<Vec<u32>>,
    /// What is left of audio.
    pub audio: ModalityDamage,
    /// What is left of vision.
    pub vision: ModalityDamage,
    /// The missing rates. What is misheard, noisy, permuted or averaged is not missing.
    pub rates: Rates,
}

/// Damage that cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageError {
    /// The statistics are not given.
    #[error("`{0}` needs the mean and deviation of the training split's features")]
    Statistics(Damage),
    /// The table is not given.
    #[error("`{0}` needs a confusion table for the text encoder's vocabulary")]
    Confusions(Damage),
    /// Text is averaged.
    #[error("`{0}` averages text, but tokens have no mean")]
    Text(Damage),
}

/// Damages a whole split, as a pure function of it, the seed and the resources. `tokens` are those of the
/// encoder that will read the text.
///
/// Each modality begins with the same seed anew. docs/concepts/protocol.md has the rule of each kind and
/// its source.
///
/// # Errors
///
/// `resources` has not what this damage needs, or it averages text.
///
/// Panics when the sizes do not fit.
pub fn damage(
    damage: &Damage,
    inputs: &Inputs<'_>,
    resources: &Resources<'_>,
    seed: u32,
    tokens: TokenIds,
) -> Result<Damaged, DamageError> {
    if let Some(rates) = Rates::of_damage(damage, inputs.samples, seed) {
        return Ok(independent(inputs, rates, seed, tokens));
    }
    match damage {
        Damage::Block(rate) => Ok(in_runs(runs::block, inputs, rate.value(), seed, tokens)),
        Damage::Bursts(rate) => Ok(in_runs(runs::bursts, inputs, rate.value(), seed, tokens)),
        Damage::Asr(rate) => {
            let table = resources
                .confusions
                .ok_or(DamageError::Confusions(*damage))?;
            let rates = vec![rate.value(); inputs.samples];
            let text = table.mishear(inputs.ids, inputs.text, &rates, seed, tokens);
            Ok(Damaged {
                text,
                ..complete(inputs, seed, tokens)
            })
        }
        Damage::Noise(level) => {
            let mut damaged = complete(inputs, seed, tokens);
            for (place, modality) in [Modality::Audio, Modality::Vision].into_iter().enumerate() {
                let statistics = resources.of(modality, damage)?;
                let noise = Noise::new(&statistics.deviation, level.value(), seed, place as u32);
                damaged.of(modality).noise = Some(noise);
            }
            Ok(damaged)
        }
        Damage::Permuted(set) => Ok(permuted(*set, inputs, seed, tokens)),
        Damage::Averaged(set) if set.text => Err(DamageError::Text(*damage)),
        Damage::Averaged(set) => {
            let mut damaged = complete(inputs, seed, tokens);
            for modality in [Modality::Audio, Modality::Vision] {
                if set.contains(modality) {
                    let mean = resources.of(modality, damage)?.mean.clone();
                    damaged.of(modality).average = Some(mean);
                }
            }
            Ok(damaged)
        }
        Damage::Rate(_)
        | Damage::Missing(_)
        | Damage::RateMissing(..)
        | Damage::RandomModality(_)
        | Damage::PerModality { .. } => unreachable!("these have rates"),
    }
}

impl Resources<'_> {
    fn of(&self, modality: Modality, damage: &Damage) -> Result<&FeatureStatistics, DamageError> {
        let statistics = match modality {
            Modality::Vision => self.vision,
            _ => self.audio,
        };
        statistics.ok_or(DamageError::Statistics(*damage))
    }
}

impl Damaged {
    fn of(&mut self, modality: Modality) -> &mut ModalityDamage {
        match modality {
            Modality::Vision => &mut self.vision,
            _ => &mut self.audio,
        }
    }
}

/// Steps are erased each on its own.
fn independent(inputs: &Inputs<'_>, rates: Rates, seed: u32, tokens: TokenIds) -> Damaged {
    let kept = |present, rates: &[f64]| ModalityDamage::erased(steps::kept(present, rates, seed));
    Damaged {
        text: erase_text(inputs.ids, inputs.text, &rates.text, seed, tokens),
        text_rows: None,
        audio: kept(inputs.audio, &rates.audio),
        vision: kept(inputs.vision, &rates.vision),
        rates,
    }
}

fn complete(inputs: &Inputs<'_>, seed: u32, tokens: TokenIds) -> Damaged {
    independent(inputs, Rates::complete(inputs.samples), seed, tokens)
}

/// Neighboring steps are erased.
fn in_runs(
    erase: fn(&[u8], usize, f64, u32) -> Vec<u8>,
    inputs: &Inputs<'_>,
    rate: f64,
    seed: u32,
    tokens: TokenIds,
) -> Damaged {
    let kept = |present| erase(present, inputs.samples, rate, seed);
    Damaged {
        text: erase_tokens(
            inputs.ids,
            inputs.text,
            kept(inputs.text),
            inputs.samples,
            tokens,
        ),
        text_rows: None,
        audio: ModalityDamage::erased(kept(inputs.audio)),
        vision: ModalityDamage::erased(kept(inputs.vision)),
        rates: Rates::each(inputs.samples, |_| rate),
    }
}

/// The modalities of the set are those of other samples, the same sample for both of two: what they say
/// together stays, what they say of the sample is gone. Any permutation is as likely as the other, so about
/// one sample keeps its own.
fn permuted(set: MissingSet, inputs: &Inputs<'_>, seed: u32, tokens: TokenIds) -> Damaged {
    // A split of 2^32 samples would not fit into memory.
    let rows = RandomState::new(seed).permutation(inputs.samples as u32);
    let mut damaged = complete(inputs, seed, tokens);
    if set.text {
        let (ids, mask) = (pick(inputs.ids, &rows), pick(inputs.text, &rows));
        damaged.text = erase_tokens(&ids, &mask, mask.clone(), inputs.samples, tokens);
        damaged.text_rows = Some(rows.clone());
    }
    let audio = (set.audio, &mut damaged.audio, inputs.audio);
    for (chosen, modality, present) in [audio, (set.vision, &mut damaged.vision, inputs.vision)] {
        if chosen {
            modality.kept = pick(present, &rows);
            modality.rows = Some(rows.clone());
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::words::WordConfusions;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const BERT: TokenIds = TokenIds::BERT;
    const TOKENS: usize = 9;
    const STEPS: usize = 14;

    /// Texts of 2 to `TOKENS` tokens, and audio and vision of up to `STEPS` steps.
    #[derive(Clone, Debug)]
    struct Split {
        ids: Vec<i64>,
        text: Vec<u8>,
        audio: Vec<u8>,
        vision: Vec<u8>,
        samples: usize,
    }

    impl Split {
        fn inputs(&self) -> Inputs<'_> {
            Inputs {
                samples: self.samples,
                ids: &self.ids,
                text: &self.text,
                audio: &self.audio,
                vision: &self.vision,
            }
        }
    }

    fn split() -> impl Strategy<Value = Split> {
        let sample = (2..=TOKENS as i64, 0..=STEPS as i64, 0..=STEPS as i64);
        prop::collection::vec(sample, 1..24).prop_map(|samples| {
            let lengths =
                |of: fn(&(i64, i64, i64)) -> i64| -> Vec<i64> { samples.iter().map(of).collect() };
            let text = steps::present(&lengths(|s| s.0), TOKENS);
            let id = |place: usize| match place % TOKENS {
                0 => 101,
                at if text.get(place + 1) != Some(&1) || at + 1 == TOKENS => 102,
                at => 200 + (place + at) as i64 % 3,
            };
            let ids = (0..text.len())
                .map(|place| id(place) * i64::from(text[place]))
                .collect();
            Split {
                ids,
                audio: steps::present(&lengths(|s| s.1), STEPS),
                vision: steps::present(&lengths(|s| s.2), STEPS),
                samples: samples.len(),
                text,
            }
        })
    }

    const KINDS: [&str; 13] = [
        "r=0",
        "r=0.4",
        "missing=la",
        "r=0.4+missing=v",
        "mr=0.5",
        "l=0.7,a=0.1,v=0.3",
        "block=0.5",
        "bursts=0.4",
        "asr=0.6",
        "noise=0.5",
        "permuted=la",
        "averaged=av",
        "averaged=a",
    ];

    fn table() -> ConfusionTable {
        let words = WordConfusions::parse(b"no\tknow\nknow\tno").unwrap();
        let known: HashMap<String, i64> = [("no".to_owned(), 200), ("know".to_owned(), 201)].into();
        ConfusionTable::of_words(&words, &known).unwrap().0
    }

    fn done(split: &Split, case: &str, seed: u32) -> Damaged {
        let statistics = FeatureStatistics {
            mean: vec![0.5],
            deviation: vec![2.0],
        };
        let resources = Resources {
            audio: Some(&statistics),
            vision: Some(&statistics),
            confusions: Some(&table()),
        };
        damage(
            &case.parse().unwrap(),
            &split.inputs(),
            &resources,
            seed,
            BERT,
        )
        .unwrap()
    }

    #[test]
    fn missing_resources_are_errors() {
        let inputs = Inputs {
            samples: 0,
            ids: &[],
            text: &[],
            audio: &[],
            vision: &[],
        };
        let without = |case: &str| {
            let case: Damage = case.parse().unwrap();
            let none = Resources::default();
            let needs = Resources::needs_statistics(&case) || Resources::needs_confusions(&case);
            let result = damage(&case, &inputs, &none, 1, BERT);
            assert_eq!(result.is_err(), needs, "{case}");
            result.err().map(|error| error.to_string())
        };
        for kind in KINDS {
            without(kind);
        }
        let noise = "`noise=0.5` needs the mean and deviation of the training split's features";
        assert_eq!(without("noise=0.5").unwrap(), noise);
        let asr = "`asr=0.6` needs a confusion table for the text encoder's vocabulary";
        assert_eq!(without("asr=0.6").unwrap(), asr);
        let text = Damage::Averaged(MissingSet::of(Modality::Text));
        let refused = damage(&text, &inputs, &Resources::default(), 1, BERT);
        assert_eq!(refused.unwrap_err(), DamageError::Text(text));
    }

    proptest! {
        #[test]
        fn each_kind_is_a_function_and_keeps_no_padding(split in split(), seed: u32) {
            for kind in KINDS {
                let damaged = done(&split, kind, seed);
                prop_assert_eq!(&damaged, &done(&split, kind, seed));
                let within = |kept: &[u8], present: &[u8]| {
                    kept.len() == present.len() && kept.iter().zip(present).all(|(k, p)| k <= p)
                };
                let permuted = kind.starts_with("permuted");
                prop_assert!(permuted || within(&damaged.text.kept, &split.text), "{}", kind);
                prop_assert!(permuted || within(&damaged.audio.kept, &split.audio), "{}", kind);
                prop_assert!(within(&damaged.vision.kept, &split.vision), "{}", kind);
                let erasure = damaged.audio.is_erasure() && damaged.vision.is_erasure();
                let changes = ["noise", "permuted", "averaged"];
                prop_assert_eq!(erasure, !changes.iter().any(|c| kind.starts_with(c)), "{}", kind);
                for rates in [&damaged.rates.text, &damaged.rates.audio, &damaged.rates.vision] {
                    prop_assert_eq!(rates.len(), split.samples);
                }
            }
        }

        #[test]
        fn ends_of_texts_stay(split in split(), seed: u32) {
            for kind in KINDS.iter().filter(|kind| !kind.starts_with("permuted")) {
                let damaged = done(&split, kind, seed);
                let rows = damaged.text.ids.chunks(TOKENS).zip(split.text.chunks(TOKENS));
                for (row, mask) in rows {
                    let length = steps::length(mask);
                    prop_assert_eq!((row[0], row[length - 1]), (101, 102), "{}", kind);
                    prop_assert!(row[length..].iter().all(|&id| id == BERT.padding));
                }
            }
        }

        #[test]
        fn random_modality_keeps_one_whole_modality(split in split(), seed: u32) {
            let damaged = done(&split, "mr=0.6", seed);
            for sample in 0..split.samples {
                let rates = [
                    damaged.rates.text[sample],
                    damaged.rates.audio[sample],
                    damaged.rates.vision[sample],
                ];
                prop_assert!(rates.contains(&0.0));
                let row = sample * STEPS..(sample + 1) * STEPS;
                let expected: Vec<u8> = match rates[1] {
                    0.0 => split.audio[row.clone()].to_vec(),
                    _ => vec![0; STEPS],
                };
                prop_assert_eq!(&damaged.audio.kept[row], expected);
            }
        }

        #[test]
        fn permuted_modalities_are_those_of_one_other_sample(split in split(), seed: u32) {
            let damaged = done(&split, "permuted=la", seed);
            let rows = damaged.audio.rows.clone().unwrap();
            prop_assert_eq!(damaged.text_rows.as_ref(), Some(&rows));
            let mut all = rows.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..split.samples as u32).collect::<Vec<_>>());
            for (sample, &row) in rows.iter().enumerate() {
                let of = |mask: &[u8], sample: usize, width: usize| {
                    mask[sample * width..][..width].to_vec()
                };
                let row = row as usize;
                let audio = of(&split.audio, row, STEPS);
                prop_assert_eq!(of(&damaged.audio.kept, sample, STEPS), audio);
                let ids = &split.ids[row * TOKENS..][..TOKENS];
                prop_assert_eq!(&damaged.text.ids[sample * TOKENS..][..TOKENS], ids);
            }
            prop_assert_eq!(damaged.vision.kept, split.vision);
        }
    }
}
