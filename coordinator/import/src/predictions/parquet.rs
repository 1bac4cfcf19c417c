//! Predictions in Parquet.

use super::{Prediction, PredictionsError, case_of, check_rows, columns, narrow};
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row},
};
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub(super) fn read(file: File) -> Result<Vec<Prediction>, PredictionsError> {
    // The library trusts some of what a file says of itself.
    let read = catch_unwind(AssertUnwindSafe(|| rows(file)));
    read.unwrap_or_else(|_| Err(PredictionsError::Parquet("it is damaged".to_owned())))
}

fn rows(file: File) -> Result<Vec<Prediction>, PredictionsError> {
    let invalid =
        |error: parquet::errors::ParquetError| PredictionsError::Parquet(error.to_string());
    let reader = SerializedFileReader::new(file).map_err(invalid)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema_descr();
    let header: Vec<String> = schema
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let [sample, case, prediction] = columns(&header)?;
    check_rows(usize::try_from(metadata.num_rows()).unwrap_or(usize::MAX))?;
    let mut rows = Vec::new();
    for (number, row) in (1..).zip(reader.get_row_iter(None).map_err(invalid)?) {
        let row = row.map_err(invalid)?;
        rows.push(Prediction {
            sample: text(&row, number, sample, &header)?,
            case: case_of(number, &text(&row, number, case, &header)?)?,
            value: value(&row, number, prediction, &header)?,
        });
        check_rows(rows.len())?;
    }
    Ok(rows)
}

fn field(row: &Row, place: usize) -> Option<&Field> {
    row.get_column_iter().nth(place).map(|(_, field)| field)
}

fn text(
    row: &Row,
    number: usize,
    place: usize,
    header: &[String],
) -> Result<String, PredictionsError> {
    Ok(match field(row, place) {
        Some(Field::Str(text)) => text.clone(),
        Some(Field::Bytes(bytes)) => String::from_utf8_lossy(bytes.data()).into_owned(),
        Some(Field::Byte(n)) => n.to_string(),
        Some(Field::Short(n)) => n.to_string(),
        Some(Field::Int(n)) => n.to_string(),
        Some(Field::Long(n)) => n.to_string(),
        Some(Field::UByte(n)) => n.to_string(),
        Some(Field::UShort(n)) => n.to_string(),
        Some(Field::UInt(n)) => n.to_string(),
        Some(Field::ULong(n)) => n.to_string(),
        other => return Err(wrong(number, &header[place], other)),
    })
}

fn value(
    row: &Row,
    number: usize,
    place: usize,
    header: &[String],
) -> Result<f32, PredictionsError> {
    match field(row, place) {
        Some(Field::Float(value)) => narrow(number, f64::from(*value)),
        Some(Field::Double(value)) => narrow(number, *value),
        Some(Field::Int(value)) => narrow(number, f64::from(*value)),
        Some(Field::Long(value)) => narrow(number, *value as f64),
        other => Err(wrong(number, &header[place], other)),
    }
}

fn wrong(row: usize, column: &str, field: Option<&Field>) -> PredictionsError {
    let have = field.map_or_else(|| "nothing".to_owned(), |field| field.to_string());
    PredictionsError::Parquet(format!("row {row} has {have} in column `{column}`"))
}
