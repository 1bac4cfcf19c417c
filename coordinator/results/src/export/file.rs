//! Writes pages as Parquet or CSV. A file appears under its name only when it is complete.

use super::columns::{Column, Field, Kind, Page};
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

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns, compressed; for pandas, polars, DuckDB, R
    Parquet,
    /// Text with a header line; missing values are empty
    Csv,
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk or a pipe.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Parquet library.
    #[error("cannot write the Parquet file")]
    Parquet(#[from] ParquetError),
}

/// Writes pages. The file does not exist before [`Writer::finish`].
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
    /// Begins a file; without `path`, CSV on standard output.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written to.
    pub fn new(path: Option<&Path>, format: Format, fields: &[Field]) -> Result<Self, FileError> {
        let names = fields.iter().map(|(name, _)| *name);
        let Some(path) = path else {
            let mut pipe = csv::Writer::from_writer(std::io::stdout());
            let path = PathBuf::from("standard output");
            pipe.write_record(names)
                .map_err(|error| write_error(&path, error))?;
            return Ok(Self {
                path,
                inner: Inner::Pipe(Box::new(pipe)),
            });
        };
        let path = path.to_owned();
        let temporary =
            AtomicFile::create(&path, DEFAULT_MODE).map_err(|error| write_error(&path, error))?;
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
                    .map_err(|error| write_error(&path, error))?;
                Inner::Csv(Box::new(writer))
            }
        };
        Ok(Self { path, inner })
    }

    /// Writes a page of rows.
    ///
    /// # Errors
    ///
    /// The disk's, or the library's.
    pub fn write(&mut self, page: &Page) -> Result<(), FileError> {
        match &mut self.inner {
            Inner::Parquet(writer) => {
                let mut group = writer.next_row_group()?;
                for column in &page.columns {
                    write_column(&mut group, column)?;
                }
                group.close()?;
                Ok(())
            }
            Inner::Csv(writer) => {
                write_records(writer, page).map_err(|error| write_error(&self.path, error))
            }
            Inner::Pipe(writer) => {
                write_records(writer, page).map_err(|error| write_error(&self.path, error))
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
                .map_err(|error| write_error(&path, error.into_error()))?,
            Inner::Pipe(mut writer) => {
                return writer.flush().map_err(|error| write_error(&path, error));
            }
        };
        temporary
            .persist()
            .map_err(|error| write_error(&path, error))
    }
}

fn write_error(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> FileError {
    FileError::Write {
        path: path.to_owned(),
        source: source.into(),
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
            Kind::Integer => (PhysicalType::INT64, None, Repetition::REQUIRED),
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
    // One for each field, in their order.
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
        Column::Integer(values) => {
            writer
                .typed::<Int64Type>()
                .write_batch(values, None, None)?;
        }
        Column::Real(values) => {
            let present: Vec<f64> = values.iter().flatten().copied().collect();
            let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
            writer
                .typed::<DoubleType>()
                .write_batch(&present, Some(&levels), None)?;
        }
    }
    writer.close()
}

fn write_records<W: Write>(writer: &mut csv::Writer<W>, page: &Page) -> csv::Result<()> {
    for row in 0..page.rows() {
        for column in &page.columns {
            match column {
                Column::Text(values) => writer.write_field(&values[row])?,
                Column::Integer(values) => writer.write_field(values[row].to_string())?,
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
        ("seed", Kind::Integer),
        ("value", Kind::Real),
    ];

    fn page() -> Page {
        Page {
            columns: vec![
                Column::Text(vec!["lnln".to_owned(), "a,\"b\"".to_owned()]),
                Column::Integer(vec![1111, -2]),
                Column::Real(vec![Some(0.25), None]),
            ],
        }
    }

    #[test]
    fn parquet_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.parquet");
        let mut writer = Writer::new(Some(&path), Format::Parquet, FIELDS).unwrap();
        writer.write(&page()).unwrap();
        writer.write(&page()).unwrap();
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
        writer.write(&page()).unwrap();
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "method,seed,value\nlnln,1111,0.25\n\"a,\"\"b\"\"\",-2,\n"
        );
    }

    #[test]
    fn dropped_writer_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        let mut writer = Writer::new(Some(&path), Format::Csv, FIELDS).unwrap();
        writer.write(&page()).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let nowhere = folder.path().join("no/such/folder.csv");
        let Err(error) = Writer::new(Some(&nowhere), Format::Csv, FIELDS) else {
            panic!("written to a folder that is not there");
        };
        assert!(error.to_string().contains("no/such/folder.csv"), "{error}");
    }
}
