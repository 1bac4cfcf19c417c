//! Whether results depend on the number of threads: for each method, predictions of one model and
//! predictions after some training steps, with 1 to 4 threads, compared with those of one thread.
//!
//! `cargo run --release -p halfheard-models --example threads -- lnln almt` compares the named methods, or
//! all. `HALFHEARD_ENCODER_EN` is the encoder's folder, and `HALFHEARD_STEPS` the number of training steps
//! (2).

use halfheard_models::{
    methods::REGISTRY,
    numerics::{Numerics, initialize},
    synthetic::SyntheticRun,
};
use std::{
    error::Error,
    path::{Path, PathBuf},
};
use tch::{Device, Tensor};

/// The numbers of threads that are compared with one.
const THREADS: [i32; 3] = [2, 3, 4];

fn encoder() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/encoder");
    std::env::var_os("HALFHEARD_ENCODER_EN").map_or(installed, PathBuf::from)
}

/// How far predictions are apart, in words.
fn apart(one: &Tensor, other: &Tensor) -> String {
    match one.equal(other) {
        true => "equal".to_owned(),
        false => format!("{:.0e}", (one - other).abs().max().double_value(&[])),
    }
}

/// Predictions after `steps` training steps with `threads` threads; the predictions themselves always take
/// one.
fn trained(method: &str, steps: usize, threads: i32) -> Result<Tensor, Box<dyn Error>> {
    tch::set_num_threads(1);
    let mut run = SyntheticRun::new(method, &encoder(), Device::Cpu)?;
    tch::set_num_threads(threads);
    for _ in 0..steps {
        run.step()?;
    }
    tch::set_num_threads(1);
    Ok(run.predict()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    initialize(Numerics::Machine)?;
    let steps: usize = std::env::var("HALFHEARD_STEPS").map_or(Ok(2), |text| text.parse())?;
    let named: Vec<String> = std::env::args().skip(1).collect();
    println!("largest difference from one thread, with {THREADS:?} threads");
    for (method, _) in REGISTRY {
        if !named.is_empty() && !named.iter().any(|name| name == method) {
            continue;
        }
        tch::set_num_threads(1);
        let run = SyntheticRun::new(method, &encoder(), Device::Cpu)?;
        let one = run.predict()?;
        let mut predicted = Vec::new();
        for threads in THREADS {
            tch::set_num_threads(threads);
            predicted.push(apart(&one, &run.predict()?));
        }
        let one = trained(method, steps, 1)?;
        let mut after = Vec::new();
        for threads in THREADS {
            after.push(apart(&one, &trained(method, steps, threads)?));
        }
        println!(
            "{method:>9}: predictions {}; after {steps} training steps {}",
            predicted.join(", "),
            after.join(", ")
        );
    }
    Ok(())
}
