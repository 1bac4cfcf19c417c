//! The faults of references as switches: each changes the training of its methods, and of no other.

use super::{methods, small};
use crate::support::{alone, batches, build, encoder, overlay, samples, step};
use halfheard_models::methods::Method;
use halfheard_shared::methods::faults::{Fault, Faults};
use serde_json::{Value, json};
use tch::Tensor;

/// Faults that are not in the methods: in the trainer, the data, the plan or the defaults.
const ELSEWHERE: [Fault; 6] = [
    Fault::BatchMeanLoss,
    Fault::RepeatedNumbers,
    Fault::TfrEnglishEncoder,
    Fault::MisaNoWeightDecay,
    Fault::AlmtNoClipping,
    Fault::ShallowFusion,
];

/// Small, with nine samples in a batch, so that groups are incomplete at the end of an epoch, and
/// kernels that differ.
fn sizes(id: &str) -> Value {
    let mut hyper = small(id);
    let own = hyper.as_object_mut().unwrap();
    let mut changes = json!({"batch_size": 9});
    if own.contains_key("update_epochs") {
        changes["update_epochs"] = json!(3);
    }
    if id == "tetfn" {
        changes["conv1d_kernel_size_v"] = json!(3);
        changes["conv1d_kernel_size_a"] = json!(1);
    }
    if id == "lf-dnn" {
        changes["text_dropout"] = json!(0.5);
    }
    overlay(own, &changes);
    hyper
}

/// The weights after two epochs.
fn trained(id: &str, faults: Faults, folder: &std::path::Path) -> Vec<(String, Tensor)> {
    let mut method = build(id, &sizes(id), folder, 20, faults, 1);
    let batches = batches(&samples(4), method.batch_size());
    for batch in &batches {
        method.prepare(batch).unwrap();
    }
    for n in 0..2 * method.passes() * batches.len() {
        step(method.as_mut(), &batches, n);
    }
    weights(method.as_ref())
}

fn weights(method: &dyn Method) -> Vec<(String, Tensor)> {
    let mut all: Vec<_> = method.vars().variables().into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn same(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> bool {
    let names = a
        .iter()
        .map(|(name, _)| name)
        .eq(b.iter().map(|(name, _)| name));
    names
        && a.iter()
            .zip(b)
            .all(|((_, a), (_, b))| a.size() == b.size() && a.equal(b))
}

#[test]
fn each_fault_changes_its_methods_and_no_other() {
    let _alone = alone();
    let folder = encoder(0.1);
    for id in methods() {
        let reference = trained(id, Faults::REFERENCE, folder.path());
        assert!(
            same(&reference, &trained(id, Faults::REFERENCE, folder.path())),
            "{id}"
        );
        let here = |fault: &&Fault| fault.concerns(id) && !ELSEWHERE.contains(fault);
        for &fault in Fault::ALL.iter().filter(here) {
            // While every batch updates, no group waits for its update.
            let start = match fault == Fault::DroppedGroups && id == "tfr-net" {
                true => Faults::REFERENCE.with(Fault::TfrDoubleStep, false),
                false => Faults::REFERENCE,
            };
            let before = trained(id, start, folder.path());
            let after = trained(id, start.with(fault, false), folder.path());
            assert!(!same(&before, &after), "{id}: {fault} changes nothing");
        }
        let others = Fault::ALL.iter().filter(|fault| !fault.concerns(id));
        let others = others.fold(Faults::REFERENCE, |faults, fault| {
            faults.with(*fault, false)
        });
        assert!(
            same(&reference, &trained(id, others, folder.path())),
            "{id}: a fault of another"
        );
    }
}

/// Without accumulation there are no groups to drop.
#[test]
fn dropped_groups_need_groups() {
    let _alone = alone();
    let folder = encoder(0.0);
    for id in ["misa", "self-mm", "tetfn"] {
        let mut hyper = sizes(id);
        overlay(hyper.as_object_mut().unwrap(), &json!({"update_epochs": 1}));
        let run = |faults| {
            let mut method = build(id, &hyper, folder.path(), 20, faults, 1);
            let batches = batches(&samples(4), method.batch_size());
            for batch in &batches {
                method.prepare(batch).unwrap();
            }
            (0..batches.len()).for_each(|n| drop(step(method.as_mut(), &batches, n)));
            weights(method.as_ref())
        };
        let corrected = Faults::REFERENCE.with(Fault::DroppedGroups, false);
        assert!(same(&run(Faults::REFERENCE), &run(corrected)), "{id}");
    }
}

/// LNLN without `rebuilt-features` rebuilds the inputs themselves (equations 11 and 12): the losses
/// fall although the truth is not trained.
#[test]
fn lnln_rebuilds_inputs() {
    let _alone = alone();
    let folder = encoder(0.0);
    let faults = Faults::REFERENCE
        .with(Fault::RebuiltFeatures, false)
        .with(Fault::TrainedTarget, false)
        .with(Fault::WarmUpFromZero, false);
    let mut changes = small("lnln");
    overlay(
        changes.as_object_mut().unwrap(),
        &json!({"gamma": 10.0, "learning_rate": 1e-3}),
    );
    let mut method = build("lnln", &changes, folder.path(), 200, faults, 1);
    let outs: Vec<_> = method.vars().variables().into_iter().collect();
    for (modality, width) in [(0, 5), (1, 4), (2, 16)] {
        let name = format!("reconstructor.{modality}.out.weight");
        let (_, out) = outs.iter().find(|(own, _)| *own == name).unwrap();
        assert_eq!(out.size()[0], width, "{name}");
    }
    let batches = batches(&samples(6), method.batch_size());
    let first = step(method.as_mut(), &batches, 0)["l_rec"];
    let mut last = first;
    for n in 1..120 * batches.len() {
        last = step(method.as_mut(), &batches, n)["l_rec"];
    }
    assert!(last < first / 3.0, "from {first} to {last}");
}

/// Equation 9: the discriminator judges the proxy, so its loss does not reach the completeness
/// check.
#[test]
fn lnln_discriminator_judges_the_proxy() {
    let _alone = alone();
    let folder = encoder(0.0);
    let mut hyper = small("lnln");
    // No loss but the adversarial one has a weight that counts.
    let only = json!({"alpha": 0.0, "gamma": 0.0, "sigma": 1e-30});
    overlay(hyper.as_object_mut().unwrap(), &only);
    let reached = |faults: Faults| {
        let mut method = build("lnln", &hyper, folder.path(), 20, faults, 1);
        step(method.as_mut(), &[samples(7)], 0);
        let all = weights(method.as_ref());
        let size = |part: &str| -> f64 {
            let named = all.iter().filter(|(name, _)| name.contains(part));
            let total = |t: &Tensor| t.grad().abs().sum(tch::Kind::Double).double_value(&[]);
            named.map(|(_, t)| total(t)).sum()
        };
        (size("completeness_check"), size("proxy_dominate"))
    };
    let (check, proxy) = reached(Faults::REFERENCE);
    assert!(check > 1e-9 && proxy > 1e-9, "{check} {proxy}");
    let (check, proxy) = reached(Faults::REFERENCE.with(Fault::MixedDiscriminator, false));
    assert!(check < 1e-20 && proxy > 1e-9, "{check} {proxy}");
}

/// The defaults of a corrected fault are those of the reference's configuration or the paper.
#[test]
fn corrected_defaults_reach_the_method() {
    let info = |id| halfheard_shared::methods::find(id).unwrap();
    let corrected = |id, dataset| info(id).corrections(dataset, Faults::CORRECTED);
    assert_eq!(corrected("lnln", "mosi")["fusion_depth"], 4);
    assert_eq!(corrected("misa", "mosi")["weight_decay"], 0.0);
    assert_eq!(corrected("misa", "mosei")["weight_decay"], 5e-5);
    assert_eq!(corrected("almt", "sims")["max_grad_norm"], 2.0);
    let _alone = alone();
    let folder = encoder(0.0);
    for (id, change) in [
        ("misa", json!({"weight_decay": 0.1})),
        ("almt", json!({"max_grad_norm": 1e-6})),
    ] {
        let run = |changes: &Value| {
            let mut sizes = sizes(id);
            overlay(sizes.as_object_mut().unwrap(), changes);
            let mut method = build(id, &sizes, folder.path(), 20, Faults::REFERENCE, 1);
            let batches = batches(&samples(4), method.batch_size());
            (0..2 * batches.len()).for_each(|n| drop(step(method.as_mut(), &batches, n)));
            weights(method.as_ref())
        };
        assert!(
            !same(&run(&json!({})), &run(&change)),
            "{id}: {change} changes nothing"
        );
    }
}
