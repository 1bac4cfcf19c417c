//! Resolves the methods of a spec: their hyper-parameters by dataset, and how they are trained.

use super::{
    BuiltIn, ResolvedMethod, Spec,
    effect::place_of,
    external::Methods,
    ground::Ground,
    methods::variant_changes,
    needs_rules,
    place::{Checker, Step},
    training::{self, Inputs},
};
use crate::{
    benchmark::Kind,
    external::HYPER_KEY,
    methods::{MAX_EPOCHS_KEY, MethodInfo, Setup, faults::Faults},
    wire::Protocol,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The hyper-parameter of methods that make labels for single modalities: within ± this.
const LABEL_BOUND: &str = "label_bound";

/// What methods are resolved with.
pub(super) struct Resolver<'a> {
    pub(super) spec: &'a Spec,
    pub(super) protocol: &'a Protocol,
    pub(super) grounds: &'a BTreeMap<String, Ground>,
    pub(super) inputs: &'a Inputs<'a>,
    /// External programs by their ids.
    pub(super) programs: &'a BTreeMap<String, Value>,
}

impl Resolver<'_> {
    /// All methods and variants, in order.
    pub(super) fn methods(
        &self,
        checker: &mut Checker<'_>,
        noted: &mut Checker<'_>,
    ) -> Vec<ResolvedMethod> {
        let known = Methods::of(self.spec);
        let mut resolved = Vec::new();
        for (i, id) in self.spec.methods.iter().enumerate() {
            let (method, variant) = id.split_once('/').unwrap_or((id, ""));
            let Some(info) = known.find(method) else {
                continue; // `read` has refused it
            };
            let protocol = training::protocol_of(self.spec, self.protocol, id);
            let at = At {
                i,
                id,
                info,
                faults: protocol.faults(),
            };
            let own = |name: &str| {
                Some((
                    name.to_owned(),
                    self.inputs.get(&(id.as_str(), name))?.0.clone(),
                ))
            };
            resolved.push(ResolvedMethod {
                method: method.to_owned(),
                variant: variant.to_owned(),
                hyper: self.hyper(&at, checker, noted),
                protocol: (protocol != *self.protocol).then_some(protocol),
                inputs: self
                    .spec
                    .datasets
                    .keys()
                    .filter_map(|name| own(name))
                    .collect(),
                needs: needs_rules::resolve(self.spec, method, variant),
            });
        }
        resolved
    }

    /// The hyper-parameters of a method by dataset.
    fn hyper(
        &self,
        at: &At<'_>,
        checker: &mut Checker<'_>,
        noted: &mut Checker<'_>,
    ) -> BTreeMap<String, Map<String, Value>> {
        let At {
            i,
            id,
            info,
            faults,
        } = *at;
        let spec = self.spec;
        let (method, variant) = id.split_once('/').unwrap_or((id, ""));
        let change = variant_changes(spec, info, variant);
        let mut hyper = BTreeMap::new();
        for (name, dataset) in &spec.datasets {
            let Some(kind) = dataset.kind(name) else {
                continue;
            };
            if let Some(lacking) = info.lacks(kind) {
                at.refuse(name, lacking, checker);
                continue;
            }
            // What the method has for another dataset, and the bound of labels that it makes.
            let like = dataset.hyper_like.map_or(kind, BuiltIn::kind);
            let bound = own_bound(info, kind);
            // The method's settings in the spec, then the variant's change, then the variant's own
            // settings in the spec: the nearer says more.
            let (base, base_own) = settings(spec, method, name, kind);
            let (named, named_own) = if variant.is_empty() {
                (Map::new(), Map::new())
            } else {
                settings(spec, id, name, kind)
            };
            let epochs: Map<String, Value> = spec
                .epochs
                .map(|epochs| (MAX_EPOCHS_KEY.to_owned(), Value::from(epochs)))
                .into_iter()
                .collect();
            let corrections = info.corrections(like.as_str(), faults);
            let changes = [
                &corrections,
                &bound,
                &epochs,
                &base,
                &base_own,
                &change,
                &named,
                &named_own,
            ];
            match info.resolve(like.as_str(), &changes) {
                Ok(mut resolved) => {
                    let place = Place {
                        spec,
                        i,
                        id,
                        dataset: name,
                    };
                    let own = self
                        .inputs
                        .get(&(id, name.as_str()))
                        .map(|(_, ground)| ground);
                    let ground = own.or_else(|| self.grounds.get(name));
                    place.fit((info, faults), &resolved, ground, checker, noted);
                    if let Some(program) = self.programs.get(method) {
                        resolved.insert(HYPER_KEY.to_owned(), program.clone());
                    }
                    hyper.insert(name.to_owned(), resolved);
                }
                Err(error) => checker.problem(
                    &[Step::Key("methods"), Step::Index(i)],
                    error,
                    "of this method",
                    None,
                ),
            }
        }
        hyper
    }
}

/// A method or variant.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Its place in `methods`.
    i: usize,
    id: &'a str,
    info: &'a MethodInfo,
    /// The faults of its reference that it keeps.
    faults: Faults,
}

impl At<'_> {
    /// Says that the dataset does not have what the method needs.
    fn refuse(&self, dataset: &str, lacking: &str, checker: &mut Checker<'_>) {
        checker.problem(
            &[Step::Key("methods"), Step::Index(self.i)],
            format!(
                "{} needs {lacking}, which the dataset `{dataset}` does not have",
                self.info.name
            ),
            "cannot train on it",
            Some(format!(
                "remove the method, or put `{dataset}` into a spec of its own without it; if its \
                 file has them, import it again with them (docs/guide/own-dataset.md)"
            )),
        );
    }
}

/// A method or variant on a dataset.
struct Place<'s> {
    spec: &'s Spec,
    /// Its place in `methods`.
    i: usize,
    id: &'s str,
    dataset: &'s str,
}

impl Place<'_> {
    /// Asks whether the method fits the sizes of dataset and encoder.
    fn fit(
        &self,
        (info, faults): (&MethodInfo, Faults),
        hyper: &Map<String, Value>,
        ground: Option<&Ground>,
        checker: &mut Checker<'_>,
        noted: &mut Checker<'_>,
    ) {
        let fit = info.fit(Setup {
            hyper,
            faults,
            data: ground.and_then(|ground| ground.data.as_ref()),
            encoder: ground.and_then(|ground| ground.encoder.as_ref()),
        });
        let set = |key| place_of(self.spec, self.id, self.dataset, key);
        let named = || vec![Step::Key("methods"), Step::Index(self.i)];
        let (method, dataset) = (&info.id, self.dataset);
        for misfit in fit.misfits() {
            let at = misfit.keys.iter().find_map(|key| set(key));
            checker.problem(
                &at.unwrap_or_else(named),
                format!("{method} cannot be trained on {dataset}: {}", misfit.what),
                "does not fit",
                Some(misfit.help.clone()),
            );
        }
        for note in fit.notes() {
            noted.problem(&named(), format!("{method} on {dataset}: {note}"), "", None);
        }
        for (key, why) in fit.idle() {
            if let Some(at) = set(key) {
                let message = format!("`{key}` of {} has no effect: {why}", self.id);
                noted.problem_key(&at, message, "without effect", None);
            }
        }
    }
}

/// The bound of the labels that a method makes for single modalities, where it has one: on a dataset
/// with a protocol of its own half the width of its range, about whose middle models are trained.
fn own_bound(info: &MethodInfo, kind: Kind) -> Map<String, Value> {
    let mut bound = Map::new();
    let bounded = !info.external && info.hyper.contains_key(LABEL_BOUND);
    if let (Kind::Own(_), true) = (kind, bounded) {
        let [low, high] = kind.definition().label_range;
        bound.insert(LABEL_BOUND.to_owned(), Value::from((high - low) / 2.0));
    }
    bound
}

/// What `[hyper.<id>]` says for all datasets, and for this one.
///
/// What is said for the protocol that it follows is said for this one, too; what is said by its
/// own name comes last.
fn settings(
    spec: &Spec,
    id: &str,
    dataset: &str,
    kind: Kind,
) -> (Map<String, Value>, Map<String, Value>) {
    let Some(all) = spec.hyper.get(id) else {
        return Default::default();
    };
    let shared = all
        .iter()
        .filter(|(_, value)| !value.is_object())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut own = Map::new();
    for name in [kind.as_str(), dataset] {
        let said = all.get(name).and_then(Value::as_object);
        own.extend(
            said.into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    (shared, own)
}
