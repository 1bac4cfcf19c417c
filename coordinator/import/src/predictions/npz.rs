//! Predictions in NumPy's `.npz` archives.

use super::{MAX_BYTES, Prediction, PredictionsError, check_rows, narrow};
use halfheard_shared::case::Case;
use npyz::{DType, NpyHeader, TypeChar, npz::NpzArchive};
use std::{
    fs::File,
    io::{BufReader, Read},
};

/// The array with the samples' names.
const SAMPLES: &str = "sample";
/// The most bytes of a sample's id.
const MAX_ID: usize = 1024;

pub(super) fn read(file: File) -> Result<Vec<Prediction>, PredictionsError> {
    let mut archive = NpzArchive::new(BufReader::new(file)).map_err(PredictionsError::Npz)?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let samples = match names.iter().any(|name| name == SAMPLES) {
        true => Some(array(&mut archive, SAMPLES)?.names(SAMPLES)?),
        false => None,
    };
    let mut rows = Vec::new();
    for name in names.iter().filter(|name| *name != SAMPLES) {
        let case: Case = name.parse().map_err(|_| PredictionsError::Array {
            name: name.clone(),
            what: "its name is not a case such as r=0.5 or missing=la".to_owned(),
        })?;
        let values = array(&mut archive, name)?.numbers(name)?;
        if samples
            .as_ref()
            .is_some_and(|all| all.len() != values.len())
        {
            let what = format!(
                "{} values, and `{SAMPLES}` has another number",
                values.len()
            );
            let name = name.clone();
            return Err(PredictionsError::Array { name, what });
        }
        check_rows(rows.len().saturating_add(values.len()))?;
        for (place, value) in values.into_iter().enumerate() {
            let sample = match &samples {
                Some(samples) => samples[place].clone(),
                None => place.to_string(),
            };
            let value = narrow(place, value).map_err(|_| PredictionsError::Array {
                name: name.clone(),
                what: format!("value {place} is not finite: {value}"),
            })?;
            rows.push(Prediction {
                sample,
                case,
                value,
            });
        }
    }
    Ok(rows)
}

/// An array's content.
struct Array {
    kind: TypeChar,
    /// Bytes of an element.
    size: usize,
    big_endian: bool,
    count: usize,
    data: Vec<u8>,
}

fn array(archive: &mut NpzArchive<BufReader<File>>, name: &str) -> Result<Array, PredictionsError> {
    let wrong = |what: String| PredictionsError::Array {
        name: name.to_owned(),
        what,
    };
    let mut file = archive
        .zip_archive()
        .by_name(&npyz::npz::file_name_from_array_name(name))
        .map_err(|error| wrong(error.to_string()))?;
    let header = NpyHeader::from_reader(&mut file).map_err(|error| wrong(error.to_string()))?;
    let count = match header.shape() {
        [count] | [count, 1] => usize::try_from(*count).unwrap_or(usize::MAX),
        shape => {
            return Err(wrong(format!(
                "its shape is {shape:?}, not one value a sample"
            )));
        }
    };
    check_rows(count)?;
    let DType::Plain(element) = header.dtype() else {
        return Err(wrong("it has fields".to_owned()));
    };
    let size = element.num_bytes().unwrap_or(0);
    let bytes = (count as u64).saturating_mul(size as u64);
    if size == 0 || size > 4 * MAX_ID || bytes > MAX_BYTES {
        return Err(wrong(format!("elements of type {element}")));
    }
    let mut data = Vec::new();
    file.take(bytes)
        .read_to_end(&mut data)
        .map_err(|error| wrong(error.to_string()))?;
    if data.len() as u64 != bytes {
        return Err(wrong("it ends too early".to_owned()));
    }
    Ok(Array {
        kind: element.type_char(),
        size,
        big_endian: matches!(element.endianness(), npyz::Endianness::Big),
        count,
        data,
    })
}

impl Array {
    fn elements(&self) -> impl Iterator<Item = Vec<u8>> {
        self.data.chunks_exact(self.size).map(|element| {
            let mut element = element.to_vec();
            if self.big_endian && self.kind != TypeChar::ByteStr {
                let unit = if self.kind == TypeChar::UnicodeStr {
                    4
                } else {
                    self.size
                };
                element.chunks_mut(unit).for_each(<[u8]>::reverse);
            }
            element
        })
    }

    /// Floats or integers.
    fn numbers(&self, name: &str) -> Result<Vec<f64>, PredictionsError> {
        let number = |element: Vec<u8>| -> Option<f64> {
            Some(match (self.kind, self.size) {
                (TypeChar::Float, 4) => f32::from_le_bytes(element.try_into().ok()?).into(),
                (TypeChar::Float, 8) => f64::from_le_bytes(element.try_into().ok()?),
                (TypeChar::Int, 4) => i32::from_le_bytes(element.try_into().ok()?).into(),
                (TypeChar::Int, 8) => i64::from_le_bytes(element.try_into().ok()?) as f64,
                (TypeChar::Uint, 8) => u64::from_le_bytes(element.try_into().ok()?) as f64,
                _ => return None,
            })
        };
        let numbers: Option<Vec<f64>> = self.elements().map(number).collect();
        numbers
            .filter(|all| all.len() == self.count)
            .ok_or_else(|| PredictionsError::Array {
                name: name.to_owned(),
                what: "its elements are not numbers of 32 or 64 bits".to_owned(),
            })
    }

    /// Strings, or integers as places.
    fn names(&self, name: &str) -> Result<Vec<String>, PredictionsError> {
        match self.kind {
            TypeChar::UnicodeStr => Ok(self
                .elements()
                .map(|element| {
                    let (units, _) = element.as_chunks::<4>();
                    let text = units.iter().map(|unit| u32::from_le_bytes(*unit));
                    text.take_while(|unit| *unit != 0)
                        .map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
                        .collect()
                })
                .collect()),
            TypeChar::ByteStr => Ok(self
                .elements()
                .map(|element| {
                    let end = element.iter().position(|byte| *byte == 0);
                    let text = &element[..end.unwrap_or(element.len())];
                    String::from_utf8_lossy(text).into_owned()
                })
                .collect()),
            _ => Ok(self
                .numbers(name)?
                .into_iter()
                .map(|number| format!("{number:.0}"))
                .collect()),
        }
    }
}
