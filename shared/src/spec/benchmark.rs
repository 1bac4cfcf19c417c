//! The protocol that a dataset of a spec follows.

use crate::benchmark::{
    Kind,
    definition::{DefinitionError, DefinitionSpec},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{borrow::Cow, fmt};

/// A built-in protocol by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BuiltIn {
    /// CMU-MOSI: English, labels in [-3, 3].
    Mosi,
    /// CMU-MOSEI: English, labels in [-3, 3].
    Mosei,
    /// CH-SIMS: Chinese, labels in [-1, 1], with a label for each modality alone.
    Sims,
}

impl BuiltIn {
    /// The protocol.
    pub fn kind(self) -> Kind {
        match self {
            BuiltIn::Mosi => Kind::Mosi,
            BuiltIn::Mosei => Kind::Mosei,
            BuiltIn::Sims => Kind::Sims,
        }
    }
}

/// Whose protocol a dataset follows: that of a built-in one, or one of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BenchmarkSpec {
    /// A built-in one.
    BuiltIn(BuiltIn),
    /// One that the spec defines.
    Own(DefinitionSpec),
}

impl BenchmarkSpec {
    /// The protocol.
    ///
    /// # Errors
    ///
    /// An invalid definition.
    pub fn kind(&self) -> Result<Kind, DefinitionError> {
        match self {
            BenchmarkSpec::BuiltIn(built_in) => Ok(built_in.kind()),
            BenchmarkSpec::Own(definition) => Kind::own(definition.resolve()?),
        }
    }
}

// By hand: a mistake in a definition is reported at its key, not as "no variant matches".
impl<'de> Deserialize<'de> for BenchmarkSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> de::Visitor<'de> for Either {
    type Value = BenchmarkSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`mosi`, `mosei`, `sims`, or a table with label_range, language and classes")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<BenchmarkSpec, E> {
        let id = de::value::StrDeserializer::new(id);
        BuiltIn::deserialize(id).map(BenchmarkSpec::BuiltIn)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<BenchmarkSpec, A::Error> {
        let table = de::value::MapAccessDeserializer::new(map);
        DefinitionSpec::deserialize(table).map(BenchmarkSpec::Own)
    }
}

impl JsonSchema for BenchmarkSpec {
    fn schema_name() -> Cow<'static, str> {
        "BenchmarkSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let own = generator.subschema_for::<DefinitionSpec>();
        let built_in = generator.subschema_for::<BuiltIn>();
        json_schema!({
            "description": "Whose protocol a dataset follows: that of a built-in one, or one of its \
                            own.",
            "anyOf": [own, built_in],
        })
    }
}
