//! How much memory a sweep's slots need on a machine, and how much the machine has.

use crate::submission::specs::Loaded;
use halfheard_shared::methods::{self, DataFacts, EncoderShape, Setup, memory::needed};
use serde::Serialize;

/// What a slot needs to train a method on a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlotNeed {
    /// The method or variant.
    pub method: String,
    /// The dataset.
    pub dataset: String,
    /// Samples in a batch.
    pub batch_size: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the slots of a sweep need, most first; those whose sizes are not known are left out.
pub fn of_sweep(loaded: &Loaded) -> Vec<SlotNeed> {
    let mut needs = Vec::new();
    for method in &loaded.resolved.methods {
        let Some(info) = methods::find(&method.method) else {
            continue; // the spec was refused
        };
        for (dataset, hyper) in &method.hyper {
            let Some(ground) = loaded.sizes.get(dataset) else {
                continue;
            };
            let setup = Setup {
                hyper,
                fidelity: loaded.resolved.protocol.fidelity,
                data: Some(&ground.0),
                encoder: Some(&ground.1),
            };
            let name = match method.variant.as_str() {
                "" => method.method.clone(),
                variant => format!("{}/{variant}", method.method),
            };
            if let Some(memory) = needed(info, setup) {
                needs.push(SlotNeed {
                    method: name,
                    dataset: dataset.clone(),
                    batch_size: hyper
                        .get("batch_size")
                        .and_then(|n| n.as_u64())
                        .unwrap_or(0),
                    bytes: memory.total(),
                });
            }
        }
    }
    needs.sort_by_key(|need| std::cmp::Reverse(need.bytes));
    needs
}

/// The method that needs most on a dataset, with its own hyper-parameters.
pub fn largest(benchmark: &str, data: &DataFacts, encoder: &EncoderShape) -> Option<SlotNeed> {
    let need = |info: &'static methods::MethodInfo| {
        let hyper = info.resolve(benchmark, &[]).ok()?;
        let setup = Setup {
            hyper: &hyper,
            fidelity: halfheard_shared::wire::Fidelity::Reference,
            data: Some(data),
            encoder: Some(encoder),
        };
        Some(SlotNeed {
            method: info.id.to_owned(),
            dataset: benchmark.to_owned(),
            batch_size: hyper
                .get("batch_size")
                .and_then(|n| n.as_u64())
                .unwrap_or(0),
            bytes: needed(info, setup)?.total(),
        })
    };
    methods::all()
        .iter()
        .filter_map(need)
        .max_by_key(|need| need.bytes)
}

/// The memory that processes here may still take, in bytes: what the kernel has left, or less where
/// a control group allows less.
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let left = kib.saturating_mul(1024);
    let number = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?;
        text.trim().parse().ok()
    };
    // `max` is no number: no limit.
    let allowed =
        number("memory.max").map(|max| max.saturating_sub(number("memory.current").unwrap_or(0)));
    Some(allowed.map_or(left, |allowed| allowed.min(left)))
}

/// `6.4 GB`.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::dataset::Shapes;

    /// Two slots of LNLN on MOSEI with a small encoder were seen to take 13 GB.
    #[test]
    fn the_largest_on_mosei_is_no_small_matter() {
        let mosei = DataFacts {
            shapes: Shapes {
                text_len: 50,
                audio_len: 500,
                audio_dim: 74,
                vision_len: 375,
                vision_dim: 35,
            },
            samples: [16_326, 1_871, 4_659],
            tokens: Some(25),
        };
        let small = EncoderShape {
            width: 384,
            layers: 6,
            heads: 12,
            intermediate: 1_536,
            vocabulary: 30_522,
            positions: 512,
        };
        let info = methods::find("lnln").unwrap();
        let hyper = info.resolve("mosei", &[]).unwrap();
        let setup = Setup {
            hyper: &hyper,
            fidelity: halfheard_shared::wire::Fidelity::Reference,
            data: Some(&mosei),
            encoder: Some(&small),
        };
        let lnln = needed(info, setup).unwrap();
        let step = (lnln.total() - lnln.kept) as f64 / 1e9;
        assert!((5.0..8.0).contains(&step), "{step} GB, {lnln:?}");
        let most = largest("mosei", &mosei, &small).unwrap();
        assert!(most.bytes >= lnln.total());
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
