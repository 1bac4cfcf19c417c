//! Whether results depend on the number of threads: for each method, predictions of one model and
//! predictions after some training steps, with 1 to 4 threads, compared with those of one thread.

use clap::{Parser, builder::PossibleValuesParser};
use halfheard_models::{
    methods::ids,
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

/// Where `make setup` puts the encoder.
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.deps/encoder");

/// Compare results with several threads with those of one
///
/// For each method: predictions of one model, and predictions after some training steps, with 1 to 4 threads.
#[derive(Parser)]
#[command(
    after_help = "Example:\n  cargo run --release -p halfheard-models --example threads -- lnln almt"
)]
struct Options {
    /// The methods; all if none is named
    #[arg(value_name = "METHOD", value_parser = PossibleValuesParser::new(ids()))]
    #[arg(default_values = ids(), hide_default_value = true)]
    methods: Vec<String>,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = 2)]
    steps: usize,
    /// The folder of the English encoder
    #[arg(long, env = "HALFHEARD_ENCODER_EN", value_name = "FOLDER", default_value = ENCODER)]
    encoder: PathBuf,
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
fn trained(
    method: &str,
    (encoder, steps): (&Path, usize),
    threads: i32,
) -> Result<Tensor, Box<dyn Error>> {
    tch::set_num_threads(1);
    let mut run = SyntheticRun::new(method, encoder, Device::Cpu)?;
    tch::set_num_threads(threads);
    for _ in 0..steps {
        run.step()?;
    }
    tch::set_num_threads(1);
    Ok(run.predict()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options {
        methods,
        steps,
        encoder,
    } = Options::parse();
    let training = (encoder.as_path(), steps);
    initialize(Numerics::Machine)?;
    println!("largest difference from one thread, with {THREADS:?} threads");
    for method in &methods {
        tch::set_num_threads(1);
        let run = SyntheticRun::new(method, &encoder, Device::Cpu)?;
        let one = run.predict()?;
        let mut predicted = Vec::new();
        for threads in THREADS {
            tch::set_num_threads(threads);
            predicted.push(apart(&one, &run.predict()?));
        }
        let one = trained(method, training, 1)?;
        let mut after = Vec::new();
        for threads in THREADS {
            after.push(apart(&one, &trained(method, training, threads)?));
        }
        println!(
            "{method:>9}: predictions {}; after {steps} training steps {}",
            predicted.join(", "),
            after.join(", ")
        );
    }
    Ok(())
}
