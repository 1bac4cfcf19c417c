//! Required fields of unsupported classes, and how to rewrite the file without them.

use halfheard_shared::{
    dataset::Split,
    pickle::{Pickle, Value},
};
use std::{collections::BTreeMap, fmt, path::Path};

/// A required field that holds objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaqueField {
    /// Its split, as the file calls it; empty for the root.
    pub split: String,
    /// The field; empty for the split itself.
    pub field: String,
    /// Its class, or the type that is not supported.
    pub class: String,
    /// Whether the field is a list of such objects.
    pub listed: bool,
}

impl OpaqueField {
    /// The field's class, if it is opaque or a list that begins with something opaque.
    pub(crate) fn of<'a>(
        pickle: &Pickle<'a>,
        value: Value<'a>,
        split: &str,
        field: &str,
    ) -> Option<Self> {
        let first = pickle
            .items(value)
            .or_else(|| pickle.object_array(value).map(|(_, items)| items))
            .and_then(|items| items.first().copied())
            .filter(|item| pickle.is_opaque(*item));
        let (opaque, listed) = match first {
            Some(item) => (item, true),
            None if pickle.is_opaque(value) => (value, false),
            None => return None,
        };
        Some(Self {
            split: split.to_owned(),
            field: field.to_owned(),
            class: pickle
                .class_of(opaque)
                .unwrap_or_else(|| pickle.describe(opaque)),
            listed,
        })
    }

    /// The common name of the class.
    fn known_as(&self) -> Option<&'static str> {
        let class = self.class.as_str();
        [
            ("torch.", "a PyTorch tensor"),
            ("pandas.core.series", "a pandas Series"),
            ("pandas.Series", "a pandas Series"),
            ("pandas.core.frame", "a pandas DataFrame"),
            ("pandas.DataFrame", "a pandas DataFrame"),
            ("pandas.", "a pandas object"),
            ("numpy.memmap", "a memory-mapped array"),
            ("numpy.core.memmap", "a memory-mapped array"),
            ("numpy.ma", "a masked array"),
        ]
        .into_iter()
        .find(|(prefix, _)| class.starts_with(prefix))
        .map(|(_, name)| name)
    }

    /// The Python expression that converts `x` to a plain array.
    fn conversion(&self) -> &'static str {
        let class = self.class.as_str();
        match (class, self.listed) {
            _ if class.starts_with("torch.") && self.listed => {
                "[e.detach().cpu().numpy() for e in x]"
            }
            _ if class.starts_with("torch.") => "x.detach().cpu().numpy()",
            _ if class.starts_with("numpy.ma") && self.listed => {
                "[numpy.ma.filled(e, 0) for e in x]"
            }
            _ if class.starts_with("numpy.ma") => "numpy.ma.filled(x, 0)",
            (_, true) => "[numpy.array(e) for e in x]",
            (_, false) => "numpy.array(x)",
        }
    }
}

impl fmt::Display for OpaqueField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "split {} ", self.split)?;
        } else {
            write!(f, "split {}: `{}` ", self.split, self.field)?;
        }
        f.write_str(if self.listed { "is a list of " } else { "is " })?;
        match self.known_as() {
            Some(name) => write!(f, "{name} (`{}`)", self.class),
            None => write!(f, "`{}`", self.class),
        }
    }
}

/// Several of them, and the lines of Python that rewrite the file with plain arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaqueFields {
    fields: Vec<OpaqueField>,
    recipe: String,
}

impl OpaqueFields {
    /// How to rewrite the file.
    pub(crate) fn hint(&self) -> String {
        format!(
            "nothing in the file was executed; if you trust it (Python executes what it names), these lines rewrite it:\n{}",
            self.recipe
        )
    }

    /// The opaque fields of the file at `path`; `None` if there are none.
    pub(crate) fn collect(path: &Path, fields: Vec<OpaqueField>) -> Option<Self> {
        if fields.is_empty() {
            return None;
        }
        let plain = path.with_extension("plain.pkl");
        let open = if path.extension().is_some_and(|e| e == "gz") {
            "gzip.open"
        } else {
            "open"
        };
        let mut recipe = format!(
            "    import pickle, numpy, gzip; d = pickle.load({open}({}, \"rb\"))\n",
            python_text(&path.to_string_lossy())
        );
        let mut by_conversion: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for field in fields.iter().filter(|field| !field.field.is_empty()) {
            by_conversion
                .entry(field.conversion())
                .or_default()
                .push((&field.split, &field.field));
        }
        for (conversion, places) in by_conversion {
            recipe.push_str(&format!(
                "    for s, f in {}: x = d[s][f]; d[s][f] = {conversion}\n",
                tuples(&places)
            ));
        }
        // A split that is a table: one array or list per column.
        let splits: Vec<String> = fields
            .iter()
            .filter(|field| field.field.is_empty())
            .map(|field| format!("{:?}", field.split))
            .collect();
        if !splits.is_empty() {
            recipe.push_str(&format!(
                "    for s in [{}]: d[s] = {{f: list(d[s][f]) for f in d[s].keys()}}\n",
                splits.join(", ")
            ));
        }
        recipe.push_str(&format!(
            "    pickle.dump(d, open({}, \"wb\"), 4)",
            python_text(&plain.to_string_lossy())
        ));
        Some(Self { fields, recipe })
    }
}

/// `text` as a Python string literal.
fn python_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn tuples(places: &[(&str, &str)]) -> String {
    let all: Vec<String> = places
        .iter()
        .map(|(split, field)| format!("({split:?}, {field:?})"))
        .collect();
    format!("[{}]", all.join(", "))
}

impl fmt::Display for OpaqueFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.fields.iter().enumerate() {
            write!(f, "{}{field}", if at == 0 { "" } else { "; " })?;
        }
        f.write_str(": such objects are not supported, only plain NumPy arrays and lists")
    }
}

/// The required fields that may hold objects.
pub(crate) fn required_fields(unimodal: bool) -> impl Iterator<Item = &'static str> {
    let always = [
        "text_bert",
        "audio",
        "vision",
        "regression_labels",
        "audio_lengths",
        "vision_lengths",
    ];
    let unimodal = unimodal.then_some([
        "regression_labels_T",
        "regression_labels_A",
        "regression_labels_V",
    ]);
    always.into_iter().chain(unimodal.into_iter().flatten())
}

/// The required fields of one split that are opaque, or the split itself.
pub(crate) fn opaque_fields<'a>(
    pickle: &Pickle<'a>,
    dict: Value<'a>,
    name: &str,
    unimodal: bool,
) -> Vec<OpaqueField> {
    if pickle.entries(dict).is_none() {
        return OpaqueField::of(pickle, dict, name, "")
            .into_iter()
            .collect();
    }
    required_fields(unimodal)
        .filter_map(|field| OpaqueField::of(pickle, pickle.get(dict, field)?, name, field))
        .collect()
}

/// A note about a split that has another name in the file.
pub(crate) fn renamed(split: Split, key: &str) -> Option<String> {
    (key != split.as_str()).then(|| {
        let key: String = key.chars().take(40).flat_map(char::escape_debug).collect();
        format!("the file's `{key}` is the split {split}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_literal_escapes_quotes_and_control_characters() {
        assert_eq!(python_text("/a b/数据.pkl"), "\"/a b/数据.pkl\"");
        assert_eq!(python_text("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
