//! What the numbers of a sweep rest on.

use halfheard_shared::{
    benchmark::{Benchmark, Kind},
    results::Results,
};

/// Programs, devices, data and encoders behind the results, protocols, and the sizes of splits.
pub(super) fn facts(results: &Results) -> Vec<(String, String)> {
    let provenance = results.provenance.iter().map(|fact| {
        let value = format!("{} ({} evaluations)", fact.value, fact.evaluations);
        (fact.name.clone(), value)
    });
    let splits = results.files.iter().map(|file| {
        let [train, valid, test] = file.sizes;
        (
            format!("splits of {}", file.dataset),
            format!("{train} training, {valid} validation, {test} test samples"),
        )
    });
    let programs = results.external.iter().map(|(method, bundle)| {
        let name = format!("external program {method}");
        (name, format!("BLAKE3 of its files {bundle}"))
    });
    let mut facts: Vec<_> = provenance
        .chain(programs)
        .chain(protocols(results))
        .collect();
    // Files of one dataset may have the same splits.
    for split in splits {
        if !facts.contains(&split) {
            facts.push(split);
        }
    }
    facts
}

/// The protocols of custom datasets, whose names do not tell.
fn protocols(results: &Results) -> Vec<(String, String)> {
    let datasets = results.trained_datasets().into_iter();
    let custom = datasets.filter(|dataset| matches!(dataset, Benchmark::Own(_)));
    custom
        .map(|dataset| {
            let protocol = match dataset.kind() {
                own @ Kind::Own(_) => format!("its own: {own}; nothing is published for it"),
                built_in => format!("that of {built_in}"),
            };
            (format!("protocol of {dataset}"), protocol)
        })
        .collect()
}
