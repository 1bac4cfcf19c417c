//! Large specs for benchmarks, with everything filled in.

use anyhow::{Context as _, Result};
use halfheard_shared::{
    benchmark::Benchmark,
    methods,
    spec::{ResolvedDataset, ResolvedMethod, ResolvedSpec},
    wire::{BlobRef, Fidelity, Protocol, Selection},
};

/// A spec with the sixteen cases of the paper and everything filled in, of files that need not be there.
///
/// # Errors
///
/// An unknown method.
pub fn resolved(name: &str, ids: &[&str], on: &[Benchmark], seeds: u64) -> Result<ResolvedSpec> {
    let blob = || BlobRef {
        blake3: "0".repeat(64),
        path: String::new(),
    };
    let method = |id: &&str| {
        let info = methods::find(id).context("a method that is there")?;
        let hyper = on.iter().map(|benchmark| {
            let hyper = info.resolve(benchmark.id(), &[])?;
            anyhow::Ok((benchmark.id().to_owned(), hyper))
        });
        anyhow::Ok(ResolvedMethod {
            method: (*id).to_owned(),
            variant: String::new(),
            hyper: hyper.collect::<Result<_>>()?,
            protocol: None,
            inputs: Default::default(),
            needs: Default::default(),
        })
    };
    let rates = (0..10).map(|tenths| format!("r={}", f64::from(tenths) / 10.0));
    let sets = ["l", "a", "v", "la", "lv", "av"].map(|set| format!("missing={set}"));
    Ok(ResolvedSpec {
        name: name.to_owned(),
        methods: ids.iter().map(method).collect::<Result<_>>()?,
        datasets: on
            .iter()
            .map(|&benchmark| ResolvedDataset {
                tokens: halfheard_shared::encoder::TokenIds::BERT,
                confusions: None,
                benchmark,
                data: blob(),
                encoder: blob(),
            })
            .collect(),
        seeds: (0..seeds).collect(),
        cases: rates.chain(sets).collect(),
        protocol: Protocol {
            selection: Selection::Validation,
            train_missing: halfheard_shared::regime::Regime::Redrawn,
            erasure_seed: 1111,
            selection_rate: 500,
            fidelity: Fidelity::Reference,
            switched: Vec::new(),
        },
        numerics: halfheard_shared::numerics::Numerics::Machine,
    })
}
