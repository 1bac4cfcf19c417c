//! Memory: how much a sweep's slots need, and how much this machine has.

use super::load::Loaded;
use halfheard_shared::methods::{self, DataFacts, EncoderShape, Setup, memory::needed};
use serde::Serialize;

/// Number of workers on the CPU, if neither a flag nor the spec sets it.
pub(crate) const DEFAULT_WORKERS: usize = 2;

/// The memory that a slot needs to train a method on a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SlotNeed {
    /// The method or variant.
    pub(crate) method: String,
    /// The dataset.
    pub(crate) dataset: String,
    /// Samples per batch.
    pub(crate) batch_size: u64,
    /// The memory in bytes.
    pub(crate) bytes: u64,
}

/// Returns the needs of a sweep's slots, largest first, as far as sizes are known.
pub(crate) fn of_sweep(loaded: &Loaded) -> Vec<SlotNeed> {
    let mut needs = Vec::new();
    for method in &loaded.resolved.methods {
        let Some(info) = methods::find(&method.method) else {
            continue; // such a spec is refused
        };
        for (dataset, hyper) in &method.hyper {
            let Some((data, encoder)) = loaded.sizes(method, dataset) else {
                continue;
            };
            let setup = Setup {
                hyper,
                faults: loaded.resolved.protocol_of(method).faults(),
                data: Some(data),
                encoder: Some(encoder),
            };
            let name = match method.variant.as_str() {
                "" => method.method.clone(),
                variant => format!("{}/{variant}", method.method),
            };
            let selection = loaded.resolved.protocol_of(method).selection;
            if let Some(memory) = needed(info, setup).map(|memory| memory.selecting(selection)) {
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

/// Returns the method that needs most memory on a dataset, with its default hyper-parameters.
pub(crate) fn largest(
    benchmark: &str,
    data: &DataFacts,
    encoder: &EncoderShape,
) -> Option<SlotNeed> {
    let need = |info: &'static methods::MethodInfo| {
        let hyper = info.resolve(benchmark, &[]).ok()?;
        let setup = Setup {
            hyper: &hyper,
            faults: methods::faults::Faults::REFERENCE,
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

/// Returns the available memory in bytes: that of the kernel, or less if a control group allows less.
pub(crate) fn available() -> Option<u64> {
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
    // `max` means no limit, and does not parse.
    let limit =
        number("memory.max").map(|max| max.saturating_sub(number("memory.current").unwrap_or(0)));
    Some(limit.map_or(left, |limit| limit.min(left)))
}

/// Returns this machine's memory in bytes, or less if a control group allows less.
pub(crate) fn total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let all = kib.saturating_mul(1024);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    // `max` means no limit, and does not parse.
    let limit = limit.and_then(|limit| limit.trim().parse::<u64>().ok());
    Some(limit.map_or(all, |limit| limit.min(all)))
}

/// Formats bytes as `6.4 GB`.
pub(crate) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::dataset::Shapes;

    /// Two slots of LNLN on MOSEI with a small encoder took 13 GB in a measurement.
    #[test]
    fn largest_method_on_mosei_needs_gigabytes() {
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
            faults: methods::faults::Faults::REFERENCE,
            data: Some(&mosei),
            encoder: Some(&small),
        };
        let lnln = needed(info, setup).unwrap();
        let step = (lnln.total() - lnln.kept) as f64 / 1e9;
        assert!((5.0..8.0).contains(&step), "{step} GB, {lnln:?}");
        // Selecting on both splits keeps up to three checkpoints more.
        let both = lnln.selecting(halfheard_shared::wire::Selection::Both);
        assert_eq!(both.kept, lnln.kept + 3 * lnln.checkpoint);
        let largest = largest("mosei", &mosei, &small).unwrap();
        assert!(largest.bytes >= lnln.total());
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
