//! Whether a sweep was made as the paper's numbers were. All of it is here: a condition that is not met
//! makes numbers incomparable.
//!
//! The training regime is no condition: the paper does not say under which its other methods were trained,
//! so the verdicts tell which regime reproduces them.

use halfheard_shared::{
    benchmark::Benchmark,
    results::{Model, Protocol, Results},
    text::count,
    wire::{Fidelity, Selection},
};

/// The erasure seed of every published number.
const ERASURE_SEED: u32 = 1111;

/// The missing rate of the split that the paper's checkpoints are selected on.
const SELECTION_RATE: f64 = 0.5;

/// Why results of `model` on `dataset` cannot be compared with the published ones.
pub(super) fn objection(results: &Results, dataset: Benchmark, model: &Model) -> Option<String> {
    if results.imported.contains(model) {
        return Some("imported predictions: how the model was selected is unknown".to_owned());
    }
    let mut own = results
        .protocols
        .iter()
        .filter(|p| p.models.contains(model));
    own.find_map(|protocol| of_protocol(protocol, &model.method))
        .or_else(|| of_files(results, dataset))
}

fn of_protocol(protocol: &Protocol, method: &str) -> Option<String> {
    if protocol.selection != Selection::Test {
        return Some(
            "checkpoints are selected on the validation split, the paper's on the test split \
             (selection = \"test\")"
                .to_owned(),
        );
    }
    let (rate, seed) = (protocol.selection_rate, protocol.erasure_seed);
    if (rate.value() - SELECTION_RATE).abs() > 1e-9 {
        return Some(format!(
            "checkpoints are selected at the missing rate {rate}, the paper's at {SELECTION_RATE}"
        ));
    }
    if seed != ERASURE_SEED {
        return Some(format!(
            "the test split is erased with the seed {seed}, the paper's with {ERASURE_SEED}"
        ));
    }
    if protocol.fidelity != Fidelity::Reference {
        return Some(
            "methods follow the papers, the paper's numbers the reference code (fidelity = \
             \"reference\")"
                .to_owned(),
        );
    }
    let mut corrected = protocol.switched.iter();
    let fault = corrected.find(|fault| fault.concerns(method))?;
    Some(format!("the reference's fault `{fault}` is corrected"))
}

/// A file of another size has another test split.
fn of_files(results: &Results, dataset: Benchmark) -> Option<String> {
    let [.., published] = dataset.split_sizes()?;
    let mut files = results.files.iter();
    let other = files.find(|file| file.dataset == dataset && file.sizes[2] != published)?;
    Some(format!(
        "the test split has {}, the paper's {published}",
        count(other.sizes[2], "sample")
    ))
}
