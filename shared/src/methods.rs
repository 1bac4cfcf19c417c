//! The methods that can be named in a spec, and their hyper-parameters as data: `coord` checks and
//! fills in hyper-parameters without libtorch, the worker builds models from the result.

use crate::benchmark::Kind;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::OnceLock};

/// One line a method: its id and its file, in the order of tables. The worker's registry has a
/// builder for each.
const FILES: &[(&str, &str)] = &[
    ("misa", include_str!("../methods/misa.toml")),
    ("self-mm", include_str!("../methods/self-mm.toml")),
    ("mmim", include_str!("../methods/mmim.toml")),
    ("cenet", include_str!("../methods/cenet.toml")),
    ("tetfn", include_str!("../methods/tetfn.toml")),
    ("tfr-net", include_str!("../methods/tfr-net.toml")),
    ("almt", include_str!("../methods/almt.toml")),
    ("lnln", include_str!("../methods/lnln.toml")),
    ("lf-dnn", include_str!("../methods/lf-dnn.toml")),
];

/// Hyper-parameters every method has: what the driver reads.
pub const RESERVED: [&str; 3] = ["batch_size", "max_epochs", "early_stop"];

/// A method, as its file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodInfo {
    /// Its id: `lnln`.
    #[serde(skip)]
    pub id: &'static str,
    /// As tables write it: `LNLN`.
    pub name: String,
    /// Where it was published.
    pub paper: String,
    /// What a dataset must have beside texts, audio, vision and labels.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Every hyper-parameter with its default.
    pub hyper: Map<String, Value>,
    /// What differs on a dataset.
    #[serde(default)]
    pub hyper_by_dataset: BTreeMap<String, Map<String, Value>>,
    /// Named changes.
    #[serde(default)]
    pub variants: BTreeMap<String, VariantInfo>,
}

/// What not every dataset has, and a method may need.
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
    /// What it is.
    pub about: String,
    /// What it changes.
    #[serde(default)]
    pub hyper: Map<String, Value>,
}

/// Why a hyper-parameter cannot be set.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HyperError {
    /// The method has no such one.
    #[error("{method} has no hyper-parameter `{key}`")]
    Unknown {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// The nearest that it has.
        nearest: Option<String>,
    },
    /// It has another type.
    #[error("`{key}` of {method} is {expected}, not {found}")]
    Type {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// Its type.
        expected: &'static str,
        /// The type given.
        found: &'static str,
    },
    /// It has the right type and a value that can train nothing.
    #[error("`{key}` of {method} cannot be {value}: {range}")]
    Range {
        /// The method's id.
        method: String,
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What it must be.
        range: &'static str,
    },
}

/// The most epochs a training may be given: far above what any method needs, and far below what a
/// job message can hold.
pub const MAX_EPOCHS: u32 = 1_000_000;

fn parse(id: &'static str, text: &str) -> Result<MethodInfo, toml::de::Error> {
    let mut info: MethodInfo = toml::from_str(text)?;
    info.id = id;
    Ok(info)
}

/// All methods: the paper's in its order, then others.
pub fn all() -> &'static [MethodInfo] {
    static ALL: OnceLock<Vec<MethodInfo>> = OnceLock::new();
    ALL.get_or_init(|| {
        FILES
            .iter()
            // The files are part of the program, and a test reads each.
            .filter_map(|(id, text)| parse(id, text).ok())
            .collect()
    })
}

/// The method with this id.
pub fn find(id: &str) -> Option<&'static MethodInfo> {
    all().iter().find(|method| method.id == id)
}

/// The candidate that is written most like `text`, if any is near.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(text.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// What a JSON value is, for people.
fn kind(value: &Value) -> &'static str {
    match value {
        // TOML has no null: only numbers that JSON cannot hold end here.
        Value::Null => "nan or inf",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// `value` in the type of `default`: a whole number is taken where a number is asked for.
fn fit(default: &Value, value: &Value) -> Option<Value> {
    match (default, value) {
        (Value::Number(d), Value::Number(v)) if d.is_f64() => v.as_f64().map(Value::from),
        (Value::Number(_), Value::Number(v)) if v.is_f64() => None,
        (Value::Array(d), Value::Array(v)) if d.len() == v.len() => d
            .iter()
            .zip(v)
            .map(|(d, v)| fit(d, v))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        (d, v) if kind(d) == kind(v) && !d.is_array() => Some(v.clone()),
        _ => None,
    }
}

/// What `value` must be and is not. All whole numbers of methods are sizes and counts.
fn out_of_range(key: &str, value: &Value) -> Option<&'static str> {
    match value {
        Value::Array(values) => values.iter().find_map(|value| out_of_range(key, value)),
        Value::Number(number) if !number.is_f64() => {
            let number = number.as_u64();
            match key {
                "batch_size" if !number.is_some_and(|n| (1..=1 << 20).contains(&n)) => {
                    Some("it must be 1 to 1,048,576")
                }
                "max_epochs" if !number.is_some_and(|n| (1..=MAX_EPOCHS.into()).contains(&n)) => {
                    Some("it must be 1 to 1,000,000")
                }
                _ if number.is_none() => Some("it must not be negative"),
                _ => None,
            }
        }
        _ => None,
    }
}

impl MethodInfo {
    /// Checks one override and gives it the right type.
    ///
    /// # Errors
    ///
    /// No such hyper-parameter, another type, or a value that can train nothing.
    pub fn check(&self, key: &str, value: &Value) -> Result<Value, HyperError> {
        let Some(default) = self.hyper.get(key) else {
            return Err(HyperError::Unknown {
                method: self.id.to_owned(),
                key: key.to_owned(),
                nearest: nearest(key, self.hyper.keys().map(String::as_str)),
            });
        };
        let fitted = fit(default, value).ok_or_else(|| HyperError::Type {
            method: self.id.to_owned(),
            key: key.to_owned(),
            expected: kind(default),
            found: kind(value),
        })?;
        match out_of_range(key, &fitted) {
            None => Ok(fitted),
            Some(range) => Err(HyperError::Range {
                method: self.id.to_owned(),
                key: key.to_owned(),
                value: value.to_string(),
                range,
            }),
        }
    }

    /// What of its needs a dataset of this protocol lacks, in words.
    pub fn lacks(&self, kind: Kind) -> Option<&'static str> {
        let mut lacking = self.needs.iter().filter(|need| !need.has(kind));
        lacking.next().map(|need| need.words())
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_file_reads_and_every_change_fits() {
        for (id, text) in FILES {
            let info = parse(id, text).unwrap_or_else(|e| panic!("{id}: {e}"));
            for key in RESERVED {
                assert!(info.hyper.contains_key(key), "{id} has no {key}");
            }
            for (key, value) in &info.hyper {
                info.check(key, value).unwrap_or_else(|e| panic!("{e}"));
            }
            for dataset in ["mosi", "mosei", "sims"] {
                info.resolve(dataset, &[]).unwrap();
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
    fn changes_apply_in_order_and_keep_types() {
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
    fn refuses_unknown_keys_and_other_types() {
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
    fn refuses_sizes_that_train_nothing() {
        let lnln = find("lnln").unwrap();
        let range = |key, value| match lnln.check(key, &value) {
            Err(HyperError::Range { range, .. }) => range,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(range("batch_size", json!(0)), "it must be 1 to 1,048,576");
        assert_eq!(range("max_epochs", json!(0)), "it must be 1 to 1,000,000");
        let beyond_u32 = json!(5_000_000_000_u64);
        assert_eq!(range("max_epochs", beyond_u32), "it must be 1 to 1,000,000");
        assert_eq!(range("early_stop", json!(-1)), "it must not be negative");
        assert_eq!(range("width", json!(-128)), "it must not be negative");
        assert_eq!(lnln.check("early_stop", &json!(0)), Ok(json!(0)));
        let almt = find("almt").unwrap();
        assert!(almt.check("embedding_depth", &json!([1, -1, 1])).is_err());
        assert!(almt.check("embedding_depth", &json!([1, 1])).is_err());
    }
}
