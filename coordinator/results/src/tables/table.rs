//! A table as data.

use super::value::{ColumnMetric, CompanionValue, Rank, Value};
use halfheard_shared::{case::Case, results::Model};
use serde::Serializer;

/// A table, ready to be printed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Table {
    /// The number of a table of the paper.
    pub number: Option<u8>,
    /// The title, without the number.
    pub title: String,
    /// The heading of the first column: `Method`.
    pub stub: &'static str,
    /// Whether values are printed with their standard deviation over seeds.
    pub spread: bool,
    /// One block per dataset and, in detailed tables, per case.
    pub blocks: Vec<Block>,
    /// What the numbers rest on, one line each.
    pub notes: Vec<String>,
}

/// Methods by metrics, on one dataset.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Block {
    /// The dataset's id.
    pub dataset: String,
    /// The case of a block that shows one: `r=0.3`, `missing=la`.
    #[serde(serialize_with = "as_text")]
    pub case: Option<Case>,
    /// Columns from left to right.
    pub columns: Vec<Column>,
    /// Methods from top to bottom.
    pub rows: Vec<Row>,
}

/// A column: one metric, or two side by side.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// The metrics.
    pub metrics: Vec<ColumnMetric>,
}

/// A method's values.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Row {
    /// The model.
    #[serde(flatten)]
    pub model: Model,
    /// Its name as printed.
    pub label: String,
    /// By column and metric.
    pub cells: Vec<Vec<Value>>,
    /// Lines of other numbers below the row.
    pub companions: Vec<Companion>,
}

/// A line of numbers below a row: published ones, those of another sweep, intervals.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Companion {
    /// What the numbers are: `published`, `difference`.
    pub label: String,
    /// By column and metric.
    pub cells: Vec<Vec<CompanionValue>>,
}

impl Table {
    /// `Table 2. Overall performance`, or the title alone.
    pub(crate) fn heading(&self) -> String {
        match self.number {
            Some(number) => format!("Table {number}. {}", self.title),
            None => self.title.clone(),
        }
    }
}

impl Block {
    /// Ranks the best and the second best of each metric by the printed values: equal texts rank
    /// alike.
    pub(crate) fn rank(&mut self) {
        for (c, column) in self.columns.iter().enumerate() {
            for (m, metric) in column.metrics.iter().enumerate() {
                let printed = |value: &Value| -> Option<i64> {
                    let scale = if metric.percent { 1e4 } else { 1e3 };
                    let shown = (value.mean? * scale).round() as i64;
                    Some(if metric.higher_is_better {
                        -shown
                    } else {
                        shown
                    })
                };
                let mut levels: Vec<i64> = self
                    .rows
                    .iter()
                    .filter_map(|row| printed(&row.cells[c][m]))
                    .collect();
                levels.sort_unstable();
                levels.dedup();
                // Neither a lone value nor a tie of all has a winner.
                if levels.len() < 2 {
                    continue;
                }
                for row in &mut self.rows {
                    let value = &mut row.cells[c][m];
                    value.rank = match printed(value) {
                        Some(level) if Some(&level) == levels.first() => Rank::Best,
                        Some(level) if Some(&level) == levels.get(1) => Rank::Second,
                        _ => Rank::Other,
                    };
                }
            }
        }
    }
}

fn as_text<S: Serializer>(case: &Option<Case>, serializer: S) -> Result<S::Ok, S::Error> {
    match case {
        Some(case) => serializer.collect_str(case),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn table() -> Table {
        let metric = |id: &str, higher: bool, percent: bool| ColumnMetric {
            id: id.to_owned(),
            higher_is_better: higher,
            percent,
        };
        let value = |mean: Option<f64>, done| Value {
            mean,
            std: mean.map(|_| 0.0123),
            completed: done,
            expected: 3,
            rank: Rank::Other,
        };
        let row = |label: &str, acc: [Option<f64>; 2], mae: Option<f64>, done| Row {
            model: Model::new(label.to_lowercase(), ""),
            label: label.to_owned(),
            cells: vec![
                vec![value(acc[0], done), value(acc[1], done)],
                vec![value(mae, done)],
            ],
            companions: Vec::new(),
        };
        let mut block = Block {
            dataset: "mosi".to_owned(),
            case: None,
            columns: vec![
                Column {
                    name: "Acc-2".to_owned(),
                    metrics: vec![
                        metric("acc2_nonzero", true, true),
                        metric("acc2_nonneg", true, true),
                    ],
                },
                Column {
                    name: "MAE".to_owned(),
                    metrics: vec![metric("mae", false, false)],
                },
            ],
            rows: vec![
                row("ALMT", [Some(0.7212), Some(0.71)], Some(1.0461), 3),
                row("LNLN", [Some(0.7350), Some(0.70)], Some(1.0349), 3),
                row("MISA", [None, None], None, 1),
            ],
        };
        block.rank();
        Table {
            number: Some(2),
            title: "Overall".to_owned(),
            stub: "Method",
            spread: false,
            blocks: vec![block],
            notes: vec!["sweep x".to_owned()],
        }
    }

    #[test]
    fn rank_follows_direction_and_skips_missing_values() {
        let table = table();
        let ranks: Vec<Vec<Rank>> = table.blocks[0]
            .rows
            .iter()
            .map(|row| row.cells.iter().flatten().map(|v| v.rank).collect())
            .collect();
        use Rank::{Best, Other, Second};
        assert_eq!(
            ranks,
            [
                [Second, Best, Second],
                [Best, Second, Best],
                [Other, Other, Other]
            ]
        );
    }

    #[test]
    fn value_is_rounded_once_and_missing_differs_from_undefined() {
        let table = table();
        let block = &table.blocks[0];
        let text = |r: usize, c: usize, m: usize| {
            block.rows[r].cells[c][m].text(&block.columns[c].metrics[m])
        };
        assert_eq!(text(0, 0, 0), "72.12");
        assert_eq!(text(1, 1, 0), "1.035");
        assert_eq!(text(2, 1, 0), "…");
        let undefined = Value {
            completed: 3,
            expected: 3,
            ..Value::MISSING
        };
        assert_eq!(undefined.text(&block.columns[1].metrics[0]), "–");
    }

    #[test]
    fn companion_value_is_printed_in_the_unit_of_its_metric() {
        let table = table();
        let [percent, plain] = [0, 1].map(|c| &table.blocks[0].columns[c].metrics[0]);
        let cases = [
            (CompanionValue::Nothing, percent, ""),
            (CompanionValue::Other(0.7212, None), percent, "72.12"),
            (
                CompanionValue::Other(1.085, Some(0.08)),
                plain,
                "1.085±0.080",
            ),
            (CompanionValue::Erratum(Some(0.3362)), percent, "33.62†"),
            (CompanionValue::Erratum(None), percent, "†"),
            (CompanionValue::Difference(-0.0123), percent, "-1.23"),
            (CompanionValue::Difference(0.0123), plain, "+0.012"),
            (CompanionValue::Difference(-0.0001), plain, "0.000"),
            (CompanionValue::Interval(0.7, 0.75), percent, "70.00–75.00"),
            (
                CompanionValue::Interval(-0.1, 0.006),
                plain,
                "-0.100 to 0.006",
            ),
            (
                CompanionValue::Interval(-0.1, -0.02),
                plain,
                "-0.100 to -0.020",
            ),
        ];
        for (value, metric, text) in cases {
            assert_eq!(value.text(metric), text);
        }
    }

    #[test]
    fn value_is_printed_with_its_standard_deviation() {
        let table = table();
        let lines = table.blocks[0].lines(true);
        assert_eq!(lines[0].cells[0][0].0, "72.12±1.23");
        assert_eq!(lines[1].cells[1][0].0, "1.035±0.012");
        assert_eq!(lines[2].cells[1][0].0, "…");
        let alone = Value {
            mean: Some(0.5),
            completed: 1,
            expected: 1,
            ..Value::MISSING
        };
        let metric = &table.blocks[0].columns[0].metrics[0];
        assert_eq!(alone.text_with_std(metric), "50.00±–");
    }
}
