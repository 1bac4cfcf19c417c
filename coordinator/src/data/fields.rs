//! Takes the fields of one split out of a feature pickle and checks every value.

use super::{assemble::Samples, import::ImportError};
use missbench_shared::{
    dataset::{Kind, Split, mask_problem},
    pickle::{ArrayView, NotANumber, Pickle, Value},
};

/// The dict of one split.
#[derive(Clone, Copy)]
pub(super) struct Fields<'p, 'a> {
    pickle: &'p Pickle<'a>,
    dict: Value<'a>,
    split: Split,
}

impl<'p, 'a> Fields<'p, 'a> {
    /// The split's dict in the pickle's root.
    pub(super) fn of(pickle: &'p Pickle<'a>, split: Split) -> Result<Self, ImportError> {
        let root = pickle.root();
        if pickle.entries(root).is_none() {
            return Err(ImportError::Root {
                found: pickle.describe(root),
            });
        }
        let dict = pickle
            .get(root, split.as_str())
            .ok_or_else(|| ImportError::MissingSplit {
                split,
                have: keys(pickle, root),
            })?;
        if pickle.entries(dict).is_none() {
            return Err(ImportError::Field {
                split,
                field: String::new(),
                what: format!("is {}, a dict of fields is expected", dict.kind()),
            });
        }
        Ok(Self {
            pickle,
            dict,
            split,
        })
    }

    fn wrong(&self, field: &str, what: impl Into<String>) -> ImportError {
        ImportError::Field {
            split: self.split,
            field: field.to_owned(),
            what: what.into(),
        }
    }

    fn optional(&self, field: &str) -> Option<Value<'a>> {
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
                have: keys(self.pickle, self.dict),
            })
    }

    /// A three-dimensional array of numbers.
    pub(super) fn cube(&self, field: &'static str) -> Result<ArrayView<'p>, ImportError> {
        let value = self.required(field)?;
        let array = self.pickle.array(value).ok_or_else(|| {
            self.wrong(
                field,
                format!(
                    "is {}, an array of numbers is expected",
                    self.pickle.describe(value)
                ),
            )
        })?;
        match array.shape() {
            [n, a, b] if [n, a, b].iter().all(|&&size| size > 0) => Ok(array),
            shape => Err(self.wrong(
                field,
                format!("has shape {shape:?}, three sizes above 0 are expected"),
            )),
        }
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
        } else if let Some(items) = pickle.items(value).or_else(|| pickle.objects(value)) {
            for (sample, &item) in items.iter().enumerate() {
                column.push(match item {
                    Value::Int(number) => number as f64,
                    Value::Float(number) => number,
                    Value::Bool(flag) => f64::from(u8::from(flag)),
                    other => pickle
                        .array(other)
                        .filter(|array| {
                            array.row_len() == 1 && array.shape().first().is_none_or(|&n| n == 1)
                        })
                        .and_then(|array| single(&array, 0))
                        .ok_or_else(|| {
                            self.wrong(
                                field,
                                format!(
                                    "holds {} at sample {sample}, numbers are expected",
                                    other.kind()
                                ),
                            )
                        })?,
                });
            }
        } else {
            return Err(self.wrong(
                field,
                format!(
                    "is {}, an array or list of numbers is expected",
                    value.kind()
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
    fn labels(
        &self,
        field: &'static str,
        kind: Kind,
        samples: usize,
    ) -> Result<Vec<f32>, ImportError> {
        let column = self.column(field, self.required(field)?, samples)?;
        let labels: Vec<f32> = column.into_iter().map(|y| y as f32).collect();
        let limit = kind.label_limit();
        match labels.iter().position(|y| y.is_nan() || y.abs() > limit) {
            None => Ok(labels),
            Some(sample) => Err(ImportError::Value {
                split: self.split,
                field: field.to_owned(),
                sample,
                what: format!(
                    "label {} is outside [-{limit}, {limit}], the range of {kind}",
                    labels[sample]
                ),
            }),
        }
    }

    /// Lengths of at most `steps`, or `steps` for all where the file gives none (then the second
    /// value is false).
    fn lengths(
        &self,
        field: &'static str,
        steps: usize,
        samples: usize,
    ) -> Result<(Vec<i64>, bool), ImportError> {
        let Some(value) = self.optional(field) else {
            return Ok((vec![steps as i64; samples], false));
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
        Ok((lengths, true))
    }

    /// A text for each sample; `None` where the file has no such field.
    fn texts(
        &self,
        field: &'static str,
        samples: usize,
    ) -> Result<Option<Vec<String>>, ImportError> {
        let Some(value) = self.optional(field) else {
            return Ok(None);
        };
        let pickle = self.pickle;
        let no_text = |sample: usize, what: &str| {
            self.wrong(
                field,
                format!("holds {what} at sample {sample}, UTF-8 texts are expected"),
            )
        };
        let texts: Vec<String> = if let Some(array) = pickle.array(value) {
            let count = match array.shape() {
                [n] | [n, 1] => *n,
                shape => {
                    return Err(self.wrong(
                        field,
                        format!("has shape {shape:?}, one text for each sample is expected"),
                    ));
                }
            };
            if count != samples {
                return Err(self.wrong(field, format!("has {count} texts for {samples} samples")));
            }
            (0..count)
                .map(|i| {
                    array
                        .text(i)
                        .map(|text| text.into_owned())
                        .ok_or_else(|| no_text(i, &array.dtype().name()))
                })
                .collect::<Result<_, _>>()?
        } else if let Some(items) = pickle.items(value).or_else(|| pickle.objects(value)) {
            items
                .iter()
                .enumerate()
                .map(|(i, &item)| match item {
                    Value::Int(number) => Ok(number.to_string()),
                    item => pickle
                        .text(item)
                        .map(str::to_owned)
                        .ok_or_else(|| no_text(i, item.kind())),
                })
                .collect::<Result<_, _>>()?
        } else {
            return Err(self.wrong(
                field,
                format!("is {}, an array or list of texts is expected", value.kind()),
            ));
        };
        if texts.len() != samples {
            return Err(self.wrong(
                field,
                format!("has {} texts for {samples} samples", texts.len()),
            ));
        }
        Ok(Some(texts))
    }

    /// Everything of the split, its small fields checked; `notes` takes what was filled in.
    pub(super) fn samples(
        &self,
        kind: Kind,
        notes: &mut Vec<String>,
    ) -> Result<SplitSamples<'p>, ImportError> {
        let split = self.split;
        let text = self.cube("text_bert")?;
        let audio = self.cube("audio")?;
        let vision = self.cube("vision")?;
        let samples = text.shape()[0];
        if text.shape()[1] != 3 {
            return Err(self.wrong(
                "text_bert",
                format!(
                    "has shape {:?}, [N, 3, L] is expected: token ids, mask, segments",
                    text.shape()
                ),
            ));
        }
        for (field, array) in [("audio", &audio), ("vision", &vision)] {
            if array.shape()[0] != samples {
                return Err(self.wrong(
                    field,
                    format!(
                        "has {} samples, `text_bert` has {samples}",
                        array.shape()[0]
                    ),
                ));
            }
        }
        let labels = self.labels("regression_labels", kind, samples)?;
        let unimodal = if kind.has_unimodal_labels() {
            Some([
                self.labels("regression_labels_T", kind, samples)?,
                self.labels("regression_labels_A", kind, samples)?,
                self.labels("regression_labels_V", kind, samples)?,
            ])
        } else {
            None
        };
        let (audio_lengths, given) = self.lengths("audio_lengths", audio.shape()[1], samples)?;
        if !given {
            notes.push(format!(
                "{split}: the file has no audio_lengths; every sample counts as full"
            ));
        }
        let (vision_lengths, given) = self.lengths("vision_lengths", vision.shape()[1], samples)?;
        if !given {
            notes.push(format!(
                "{split}: the file has no vision_lengths; every sample counts as full"
            ));
        }
        let ids = self.texts("id", samples)?.unwrap_or_else(|| {
            notes.push(format!(
                "{split}: the file has no ids; samples are numbered"
            ));
            (0..samples).map(|i| format!("{split}-{i}")).collect()
        });
        let raw_texts = self.texts("raw_text", samples)?.unwrap_or_else(|| {
            notes.push(format!(
                "{split}: the file has no raw_text; texts are empty"
            ));
            vec![String::new(); samples]
        });
        Ok(SplitSamples {
            split,
            text,
            audio,
            vision,
            labels,
            unimodal,
            audio_lengths,
            vision_lengths,
            ids,
            raw_texts,
        })
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

/// The text keys of a dict, for messages.
fn keys<'a>(pickle: &Pickle<'a>, dict: Value<'a>) -> Vec<String> {
    pickle
        .entries(dict)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| pickle.text(key))
        .map(|key| key.chars().take(40).flat_map(char::escape_debug).collect())
        .take(30)
        .collect()
}

/// One split as it stands in the pickle: small fields decoded, features borrowed.
pub(super) struct SplitSamples<'p> {
    split: Split,
    text: ArrayView<'p>,
    audio: ArrayView<'p>,
    vision: ArrayView<'p>,
    labels: Vec<f32>,
    unimodal: Option<[Vec<f32>; 3]>,
    audio_lengths: Vec<i64>,
    vision_lengths: Vec<i64>,
    ids: Vec<String>,
    raw_texts: Vec<String>,
}

impl SplitSamples<'_> {
    /// Text length, audio steps and features, vision steps and features.
    pub(super) fn sizes(&self) -> [usize; 5] {
        let (text, audio, vision) = (self.text.shape(), self.audio.shape(), self.vision.shape());
        [text[2], audio[1], audio[2], vision[1], vision[2]]
    }

    /// Checks every token and every feature; returns how many audio values of `-inf` will be 0.
    pub(super) fn check(&self, mut progress: impl FnMut(u64)) -> Result<u64, ImportError> {
        let value_error = |field: &str, sample: usize, what: String| ImportError::Value {
            split: self.split,
            field: field.to_owned(),
            sample,
            what,
        };
        let row_error = |field: &str, sample: usize, error: NotANumber| match error {
            NotANumber::Type(dtype) => ImportError::Field {
                split: self.split,
                field: field.to_owned(),
                what: format!("has type {}, numbers are expected", dtype.name()),
            },
            NotANumber::Row(_) => value_error(field, sample, "lies outside its array".to_owned()),
            NotANumber::Fraction { at, value } => value_error(
                field,
                sample,
                format!("value {value} at position {at} is no whole number"),
            ),
        };
        let mut scratch = Vec::new();
        let (mut ints, mut floats) = (Vec::new(), Vec::new());
        let l = self.text.shape()[2];
        let mut silenced = 0;
        for sample in 0..self.labels.len() {
            self.text
                .read_i64(sample, &mut ints, &mut scratch)
                .map_err(|error| row_error("text_bert", sample, error))?;
            let (tokens, rest) = ints.split_at(l);
            let (mask, segments) = rest.split_at(l);
            if let Some(id) = tokens
                .iter()
                .find(|&&id| !(0..=i64::from(i32::MAX)).contains(&id))
            {
                return Err(value_error(
                    "text_bert",
                    sample,
                    format!("token id {id} is out of range"),
                ));
            }
            if segments.iter().any(|s| !(0..=1).contains(s)) {
                return Err(value_error(
                    "text_bert",
                    sample,
                    "a segment is neither 0 nor 1".to_owned(),
                ));
            }
            let mask: Vec<i32> = mask
                .iter()
                .map(|&m| i32::try_from(m).unwrap_or(-1))
                .collect();
            if let Some(what) = mask_problem(&mask) {
                return Err(value_error("text_bert", sample, what));
            }
            for (field, array) in [("audio", &self.audio), ("vision", &self.vision)] {
                array
                    .read_f32(sample, &mut floats, &mut scratch)
                    .map_err(|error| row_error(field, sample, error))?;
                for (at, &x) in floats.iter().enumerate() {
                    if x.is_finite() {
                        continue;
                    }
                    if field == "audio" && x == f32::NEG_INFINITY {
                        silenced += 1;
                        continue;
                    }
                    let width = array.shape()[2];
                    let what = format!(
                        "{x} at step {}, feature {}: features must be finite; repair the file or leave the sample out",
                        at / width,
                        at % width
                    );
                    return Err(value_error(field, sample, what));
                }
            }
            progress(sample as u64 + 1);
        }
        Ok(silenced)
    }
}

// A row that cannot be read stays empty and the writer refuses its size; `check` has seen all rows
// before anything is written.
impl Samples for SplitSamples<'_> {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn text(&self, sample: usize, out: &mut Vec<i32>) {
        out.clear();
        let mut wide = Vec::new();
        if self
            .text
            .read_i64(sample, &mut wide, &mut Vec::new())
            .is_ok()
        {
            out.extend(wide.iter().filter_map(|&id| i32::try_from(id).ok()));
        }
    }

    fn audio(&self, sample: usize, out: &mut Vec<f32>) {
        if self.audio.read_f32(sample, out, &mut Vec::new()).is_err() {
            out.clear();
        }
        // As the reference loader: the log of silence is taken as 0.
        for x in out {
            if *x == f32::NEG_INFINITY {
                *x = 0.0;
            }
        }
    }

    fn vision(&self, sample: usize, out: &mut Vec<f32>) {
        if self.vision.read_f32(sample, out, &mut Vec::new()).is_err() {
            out.clear();
        }
    }

    fn labels(&self) -> &[f32] {
        &self.labels
    }

    fn unimodal(&self) -> Option<&[Vec<f32>; 3]> {
        self.unimodal.as_ref()
    }

    fn audio_lengths(&self) -> &[i64] {
        &self.audio_lengths
    }

    fn vision_lengths(&self) -> &[i64] {
        &self.vision_lengths
    }

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn raw_texts(&self) -> &[String] {
        &self.raw_texts
    }
}
