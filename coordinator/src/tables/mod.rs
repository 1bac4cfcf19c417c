//! The paper's tables, from the database's views.
//!
//! [`layout`] says what each table holds, [`load`] asks the views for it, [`render`] prints it.
//! Rounding happens here and nowhere before.

pub mod layout;
pub mod load;
pub mod render;
mod text;

/// A table, ready to be printed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Table {
    /// The paper's number.
    pub number: u8,
    /// What it shows.
    pub title: String,
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
}

/// One number.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Value {
    /// The mean; `None` while it is not there or where it is undefined.
    pub mean: Option<f64>,
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
    /// As printed: percent with two decimals, others with three; `…` while it is not there and `–`
    /// where it is undefined.
    pub fn text(&self, metric: &ColumnMetric) -> String {
        match self.mean {
            Some(mean) if metric.percent => format!("{:.2}", mean * 100.0),
            Some(mean) => format!("{mean:.3}"),
            None if self.done < self.asked || self.asked == 0 => "…".to_owned(),
            None => "–".to_owned(),
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
                // A lone value is no winner.
                if levels.len() < 2 {
                    continue;
                }
                levels.sort_unstable();
                levels.dedup();
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
            number: 2,
            title: "Overall".to_owned(),
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
            mean: None,
            done: 3,
            asked: 3,
            rank: Rank::Other,
        };
        assert_eq!(undefined.text(&block.columns[1].metrics[0]), "–");
    }
}
