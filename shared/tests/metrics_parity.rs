//! The metrics against the reference's, on every recorded case.

use halfheard_shared::{benchmark::Benchmark, metrics::evaluate};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn shared() -> PathBuf {
    std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    )
}

#[test]
fn every_recorded_case_matches() {
    let path = shared().join("parity/metrics.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: no parity/metrics.json under HALFHEARD_SHARED");
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for case in &cases {
        let benchmark: Benchmark = case["dataset"].as_str().unwrap().parse().unwrap();
        let numbers = |name: &str| -> Vec<f32> {
            let values = case[name].as_array().unwrap();
            values.iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let metrics = evaluate(benchmark, &numbers("pred"), &numbers("truth")).unwrap();
        for (name, expected) in case["expected"].as_object().unwrap() {
            let id = match (benchmark, name.as_str()) {
                (_, "Has0_acc_2") => "acc2_nonneg",
                (_, "Has0_F1_score") => "f1_nonneg",
                (_, "Non0_acc_2") => "acc2_nonzero",
                (_, "Non0_F1_score") => "f1_nonzero",
                (_, "Mult_acc_2") => "acc2",
                (_, "Mult_acc_3") => "acc3",
                (_, "Mult_acc_5") => "acc5",
                (_, "Mult_acc_7") => "acc7",
                (_, "F1_score") => "f1",
                (_, "MAE") => "mae",
                (_, "Corr") => "corr",
                (_, other) => panic!("unknown metric {other}"),
            };
            let ours = metrics[id].map(|value| (value * 1e4).round() / 1e4);
            assert_eq!(ours, expected.as_f64(), "{id} of {}", case["note"]);
            compared += 1;
        }
    }
    println!("{compared} values of {} cases match", cases.len());
    assert!(compared > 0);
}
