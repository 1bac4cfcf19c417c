//! Initial weights: over many seeds, every tensor of every method is distributed as the references
//! initialize it. Recordings with given weights cannot show this.

use crate::{
    initial_laws::{Law, Shapes, check, law},
    methods, small,
    support::{alone, build, encoder},
};
use halfheard_models::methods::REGISTRY;
use halfheard_shared::methods::faults::Faults;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

const SEEDS: i64 = 60;

/// Recordings of the references, and what else is shared beside the repository.
pub(crate) fn shared() -> PathBuf {
    std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    )
}

/// A method's tensors but the encoder's, each with its draws of all seeds, `[SEEDS, ...]`.
fn draws(id: &str, kept: Faults) -> BTreeMap<String, Tensor> {
    let folder = encoder(0.0);
    let pretrained = Tensor::read_safetensors(folder.path().join("model.safetensors")).unwrap();
    let mut draws: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let method = build(id, &small(id), folder.path(), 9, kept, seed);
        for (name, tensor) in method.vars().variables() {
            let ends = |end: &String| name.strip_suffix(end).is_some_and(|s| s.ends_with('.'));
            match pretrained.iter().find(|(end, _)| ends(end)) {
                // No method reads the pooler, so none loads it.
                Some((end, value)) => assert!(
                    tensor.equal(value) || end.starts_with("pooler."),
                    "{id}: {name} of the encoder"
                ),
                None => draws.entry(name).or_default().push(tensor.detach().copy()),
            }
        }
    }
    draws
        .into_iter()
        .map(|(name, all)| (name, Tensor::stack(&all, 0)))
        .collect()
}

fn shapes(draws: &BTreeMap<String, Tensor>) -> Shapes {
    draws
        .iter()
        .map(|(name, all)| (name.clone(), all.size()[1..].to_vec()))
        .collect()
}

/// How the draws of a method's tensors, `[N, ...]` each, differ from their laws with `noise`.
fn faults(id: &str, draws: &BTreeMap<String, Tensor>, noise: f64) -> Vec<String> {
    let shapes = shapes(draws);
    let fault = |(name, all): (&String, &Tensor)| match law(id, name, &shapes) {
        None => Some(format!("{name}: no law; add one to initial_laws.rs")),
        Some(law) => check(law, all, noise)
            .err()
            .map(|what| format!("{name}: {what}")),
    };
    draws.iter().filter_map(fault).collect()
}

#[test]
fn initial_weights_follow_the_law_of_their_kind() {
    let _alone = alone();
    let both = [Faults::REFERENCE, Faults::CORRECTED];
    for (id, kept) in methods().flat_map(|id| both.map(|kept| (id, kept))) {
        let draws = draws(id, kept);
        let faults = faults(id, &draws, 0.0);
        assert!(faults.is_empty(), "{id}:\n{}", faults.join("\n"));
        let shapes = shapes(&draws);
        for (name, all) in &draws {
            let constant = matches!(law(id, name, &shapes), Some(Law::Constant(_)));
            let repeats = (1..SEEDS).any(|i| all.get(i).equal(&all.get(0)));
            assert!(constant || !repeats, "{id}: seeds repeat {name}");
        }
        println!("{id}: {} tensors over {SEEDS} seeds", draws.len());
    }
}

#[test]
fn planted_faults_of_initial_weights_are_found() {
    let _alone = alone();
    let sound = draws("self-mm", Faults::REFERENCE);
    assert_eq!(faults("self-mm", &sound, 0.0), [""; 0]);
    let plant = |name: &str, change: fn(&Tensor) -> Tensor| {
        let mut planted: BTreeMap<String, Tensor> = sound
            .iter()
            .map(|(name, all)| (name.clone(), all.shallow_clone()))
            .collect();
        let changed = change(&planted[name]);
        planted.insert(name.to_owned(), changed);
        let found = faults("self-mm", &planted, 0.0);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].starts_with(name), "{found:?}");
    };
    // Down to a layer's only bias, of which 60 seeds give 60 numbers.
    let matrix = "Model.audio_model.rnn.weight_hh_l0";
    for name in ["Model.post_text_layer_3.bias", matrix] {
        plant(name, |all| all * 2.0);
        plant(name, |all| all * 0.5);
        plant(name, Tensor::zeros_like);
        // The right deviation, the wrong kind.
        plant(name, |all| {
            all.sign() * all.square().mean(Kind::Float).sqrt()
        });
    }
    plant(matrix, |all| all + all.abs().mean(Kind::Float) * 0.1);
}

/// Every recording begins with the weights that its reference drew, one draw of each law, moved by
/// this much so that each parameter counts. MMIM's has the constructor's weights, which its trainer
/// replaces.
const MOVED: f64 = 0.02;

#[test]
fn laws_hold_for_the_weights_that_references_drew() {
    let _alone = alone();
    let folder = shared().join("parity");
    if !folder.is_dir() {
        println!("skipped: no {}; set HALFHEARD_SHARED", folder.display());
        return;
    }
    for (id, _) in REGISTRY.iter().filter(|(id, _)| *id != "mmim") {
        let file = folder.join(format!("{}.safetensors", id.replace('-', "_")));
        if !file.is_file() {
            println!("{id}: no recording");
            continue;
        }
        // The encoder's, and EMT-DLFR's sines, which are no parameter.
        let others = [
            "encoder.layer.",
            "pooler.",
            "embeddings.LayerNorm",
            "embeddings.word",
            "embeddings.position",
            "embeddings.token_type",
            "pos_embed.pe",
        ];
        let drawn: BTreeMap<String, Tensor> = Tensor::read_safetensors(file)
            .unwrap()
            .into_iter()
            .filter_map(|(name, tensor)| {
                let name = name.strip_prefix("weights.")?;
                let drawn = !others.iter().any(|part| name.contains(part));
                drawn.then(|| (name.to_owned(), tensor.unsqueeze(0)))
            })
            .collect();
        let faults = faults(id, &drawn, MOVED);
        assert!(faults.is_empty(), "{id}:\n{}", faults.join("\n"));
        println!("{id}: {} recorded tensors", drawn.len());
    }
}

#[test]
fn tensor_of_an_unknown_name_has_no_law() {
    let shapes = Shapes::from([("Model.gamma".to_owned(), vec![3])]);
    assert_eq!(law("self-mm", "Model.gamma", &shapes), None);
    let weight = "Model.linear.weight".to_owned();
    let shapes = Shapes::from([(weight.clone(), vec![3, 4])]);
    assert_eq!(law("self-mm", &weight, &shapes), Some(Law::Uniform(0.5)));
}
