//! Writes pieces as Parquet or CSV. A file appears under its name only when it is whole.

use super::{Column, Field, Kind, Piece};
use halfheard_shared::atomic_file::{AtomicFile, DEFAULT_MODE};
use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as PhysicalType},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::Type,
};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns, compressed; for pandas, polars, DuckDB, R
    Parquet,
    /// Text with a header line; missing values are empty
    Csv,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk or a pipe.
    #[error("{path} cannot be written: {reason}; free the disk or name another file")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The Parquet library refuses.
    #[error("the Parquet file cannot be made: {0}")]
    Parquet(#[from] ParquetError),
}

/// Takes pieces and writes them. Nothing is under the final name before [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    inner: Inner,
}

enum Inner {
    Parquet(Box<SerializedFileWriter<AtomicFile>>),
    Csv(Box<csv::Writer<AtomicFile>>),
    /// To standard output.
    Pipe(Box<csv::Writer<std::io::Stdout>>),
}

impl Writer {
    /// Begins a file; `path` `None` means CSV to standard output.
    ///
    /// # Errors
    ///
    /// The folder cannot be written to.
    pub fn new(path: Option<&Path>, format: Format, fields: &[Field]) -> Result<Self, FileError> {
        let names = fields.iter().map(|(name, _)| *name);
        let Some(path) = path else {
            let mut pipe = csv::Writer::from_writer(std::io::stdout());
            let path = PathBuf::from("standard output");
            pipe.write_record(names)
                .map_err(|error| write_error(&path, &error))?;
            return Ok(Self {
                path,
                inner: Inner::Pipe(Box::new(pipe)),
            });
        };
        let path = path.to_owned();
        let temporary =
            AtomicFile::create(&path, DEFAULT_MODE).map_err(|error| write_error(&path, &error))?;
        let inner = match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_created_by(concat!("halfheard ", env!("CARGO_PKG_VERSION")).to_owned());
                let writer = SerializedFileWriter::new(
                    temporary,
                    Arc::new(schema(fields)?),
                    Arc::new(properties.build()),
                )?;
                Inner::Parquet(Box::new(writer))
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(temporary);
                writer
                    .write_record(names)
                    .map_err(|error| write_error(&path, &error))?;
                Inner::Csv(Box::new(writer))
            }
        };
        Ok(Self { path, inner })
    }

    /// Writes some rows.
    ///
    /// # Errors
    ///
    /// The disk's, or the library's.
    pub fn write(&mut self, piece: &Piece) -> Result<(), FileError> {
        match &mut self.inner {
            Inner::Parquet(writer) => {
                let mut group = writer.next_row_group()?;
                for column in &piece.columns {
                    write_column(&mut group, column)?;
                }
                group.close()?;
                Ok(())
            }
            Inner::Csv(writer) => {
                write_records(writer, piece).map_err(|error| write_error(&self.path, &error))
            }
            Inner::Pipe(writer) => {
                write_records(writer, piece).map_err(|error| write_error(&self.path, &error))
            }
        }
    }

    /// Puts the file under its name.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn finish(self) -> Result<(), FileError> {
        let path = self.path;
        let temporary = match self.inner {
            Inner::Parquet(writer) => writer.into_inner()?,
            Inner::Csv(writer) => writer
                .into_inner()
                .map_err(|error| write_error(&path, error.error()))?,
            Inner::Pipe(mut writer) => {
                return writer.flush().map_err(|error| write_error(&path, &error));
            }
        };
        temporary
            .persist()
            .map_err(|error| write_error(&path, &error))
    }
}

fn write_error(path: &Path, error: &dyn std::error::Error) -> FileError {
    FileError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn schema(fields: &[Field]) -> Result<Type, ParquetError> {
    let field = |(name, kind): &Field| {
        let (physical, logical, repetition) = match kind {
            Kind::Text => (
                PhysicalType::BYTE_ARRAY,
                Some(LogicalType::String),
                Repetition::REQUIRED,
            ),
            Kind::Whole => (PhysicalType::INT64, None, Repetition::REQUIRED),
            Kind::Real => (PhysicalType::DOUBLE, None, Repetition::OPTIONAL),
        };
        let builder = Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition);
        Ok(Arc::new(builder.build()?))
    };
    Type::group_type_builder("halfheard")
        .with_fields(
            fields
                .iter()
                .map(field)
                .collect::<Result<_, ParquetError>>()?,
        )
        .build()
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
) -> Result<(), ParquetError> {
    // There is one for each field, in their order.
    let Some(mut writer) = group.next_column()? else {
        return Ok(());
    };
    match column {
        Column::Text(values) => {
            let bytes = values.iter().map(|value| ByteArray::from(value.as_str()));
            let bytes: Vec<ByteArray> = bytes.collect();
            writer
                .typed::<ByteArrayType>()
                .write_batch(&bytes, None, None)?;
        }
        Column::Whole(values) => {
            writer
                .typed::<Int64Type>()
                .write_batch(values, None, None)?;
        }
        Column::Real(values) => {
            let there: Vec<f64> = values.iter().flatten().copied().collect();
            let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
            writer
                .typed::<DoubleType>()
                .write_batch(&there, Some(&levels), None)?;
        }
    }
    writer.close()
}

fn write_records<W: Write>(writer: &mut csv::Writer<W>, piece: &Piece) -> csv::Result<()> {
    for row in 0..piece.rows() {
        for column in &piece.columns {
            match column {
                Column::Text(values) => writer.write_field(&values[row])?,
                Column::Whole(values) => writer.write_field(values[row].to_string())?,
                Column::Real(values) => {
                    let text = values[row].map(|value| value.to_string());
                    writer.write_field(text.unwrap_or_default())?;
                }
            }
        }
        writer.write_record(None::<&[u8]>)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::RowAccessor as _,
    };

    const FIELDS: &[Field] = &[
        ("method", Kind::Text),
        ("seed", Kind::Whole),
        ("value", Kind::Real),
    ];

    fn piece() -> Piece {
        Piece {
            columns: vec![
                Column::Text(vec!["lnln".to_owned(), "a,\"b\"".to_owned()]),
                Column::Whole(vec![1111, -2]),
                Column::Real(vec![Some(0.25), None]),
            ],
        }
    }

    #[test]
    fn parquet_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.parquet");
        let mut writer = Writer::new(Some(&path), Format::Parquet, FIELDS).unwrap();
        writer.write(&piece()).unwrap();
        writer.write(&piece()).unwrap();
        assert!(!path.exists(), "half a file under the final name");
        writer.finish().unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let rows: Vec<_> = reader
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3].get_string(0).unwrap(), "a,\"b\"");
        assert_eq!(rows[0].get_long(1).unwrap(), 1111);
        assert_eq!(rows[2].get_double(2).unwrap(), 0.25);
        assert!(rows[1].get_double(2).is_err(), "missing");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn csv_quotes_and_leaves_missing_values_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        let mut writer = Writer::new(Some(&path), Format::Csv, FIELDS).unwrap();
        writer.write(&piece()).unwrap();
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "method,seed,value\nlnln,1111,0.25\n\"a,\"\"b\"\"\",-2,\n"
        );
    }

    #[test]
    fn a_writer_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        let mut writer = Writer::new(Some(&path), Format::Csv, FIELDS).unwrap();
        writer.write(&piece()).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let nowhere = folder.path().join("no/such/folder.csv");
        let Err(error) = Writer::new(Some(&nowhere), Format::Csv, FIELDS) else {
            panic!("written to a folder that is not there");
        };
        assert!(error.to_string().contains("no/such/folder.csv"), "{error}");
    }
}
