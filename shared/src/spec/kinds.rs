//! Describes a value of the wrong type in TOML's terms: the parser uses Rust's
//! types.

use crate::{methods::nearest, regime::Regime};
use serde_json::Value;
use toml::de::DeValue;

/// A report about a value of the wrong type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) label: &'static str,
    pub(super) help: Option<String>,
}

/// A value as people call it.
fn called(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether `schema` takes values of this JSON type; it need not say.
fn asks_for(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    }
}

/// The largest whole number that the type behind `schema` holds.
fn largest(schema: &Value) -> Option<u64> {
    match schema.get("format")?.as_str()? {
        "uint16" => Some(u16::MAX.into()),
        "int32" => Some(i32::MAX as u64),
        "uint32" => Some(u32::MAX.into()),
        // TOML has no integers beyond 63 bits.
        "uint64" | "uint" => Some(i64::MAX as u64),
        _ => None,
    }
}

/// What is wrong with a training regime. It was true or false once, and a rate is at hand.
fn wrong_regime(value: &DeValue<'_>, text: &str) -> Option<Wrong> {
    let bare = match value {
        DeValue::String(text) => text.as_ref(),
        _ => text,
    };
    let refused = match value {
        DeValue::String(text) => text.parse::<Regime>().err()?.to_string(),
        _ => format!(
            "`train_missing` must be the name of a training regime, not {}",
            called(value)
        ),
    };
    let meant = match bare {
        "true" => Some("redrawn".to_owned()),
        "false" => Some("complete".to_owned()),
        _ => {
            let fixed = format!("fixed:{bare}");
            let names = ["complete", "drawn-once", "redrawn", "lnln-loader"];
            let near = || nearest(bare, names);
            fixed.parse::<Regime>().ok().map(|_| fixed).or_else(near)
        }
    };
    Some(Wrong {
        message: refused,
        label: "not a regime",
        help: meant.map(|meant| format!("write `train_missing = \"{meant}\"`")),
    })
}

/// What is wrong with the kind of `value`, written `text`, at the key `name` below `above`; nothing,
/// where `schema` takes it or does not say.
pub(super) fn wrong(
    value: &DeValue<'_>,
    text: &str,
    schema: &Value,
    name: &str,
    above: &str,
) -> Option<Wrong> {
    // A long value would bury the point.
    let text = if text.chars().count() > 40 {
        "…"
    } else {
        text
    };
    if asks_for(schema, "array") {
        return wrong_list(value, text, schema, name);
    }
    if asks_for(schema, "integer") {
        return wrong_integer(value, text, schema, name, above);
    }
    let mismatch = |asked: &str, label, help| mismatch(value, name, asked, label, help);
    let inner = inner(value);
    let is_list = matches!(value, DeValue::Array(_));
    if asks_for(schema, "number") {
        return match value {
            DeValue::Integer(_) | DeValue::Float(_) => None,
            DeValue::String(_) => mismatch(
                "a number",
                "a text",
                inner
                    .filter(|inner| inner.parse::<f64>().is_ok())
                    .map(|inner| format!("write it without quotes: `{inner}`")),
            ),
            _ => mismatch("a number", "another kind", None),
        };
    }
    if asks_for(schema, "string") {
        if name == "train_missing" {
            return wrong_regime(value, text);
        }
        return match value {
            DeValue::String(_) => None,
            DeValue::Table(_) | DeValue::Array(_) => mismatch("a text", "another kind", None),
            _ => mismatch(
                "a text",
                "no quotes",
                Some(format!("put it into quotes: `\"{text}\"`")),
            ),
        };
    }
    if asks_for(schema, "boolean") {
        return match value {
            DeValue::Boolean(_) => None,
            DeValue::String(_) if matches!(inner, Some("true" | "false")) => mismatch(
                "true or false",
                "a text",
                inner.map(|inner| format!("write it without quotes: `{inner}`")),
            ),
            _ => mismatch("true or false", "another kind", None),
        };
    }
    let table = asks_for(schema, "object") || schema.get("properties").is_some();
    if table && !matches!(value, DeValue::Table(_)) {
        let help = match above {
            "hyper" => format!(
                "settings stand below a method: write `[hyper.lnln]` and, below it, `{name} = {text}`"
            ),
            "datasets" => format!("write `[datasets.{name}]` and, below it, `file = …`"),
            "encoders" => format!("write `[encoders.{name}]` and, below it, `path = …`"),
            _ if name == "faults" => "write `faults = { grl-on-proxy = false }`".to_owned(),
            "" if is_list => format!("write `[{name}]`, or `[{name}.NAME]`"),
            _ => format!("write `[{name}]`, or `{name} = {{ … }}`"),
        };
        return mismatch("a table", "not a table", Some(help));
    }
    None
}

fn mismatch(
    value: &DeValue<'_>,
    name: &str,
    asked: &str,
    label: &'static str,
    help: Option<String>,
) -> Option<Wrong> {
    let found = called(value);
    Some(Wrong {
        message: format!("`{name}` must be {asked}, not {found}"),
        label,
        help,
    })
}

/// The content of a text.
fn inner<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    match value {
        DeValue::String(inner) => Some(inner.as_ref()),
        _ => None,
    }
}

/// [`wrong`] where a list is expected.
fn wrong_list(value: &DeValue<'_>, text: &str, schema: &Value, name: &str) -> Option<Wrong> {
    let mismatch = |asked: &str, label, help| mismatch(value, name, asked, label, help);
    let items = schema
        .get("items")
        .is_some_and(|items| items.get("type").is_some());
    match value {
        DeValue::Array(_) => None,
        DeValue::Table(_) => mismatch("a list", "not a list", None),
        _ if items => {
            let numbers = schema
                .get("items")
                .is_some_and(|items| asks_for(items, "integer") || asks_for(items, "number"));
            let inner = inner(value).filter(|_| numbers).unwrap_or(text);
            mismatch(
                "a list",
                "not a list",
                Some(format!("write `{name} = [{inner}]`")),
            )
        }
        _ => mismatch(
            "a list of tables",
            "not a list",
            Some(format!("write `[[{name}]]`")),
        ),
    }
}

/// [`wrong`] where a whole number is expected.
fn wrong_integer(
    value: &DeValue<'_>,
    text: &str,
    schema: &Value,
    name: &str,
    above: &str,
) -> Option<Wrong> {
    let mismatch = |asked: &str, label, help| mismatch(value, name, asked, label, help);
    let number = text.replace('_', "");
    match value {
        DeValue::Integer(_) => match number.parse::<i128>() {
            Ok(n) if n < 0 && !schema.get("format").is_some_and(|f| f == "int32") => Some(Wrong {
                message: format!("`{name}` cannot be negative, and {text} is"),
                label: "negative",
                help: None,
            }),
            Ok(n) => largest(schema)
                .filter(|&most| n > i128::from(most))
                .map(|most| Wrong {
                    message: format!("`{name}` cannot be {text}: it is at most {most}"),
                    label: "too large",
                    help: None,
                }),
            Err(_) => None,
        },
        DeValue::String(_) => mismatch(
            "a whole number",
            "a text",
            inner(value)
                .filter(|inner| inner.parse::<i64>().is_ok())
                .map(|inner| format!("write it without quotes: `{inner}`")),
        ),
        DeValue::Float(_) => mismatch(
            "a whole number",
            "not whole",
            number
                .parse::<f64>()
                .ok()
                .filter(|x| x.fract() == 0.0 && x.abs() < 1e15)
                .map(|x| format!("write `{x:.0}`")),
        ),
        DeValue::Array(_) if above == "list" => {
            mismatch("a list of whole numbers", "a list within the list", None)
        }
        _ => mismatch("a whole number", "another kind", None),
    }
}
