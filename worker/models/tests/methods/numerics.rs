//! Bit-exactness of methods: for any memory alignment, with narrower instructions, and, with portable
//! numerics, on every processor.

use super::{equal, methods, small};
use crate::support::{Shifted as _, alone, batches, build, encoder, samples, step};
use halfheard_models::{
    methods::Method,
    numerics::{Numerics, check_supported, environment},
};
use halfheard_shared::methods::faults::Faults;
use std::{
    collections::BTreeMap,
    process::{Command, Output},
};
use tch::{Device, Kind, Tensor};

/// The variable that sets the numerics of a child of this test program.
pub(crate) const NUMERICS: &str = "HALFHEARD_TEST_NUMERICS";

/// A linear congruential generator, so the cases are the same in every run.
struct Dice(u64);

impl Dice {
    fn of(&mut self, choices: &[i64]) -> i64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        choices[(self.0 >> 33) as usize % choices.len()]
    }
}

/// Functions that libtorch delegates to MKL, and its own.
fn functions(a: &Tensor, b: &Tensor, c: &Tensor) -> Vec<(&'static str, Tensor)> {
    let rows = a.size()[0];
    let gram = a.matmul(&a.tr()) + Tensor::eye(rows, (Kind::Float, Device::Cpu));
    vec![
        ("matmul", a.matmul(b)),
        ("addmm", c.addmm(a, b)),
        ("transposed", b.tr().matmul(&a.tr())),
        ("bmm", a.unsqueeze(0).bmm(&b.unsqueeze(0))),
        ("mv", a.mv(&b.select(1, 0))),
        ("exp", a.exp()),
        ("tanh", a.tanh()),
        ("log", a.abs().log()),
        ("softmax", a.softmax(-1, Kind::Float)),
        ("sum", a.sum(Kind::Float)),
        ("norm", a.norm()),
        ("logdet", gram.logdet()),
    ]
}

#[test]
fn functions_are_independent_of_alignment() {
    let _alone = alone();
    tch::manual_seed(3);
    let mut dice = Dice(1);
    let sizes = [1, 2, 3, 5, 7, 8, 12, 16, 24, 31, 32, 50, 64, 100, 128];
    for _ in 0..150 {
        let [m, n, k] = [(); 3].map(|()| dice.of(&sizes));
        let random = |dims: [i64; 2]| Tensor::randn(dims, (Kind::Float, Device::Cpu));
        let [a, b, c] = [random([m, k]), random([k, n]), random([m, n])];
        let straight = functions(&a, &b, &c);
        for by in [1, 3, 6, 13] {
            let odd = functions(&a.shifted(by), &b.shifted(by + 1), &c.shifted(by + 2));
            for ((name, straight), (_, odd)) in straight.iter().zip(&odd) {
                assert!(
                    straight.equal(odd) || straight.isnan().any().int64_value(&[]) == 1,
                    "{name} of {m} x {k} and {k} x {n}, {by} numbers off"
                );
            }
        }
    }
}

#[test]
fn methods_are_independent_of_alignment() {
    let _alone = alone();
    let (folder, all) = (encoder(0.1), samples(4));
    for id in methods() {
        let fresh = || build(id, &small(id), folder.path(), 20, Faults::REFERENCE, 1);
        let train = |method: &mut dyn Method, by: Option<i64>| {
            let whole = batches(&all, method.batch_size());
            let batches: Vec<_> = match by {
                None => whole,
                Some(by) => whole.iter().map(|batch| batch.shifted(by)).collect(),
            };
            for batch in &batches {
                method.prepare(batch).unwrap();
            }
            for n in 0..method.passes() * batches.len() + 1 {
                step(method, &batches, n);
            }
        };
        let mut straight = fresh();
        train(straight.as_mut(), None);
        for by in [1, 6] {
            let mut odd = fresh();
            for (place, (_, mut variable)) in odd.vars().variables().into_iter().enumerate() {
                let there = variable.detach().shifted(by + place as i64 % 5);
                tch::no_grad(|| variable.set_data(&there));
            }
            train(odd.as_mut(), Some(by));
            equal(id, straight.as_ref(), odd.as_ref());
        }
    }
}

/// Runs tests of this program in a process with this environment.
fn child(tests: &[&str], flags: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .args(["--exact", "--test-threads=1", "--nocapture"])
        .args(flags)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn bit_exactness_holds_with_narrower_instructions() {
    let tests = [
        "every_method_resumes_bit_exactly_from_a_saved_state",
        "cached_encoder_outputs_give_identical_predictions",
        "numerics::functions_are_independent_of_alignment",
        "numerics::methods_are_independent_of_alignment",
    ];
    let narrow = [
        ("ATEN_CPU_CAPABILITY", "avx2"),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ];
    let output = child(&tests, &[], &narrow);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains(&format!("{} passed", tests.len())),
        "{stdout}\n{stderr}"
    );
}

/// In a child process: prints a hash of the state of every method after some steps.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn print_bits() {
    let _alone = alone();
    let (folder, all) = (encoder(0.1), samples(5));
    let mut hasher = blake3::Hasher::new();
    for id in methods() {
        let mut method = build(id, &small(id), folder.path(), 20, Faults::REFERENCE, 1);
        let batches = batches(&all, method.batch_size());
        for batch in &batches {
            method.prepare(batch).unwrap();
        }
        for n in 0..method.passes() * batches.len() + 1 {
            step(method.as_mut(), &batches, n);
        }
        for tensor in method.state().unwrap().tensors.values() {
            let tensor = tensor.to_kind(Kind::Double).flatten(0, -1);
            for number in Vec::<f64>::try_from(tensor).unwrap() {
                hasher.update(&number.to_le_bytes());
            }
        }
    }
    println!("bits {}", hasher.finalize().to_hex());
}

fn bits(numerics: Numerics, more: &[(&str, &str)]) -> String {
    let mut all: BTreeMap<&str, &str> = environment(numerics).iter().copied().collect();
    all.insert(NUMERICS, numerics.as_str());
    all.extend(more.iter().copied());
    let all: Vec<(&str, &str)> = all.into_iter().collect();
    let output = child(&["numerics::print_bits"], &["--ignored"], &all);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().find_map(|line| line.split_once("bits "));
    let stderr = String::from_utf8_lossy(&output.stderr);
    line.unwrap_or_else(|| panic!("{stdout}\n{stderr}"))
        .1
        .to_owned()
}

#[test]
fn portable_bits_are_the_same_on_every_processor() {
    if let Err(error) = check_supported(Numerics::Portable, Device::Cpu) {
        eprintln!("skipped: {error}");
        return;
    }
    // Without portable numerics, other kernels compute other bits.
    let narrow = bits(Numerics::Machine, &[("ATEN_CPU_CAPABILITY", "avx2")]);
    let narrower = bits(Numerics::Machine, &[("ATEN_CPU_CAPABILITY", "default")]);
    assert_ne!(narrow, narrower);
    let portable = bits(Numerics::Portable, &[]);
    // How a processor without AVX-512 appears to the C library and MKL; other threads.
    let elsewhere = [
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
        ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL"),
        ("OMP_NUM_THREADS", "3"),
    ];
    assert_eq!(portable, bits(Numerics::Portable, &elsewhere));
    assert_ne!(portable, narrow);
}
