//! Where slots compute: `--device`, a spec's `[resources]`, and how a machine's GPUs are assigned to
//! its slots. Nothing here detects GPUs; the caller counts them.

use crate::text::count;
use std::{fmt, str::FromStr};

/// The highest plausible GPU number; more is a typo.
const MAX_GPU: usize = 1023;

/// Where a machine's slots compute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// On the available GPUs in order; on the CPU if there are none.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On these GPUs, as libtorch numbers what is visible to it; at least one, each once.
    Gpus(Vec<usize>),
}

/// An invalid `--device`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DevicesError {
    /// An unknown device.
    #[error("unknown device `{0}`: write `auto`, `cpu`, `cuda:0`, or a list `cuda:0,cuda:1`")]
    Unknown(String),
    /// A repeated GPU.
    #[error(
        "cuda:{0} is listed twice: list each GPU once, and let slots share them with --share-gpus (in a spec: `share_gpus = true`)"
    )]
    Twice(usize),
}

impl FromStr for Devices {
    type Err = DevicesError;

    fn from_str(text: &str) -> Result<Self, DevicesError> {
        match text.trim() {
            "auto" => return Ok(Devices::Auto),
            "cpu" => return Ok(Devices::Cpu),
            "cuda" => return Ok(Devices::Gpus(vec![0])),
            _ => {}
        }
        let mut gpus = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let number = part
                .strip_prefix("cuda:")
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .filter(|&number: &usize| number <= MAX_GPU)
                .ok_or_else(|| DevicesError::Unknown(part.chars().take(80).collect()))?;
            if gpus.contains(&number) {
                return Err(DevicesError::Twice(number));
            }
            gpus.push(number);
        }
        Ok(Devices::Gpus(gpus))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Devices::Auto => f.write_str("auto"),
            Devices::Cpu => f.write_str("cpu"),
            Devices::Gpus(gpus) => f.write_str(&list(gpus)),
        }
    }
}

/// Where one slot computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the CPU.
    Cpu,
    /// On this GPU.
    Gpu(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Gpu(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Which slot computes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The place of each slot that starts.
    pub places: Vec<Place>,
    /// Requested slots that do not start because no GPU is left.
    pub left_out: usize,
}

impl Assignment {
    /// How many slots compute on a slot's GPU, itself included; 1 on the CPU.
    pub fn sharing(&self, place: Place) -> usize {
        match place {
            Place::Cpu => 1,
            Place::Gpu(_) => self.places.iter().filter(|&&other| other == place).count(),
        }
    }
}

/// Slots that cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// More slots than GPUs without permission to share.
    #[error(
        "{slots} slots on {} ({}): a slot needs a GPU of its own; start {}, name more GPUs, or let slots share them with --share-gpus (in a spec: `share_gpus = true`)",
        count(gpus.len(), "GPU"), list(gpus), count(gpus.len(), "slot")
    )]
    TooMany {
        /// Slots asked for.
        slots: usize,
        /// GPUs named.
        gpus: Vec<usize>,
    },
    /// A GPU that does not exist.
    #[error(
        "cuda:{number} was asked for, and libtorch sees {}: check nvidia-smi and CUDA_VISIBLE_DEVICES", count(*visible, "GPU")
    )]
    NotThere {
        /// The number.
        number: usize,
        /// How many there are.
        visible: usize,
    },
}

impl Devices {
    /// How many slots there are where nobody says how many: one for each GPU named, otherwise
    /// `otherwise`.
    pub fn slots(&self, otherwise: usize) -> usize {
        match self {
            Devices::Gpus(gpus) => gpus.len(),
            Devices::Auto | Devices::Cpu => otherwise,
        }
    }

    /// Whether `slots` slots can be given places, as far as that is known without a look at the
    /// machine.
    ///
    /// # Errors
    ///
    /// [`ShareError::TooMany`].
    pub fn check(&self, slots: usize, share: bool) -> Result<(), ShareError> {
        match self {
            Devices::Gpus(gpus) if slots > gpus.len() && !share => Err(ShareError::TooMany {
                slots,
                gpus: gpus.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Gives `slots` slots their places on a machine where libtorch sees `visible` GPUs. Slot `i`
    /// gets GPU `i` modulo their number. Unless they may `share`, no two slots get the same one:
    /// under `auto` the slots that are too many do not start, with a list that is an error.
    ///
    /// # Errors
    ///
    /// Too many slots for the GPUs named, or a GPU named that is not there.
    pub fn assign(
        &self,
        slots: usize,
        visible: usize,
        share: bool,
    ) -> Result<Assignment, ShareError> {
        self.check(slots, share)?;
        let all: Vec<usize> = match self {
            Devices::Auto => (0..visible).collect(),
            Devices::Cpu => Vec::new(),
            Devices::Gpus(gpus) => {
                if let Some(&number) = gpus.iter().find(|&&number| number >= visible) {
                    return Err(ShareError::NotThere { number, visible });
                }
                gpus.clone()
            }
        };
        let start = match (all.len(), share) {
            (0, _) | (_, true) => slots,
            (gpus, false) => slots.min(gpus),
        };
        let place = |slot: usize| match all.len() {
            0 => Place::Cpu,
            gpus => Place::Gpu(all[slot % gpus]),
        };
        Ok(Assignment {
            places: (0..start).map(place).collect(),
            left_out: slots - start,
        })
    }
}

fn list(gpus: &[usize]) -> String {
    let names: Vec<String> = gpus.iter().map(|number| format!("cuda:{number}")).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(text: &str) -> Devices {
        text.parse().unwrap()
    }

    fn places(text: &str, slots: usize, visible: usize, share: bool) -> (String, usize) {
        let assigned = devices(text).assign(slots, visible, share).unwrap();
        let places: Vec<String> = assigned.places.iter().map(Place::to_string).collect();
        (places.join(" "), assigned.left_out)
    }

    #[test]
    fn devices_round_trip() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7", "cuda:1,cuda:0,cuda:12"] {
            assert_eq!(devices(text).to_string(), text);
        }
        assert_eq!(devices("cuda"), Devices::Gpus(vec![0]));
        assert_eq!(devices("cuda:0, cuda:1"), Devices::Gpus(vec![0, 1]));
        for text in [
            "gpu",
            "cuda:x",
            "cuda:",
            "cuda:+1",
            "cuda:0,",
            "cuda:0,cpu",
            "",
            "cuda:1024",
            "cuda:99999999999999999999",
        ] {
            let error = text.parse::<Devices>().unwrap_err().to_string();
            assert!(error.contains("cuda:0,cuda:1"), "{text}: {error}");
        }
        let error = "cuda:1,cuda:1".parse::<Devices>().unwrap_err();
        assert_eq!(error, DevicesError::Twice(1));
        assert!(error.to_string().contains("--share-gpus"));
    }

    #[test]
    fn slots_get_own_gpus_unless_sharing() {
        assert_eq!(places("auto", 1, 4, false), ("cuda:0".into(), 0));
        assert_eq!(
            places("auto", 4, 4, false),
            ("cuda:0 cuda:1 cuda:2 cuda:3".into(), 0)
        );
        // Too many: those that would share do not start.
        assert_eq!(places("auto", 5, 2, false), ("cuda:0 cuda:1".into(), 3));
        assert_eq!(
            places("auto", 5, 2, true),
            ("cuda:0 cuda:1 cuda:0 cuda:1 cuda:0".into(), 0)
        );
        // The CPU is shared out without being asked.
        assert_eq!(places("auto", 3, 0, false), ("cpu cpu cpu".into(), 0));
        assert_eq!(places("cpu", 2, 8, false), ("cpu cpu".into(), 0));
    }

    #[test]
    fn device_list_keeps_its_order() {
        assert_eq!(
            places("cuda:3,cuda:1", 2, 4, false),
            ("cuda:3 cuda:1".into(), 0)
        );
        assert_eq!(places("cuda:3,cuda:1", 1, 4, false), ("cuda:3".into(), 0));
        assert_eq!(
            places("cuda:1", 3, 2, true),
            ("cuda:1 cuda:1 cuda:1".into(), 0)
        );
        let error = devices("cuda:0,cuda:2").assign(3, 4, false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("3 slots on 2 GPUs (cuda:0,cuda:2)") && text.contains("--share-gpus"),
            "{text}"
        );
        let error = devices("cuda:0,cuda:2").assign(2, 2, true).unwrap_err();
        assert_eq!(
            error,
            ShareError::NotThere {
                number: 2,
                visible: 2
            }
        );
        assert!(devices("cuda:0").assign(1, 0, false).is_err());
        assert_eq!(devices("cuda:0,cuda:2").slots(1), 2);
        assert_eq!(devices("auto").slots(1), 1);
    }
}
