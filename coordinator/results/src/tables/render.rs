//! Prints a table: text, markdown, LaTeX, CSV, JSON, HTML.

use super::{Beside, Block, Rank, Table, html, latex, layout, markdown, text};
use std::fmt::Write as _;

/// How a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// Markdown: best in bold, second underlined
    Markdown,
    /// LaTeX with booktabs
    Latex,
    /// One row a value, for spreadsheets and scripts
    Csv,
    /// Everything there is to know
    Json,
    /// HTML, one table element a block
    Html,
}

/// The table in `format`; `colour` only matters to text: best bold and second underlined.
pub fn render(table: &Table, format: Format, colour: bool) -> String {
    match format {
        Format::Text => text::render(table, colour, terminal_width()),
        Format::Markdown => markdown::render(table),
        Format::Latex => latex::render(table),
        Format::Csv => csv(table),
        Format::Json => json(table),
        Format::Html => html::render(table),
    }
}

/// Columns of the terminal that standard output goes to, if it does.
fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

/// `MOSI, r = 0.3`.
pub(super) fn heading(block: &Block) -> String {
    let dataset = layout::dataset_title(&block.dataset);
    match &block.case {
        Some(case) => format!("{dataset}, {}", text::case_heading(case)),
        None => dataset,
    }
}

/// The cell's texts joined, each marked by its rank.
pub(super) fn joined(cell: &[(String, Rank)], mark: impl Fn(&str, Rank) -> String) -> String {
    let texts: Vec<String> = cell.iter().map(|(text, rank)| mark(text, *rank)).collect();
    texts.join(" / ")
}

fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// One line a value. Other numbers have lines of their own: `of` says whose a line's value is, and
/// is empty for ours.
fn csv(table: &Table) -> String {
    let mut out = String::from(
        "table,dataset,case,method,variant,metric,of,value,std,low,high,done,asked,rank\n",
    );
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let name = table
        .number
        .map_or_else(|| table.title.clone(), |n| n.to_string());
    for block in &table.blocks {
        for row in &block.rows {
            let start = [
                field(&name),
                field(&block.dataset),
                field(block.case.as_deref().unwrap_or_default()),
                field(&row.method),
                field(&row.variant),
            ]
            .join(",");
            for (c, column) in block.columns.iter().enumerate() {
                for (m, metric) in column.metrics.iter().enumerate() {
                    let value = &row.cells[c][m];
                    let rank = match value.rank {
                        Rank::Best => "best",
                        Rank::Second => "second",
                        Rank::Other => "",
                    };
                    let (mean, std) = (number(value.mean), number(value.std));
                    let (done, asked) = (value.done, value.asked);
                    let id = field(&metric.id);
                    let _ = writeln!(out, "{start},{id},,{mean},{std},,,{done},{asked},{rank}");
                    for companion in &row.companions {
                        let [value, std, low, high] = match companion.cells[c][m] {
                            Beside::Nothing | Beside::Erratum(None) => continue,
                            Beside::Other(value, std) => [Some(value), std, None, None],
                            Beside::Erratum(Some(value)) | Beside::Difference(value) => {
                                [Some(value), None, None, None]
                            }
                            Beside::Interval(low, high) => [None, None, Some(low), Some(high)],
                        }
                        .map(number);
                        let of = field(&companion.label);
                        let _ = writeln!(out, "{start},{id},{of},{value},{std},{low},{high},,,");
                    }
                }
            }
        }
    }
    out
}

fn json(table: &Table) -> String {
    // A table holds strings, integers and finite numbers only; should it ever not, that is said.
    serde_json::to_string_pretty(table)
        .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::tests::table;

    #[test]
    fn text_marks_ranks_without_colour() {
        let out = render(&table(), Format::Text, false);
        assert!(out.contains("72.12' / 71.00*"), "{out}");
        assert!(out.contains("1.035*") && out.contains('…'), "{out}");
        assert!(!out.contains('\u{1b}'));
    }

    #[test]
    fn text_styles_ranks_with_colour() {
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
    fn csv_has_a_row_a_value() {
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
