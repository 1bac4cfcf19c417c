//! The small fields of one split of a feature pickle: labels, lengths, texts.

use crate::{ImportError, cube::Cube, root};
use halfheard_shared::{
    dataset::{Kind, Split},
    pickle::{ArrayView, Pickle, Value},
};
use std::borrow::Cow;

/// The dict of one split.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'p, 'a> {
    pickle: &'p Pickle<'a>,
    dict: Value<'a>,
    split: Split,
}

impl<'p, 'a> Fields<'p, 'a> {
    /// The split's dict.
    pub(crate) fn of(
        pickle: &'p Pickle<'a>,
        dict: Value<'a>,
        split: Split,
    ) -> Result<Self, ImportError> {
        if pickle.entries(dict).is_none() {
            return Err(ImportError::Field {
                split,
                field: String::new(),
                what: format!("is {}, expected a dict of fields", pickle.describe(dict)),
            });
        }
        Ok(Self {
            pickle,
            dict,
            split,
        })
    }

    /// The split.
    pub(crate) fn split(&self) -> Split {
        self.split
    }

    pub(crate) fn wrong(&self, field: &str, what: impl Into<String>) -> ImportError {
        ImportError::Field {
            split: self.split,
            field: field.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn optional(&self, field: &str) -> Option<Value<'a>> {
        // Some files have None for absent.
        self.pickle
            .get(self.dict, field)
            .filter(|value| *value != Value::None)
    }

    fn required(&self, field: &'static str) -> Result<Value<'a>, ImportError> {
        self.optional(field)
            .ok_or_else(|| ImportError::MissingField {
                split: self.split,
                field,
                have: root::keys(self.pickle, self.dict),
            })
    }

    /// A three-dimensional field.
    pub(crate) fn cube(&self, field: &'static str) -> Result<Cube<'p, 'a>, ImportError> {
        Cube::of(self.pickle, self.required(field)?).map_err(|what| self.wrong(field, what))
    }

    /// One number per sample: an array `[N]` or `[N, 1]`, or a list.
    fn column(
        &self,
        field: &str,
        value: Value<'a>,
        samples: usize,
    ) -> Result<Vec<f64>, ImportError> {
        let mut column = Vec::new();
        let pickle = self.pickle;
        if let Some(array) = pickle.array(value) {
            let rows = array.shape().first().copied().unwrap_or(0);
            if rows != samples || array.row_len() != 1 {
                return Err(self.wrong(
                    field,
                    format!(
                        "has shape {:?}, expected one number for each of {samples} samples",
                        array.shape()
                    ),
                ));
            }
            for row in 0..rows {
                column.push(single(&array, row).ok_or_else(|| {
                    self.wrong(
                        field,
                        format!("has type {}, expected numbers", array.dtype().name()),
                    )
                })?);
            }
        } else if let Some(items) = pickle.items(value).or_else(|| column_of(pickle, value)) {
            for (sample, &item) in items.iter().enumerate() {
                column.push(one_number(pickle, item).ok_or_else(|| {
                    self.wrong(
                        field,
                        format!(
                            "holds {} at sample {sample}, expected numbers",
                            pickle.describe(item)
                        ),
                    )
                })?);
            }
        } else {
            return Err(self.wrong(
                field,
                format!(
                    "is {}, expected an array or list of numbers",
                    pickle.describe(value)
                ),
            ));
        }
        if column.len() != samples {
            return Err(self.wrong(
                field,
                format!("has {} numbers for {samples} samples", column.len()),
            ));
        }
        Ok(column)
    }

    /// Labels in the protocol's range.
    pub(crate) fn labels(
        &self,
        field: &'static str,
        kind: Kind,
        samples: usize,
    ) -> Result<Vec<f32>, ImportError> {
        let column = self.column(field, self.required(field)?, samples)?;
        let labels: Vec<f32> = column.into_iter().map(|y| y as f32).collect();
        let [low, high] = kind.label_range();
        match labels.iter().position(|y| !(low..=high).contains(y)) {
            None => Ok(labels),
            Some(sample) => Err(ImportError::Value {
                split: self.split,
                field: field.to_owned(),
                sample,
                what: format!(
                    "label {} is outside [{low}, {high}], the range of {kind}",
                    labels[sample]
                ),
            }),
        }
    }

    /// Lengths of at most `steps`; `None` if the file has none.
    pub(crate) fn lengths(
        &self,
        field: &'static str,
        steps: usize,
        samples: usize,
    ) -> Result<Option<Vec<i64>>, ImportError> {
        let Some(value) = self.optional(field) else {
            return Ok(None);
        };
        let column = self.column(field, value, samples)?;
        let mut lengths = Vec::with_capacity(samples);
        for (sample, length) in column.into_iter().enumerate() {
            if length.fract() != 0.0 || !(0.0..=steps as f64).contains(&length) {
                return Err(ImportError::Value {
                    split: self.split,
                    field: field.to_owned(),
                    sample,
                    what: format!(
                        "length {length} is not an integer from 0 to {steps}, the steps of the array"
                    ),
                });
            }
            lengths.push(length as i64);
        }
        Ok(Some(lengths))
    }

    /// One text per sample; `None` if the file has no such field. Texts are only shown, so anything else is
    /// replaced, with a note.
    pub(crate) fn texts(
        &self,
        field: &'static str,
        samples: usize,
        notes: &mut Vec<String>,
    ) -> Result<Option<Vec<String>>, ImportError> {
        let split = self.split;
        let Some(value) = self.optional(field) else {
            return Ok(None);
        };
        let pickle = self.pickle;
        let mut broken = 0;
        let mut lossy = |(text, sound): (Cow<'_, str>, bool)| {
            broken += u64::from(!sound);
            text.into_owned()
        };
        let mut absent = 0;
        let texts: Vec<String> = if let Some(array) = pickle.array(value) {
            let shape = array.shape();
            if !matches!(shape, [_] | [_, 1]) {
                return Err(self.wrong(
                    field,
                    format!("has shape {shape:?}, expected one text per sample"),
                ));
            }
            (0..shape[0])
                .map(|i| match array.text_lossy(i) {
                    Some(text) => Ok(lossy(text)),
                    // Ids may be numbers.
                    None => single(&array, i).map(|x| x.to_string()).ok_or_else(|| {
                        self.wrong(
                            field,
                            format!("has type {}, expected texts", array.dtype().name()),
                        )
                    }),
                })
                .collect::<Result<_, _>>()?
        } else if let Some(items) = pickle
            .items(value)
            .or_else(|| pickle.object_array(value).map(|(_, items)| items))
        {
            items
                .iter()
                .map(|&item| match (item, pickle.raw(item)) {
                    (Value::Int(number), _) => number.to_string(),
                    (_, Some(bytes)) => {
                        let text = String::from_utf8_lossy(bytes);
                        let sound = matches!(text, Cow::Borrowed(_));
                        lossy((text, sound))
                    }
                    // pandas writes NaN for a missing text.
                    _ => {
                        absent += 1;
                        String::new()
                    }
                })
                .collect()
        } else {
            notes.push(format!(
                "{split}: `{field}` is {}, which is ignored",
                pickle.describe(value)
            ));
            return Ok(None);
        };
        if texts.len() != samples {
            return Err(self.wrong(
                field,
                format!("has {} texts for {samples} samples", texts.len()),
            ));
        }
        if broken > 0 {
            notes.push(format!(
                "{split}: {broken} of `{field}` are not valid UTF-8; invalid bytes are replaced by \u{fffd}"
            ));
        }
        if absent > 0 {
            notes.push(format!(
                "{split}: {absent} of `{field}` are not texts and were left empty"
            ));
        }
        Ok(Some(texts))
    }
}

/// The items of an array of objects `[N]` or `[N, 1]`.
fn column_of<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Option<&'p [Value<'a>]> {
    match pickle.object_array(value)? {
        ([_] | [_, 1], items) => Some(items),
        _ => None,
    }
}

/// A number, or the only one of an array or list.
fn one_number<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        Value::Bool(flag) => Some(f64::from(u8::from(flag))),
        Value::Array(_) => pickle
            .array(value)
            .filter(|array| array.row_len() == 1 && array.shape().first().is_none_or(|&n| n == 1))
            .and_then(|array| single(&array, 0)),
        _ => match pickle.items(value)? {
            [Value::Int(number)] => Some(*number as f64),
            [Value::Float(number)] => Some(*number),
            _ => None,
        },
    }
}

/// The first number of a row.
fn single(array: &ArrayView<'_>, row: usize) -> Option<f64> {
    let mut whole = Vec::new();
    if array.read_i64(row, &mut whole, &mut Vec::new()).is_ok() {
        return whole.first().map(|&x| x as f64);
    }
    let mut out = Vec::new();
    array.read_f32(row, &mut out, &mut Vec::new()).ok()?;
    out.first().map(|&x| f64::from(x))
}
