//! Rows as columns.

use halfheard_shared::results::{
    ComparisonRow, EpochRow, Export, MeasurementRow, PredictionRows, Rows,
};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; may be empty, never missing.
    Text,
    /// Integers; never missing.
    Integer,
    /// Double precision; may be missing.
    Real,
}

/// The name and type of a column.
pub type Field = (&'static str, Kind);

/// The columns of an export.
pub fn fields(what: Export) -> &'static [Field] {
    use Kind::{Integer, Real, Text};
    match what {
        Export::Results => &[
            ("sweep", Text),
            ("method", Text),
            ("variant", Text),
            ("dataset", Text),
            ("seed", Integer),
            ("case", Text),
            ("kind", Text),
            ("rate", Real),
            ("missing", Text),
            ("mask", Text),
            ("metric", Text),
            ("criterion", Text),
            ("state", Text),
            ("value", Real),
            ("trained_processor", Text),
            ("evaluated_processor", Text),
        ],
        Export::Comparison => &[
            ("sweep", Text),
            ("table", Integer),
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
            ("seeds_completed", Integer),
            ("seeds_expected", Integer),
        ],
        Export::Epochs => &[
            ("sweep", Text),
            ("method", Text),
            ("variant", Text),
            ("dataset", Text),
            ("seed", Integer),
            ("epoch", Integer),
            ("quantity", Text),
            ("value", Real),
        ],
        Export::Predictions => &[
            ("sweep", Text),
            ("method", Text),
            ("variant", Text),
            ("dataset", Text),
            ("seed", Integer),
            ("case", Text),
            ("criterion", Text),
            ("sample", Integer),
            ("label", Real),
            ("prediction", Real),
        ],
    }
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Of [`Kind::Text`].
    Text(Vec<String>),
    /// Of [`Kind::Integer`].
    Integer(Vec<i64>),
    /// Of [`Kind::Real`].
    Real(Vec<Option<f64>>),
}

/// A page of rows, column by column, in the order of [`fields`].
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The columns, all of the same length.
    pub columns: Vec<Column>,
}

impl Page {
    /// The rows of a sweep, named `sweep`.
    pub fn new(sweep: &str, rows: &Rows) -> Self {
        let mut columns = match rows {
            Rows::Results(rows) => results(rows),
            Rows::Comparison(rows) => comparison(rows),
            Rows::Epochs(rows) => epochs(rows),
            Rows::Predictions(rows) => predictions(rows),
        };
        let count = columns.first().map_or(0, Column::len);
        columns.insert(0, Column::Text(vec![sweep.to_owned(); count]));
        Self { columns }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Column::Text(values) => values.len(),
            Column::Integer(values) => values.len(),
            Column::Real(values) => values.len(),
        }
    }
}

fn text<T>(rows: &[T], value: impl Fn(&T) -> &String) -> Column {
    Column::Text(rows.iter().map(|row| value(row).clone()).collect())
}

fn integer<T>(rows: &[T], value: impl Fn(&T) -> i64) -> Column {
    Column::Integer(rows.iter().map(value).collect())
}

fn real<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> Column {
    Column::Real(rows.iter().map(value).collect())
}

fn results(rows: &[MeasurementRow]) -> Vec<Column> {
    vec![
        text(rows, |row| &row.method),
        text(rows, |row| &row.variant),
        text(rows, |row| &row.dataset),
        integer(rows, |row| row.seed),
        text(rows, |row| &row.case),
        text(rows, |row| &row.kind),
        real(rows, |row| row.rate),
        text(rows, |row| &row.missing),
        text(rows, |row| &row.mask),
        text(rows, |row| &row.metric),
        text(rows, |row| &row.criterion),
        text(rows, |row| &row.state),
        real(rows, |row| row.value),
        text(rows, |row| &row.trained_processor),
        text(rows, |row| &row.evaluated_processor),
    ]
}

fn comparison(rows: &[ComparisonRow]) -> Vec<Column> {
    vec![
        integer(rows, |row| row.table),
        text(rows, |row| &row.method),
        text(rows, |row| &row.variant),
        text(rows, |row| &row.dataset),
        text(rows, |row| &row.case),
        text(rows, |row| &row.metric),
        real(rows, |row| row.reproduced),
        real(rows, |row| row.reproduced_std),
        real(rows, |row| row.published),
        real(rows, |row| row.valid),
        real(rows, |row| row.difference),
        text(rows, |row| &row.erratum),
        integer(rows, |row| row.seeds_completed),
        integer(rows, |row| row.seeds_expected),
    ]
}

fn epochs(rows: &[EpochRow]) -> Vec<Column> {
    vec![
        text(rows, |row| &row.method),
        text(rows, |row| &row.variant),
        text(rows, |row| &row.dataset),
        integer(rows, |row| row.seed),
        integer(rows, |row| row.epoch),
        text(rows, |row| &row.quantity),
        real(rows, |row| row.value),
    ]
}

/// One row per criterion and sample.
fn predictions(rows: &PredictionRows) -> Vec<Column> {
    let evaluation = &rows.evaluation;
    let samples = rows.labels.len();
    let count = samples * evaluation.by_criterion.len();
    let text = |text: &str| Column::Text(vec![text.to_owned(); count]);
    let by_criterion = || evaluation.by_criterion.iter();
    let criteria = by_criterion().flat_map(|(criterion, _)| vec![criterion.clone(); samples]);
    let labels = by_criterion().flat_map(|_| rows.labels.iter());
    let values = by_criterion().flat_map(|(_, values)| values.iter());
    vec![
        text(&evaluation.model.method),
        text(&evaluation.model.variant),
        text(evaluation.dataset.id()),
        Column::Integer(vec![evaluation.seed.cast_signed(); count]),
        text(&evaluation.case.to_string()),
        Column::Text(criteria.collect()),
        Column::Integer((0..count).map(|row| (row % samples) as i64).collect()),
        Column::Real(labels.map(|v| Some(f64::from(*v))).collect()),
        Column::Real(values.map(|v| Some(f64::from(*v))).collect()),
    ]
}
