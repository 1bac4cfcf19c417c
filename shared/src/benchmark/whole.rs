//! Writes a [`Benchmark`] with its protocol, for readers that have nothing else: in jobs and
//! resolved specs (`#[serde(with = "whole")]`).

use super::{Benchmark, Kind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

#[derive(Serialize, Deserialize)]
struct Form {
    name: String,
    follows: Kind,
}

/// Writes name and protocol; in JSON a built-in one by its name alone.
///
/// # Errors
///
/// The format's error.
pub fn serialize<S: Serializer>(benchmark: &Benchmark, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() && !matches!(benchmark, Benchmark::Own(_)) {
        return serializer.serialize_str(benchmark.id());
    }
    let form = Form {
        name: benchmark.id().to_owned(),
        follows: benchmark.kind(),
    };
    form.serialize(serializer)
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
///
/// The format's error; a name or a definition that cannot be used.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Benchmark, D::Error> {
    if deserializer.is_human_readable() {
        return deserializer.deserialize_any(Either);
    }
    built(Form::deserialize(deserializer)?)
}

fn built<E: de::Error>(form: Form) -> Result<Benchmark, E> {
    Benchmark::new(&form.name, form.follows).map_err(E::custom)
}

struct Either;

impl<'de> de::Visitor<'de> for Either {
    type Value = Benchmark;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mosi, mosei, sims or a name with its protocol")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Benchmark, E> {
        id.parse().map_err(E::custom)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Benchmark, A::Error> {
        built(Form::deserialize(de::value::MapAccessDeserializer::new(
            map,
        ))?)
    }
}
