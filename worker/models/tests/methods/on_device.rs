//! Methods on a device that is not the host: they train as on the CPU, and no step reads from it. The
//! device has no hardware, so this holds without a GPU.

use crate::{
    fast, methods,
    support::{SHAPE, alone, encoder, samples, slice},
};
use halfheard_models::{
    context::Optimizations,
    methods::{Batch, Build, Losses, Position, builder},
    precision::Precision,
};
use halfheard_shared::methods::faults::Faults;
use halfheard_torch_shim::{Counter, Counts};
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Steps of each pass.
const STEPS: usize = 3;

/// What a few steps and a prediction come to.
struct Trained {
    losses: Vec<BTreeMap<&'static str, f64>>,
    prediction: Vec<f32>,
    /// Of each step, then of the prediction.
    counts: Vec<Counts>,
}

fn train(id: &str, encoder: &Path, batch: &Batch) -> Trained {
    let mut hyper = fast(id);
    if id == "mmim" {
        // The memory is full, and used, in the last step.
        hyper["mem_size"] = 1.into();
    }
    tch::manual_seed(1);
    let mut method = builder(id).unwrap()(&Build {
        hyper: &hyper,
        dataset: "mosi",
        data: SHAPE,
        encoder,
        device: batch.labels.device(),
        faults: Faults::REFERENCE,
        max_epochs: 20,
        optimizations: Optimizations::ALL,
        precision: Precision::Float32,
    })
    .unwrap();
    method.prepare(batch).unwrap();
    let (mut steps, mut counts) = (Vec::new(), Vec::new());
    let mut counter = Counter::start();
    for pass in 0..method.passes() {
        let at = |step| Position {
            // Generated labels and generators are used from the second epoch on.
            epoch: 2,
            pass,
            step,
            steps: STEPS,
        };
        method.begin_pass(at(0)).unwrap();
        for step in 0..STEPS {
            tch::manual_seed(step as i64);
            let outcome = method.train_step(at(step), batch).unwrap();
            steps.push((at(step), outcome.losses));
            counts.push(counter.take());
        }
        method.end_pass(at(STEPS - 1)).unwrap();
    }
    let prediction = method.predict(batch, None).unwrap();
    counts.push(counter.take());
    Trained {
        losses: Losses::read_all(&steps).unwrap(),
        prediction: Vec::try_from(prediction).unwrap(),
        counts,
    }
}

#[test]
fn steps_read_nothing_from_the_device_and_train_as_on_the_cpu() {
    let _alone = alone();
    let (folder, device) = (encoder(0.0), halfheard_fake_device::device());
    let batch = slice(&samples(3), 0, 8);
    let known = slice(&batch, 0, 8).known_on_host().unwrap();
    let on_device = known.to_device(device).unwrap();
    let mut problems = Vec::new();
    for id in methods() {
        let host = train(id, folder.path(), &batch);
        let own = train(id, folder.path(), &on_device);
        for (i, counts) in own.counts.iter().enumerate() {
            if counts.host_reads() > 0 || counts.copies_to_device > 0 {
                let copies = counts.copies_to_device;
                problems.push(format!("{id}, {i}: {:?}, {copies} copies", counts.reads));
            }
            assert!(counts.operators > 0, "{id}");
        }
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs().max(1.0);
        for (step, (own, host)) in own.losses.iter().zip(&host.losses).enumerate() {
            let same = own.iter().zip(host).all(|(a, b)| close(*a.1, *b.1));
            if !same || own.len() != host.len() {
                problems.push(format!("{id}, step {step}: {own:?}, on the CPU {host:?}"));
            }
        }
        let values = own.prediction.iter().zip(&host.prediction);
        if !values
            .into_iter()
            .all(|(a, b)| close((*a).into(), (*b).into()))
        {
            let (own, host) = (own.prediction, host.prediction);
            problems.push(format!("{id} predicts {own:?}, on the CPU {host:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What reads from the device, and does so.
type Planted = (&'static str, fn(&Tensor));

#[test]
fn reads_from_the_device_are_noticed() {
    let _alone = alone();
    let x = Tensor::ones([3], (Kind::Float, halfheard_fake_device::device()));
    let mut counter = Counter::start();
    let y = (&x + 1.0).relu();
    assert_eq!(counter.take().reads, BTreeMap::new());
    let planted: [Planted; 7] = [
        ("a number", |y| {
            let _ = y.sum(Kind::Float).double_value(&[]);
        }),
        ("a vector", |y| drop(Vec::<f32>::try_from(y))),
        ("a copy", |y| drop(y.to_device(Device::Cpu))),
        ("positions", |y| drop(y.gt(0.0).nonzero())),
        ("a selection", |y| drop(y.masked_select(&y.gt(0.0)))),
        ("an index", |y| drop(y.index(&[Some(y.gt(0.0))]))),
        ("a comparison", |y| {
            let _ = y.equal(y);
        }),
    ];
    for (name, read) in planted {
        read(&y);
        assert!(counter.take().host_reads() > 0, "{name}");
    }
    let host = Tensor::from_slice(&[1.0_f32]);
    assert_eq!(counter.take().copies_to_device, 0);
    drop(host.to_device(x.device()));
    assert_eq!(counter.take().copies_to_device, 1);
}

/// What the host knows replaces what would be read, and changes nothing.
#[test]
fn lengths_known_on_the_host_change_nothing() {
    let _alone = alone();
    let folder = encoder(0.0);
    let batch = slice(&samples(3), 0, 8);
    let known = slice(&batch, 0, 8).known_on_host().unwrap();
    for id in methods() {
        let read = train(id, folder.path(), &batch);
        let own = train(id, folder.path(), &known);
        assert_eq!(own.losses, read.losses, "{id}");
        assert_eq!(own.prediction, read.prediction, "{id}");
    }
}
