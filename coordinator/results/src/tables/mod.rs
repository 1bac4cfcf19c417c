//! The paper's tables, from the database's views.
//!
//! [`layout`] says what each table holds, [`load`] asks the views for it, [`against`] sets other
//! numbers beside ours, [`render`] prints it. Rounding happens here and nowhere before.

pub mod against;
pub mod extra;
mod html;
mod latex;
pub mod layout;
pub mod load;
mod markdown;
mod notes;
pub mod render;
mod text;

/// A table, ready to be printed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Table {
    /// The paper's number, if it is one of the paper's.
    pub number: Option<u8>,
    /// What it shows.
    pub title: String,
    /// What its rows are: `Method`, `Variant`.
    pub stub: &'static str,
    /// Whether values are printed with their standard deviation over seeds.
    pub spread: bool,
    /// One block a dataset and, in detailed tables, a case.
    pub blocks: Vec<Block>,
    /// What it rests on, a line each.
    pub notes: Vec<String>,
}

/// Methods against metrics.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Block {
    /// The dataset's id.
    pub dataset: String,
    /// The case, where the block shows one: `r=0.3`, `missing=la`.
    pub case: Option<String>,
    /// Columns from left to right.
    pub columns: Vec<Column>,
    /// Methods from top to bottom.
    pub rows: Vec<Row>,
}

/// A column: one metric, or two beside each other.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// The metrics.
    pub metrics: Vec<ColumnMetric>,
}

/// A metric in a column.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ColumnMetric {
    /// Its id.
    pub id: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Whether it is printed in percent.
    pub percent: bool,
}

/// A method's values.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Row {
    /// The method's id.
    pub method: String,
    /// The variant's id, empty for the method itself.
    pub variant: String,
    /// As tables print it.
    pub label: String,
    /// One a column, each with one value a metric.
    pub cells: Vec<Vec<Value>>,
    /// Other numbers, line by line below it.
    pub companions: Vec<Companion>,
}

/// A line of numbers below a row: published ones, those of another sweep, intervals.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Companion {
    /// What they are.
    pub label: String,
    /// One a column, each with one number a metric.
    pub cells: Vec<Vec<Beside>>,
}

/// A number below one of ours.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// There is none.
    Nothing,
    /// Someone else's, with its standard deviation where it is printed with one.
    Other(f64, Option<f64>),
    /// Someone else's that is known to be wrong; corrected where the right one is known.
    Erratum(Option<f64>),
    /// Ours less the other.
    Difference(f64),
    /// Where ours lies.
    Interval(f64, f64),
}

impl Beside {
    /// As printed, in the unit and with the decimals of `metric`.
    pub fn text(&self, metric: &ColumnMetric) -> String {
        match *self {
            Beside::Nothing => String::new(),
            Beside::Other(value, None) => metric.print(value),
            Beside::Other(value, Some(std)) => {
                format!("{}±{}", metric.print(value), metric.print(std))
            }
            Beside::Erratum(Some(value)) => format!("{}†", metric.print(value)),
            Beside::Erratum(None) => "†".to_owned(),
            Beside::Difference(value) => {
                let text = metric.print(value.abs());
                // What rounds to nothing has no sign.
                let nothing = text.bytes().all(|b| matches!(b, b'0' | b'.'));
                match (nothing, value < 0.0) {
                    (true, _) => text,
                    (false, true) => format!("-{text}"),
                    (false, false) => format!("+{text}"),
                }
            }
            Beside::Interval(low, high) => {
                // Beside a minus, a dash could be one.
                let between = if low < 0.0 { " to " } else { "–" };
                format!("{}{between}{}", metric.print(low), metric.print(high))
            }
        }
    }
}

impl ColumnMetric {
    /// A value with the paper's decimals: two in percent, three otherwise.
    pub fn print(&self, value: f64) -> String {
        if self.percent {
            format!("{:.2}", value * 100.0)
        } else {
            format!("{value:.3}")
        }
    }
}

/// One number.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Value {
    /// The mean; `None` while it is not there or where it is undefined.
    pub mean: Option<f64>,
    /// The standard deviation over seeds, averaged over cases where the mean is over cases; `None`
    /// with fewer than two seeds.
    pub std: Option<f64>,
    /// Results that it rests on.
    pub done: i64,
    /// Results that it should rest on.
    pub asked: i64,
    /// How it ranks among its column.
    pub rank: Rank,
}

/// How a value ranks in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// The best.
    Best,
    /// The best but one.
    Second,
    /// Neither.
    Other,
}

impl Value {
    /// One that is not there.
    pub const MISSING: Value = Value {
        mean: None,
        std: None,
        done: 0,
        asked: 0,
        rank: Rank::Other,
    };

    /// As printed: percent with two decimals, others with three; `…` while it is not there and `–`
    /// where it is undefined.
    pub fn text(&self, metric: &ColumnMetric) -> String {
        match self.mean {
            Some(mean) => metric.print(mean),
            None if self.done < self.asked || self.asked == 0 => "…".to_owned(),
            None => "–".to_owned(),
        }
    }

    /// As printed with its standard deviation: `71.49±1.00`.
    pub fn text_with_std(&self, metric: &ColumnMetric) -> String {
        let text = self.text(metric);
        match (self.mean, self.std) {
            (Some(_), Some(std)) => format!("{text}±{}", metric.print(std)),
            (Some(_), None) => format!("{text}±–"),
            (None, _) => text,
        }
    }
}

/// A line of a block as it is printed: a row, or a companion below it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Whose: lines of different datasets with the same key stand side by side.
    pub key: (String, usize),
    /// What stands before it.
    pub label: String,
    /// Whether it stands below a row.
    pub companion: bool,
    /// By column and metric, what is printed and how it ranks.
    pub cells: Vec<Vec<(String, Rank)>>,
}

impl Block {
    /// What is printed, from top to bottom.
    pub(crate) fn lines(&self, spread: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for row in &self.rows {
            let print = |value: &Value, metric: &ColumnMetric| {
                let text = if spread {
                    value.text_with_std(metric)
                } else {
                    value.text(metric)
                };
                (text, value.rank)
            };
            lines.push(Line {
                key: (row.label.clone(), 0),
                label: row.label.clone(),
                companion: false,
                cells: self.zipped(&row.cells, print),
            });
            for (number, companion) in row.companions.iter().enumerate() {
                lines.push(Line {
                    key: (row.label.clone(), number + 1),
                    label: companion.label.clone(),
                    companion: true,
                    cells: self.zipped(&companion.cells, |beside, metric| {
                        (beside.text(metric), Rank::Other)
                    }),
                });
            }
        }
        lines
    }

    fn zipped<T>(
        &self,
        cells: &[Vec<T>],
        print: impl Fn(&T, &ColumnMetric) -> (String, Rank),
    ) -> Vec<Vec<(String, Rank)>> {
        let columns = self.columns.iter().zip(cells);
        columns
            .map(|(column, cell)| {
                let metrics = cell.iter().zip(&column.metrics);
                metrics
                    .map(|(value, metric)| print(value, metric))
                    .collect()
            })
            .collect()
    }
}

impl Table {
    /// `Table 2. Overall performance`, or the title alone.
    pub fn heading(&self) -> String {
        match self.number {
            Some(number) => format!("Table {number}. {}", self.title),
            None => self.title.clone(),
        }
    }
}

impl Block {
    /// Marks the best and the second of each metric, by what is printed: equal texts rank alike.
    pub fn rank(&mut self) {
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
                // A lone value is no winner, and where all tie there is none.
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
            done,
            asked: 3,
            rank: Rank::Other,
        };
        let row = |label: &str, acc: [Option<f64>; 2], mae: Option<f64>, done| Row {
            method: label.to_lowercase(),
            variant: String::new(),
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
    fn ranks_go_by_direction_and_skip_what_is_not_there() {
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
    fn values_are_rounded_once_and_missing_ones_told_apart() {
        let table = table();
        let block = &table.blocks[0];
        let text = |r: usize, c: usize, m: usize| {
            block.rows[r].cells[c][m].text(&block.columns[c].metrics[m])
        };
        assert_eq!(text(0, 0, 0), "72.12");
        assert_eq!(text(1, 1, 0), "1.035");
        assert_eq!(text(2, 1, 0), "…");
        let undefined = Value {
            done: 3,
            asked: 3,
            ..Value::MISSING
        };
        assert_eq!(undefined.text(&block.columns[1].metrics[0]), "–");
    }

    #[test]
    fn companions_are_printed_in_the_metrics_unit() {
        let table = table();
        let [percent, plain] = [0, 1].map(|c| &table.blocks[0].columns[c].metrics[0]);
        let cases = [
            (Beside::Nothing, percent, ""),
            (Beside::Other(0.7212, None), percent, "72.12"),
            (Beside::Other(1.085, Some(0.08)), plain, "1.085±0.080"),
            (Beside::Erratum(Some(0.3362)), percent, "33.62†"),
            (Beside::Erratum(None), percent, "†"),
            (Beside::Difference(-0.0123), percent, "-1.23"),
            (Beside::Difference(0.0123), plain, "+0.012"),
            (Beside::Difference(-0.0001), plain, "0.000"),
            (Beside::Interval(0.7, 0.75), percent, "70.00–75.00"),
            (Beside::Interval(-0.1, 0.006), plain, "-0.100 to 0.006"),
            (Beside::Interval(-0.1, -0.02), plain, "-0.100 to -0.020"),
        ];
        for (beside, metric, text) in cases {
            assert_eq!(beside.text(metric), text);
        }
    }

    #[test]
    fn a_value_is_printed_with_its_deviation() {
        let table = table();
        let lines = table.blocks[0].lines(true);
        assert_eq!(lines[0].cells[0][0].0, "72.12±1.23");
        assert_eq!(lines[1].cells[1][0].0, "1.035±0.012");
        assert_eq!(lines[2].cells[1][0].0, "…");
        let alone = Value {
            mean: Some(0.5),
            done: 1,
            asked: 1,
            ..Value::MISSING
        };
        let metric = &table.blocks[0].columns[0].metrics[0];
        assert_eq!(alone.text_with_std(metric), "50.00±–");
    }
}
