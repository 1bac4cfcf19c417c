//! Finds every key that a spec cannot have, every one that it lacks, and every value of the wrong kind,
//! not only the first, as the parser does: the JSON schema says what there can be.

use super::{json_schema, kinds, place::Checker};
use crate::methods::nearest;
use serde_json::Value;
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Tells `checker` of all unknown and missing keys, and of all values of the wrong kind.
pub(super) fn check(checker: &mut Checker<'_>) {
    if let Some(tree) = checker.take_tree() {
        let schema = json_schema();
        let keys = Keys { root: &schema };
        // Keys missing at the top level are reported at the start of the file.
        keys.table(tree.get_ref(), 0..0, &schema, ["", "the spec"], checker);
    }
}

struct Keys<'s> {
    root: &'s Value,
}

impl<'s> Keys<'s> {
    /// The schema that `schema` stands for: references and optional values lead on.
    fn target(&self, schema: &'s Value) -> &'s Value {
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(pointer) = reference.and_then(|text| text.strip_prefix('#')) {
            return self.root.pointer(pointer).unwrap_or(schema);
        }
        let choices = schema.get("anyOf").and_then(Value::as_array);
        let choice = choices.and_then(|all| all.iter().find(|one| one.get("$ref").is_some()));
        choice.map_or(schema, |choice| self.target(choice))
    }

    fn table(
        &self,
        table: &DeTable<'_>,
        at: Range<usize>,
        schema: &'s Value,
        [name_of_table, what]: [&str; 2],
        checker: &mut Checker<'_>,
    ) {
        let schema = self.target(schema);
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (key, value) in table {
            let name: &str = key.get_ref();
            if let Some(schema) = known.and_then(|known| known.get(name)) {
                self.value(value, schema, [name, name_of_table], checker);
            } else if others == Some(&Value::Bool(false)) {
                let all = || known.into_iter().flat_map(|known| known.keys());
                let help = match nearest(name, all().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known: {}", Vec::from_iter(all().cloned()).join(", ")),
                };
                let message = format!("unknown field `{name}` in {what}");
                checker.problem_at(key.span(), message, "unknown", Some(help));
            } else if let Some(schema @ Value::Object(_)) = others {
                self.value(value, schema, [name, name_of_table], checker);
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if table.get(key).is_none() {
                let about = known.and_then(|known| known.get(key)?.get("description")?.as_str());
                let help = about.map(|about| format!("`{key}`: {}", about.replace('\n', " ")));
                let message = format!("missing field `{key}` in {what}");
                checker.problem_at(at.clone(), message, "it is not here", help);
            }
        }
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        schema: &'s Value,
        [name, above]: [&str; 2],
        checker: &mut Checker<'_>,
    ) {
        let text = checker.text_at(value.span());
        let found = kinds::wrong(value.get_ref(), text, self.target(schema), name, above);
        if let Some(wrong) = found {
            checker.problem_at(value.span(), wrong.message, wrong.label, wrong.help);
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                let what = format!("`{name}`");
                self.table(table, value.span(), schema, [name, &what], checker);
            }
            DeValue::Array(array) => {
                if let Some(items) = self.target(schema).get("items") {
                    for value in array.iter() {
                        self.value(value, items, [name, "list"], checker);
                    }
                }
            }
            _ => {}
        }
    }
}
