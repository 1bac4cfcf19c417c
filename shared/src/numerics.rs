//! Reproducibility of a training run's numbers: part of its identity.
//!
//! Products and sums of floats round, and the order of a sum is the processor's instruction set's,
//! the library's and the number of threads'. So the last bits of a result are those of the kind of
//! machine that computed it, unless it asks for the same bits everywhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, str::FromStr};

/// How exactly the results of a training run can be reproduced.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// To the same bits on machines of the same kind: the fastest instructions that there are, and
    /// the GPU.
    #[default]
    Machine,
    /// To the same bits on every x86-64 processor with AVX2: instructions that all of them have,
    /// one thread for each job, never the GPU.
    Portable,
    /// To the same bits on machines of the same kind, with products of matrices in bfloat16 in the text
    /// encoder and the transformers: faster where the processor has instructions for it, and on GPUs, but
    /// with eight bits of precision in these products. Everything else is float32.
    Bf16,
}

impl Numerics {
    /// Its word in a spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Portable => "portable",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether it is what a spec means that does not name it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How a process has to be started for it: its libraries choose their instructions once.
    pub fn of_process(self) -> Self {
        match self {
            Self::Machine | Self::Bf16 => Self::Machine,
            Self::Portable => Self::Portable,
        }
    }

    /// How a process is started that can compute what one for this cannot.
    pub fn other_process(self) -> Self {
        match self {
            Self::Machine | Self::Bf16 => Self::Portable,
            Self::Portable => Self::Machine,
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Numerics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "machine" => Ok(Self::Machine),
            "portable" => Ok(Self::Portable),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("`{text}`: numerics are machine, portable or bf16")),
        }
    }
}

/// Leaves the default out of a training spec in its JSON form, from which ids derive: a training
/// that says nothing of numerics is the one that it was before they could be chosen.
pub fn leave_out_default(spec: &mut Value) {
    if let Value::Object(spec) = spec
        && spec.get("numerics").and_then(Value::as_str) == Some(Numerics::default().as_str())
    {
        spec.remove("numerics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_default_is_omitted() {
        for numerics in [Numerics::Machine, Numerics::Portable, Numerics::Bf16] {
            assert_eq!(numerics.as_str().parse(), Ok(numerics));
            assert_eq!(json!(numerics), numerics.as_str());
            let mut spec = json!({"seed": 1, "numerics": numerics});
            leave_out_default(&mut spec);
            let left = spec.get("numerics").is_some();
            assert_eq!(left, numerics != Numerics::Machine);
            assert_eq!(spec["seed"], 1);
        }
        assert!("fast".parse::<Numerics>().is_err());
    }
}
