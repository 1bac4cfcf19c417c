//! A block as it is printed, line by line.

use super::{Block, ColumnMetric, Rank, Value};

/// A printed line of a block: a row, or a companion below it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Lines of different datasets with the same key are printed side by side.
    pub(super) key: (String, usize),
    /// The first column.
    pub(super) label: String,
    /// Whether it is below a row.
    pub(super) companion: bool,
    /// By column and metric, the text and its rank.
    pub(super) cells: Vec<Vec<(String, Rank)>>,
}

impl Block {
    /// The printed lines, from top to bottom.
    pub(super) fn lines(&self, spread: bool) -> Vec<Line> {
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
                    cells: self.zipped(&companion.cells, |value, metric| {
                        (value.text(metric), Rank::Other)
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

/// The texts of a cell, each marked by its rank.
pub(super) fn joined(cell: &[(String, Rank)], mark: impl Fn(&str, Rank) -> String) -> String {
    let texts: Vec<String> = cell.iter().map(|(text, rank)| mark(text, *rank)).collect();
    texts.join(" / ")
}
