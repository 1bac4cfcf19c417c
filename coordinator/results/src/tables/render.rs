//! Prints a table: text, markdown, LaTeX, CSV, JSON, HTML.

use super::{CompanionValue, Rank, Table, html, latex, markdown, text};
use halfheard_shared::results::Model;

/// The format of a printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal
    Text,
    /// Markdown: best in bold, second underlined
    Markdown,
    /// LaTeX with booktabs
    Latex,
    /// One row per value, for spreadsheets and scripts
    Csv,
    /// Everything, for programs
    Json,
    /// HTML, one table element per block
    Html,
}

/// Prints `table` in `format`. With `color`, text has the best bold and the second underlined.
pub fn render(table: &Table, format: Format, color: bool) -> String {
    match format {
        Format::Text => text::render(table, color, terminal_width()),
        Format::Markdown => markdown::render(table),
        Format::Latex => latex::render(table),
        Format::Csv => or_error(csv(table)),
        Format::Json => json(table),
        Format::Html => html::render(table).into_string(),
    }
}

/// The width of the terminal that standard output goes to.
fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

const CSV_HEADER: [&str; 14] = [
    "table",
    "dataset",
    "case",
    "method",
    "variant",
    "metric",
    "of",
    "value",
    "std",
    "low",
    "high",
    "completed",
    "expected",
    "rank",
];

/// One row per value. The column `of` is empty for our values and names the source of others.
fn csv(table: &Table) -> csv::Result<String> {
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let name = match table.number {
        Some(number) => number.to_string(),
        None => table.title.clone(),
    };
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(CSV_HEADER)?;
    for block in &table.blocks {
        let case = block.case.map(|case| case.to_string()).unwrap_or_default();
        for row in &block.rows {
            let Model { method, variant } = &row.model;
            let start = [&name, &block.dataset, &case, method, variant];
            for (c, column) in block.columns.iter().enumerate() {
                for (m, metric) in column.metrics.iter().enumerate() {
                    let mut write = |rest: [String; 8]| {
                        let start = start.into_iter().chain([&metric.id]);
                        out.write_record(start.chain(&rest))
                    };
                    let none = String::new;
                    let value = &row.cells[c][m];
                    let rank = match value.rank {
                        Rank::Best => "best",
                        Rank::Second => "second",
                        Rank::Other => "",
                    };
                    write([
                        none(),
                        number(value.mean),
                        number(value.std),
                        none(),
                        none(),
                        value.completed.to_string(),
                        value.expected.to_string(),
                        rank.to_owned(),
                    ])?;
                    for companion in &row.companions {
                        let [value, std, low, high] = match companion.cells[c][m] {
                            CompanionValue::Nothing | CompanionValue::Erratum(None) => continue,
                            CompanionValue::Other(value, std) => [Some(value), std, None, None],
                            CompanionValue::Erratum(Some(value))
                            | CompanionValue::Difference(value) => [Some(value), None, None, None],
                            CompanionValue::Interval(low, high) => {
                                [None, None, Some(low), Some(high)]
                            }
                        }
                        .map(number);
                        let of = companion.label.clone();
                        write([of, value, std, low, high, none(), none(), none()])?;
                    }
                }
            }
        }
    }
    let bytes = out.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Strings, integers and finite numbers can be written to memory; anything else is reported in the
/// output itself.
fn or_error<E: std::fmt::Display>(text: Result<String, E>) -> String {
    text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}

fn json(table: &Table) -> String {
    or_error(serde_json::to_string_pretty(table)) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example as table;

    #[test]
    fn text_marks_ranks_without_color() {
        let out = render(&table(), Format::Text, false);
        assert!(out.contains("72.12' / 71.00*"), "{out}");
        assert!(out.contains("1.035*") && out.contains('…'), "{out}");
        assert!(!out.contains('\u{1b}'));
    }

    #[test]
    fn text_styles_ranks_with_color() {
        let out = render(&table(), Format::Text, true);
        assert!(out.contains("\u{1b}[1m73.50\u{1b}[22m"), "{out:?}");
    }

    #[test]
    fn markdown_marks_ranks() {
        let out = render(&table(), Format::Markdown, false);
        assert!(
            out.contains("| ALMT | <u>72.12</u> / **71.00** | <u>1.046</u> |"),
            "{out}"
        );
    }

    #[test]
    fn latex_escapes_and_marks() {
        let mut table = table();
        table.blocks[0].rows[0].label = "a_b%".to_owned();
        let out = render(&table, Format::Latex, false);
        assert!(
            out.contains(
                "a\\_b\\% & \\underline{72.12} / \\textbf{71.00} & \\underline{1.046} \\\\"
            ),
            "{out}"
        );
        assert!(out.contains("\\dots{} / \\dots{}"));
    }

    #[test]
    fn csv_has_one_row_per_value() {
        let out = render(&table(), Format::Csv, false);
        assert_eq!(out.lines().count(), 1 + 9);
        assert!(
            out.contains("2,mosi,,lnln,,mae,,1.0349,0.0123,,,3,3,best"),
            "{out}"
        );
        assert!(out.contains("2,mosi,,misa,,mae,,,,,,1,3,"), "{out}");
    }

    #[test]
    fn json_reads_back() {
        let out = render(&table(), Format::Json, false);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["blocks"][0]["rows"][1]["cells"][1][0]["rank"], "best");
    }
}
