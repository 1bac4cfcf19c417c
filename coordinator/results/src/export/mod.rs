//! Results as files for notebooks: long tables, one value a row, as Parquet or CSV.
//!
//! [`rows`] reads them from the database piece by piece, [`file`] writes the pieces.

pub mod file;
pub mod rows;

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Every metric of every evaluation
    Results,
    /// Our means beside the published numbers
    Comparison,
    /// Losses and metrics of every epoch of training
    Epochs,
    /// What every model predicts for every test sample
    Predictions,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; never missing, though it may be empty.
    Text,
    /// Whole numbers; never missing.
    Whole,
    /// Double precision; may be missing.
    Real,
}

/// A column's name and kind.
pub type Field = (&'static str, Kind);

impl What {
    /// Its columns.
    pub fn fields(self) -> &'static [Field] {
        use Kind::{Real, Text, Whole};
        match self {
            What::Results => &[
                ("sweep", Text),
                ("method", Text),
                ("variant", Text),
                ("dataset", Text),
                ("seed", Whole),
                ("case", Text),
                ("kind", Text),
                ("rate", Real),
                ("missing", Text),
                ("metric", Text),
                ("criterion", Text),
                ("state", Text),
                ("value", Real),
                ("trained_processor", Text),
                ("evaluated_processor", Text),
            ],
            What::Comparison => &[
                ("sweep", Text),
                ("table", Whole),
                ("method", Text),
                ("variant", Text),
                ("dataset", Text),
                ("case", Text),
                ("metric", Text),
                ("reproduced", Real),
                ("reproduced_std", Real),
                ("published", Real),
                ("valid", Real),
                ("difference", Real),
                ("erratum", Text),
                ("seeds_completed", Whole),
                ("seeds_expected", Whole),
            ],
            What::Epochs => &[
                ("sweep", Text),
                ("method", Text),
                ("variant", Text),
                ("dataset", Text),
                ("seed", Whole),
                ("epoch", Whole),
                ("quantity", Text),
                ("value", Real),
            ],
            What::Predictions => &[
                ("sweep", Text),
                ("method", Text),
                ("variant", Text),
                ("dataset", Text),
                ("seed", Whole),
                ("case", Text),
                ("criterion", Text),
                ("sample", Whole),
                ("label", Real),
                ("prediction", Real),
            ],
        }
    }
}

/// The values of one column of a piece.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Of [`Kind::Text`].
    Text(Vec<String>),
    /// Of [`Kind::Whole`].
    Whole(Vec<i64>),
    /// Of [`Kind::Real`].
    Real(Vec<Option<f64>>),
}

/// Some rows, column by column, in the order of [`What::fields`].
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The columns, all of one length.
    pub columns: Vec<Column>,
}

impl Piece {
    /// One without rows.
    pub fn new(fields: &[Field]) -> Self {
        let empty = |(_, kind): &Field| match kind {
            Kind::Text => Column::Text(Vec::new()),
            Kind::Whole => Column::Whole(Vec::new()),
            Kind::Real => Column::Real(Vec::new()),
        };
        Self {
            columns: fields.iter().map(empty).collect(),
        }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        match self.columns.first() {
            Some(Column::Text(values)) => values.len(),
            Some(Column::Whole(values)) => values.len(),
            Some(Column::Real(values)) => values.len(),
            None => 0,
        }
    }
}
