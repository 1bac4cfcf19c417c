//! Protocols: the three built-in ones, and user-defined ones.

use super::{
    definition::{Classes, Definition, DefinitionError, Rule},
    rules::{self, Rules},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::{LazyLock, Mutex, PoisonError},
};

/// The protocol that a dataset follows: it decides labels, classes, metrics and families. Cheap to
/// copy, however long its definition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// CMU-MOSI: English, labels in [-3, 3].
    Mosi,
    /// CMU-MOSEI: English, labels in [-3, 3].
    Mosei,
    /// CH-SIMS: Chinese, labels in [-1, 1], with a label for each modality alone.
    Sims,
    /// A user-defined protocol.
    Own(OwnKind),
}

/// A user-defined protocol: two with the same definition are equal.
#[derive(Clone, Copy)]
pub struct OwnKind(&'static Rules);

impl PartialEq for OwnKind {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for OwnKind {}

impl Hash for OwnKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl PartialOrd for OwnKind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnKind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl fmt::Debug for OwnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.definition)
    }
}

/// An unknown protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a dataset protocol: use mosi, mosei or sims, or define one (docs/guide/own-dataset.md)"
)]
pub struct UnknownKind(pub String);

/// Maximum number of protocols that a process keeps. They stay until it ends; nobody needs that many, and
/// messages must not fill its memory.
const MAX_OWN: usize = 4096;

fn rounded(count: u32) -> Classes {
    Classes {
        count,
        edges: Vec::new(),
    }
}

fn english() -> Definition {
    Definition {
        label_range: [-3.0, 3.0],
        language: "en".to_owned(),
        rule: Rule::Rounded,
        classes: vec![rounded(2), rounded(5), rounded(7)],
        unimodal: false,
    }
}

fn chinese() -> Definition {
    let classes = |edges: &[f64]| Classes {
        count: edges.len() as u32 + 1,
        edges: edges.to_vec(),
    };
    Definition {
        label_range: [-1.0, 1.0],
        language: "zh".to_owned(),
        rule: Rule::Intervals,
        classes: vec![
            classes(&[0.0]),
            classes(&[-0.1, 0.1]),
            classes(&[-0.7, -0.1, 0.1, 0.7]),
        ],
        unimodal: true,
    }
}

static ENGLISH: LazyLock<Rules> = LazyLock::new(|| Rules::of(english(), String::new()));
static CHINESE: LazyLock<Rules> = LazyLock::new(|| Rules::of(chinese(), String::new()));
static OWN: Mutex<BTreeMap<String, &'static Rules>> = Mutex::new(BTreeMap::new());

impl Kind {
    /// The built-in ones, in the paper's order.
    pub const ALL: [Kind; 3] = [Kind::Mosi, Kind::Mosei, Kind::Sims];

    /// The protocol of a definition.
    ///
    /// # Errors
    ///
    /// An invalid definition.
    pub fn own(definition: Definition) -> Result<Self, DefinitionError> {
        definition.check()?;
        let text = serde_json::to_string(&definition).map_err(|error| DefinitionError {
            key: "label_range",
            what: error.to_string(),
        })?;
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.get(&text) {
            return Ok(Kind::Own(OwnKind(known)));
        }
        if own.len() >= MAX_OWN {
            return Err(DefinitionError {
                key: "classes",
                what: format!("this process already has {MAX_OWN} protocols: start another"),
            });
        }
        let rules: &'static Rules = Box::leak(Box::new(Rules::of(definition, text.clone())));
        own.insert(text, rules);
        Ok(Kind::Own(OwnKind(rules)))
    }

    /// The rules by which its metrics are computed.
    pub fn rules(self) -> &'static Rules {
        match self {
            Kind::Mosi | Kind::Mosei => &ENGLISH,
            Kind::Sims => &CHINESE,
            Kind::Own(own) => own.0,
        }
    }

    /// Labels, language and classes.
    pub fn definition(self) -> &'static Definition {
        &self.rules().definition
    }

    /// `mosi`, `mosei`, `sims`, or `own`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mosi => "mosi",
            Kind::Mosei => "mosei",
            Kind::Sims => "sims",
            Kind::Own(_) => "own",
        }
    }

    /// The smallest and the largest label.
    pub fn label_range(self) -> [f32; 2] {
        self.definition().label_range.map(|end| end as f32)
    }

    /// The middle of the range: the label that is neither positive nor negative.
    pub fn neutral(self) -> f32 {
        rules::neutral(self.definition())
    }

    /// The language of its texts: `en` or `zh`, or another.
    pub fn language(self) -> &'static str {
        &self.definition().language
    }

    /// Whether the protocol has labels for each modality alone.
    pub fn has_unimodal_labels(self) -> bool {
        self.definition().unimodal
    }

    /// Samples of (train, valid, test) that the paper uses, of a built-in one.
    pub fn paper_sizes(self) -> Option<[usize; 3]> {
        match self {
            Kind::Mosi => Some([1284, 229, 686]),
            Kind::Mosei => Some([16326, 1871, 4659]),
            Kind::Sims => Some([1368, 456, 457]),
            Kind::Own(_) => None,
        }
    }

    /// Names of the classes that labels fall into, lowest first: seven for MOSI and MOSEI, five for
    /// SIMS, of others the most that they have.
    pub fn classes(self) -> &'static [&'static str] {
        &self.rules().fine.names
    }

    /// The class of a label, an index into [`Kind::classes`].
    ///
    /// MOSI and MOSEI round half to even after clipping; SIMS has the borders -0.7, -0.1, 0.1 and
    /// 0.7, each belonging to the class below it (MMSA, `metricsTop.py`).
    pub fn class_of(self, label: f32) -> usize {
        let rules = self.rules();
        rules.fine.of(rules.clip(label))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Own(own) => f.pad(&own.0.definition.to_string()),
            built_in => f.pad(built_in.as_str()),
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, UnknownKind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == s)
            .ok_or_else(|| UnknownKind(s.to_owned()))
    }
}

/// The form for formats that say what comes next, such as the wire's.
#[derive(Serialize, Deserialize)]
enum Form {
    BuiltIn(String),
    Own(Definition),
}

impl Serialize for Kind {
    /// In JSON the id of a built-in one, or the definition.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, serializer.is_human_readable()) {
            (Kind::Own(own), true) => own.0.definition.serialize(serializer),
            (Kind::Own(own), false) => Form::Own(own.0.definition.clone()).serialize(serializer),
            (built_in, true) => serializer.serialize_str(built_in.as_str()),
            (built_in, false) => Form::BuiltIn(built_in.as_str().to_owned()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Either);
        }
        match Form::deserialize(deserializer)? {
            Form::BuiltIn(id) => id.parse().map_err(de::Error::custom),
            Form::Own(definition) => Kind::own(definition).map_err(de::Error::custom),
        }
    }
}

/// Reads an id or a definition.
struct Either;

impl<'de> de::Visitor<'de> for Either {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mosi, mosei, sims or a definition")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Kind, E> {
        id.parse().map_err(E::custom)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Kind, A::Error> {
        let definition = Definition::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Kind::own(definition).map_err(de::Error::custom)
    }
}
