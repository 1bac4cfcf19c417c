//! The methods that can be named in a spec, and their hyper-parameters as data: `coord` checks and
//! fills in hyper-parameters without libtorch, the worker builds models from the result.

mod fit;
pub mod flops;
pub mod memory;
mod needs;
mod range;

pub use crate::faults;
pub use fit::{About, DataFacts, EncoderShape, Fit, Misfit, Setup, largest_test, results_fit};
pub use range::{MAX_EPOCHS, Range};

use crate::{
    benchmark::Kind,
    faults::{Fault, Faults},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::OnceLock};

/// One line per method: its id, its file, and what it needs of hyper-parameters and data together, in
/// the order of tables. The worker's registry has a builder for each.
const FILES: &[(&str, &str, Needs)] = &[
    ("misa", include_str!("../methods/misa.toml"), needs::misa),
    (
        "self-mm",
        include_str!("../methods/self-mm.toml"),
        needs::self_mm,
    ),
    ("mmim", include_str!("../methods/mmim.toml"), needs::mmim),
    ("cenet", include_str!("../methods/cenet.toml"), needs::cenet),
    ("tetfn", include_str!("../methods/tetfn.toml"), needs::tetfn),
    (
        "tfr-net",
        include_str!("../methods/tfr-net.toml"),
        needs::tfr_net,
    ),
    ("almt", include_str!("../methods/almt.toml"), needs::almt),
    ("lnln", include_str!("../methods/lnln.toml"), needs::lnln),
    (
        "lf-dnn",
        include_str!("../methods/lf-dnn.toml"),
        needs::lf_dnn,
    ),
    (
        "text-only",
        include_str!("../methods/text-only.toml"),
        needs::text_only,
    ),
    (
        "emt-dlfr",
        include_str!("../methods/emt-dlfr.toml"),
        needs::emt_dlfr,
    ),
];

/// Reports what a method cannot work with in a set-up.
type Needs = fn(&mut Fit<'_>);

/// Hyper-parameters of every method: the trainer reads them.
pub const RESERVED: [&str; 3] = ["batch_size", MAX_EPOCHS_KEY, "early_stop"];

/// The hyper-parameter that every training has, that of an external program, too.
pub const MAX_EPOCHS_KEY: &str = "max_epochs";

/// The hyper-parameter by which a method has itself trained on complete inputs, where it is `false`.
pub const TRAIN_MISSING_KEY: &str = "train_missing";

/// The most epochs that an external program trains if its spec does not say.
const EXTERNAL_EPOCHS: u32 = 50;

/// A method, as its file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodInfo {
    /// Its id: `lnln`.
    #[serde(skip)]
    pub id: String,
    /// As tables write it: `LNLN`.
    pub name: String,
    /// Where it was published.
    pub paper: String,
    /// What a dataset must have besides text, audio, vision and labels.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Every hyper-parameter with its default.
    pub hyper: Map<String, Value>,
    /// The range of each numeric hyper-parameter.
    #[serde(deserialize_with = "range::read")]
    pub ranges: BTreeMap<String, Range>,
    /// Different defaults by dataset.
    #[serde(default)]
    pub hyper_by_dataset: BTreeMap<String, Map<String, Value>>,
    /// Different defaults where a fault of the reference is corrected, and below it by dataset.
    #[serde(default)]
    pub hyper_without: BTreeMap<Fault, Map<String, Value>>,
    /// Named variants.
    #[serde(default)]
    pub variants: BTreeMap<String, VariantInfo>,
    /// Whether it is an external program. Its lists may have any length: nothing here depends on it.
    #[serde(skip)]
    pub external: bool,
}

/// Optional properties of datasets that a method may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Labels for text, audio and vision alone.
    UnimodalLabels,
}

impl Need {
    fn has(self, kind: Kind) -> bool {
        match self {
            Need::UnimodalLabels => kind.has_unimodal_labels(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Need::UnimodalLabels => "labels for text, audio and vision alone",
        }
    }
}

/// A named change of a method.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantInfo {
    /// What it is about.
    pub about: String,
    /// The hyper-parameters that it changes.
    #[serde(default)]
    pub hyper: Map<String, Value>,
}

/// Why a hyper-parameter cannot be set.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HyperError {
    /// The method has no such hyper-parameter.
    #[error("{method} has no hyper-parameter `{key}`")]
    Unknown {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// The most similar one that it has.
        nearest: Option<String>,
    },
    /// A value of another type.
    #[error("`{key}` of {method} is {expected}, not {found}")]
    Type {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// The expected type.
        expected: &'static str,
        /// The type given.
        found: &'static str,
    },
    /// A value of the right type that cannot train anything.
    #[error("`{key}` of {method} cannot be {value}: it must be {range}")]
    Range {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What is expected.
        range: String,
    },
}

fn parse(id: &str, text: &str) -> Result<MethodInfo, toml::de::Error> {
    let mut info: MethodInfo = toml::from_str(text)?;
    id.clone_into(&mut info.id);
    // Who adds a hyper-parameter says what it may be.
    let numbers = |value: &Value| value.is_number() || value.is_array();
    let unranged = info
        .hyper
        .iter()
        .find(|(key, value)| numbers(value) && !info.ranges.contains_key(*key));
    if let Some((key, _)) = unranged {
        return Err(serde::de::Error::custom(format!("`{key}` has no range")));
    }
    Ok(info)
}

/// All methods: the paper's in its order, then others.
pub fn all() -> &'static [MethodInfo] {
    static ALL: OnceLock<Vec<MethodInfo>> = OnceLock::new();
    ALL.get_or_init(|| {
        FILES
            .iter()
            // The files are part of the program, and a test reads each.
            .filter_map(|(id, text, _)| parse(id, text).ok())
            .collect()
    })
}

/// The method with this id.
pub fn find(id: &str) -> Option<&'static MethodInfo> {
    all().iter().find(|method| method.id == id)
}

/// The candidate most similar to `text`, if any is close. Case is ignored.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&text, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(text.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// The type of a JSON value, for people.
fn kind(value: &Value) -> &'static str {
    match value {
        // TOML has no null: only numbers that JSON cannot hold end here.
        Value::Null => "nan or inf",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(values) => match values.iter().find(|v| v.is_f64()).or(values.first()) {
            Some(Value::Number(n)) if n.is_f64() => "a list of numbers",
            Some(Value::Number(_)) => "a list of whole numbers",
            Some(Value::String(_)) => "a list of texts",
            _ => "a list",
        },
        Value::Object(_) => "a table",
    }
}

/// `value` in the type of `default`: an integer is accepted as a float. Lists have the same length,
/// unless they may have any.
fn fit(default: &Value, value: &Value, any_length: bool) -> Option<Value> {
    match (default, value) {
        (Value::Number(d), Value::Number(v)) if d.is_f64() => v.as_f64().map(Value::from),
        (Value::Number(_), Value::Number(v)) if v.is_f64() => None,
        (Value::Array(d), Value::Array(v)) if d.len() == v.len() => d
            .iter()
            .zip(v)
            .map(|(d, v)| fit(d, v, any_length))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        (Value::Array(d), Value::Array(v)) if any_length => {
            // One fraction makes all of them numbers with fractions.
            let like = d.iter().find(|d| d.is_f64()).or(d.first());
            v.iter()
                .map(|v| like.map_or_else(|| Some(v.clone()), |like| fit(like, v, false)))
                .collect::<Option<Vec<_>>>()
                .map(Value::Array)
        }
        (d, v) if !d.is_array() && kind(d) == kind(v) => Some(v.clone()),
        _ => None,
    }
}

impl MethodInfo {
    /// An external program as a method: what a spec says of its hyper-parameters is all that is known
    /// of it.
    pub fn external(id: &str, hyper: &Map<String, Value>) -> Self {
        let mut hyper = hyper.clone();
        hyper
            .entry(MAX_EPOCHS_KEY)
            .or_insert_with(|| EXTERNAL_EPOCHS.into());
        let epochs = Range {
            least: Some(1.0),
            most: Some(MAX_EPOCHS.into()),
            ..Range::default()
        };
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            paper: "external program".to_owned(),
            needs: Vec::new(),
            hyper,
            ranges: BTreeMap::from([(MAX_EPOCHS_KEY.to_owned(), epochs)]),
            hyper_by_dataset: BTreeMap::new(),
            hyper_without: BTreeMap::new(),
            variants: BTreeMap::new(),
            external: true,
        }
    }

    /// Checks one override and gives it the right type.
    ///
    /// # Errors
    ///
    /// An unknown hyper-parameter, another type, or a value out of range.
    pub fn check(&self, key: &str, value: &Value) -> Result<Value, HyperError> {
        let Some(default) = self.hyper.get(key) else {
            return Err(HyperError::Unknown {
                method: self.id.clone(),
                key: key.to_owned(),
                nearest: nearest(key, self.hyper.keys().map(String::as_str)),
            });
        };
        let fitted = fit(default, value, self.external).ok_or_else(|| HyperError::Type {
            method: self.id.clone(),
            key: key.to_owned(),
            expected: kind(default),
            found: match kind(value) {
                same if same == kind(default) => "one of another length",
                other => other,
            },
        })?;
        match self.ranges.get(key) {
            Some(range) if !range.has(&fitted) => Err(HyperError::Range {
                method: self.id.clone(),
                key: key.to_owned(),
                value: value.to_string(),
                range: range.to_string(),
            }),
            _ => Ok(fitted),
        }
    }

    /// What the method needs and a dataset of this protocol lacks, for people.
    pub fn lacks(&self, kind: Kind) -> Option<&'static str> {
        let mut lacking = self.needs.iter().filter(|need| !need.has(kind));
        lacking.next().map(|need| need.words())
    }

    /// The defaults for a dataset that differ where faults of the reference are not kept.
    pub fn corrections(&self, dataset: &str, faults: Faults) -> Map<String, Value> {
        let corrected = self.hyper_without.iter();
        let corrected = corrected.filter(|(fault, _)| !faults.keeps(**fault));
        let mut changes = Map::new();
        for (_, all) in corrected {
            let shared = all.iter().filter(|(_, value)| !value.is_object());
            let own = all.get(dataset).and_then(Value::as_object);
            changes.extend(
                shared
                    .chain(own.into_iter().flatten())
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
        changes
    }

    /// All hyper-parameters for a dataset: defaults, what differs on it, then `changes` in order.
    ///
    /// # Errors
    ///
    /// A change that does not fit.
    pub fn resolve(
        &self,
        dataset: &str,
        changes: &[&Map<String, Value>],
    ) -> Result<Map<String, Value>, HyperError> {
        let mut resolved = self.hyper.clone();
        let own = self.hyper_by_dataset.get(dataset);
        for change in own.into_iter().chain(changes.iter().copied()) {
            for (key, value) in change {
                resolved.insert(key.clone(), self.check(key, value)?);
            }
        }
        Ok(resolved)
    }

    /// Everything that prevents the method from training in this set-up, and warnings about it.
    /// `coord plan` and the worker ask the same.
    pub fn fit<'a>(&'a self, setup: Setup<'a>) -> Fit<'a> {
        let mut fit = Fit::new(self, setup);
        if let Some((_, _, needs)) = FILES.iter().find(|(id, ..)| *id == self.id) {
            fit.common();
            needs(&mut fit);
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_method_file_is_valid() {
        for (id, text, _) in FILES {
            let info = parse(id, text).unwrap_or_else(|e| panic!("{id}: {e}"));
            for key in info.ranges.keys() {
                assert!(info.hyper.contains_key(key), "{id} has no {key}");
            }
            for key in RESERVED {
                assert!(info.hyper.contains_key(key), "{id} has no {key}");
            }
            for (key, value) in &info.hyper {
                info.check(key, value).unwrap_or_else(|e| panic!("{e}"));
            }
            for dataset in ["mosi", "mosei", "sims"] {
                info.resolve(dataset, &[]).unwrap();
                for fault in info.hyper_without.keys() {
                    assert!(fault.concerns(id), "{id}: {fault}");
                    let changes = info.corrections(dataset, Faults::REFERENCE.with(*fault, false));
                    info.resolve(dataset, &[&changes]).unwrap();
                }
                assert!(info.corrections(dataset, Faults::REFERENCE).is_empty());
                for variant in info.variants.values() {
                    info.resolve(dataset, &[&variant.hyper]).unwrap();
                }
            }
            let known = |dataset: &String| ["mosi", "mosei", "sims"].contains(&dataset.as_str());
            assert!(info.hyper_by_dataset.keys().all(known), "{id}");
        }
        assert_eq!(all().len(), FILES.len());
    }

    #[test]
    fn hyper_parameter_changes_apply_in_order_and_keep_types() {
        let lnln = find("lnln").unwrap();
        let changes = json!({"alpha": 1, "batch_size": 8});
        let later = json!({"batch_size": 4});
        let resolved = lnln
            .resolve(
                "sims",
                &[changes.as_object().unwrap(), later.as_object().unwrap()],
            )
            .unwrap();
        assert_eq!(resolved["beta"], json!(0.6), "SIMS' own");
        assert_eq!(resolved["alpha"], json!(1.0));
        assert_eq!(resolved["batch_size"], json!(4));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_rejected() {
        let lnln = find("lnln").unwrap();
        match lnln.check("learning_rat", &json!(1e-3)) {
            Err(HyperError::Unknown { nearest, .. }) => {
                assert_eq!(nearest.as_deref(), Some("learning_rate"));
            }
            other => panic!("{other:?}"),
        }
        assert!(lnln.check("batch_size", &json!(1.5)).is_err());
        assert!(lnln.check("dmc", &json!(1)).is_err());
    }

    #[test]
    fn degenerate_sizes_are_rejected() {
        let lnln = find("lnln").unwrap();
        let range = |key, value| match lnln.check(key, &value) {
            Err(HyperError::Range { range, .. }) => range,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(range("batch_size", json!(0)), "1 to 1,048,576");
        assert_eq!(range("max_epochs", json!(0)), "1 to 1,000,000");
        let beyond_u32 = json!(5_000_000_000_u64);
        assert_eq!(range("max_epochs", beyond_u32), "1 to 1,000,000");
        assert_eq!(range("early_stop", json!(-1)), "0 to 1,000,000");
        assert_eq!(range("width", json!(-128)), "2 to 16,384");
        assert_eq!(
            range("learning_rate", json!(-1e-4)),
            "above 0 and at most 1"
        );
        assert_eq!(range("learning_rate", json!(0)), "above 0 and at most 1");
        assert_eq!(range("alpha", json!(-3)), "0 to 1,000,000");
        assert_eq!(lnln.check("early_stop", &json!(0)), Ok(json!(0)));
        let almt = find("almt").unwrap();
        assert!(almt.check("embedding_depth", &json!([1, -1, 1])).is_err());
        let short = almt.check("embedding_depth", &json!([1, 1])).unwrap_err();
        assert!(
            short
                .to_string()
                .ends_with("a list of whole numbers, not one of another length")
        );
    }
}
