//! How much computing the trainings of a spec take: the longest are granted first.

use crate::{
    matrix::config_id,
    methods::{
        self, DataFacts, EncoderShape, Setup,
        flops::{self, Flops},
    },
    spec::{ResolvedMethod, ResolvedSpec},
    wire::Protocol,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The share of its epochs that a training has where it stops early: the references of the paper's methods
/// stop after 10 to 50 epochs of the 100 to 200 that they may have.
const SHARE_OF_EPOCHS: f64 = 0.3;

/// Floating-point operations of the trainings of a spec, by config, where they can be counted. `sizes` has those of the
/// files that a method reads of a dataset, by its id.
pub fn of_trainings<'a>(
    spec: &'a ResolvedSpec,
    sizes: impl Fn(&'a ResolvedMethod, &str) -> Option<(&'a DataFacts, &'a EncoderShape)>,
) -> BTreeMap<Uuid, f64> {
    let mut all = BTreeMap::new();
    for method in &spec.methods {
        for dataset in &spec.datasets {
            let own = spec.train_spec(method, dataset, 0);
            let Ok(hyper) = serde_json::from_str::<Map<String, Value>>(&own.hyper) else {
                continue;
            };
            let sizes = sizes(method, dataset.benchmark.id());
            let Some(counted) = counted(&own.method, &hyper, &own.protocol, sizes) else {
                continue;
            };
            let share = if stops_early(&hyper) {
                SHARE_OF_EPOCHS
            } else {
                1.0
            };
            let flop = counted.step * counted.steps * f64::from(own.max_epochs) * share;
            all.insert(config_id(&own), flop);
        }
    }
    all
}

/// The work of a method; unknown of external programs and without sizes.
pub fn counted(
    method: &str,
    hyper: &Map<String, Value>,
    protocol: &Protocol,
    sizes: Option<(&DataFacts, &EncoderShape)>,
) -> Option<Flops> {
    let (data, encoder) = sizes?;
    let setup = Setup {
        hyper,
        faults: protocol.faults(),
        data: Some(data),
        encoder: Some(encoder),
    };
    flops::counted(methods::find(method)?, setup)
}

/// Whether a training of a registry's method may end before its last epoch.
pub fn stops_early(hyper: &Map<String, Value>) -> bool {
    hyper.get("early_stop").and_then(Value::as_u64).unwrap_or(0) > 0
}
