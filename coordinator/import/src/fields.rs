//! Takes the small fields of one split out of a feature pickle: labels, lengths, texts.

use super::{cube::Cube, import::ImportError, root};
use halfheard_shared::{
    dataset::{Kind, Split},
    pickle::{ArrayView, Pickle, Value},
};
use std::borrow::Cow;

/// The dict of one split.
#[derive(Clone, Copy)]
pub(super) struct Fields<'p, 'a> {
    pickle: &'p Pickle<'a>,
    dict: Value<'a>,
    split: Split,
}

impl<'p, 'a> Fields<'p, 'a> {
    /// The split's dict.
    pub(super) fn of(
        pickle: &'p Pickle<'a>,
        dict: Value<'a>,
        split: Split,
    ) -> Result<Self, ImportError> {
        if pickle.entries(dict).is_none() {
            return Err(ImportError::Field {
                split,
                field: String::new(),
                what: format!("is {}, a dict of fields is expected", pickle.describe(dict)),
            });
        }
        Ok(Self {
            pickle,
            dict,
            split,
        })
    }

    /// The split.
    pub(super) fn split(&self) -> Split {
        self.split
    }

    pub(super) fn wrong(&self, field: &str, what: impl Into<String>) -> ImportError {
        ImportError::Field {
            split: self.split,
            field: field.to_owned(),
            what: what.into(),
        }
    }

    pub(super) fn optional(&self, field: &str) -> Option<Value<'a>> {
        // None stands for absent in some files.
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

    /// Numbers of three dimensions.
    pub(super) fn cube(&self, field: &'static str) -> Result<Cube<'p, 'a>, ImportError> {
        Cube::of(self.pickle, self.required(field)?).map_err(|what| self.wrong(field, what))
    }

    /// A number for each sample: an array `[N]` or `[N, 1]`, or a list.
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
                        "has shape {:?}, one number for each of {samples} samples is expected",
                        array.shape()
                    ),
                ));
            }
            for row in 0..rows {
                column.push(single(&array, row).ok_or_else(|| {
                    self.wrong(
                        field,
                        format!("has type {}, numbers are expected", array.dtype().name()),
                    )
                })?);
            }
        } else if let Some(items) = pickle.items(value).or_else(|| column_of(pickle, value)) {
            for (sample, &item) in items.iter().enumerate() {
                column.push(one_number(pickle, item).ok_or_else(|| {
                    self.wrong(
                        field,
                        format!(
                            "holds {} at sample {sample}, numbers are expected",
                            pickle.describe(item)
                        ),
                    )
                })?);
            }
        } else {
            return Err(self.wrong(
                field,
                format!(
                    "is {}, an array or list of numbers is expected",
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
    pub(super) fn labels(
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

    /// Lengths of at most `steps`; `None` where the file gives none.
    pub(super) fn lengths(
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
                        "length {length} is no whole number from 0 to {steps}, the steps of the array"
                    ),
                });
            }
            lengths.push(length as i64);
        }
        Ok(Some(lengths))
    }

    /// A text for each sample; `None` where the file has no such field. Texts are only shown, so
    /// what is no text does no harm: it is replaced, and a note says how often.
    pub(super) fn texts(
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
                    format!("has shape {shape:?}, one text for each sample is expected"),
                ));
            }
            (0..shape[0])
                .map(|i| match array.text_lossy(i) {
                    Some(text) => Ok(lossy(text)),
                    // Numbers do for ids.
                    None => single(&array, i).map(|x| x.to_string()).ok_or_else(|| {
                        self.wrong(
                            field,
                            format!("has type {}, texts are expected", array.dtype().name()),
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
                    // pandas writes NaN where there is no text.
                    _ => {
                        absent += 1;
                        String::new()
                    }
                })
                .collect()
        } else {
            notes.push(format!(
                "{split}: `{field}` is {}, which is not read",
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
                "{split}: {broken} of `{field}` are not UTF-8; what cannot be read is shown as \u{fffd}"
            ));
        }
        if absent > 0 {
            notes.push(format!(
                "{split}: {absent} of `{field}` are no texts and stay empty"
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

/// A number, alone or as the only one of an array or list.
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
