//! A field of `[N, A, B]` numbers, in any of the forms in which files keep one: an array, an array
//! of objects, a list of arrays, lists inside lists, all of one size or each of its own.

use halfheard_shared::pickle::{ArrayView, NotANumber, Pickle, Value};

/// Maximum number of elements per sample; bounds the memory that a hostile list of sizes can request.
const MAX_ELEMENTS: usize = 1 << 24;
/// Maximum growth of a list of unequal arrays when all are padded to the largest.
const MAX_PADDING: usize = 250;

/// Numbers `[N, A, B]`. If samples differ in A or B, A and B are the largest, and smaller samples are
/// padded with zeros.
pub(crate) struct Cube<'p, 'a> {
    pickle: &'p Pickle<'a>,
    form: Form<'p, 'a>,
    /// `[N, A, B]`.
    shape: [usize; 3],
    /// A and B of each sample, if each is an array or list of its own.
    own: Option<Vec<(usize, usize)>>,
}

enum Form<'p, 'a> {
    Array(ArrayView<'p>),
    /// All numbers in C order: an array of objects.
    Numbers(&'p [Value<'a>]),
    /// A value for each sample: an array `[A, B]` or A arrays or lists of B numbers.
    Each(&'p [Value<'a>]),
}

/// What is wrong with a field or one of its samples, as a predicate of its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    /// A problem of the whole field.
    Field(String),
    /// A problem of one sample.
    Sample(String),
}

impl From<NotANumber> for Problem {
    fn from(error: NotANumber) -> Self {
        match error {
            NotANumber::Type(dtype) => {
                Self::Field(format!("has type {}, expected numbers", dtype.name()))
            }
            NotANumber::Row(_) => Self::Sample("is outside its array".to_owned()),
            NotANumber::Fraction { at, value } => {
                Self::Sample(format!("value {value} at position {at} is not an integer"))
            }
        }
    }
}

/// Buffers that are reused for each sample.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    row: Vec<f64>,
    all: Vec<f64>,
}

impl<'p, 'a> Cube<'p, 'a> {
    /// The numbers of `value`.
    ///
    /// # Errors
    /// The field as a whole has another form; the text is a predicate of its name.
    pub(crate) fn of(pickle: &'p Pickle<'a>, value: Value<'a>) -> Result<Self, String> {
        let expected = |shape: &[usize]| {
            format!("has shape {shape:?}, expected three sizes above 0: samples, steps, features")
        };
        let three = |shape: &[usize]| match *shape {
            [n, a, b] if n > 0 && a > 0 && b > 0 => Ok([n, a, b]),
            _ => Err(expected(shape)),
        };
        if let Some(array) = pickle.array(value) {
            return Ok(Self {
                pickle,
                shape: three(array.shape())?,
                form: Form::Array(array),
                own: None,
            });
        }
        let items = match pickle.object_array(value) {
            Some(([_], items)) => items,
            Some((shape, items)) => {
                return Ok(Self {
                    pickle,
                    shape: three(shape)?,
                    form: Form::Numbers(items),
                    own: None,
                });
            }
            None => pickle.items(value).ok_or_else(|| {
                format!(
                    "is {}, expected an array of numbers",
                    pickle.describe(value)
                )
            })?,
        };
        let mut own = Vec::with_capacity(items.len());
        for (sample, item) in items.iter().enumerate() {
            own.push(sizes(pickle, *item).ok_or_else(|| {
                format!(
                    "holds {} at sample {sample}, expected a two-dimensional array",
                    pickle.describe(*item)
                )
            })?);
        }
        let a = own.iter().map(|size| size.0).max().unwrap_or(0);
        let b = own.iter().map(|size| size.1).max().unwrap_or(0);
        if a == 0 || b == 0 {
            return Err(expected(&[items.len(), a, b]));
        }
        if a.checked_mul(b).is_none_or(|n| n > MAX_ELEMENTS) {
            return Err(format!(
                "has samples of {a} x {b} numbers, more than the limit of {MAX_ELEMENTS}"
            ));
        }
        let numbers: usize = own.iter().map(|(a, b)| a * b).sum();
        let padded = items.len().saturating_mul(a * b);
        if padded > MAX_ELEMENTS && padded / MAX_PADDING > numbers {
            return Err(format!(
                "has samples of very different sizes: the largest is {a} x {b}, all together have {numbers} numbers"
            ));
        }
        Ok(Self {
            pickle,
            shape: [items.len(), a, b],
            form: Form::Each(items),
            own: Some(own),
        })
    }

    /// `[N, A, B]`.
    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// A and B of each sample, if they differ.
    pub(crate) fn own_sizes(&self) -> Option<&[(usize, usize)]> {
        let [_, a, b] = self.shape;
        self.own
            .as_deref()
            .filter(|own| own.iter().any(|size| *size != (a, b)))
    }

    /// Whether [`Cube::grow`] has an effect.
    pub(crate) fn can_grow(&self) -> bool {
        self.own.is_some()
    }

    /// Makes A and B at least this large, if each sample has an array of its own.
    pub(crate) fn grow(&mut self, a: usize, b: usize) {
        if self.own.is_some() {
            self.shape[1] = self.shape[1].max(a);
            self.shape[2] = self.shape[2].max(b);
        }
    }

    /// Reads a sample's `A x B` numbers into `out` (cleared first) in single precision, rounded like
    /// NumPy's `astype(float32)`.
    pub(crate) fn read_f32(
        &self,
        sample: usize,
        out: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) -> Result<(), Problem> {
        if let Form::Array(array) = &self.form {
            return Ok(array.read_f32(sample, out, &mut scratch.bytes)?);
        }
        out.clear();
        let mut all = std::mem::take(&mut scratch.all);
        let read = self.read_f64(sample, &mut all, scratch);
        out.extend(all.iter().map(|&x| x as f32));
        scratch.all = all;
        read
    }

    /// The same as integers; anything else is an error.
    pub(crate) fn read_i64(
        &self,
        sample: usize,
        out: &mut Vec<i64>,
        scratch: &mut Scratch,
    ) -> Result<(), Problem> {
        if let Form::Array(array) = &self.form {
            return Ok(array.read_i64(sample, out, &mut scratch.bytes)?);
        }
        out.clear();
        let mut all = std::mem::take(&mut scratch.all);
        let read = self.read_f64(sample, &mut all, scratch);
        let mut wrong = None;
        for (at, &value) in all.iter().enumerate() {
            // Beyond 2^53 a float cannot distinguish integers; no token id is that large.
            if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
                out.push(value as i64);
            } else {
                wrong = wrong.or(Some(NotANumber::Fraction { at, value }));
            }
        }
        scratch.all = all;
        read?;
        wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
    }

    /// The same in the file's precision.
    pub(crate) fn read_f64(
        &self,
        sample: usize,
        out: &mut Vec<f64>,
        scratch: &mut Scratch,
    ) -> Result<(), Problem> {
        let [_, a, b] = self.shape;
        match &self.form {
            Form::Array(array) => Ok(array.read_f64(sample, out, &mut scratch.bytes)?),
            Form::Numbers(numbers) => {
                out.clear();
                let row = numbers
                    .get(sample * a * b..(sample + 1) * a * b)
                    .ok_or(NotANumber::Row(sample))?;
                for (at, value) in row.iter().enumerate() {
                    out.push(self.number(*value, at)?);
                }
                Ok(())
            }
            Form::Each(items) => {
                out.clear();
                out.resize(a * b, 0.0);
                let item = *items.get(sample).ok_or(NotANumber::Row(sample))?;
                if let Some(array) = self.pickle.array(item) {
                    let rows = array.shape().first().copied().unwrap_or(0);
                    for row in 0..rows {
                        array.read_f64(row, &mut scratch.row, &mut scratch.bytes)?;
                        put(out, row, b, &scratch.row)?;
                    }
                    return Ok(());
                }
                let rows = self.rows(item).ok_or(NotANumber::Row(sample))?;
                for (row, value) in rows.iter().enumerate() {
                    if let Some(array) = self.pickle.array(*value) {
                        // One dimension: each of its rows is one number.
                        for at in 0..array.shape().first().copied().unwrap_or(0) {
                            array.read_f64(at, &mut scratch.row, &mut scratch.bytes)?;
                            let cell = out.get_mut(row * b + at).filter(|_| at < b);
                            match (cell, scratch.row.first()) {
                                (Some(cell), Some(&number)) => *cell = number,
                                _ => return Err(NotANumber::Row(row).into()),
                            }
                        }
                    } else {
                        let numbers = self.rows(*value).ok_or(NotANumber::Row(sample))?;
                        scratch.row.clear();
                        for (at, number) in numbers.iter().enumerate() {
                            scratch.row.push(self.number(*number, row * b + at)?);
                        }
                        put(out, row, b, &scratch.row)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn rows(&self, value: Value<'a>) -> Option<&'p [Value<'a>]> {
        rows(self.pickle, value)
    }

    fn number(&self, value: Value<'a>, at: usize) -> Result<f64, Problem> {
        match value {
            Value::Int(number) => Ok(number as f64),
            Value::Float(number) => Ok(number),
            Value::Bool(flag) => Ok(f64::from(u8::from(flag))),
            other => Err(Problem::Sample(format!(
                "holds {} at position {at}, expected numbers",
                self.pickle.describe(other)
            ))),
        }
    }
}

/// Copies the numbers of one row to their place.
fn put(out: &mut [f64], row: usize, width: usize, numbers: &[f64]) -> Result<(), Problem> {
    let start = row * width;
    match out.get_mut(start..start + width) {
        Some(place) if numbers.len() <= width => {
            place[..numbers.len()].copy_from_slice(numbers);
            Ok(())
        }
        _ => Err(NotANumber::Row(row).into()),
    }
}

/// The items of a list or of a one-dimensional array of objects.
fn rows<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Option<&'p [Value<'a>]> {
    pickle.items(value).or_else(|| pickle.objects(value))
}

/// A and B of one sample; `None` if it is not two-dimensional.
fn sizes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<(usize, usize)> {
    if let Some(array) = pickle.array(value) {
        return match *array.shape() {
            [a, b] => Some((a, b)),
            // NumPy's form of an empty list.
            [0] => Some((0, 0)),
            _ => None,
        };
    }
    let rows_of_sample = rows(pickle, value)?;
    let mut width = None;
    for row in rows_of_sample {
        let own = match pickle.array(*row) {
            Some(array) => match *array.shape() {
                [b] => b,
                _ => return None,
            },
            None => rows(pickle, *row)?.len(),
        };
        if *width.get_or_insert(own) != own {
            return None;
        }
    }
    Some((rows_of_sample.len(), width.unwrap_or(0)))
}
