//! What is trained.

use super::known::Known;
use crate::{layout::table, written::model};
use halfheard_shared::text::plain;
use maud::{Markup, html};
use serde_json::Value;

/// The longest value that is shown whole.
const LONGEST: usize = 400;

/// What is trained, with everything else of its spec folded away.
pub(super) fn section(known: &Known) -> Markup {
    let training = &known.training;
    let Some(spec) = &training.spec else {
        return html! {
            p { "A no-op job does nothing: it measures what the cluster itself costs." }
        };
    };
    let at = |pointer: &str| spec.pointer(pointer).map(text).unwrap_or_default();
    let numerics = match at("/numerics") {
        numerics if numerics.is_empty() => "machine".to_owned(),
        numerics => numerics,
    };
    let dataset = known
        .dataset
        .map_or_else(|| plain(&training.dataset), |dataset| dataset.title());
    let facts = [
        ("Model", model(&training.method, &training.variant)),
        ("Dataset", dataset),
        ("Seed", training.seed.to_string()),
        ("Missing in training", at("/protocol/train_missing")),
        ("Checkpoints selected on", at("/protocol/selection")),
        ("Fidelity", at("/protocol/fidelity")),
        ("Numerics", numerics),
        ("Epochs at most", at("/max_epochs")),
        ("Job", training.job.to_string()),
    ];
    html! {
        section aria-labelledby="what" {
            h2 id="what" { "What is trained" }
            dl class="facts wide" {
                @for (name, value) in facts {
                    @if !value.is_empty() {
                        div { dt { (name) } dd { (value) } }
                    }
                }
            }
            details id="hyper" {
                summary { "Hyper-parameters" }
                (pairs("Hyper-parameters", hyper(spec)))
            }
            details id="spec" {
                summary { "Protocol, files and everything else" }
                (pairs("The training as workers receive it", others(spec)))
            }
        }
    }
}

fn pairs(caption: &str, pairs: Vec<(String, String)>) -> Markup {
    let rows = html! {
        @for (name, value) in pairs {
            tr { th scope="row" { (name) } td { code { (value) } } }
        }
    };
    table(caption, &["Name", "Value"], &rows)
}

/// The hyper-parameters, which are JSON within the JSON.
fn hyper(spec: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    match spec.get("hyper") {
        Some(Value::String(inner)) => match serde_json::from_str(inner) {
            Ok(inner) => flatten("", &inner, &mut rows),
            Err(_) => rows.push(("hyper".to_owned(), plain(inner))),
        },
        Some(other) => flatten("", other, &mut rows),
        None => {}
    }
    rows
}

fn others(spec: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Value::Object(fields) = spec {
        for (name, value) in fields.iter().filter(|(name, _)| *name != "hyper") {
            flatten(name, value, &mut rows);
        }
    }
    rows
}

/// One row per value, with the names above it joined by dots.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (inner, value) in fields {
                let name = match name {
                    "" => inner.clone(),
                    name => format!("{name}.{inner}"),
                };
                flatten(&name, value, rows);
            }
        }
        value => rows.push((plain(name), text(value))),
    }
}

/// A value as text, cut where it is endless.
fn text(value: &Value) -> String {
    let whole = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match whole.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", plain(&whole[..end])),
        None => plain(&whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_rows_whatever_they_hold() {
        let spec = json!({
            "hyper": r#"{"lr": 0.0001, "program": {"command": ["a", "b\u001b"], "files": {}}}"#,
            "data": {"path": "x".repeat(1000)},
        });
        let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            hyper(&spec),
            [
                row("lr", "0.0001"),
                row("program.command", "[\"a\",\"b\\u001b\"]"),
                row("program.files", "{}"),
            ]
        );
        let others = others(&spec);
        assert_eq!(others[0].0, "data.path");
        assert_eq!(others[0].1.chars().count(), LONGEST + 1);
        assert_eq!(
            hyper(&json!({"hyper": "no json"})),
            [row("hyper", "no json")]
        );
    }
}
