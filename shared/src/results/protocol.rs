//! The protocols by which models of a sweep are trained.

use super::Model;
use crate::{
    case::Rate,
    faults::Fault,
    regime::Regime,
    spec::ResolvedSpec,
    wire::{self, Fidelity, Selection},
};
use serde::{Serialize, Serializer};

/// A protocol, and the models that are trained by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// The split that checkpoints are selected on.
    pub selection: Selection,
    /// The missing rate of that split.
    #[serde(serialize_with = "as_fraction")]
    pub selection_rate: Rate,
    /// The seed of the erasure of validation and test data.
    pub erasure_seed: u32,
    /// Whether methods follow the reference code or the papers.
    pub fidelity: Fidelity,
    /// What is missing of the training data.
    pub train_missing: Regime,
    /// The faults of references that are otherwise than `fidelity` says.
    pub switched: Vec<Fault>,
    /// The models, in the order of the spec or by their ids.
    pub models: Vec<Model>,
}

fn as_fraction<S: Serializer>(rate: &Rate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rate.value())
}

impl Protocol {
    /// As a training has it, of no model yet.
    pub fn of(protocol: &wire::Protocol) -> Self {
        Self {
            selection: protocol.selection,
            selection_rate: Rate::from_thousandths(protocol.selection_rate),
            erasure_seed: protocol.erasure_seed,
            fidelity: protocol.fidelity,
            train_missing: protocol.train_missing,
            switched: protocol.switched.clone(),
            models: Vec::new(),
        }
    }

    /// The protocols of a spec. A model whose datasets differ in theirs stands under each.
    pub fn of_spec(spec: &ResolvedSpec) -> Vec<Self> {
        let mut protocols: Vec<Self> = Vec::new();
        for method in &spec.methods {
            for dataset in &spec.datasets {
                let model = Model::new(method.method.as_str(), method.variant.as_str());
                let own = Self::of(&spec.protocol_on(method, dataset));
                match protocols.iter_mut().find(|known| known.is_same(&own)) {
                    Some(known) if known.models.contains(&model) => {}
                    Some(known) => known.models.push(model),
                    None => protocols.push(Self {
                        models: vec![model],
                        ..own
                    }),
                }
            }
        }
        protocols
    }

    /// Whether it says the same, whatever models are trained by it.
    fn is_same(&self, other: &Self) -> bool {
        let Self {
            selection,
            selection_rate,
            erasure_seed,
            fidelity,
            train_missing,
            switched,
            models: _,
        } = self;
        let numbers = (*selection_rate, *erasure_seed);
        *selection == other.selection
            && numbers == (other.selection_rate, other.erasure_seed)
            && (*fidelity, *train_missing) == (other.fidelity, other.train_missing)
            && *switched == other.switched
    }
}
