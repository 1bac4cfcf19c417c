//! Reads predictions that were made elsewhere: one value for each sample of a test split and each case.
//!
//! CSV and Parquet files have columns `sample`, `case` and `prediction`. In an `.npz` file each array is
//! named after a case and has one value for each sample in the dataset's order, or in that of an array
//! `sample`. A sample is named by its id in the dataset, or by its place in the test split, from 0.

mod arrange;
mod error;
mod npz;
mod parquet;

pub use self::{arrange::arrange, error::PredictionsError};

use halfheard_shared::case::Case;
use std::{fs::File, io::BufReader, path::Path};

/// The most rows of a file: a hundred times MOSEI's test split in a hundred cases.
const MAX_ROWS: usize = 50_000_000;
/// The most bytes of a file, packed or not.
const MAX_BYTES: u64 = 4 << 30;
/// The columns.
const COLUMNS: [&str; 3] = ["sample", "case", "prediction"];

/// One predicted value.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The sample's id, or its place in the test split.
    pub sample: String,
    /// The case.
    pub case: Case,
    /// The value, finite.
    pub value: f32,
}

/// Reads a file by its extension: `.csv`, `.parquet` or `.npz`.
///
/// # Errors
///
/// A file of another form, or with a value that is not finite; see [`PredictionsError`].
pub fn read(path: &Path) -> Result<Vec<Prediction>, PredictionsError> {
    let open = || -> std::io::Result<File> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("it is not a file"));
        }
        if metadata.len() > MAX_BYTES {
            return Err(std::io::Error::other(format!(
                "it has {} bytes, more than the {MAX_BYTES} that are read",
                metadata.len()
            )));
        }
        Ok(file)
    };
    let file = open().map_err(|source| PredictionsError::Open {
        path: path.to_owned(),
        source,
    })?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let rows = match extension.map(str::to_lowercase).as_deref() {
        Some("csv") => csv(BufReader::new(file))?,
        Some("parquet" | "pq") => parquet::read(file)?,
        Some("npz") => npz::read(file)?,
        _ => return Err(PredictionsError::Extension(path.to_owned())),
    };
    if rows.is_empty() {
        return Err(PredictionsError::Empty);
    }
    Ok(rows)
}

fn csv(file: impl std::io::Read) -> Result<Vec<Prediction>, PredictionsError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(file);
    let header: Vec<String> = reader
        .headers()?
        .iter()
        // Excel begins a file with a byte order mark.
        .map(|name| name.trim_start_matches('\u{feff}').to_owned())
        .collect();
    let [sample, case, prediction] = columns(&header)?;
    let mut rows = Vec::new();
    for (number, record) in (2..).zip(reader.records()) {
        let record = record?;
        let field = |index: usize| record.get(index).unwrap_or_default();
        rows.push(Prediction {
            sample: field(sample).to_owned(),
            case: case_of(number, field(case))?,
            value: parse(number, field(prediction))?,
        });
        check_rows(rows.len())?;
    }
    Ok(rows)
}

/// The places of the three columns among these.
fn columns(header: &[String]) -> Result<[usize; 3], PredictionsError> {
    let place = |name: &str| {
        header
            .iter()
            .position(|column| column.eq_ignore_ascii_case(name))
            .ok_or_else(|| PredictionsError::Column {
                name: name.to_owned(),
                have: header.join(", "),
            })
    };
    Ok([place(COLUMNS[0])?, place(COLUMNS[1])?, place(COLUMNS[2])?])
}

fn case_of(row: usize, text: &str) -> Result<Case, PredictionsError> {
    text.parse().map_err(|source| PredictionsError::Case {
        row,
        text: text.to_owned(),
        source,
    })
}

fn parse(row: usize, text: &str) -> Result<f32, PredictionsError> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(PredictionsError::Value {
            row,
            text: text.to_owned(),
        }),
    }
}

/// A double as a prediction.
fn narrow(row: usize, value: f64) -> Result<f32, PredictionsError> {
    let narrow = value as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    Err(PredictionsError::Value {
        row,
        text: value.to_string(),
    })
}

fn check_rows(rows: usize) -> Result<(), PredictionsError> {
    if rows > MAX_ROWS {
        return Err(PredictionsError::TooMany(MAX_ROWS));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
