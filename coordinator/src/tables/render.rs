//! Prints a table: text, markdown, LaTeX, CSV, JSON.

use super::{Block, Rank, Row, Table, text};
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
}

/// The table in `format`; `colour` only matters to text: best bold and second underlined.
pub fn render(table: &Table, format: Format, colour: bool) -> String {
    match format {
        Format::Text => text::render(table, colour, terminal_width()),
        Format::Markdown => markdown(table),
        Format::Latex => latex(table),
        Format::Csv => csv(table),
        Format::Json => json(table),
    }
}

/// Columns of the terminal that standard output goes to, if it does.
fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

/// `MOSI, r=0.3`.
fn heading(block: &Block) -> String {
    let dataset = block.dataset.to_uppercase();
    match &block.case {
        Some(case) => format!("{dataset}, {case}"),
        None => dataset,
    }
}

/// The cell's values joined, each marked by its rank.
fn joined(block: &Block, row: &Row, column: usize, mark: impl Fn(&str, Rank) -> String) -> String {
    let metrics = &block.columns[column].metrics;
    let values = row.cells[column].iter().zip(metrics);
    let texts: Vec<String> = values
        .map(|(value, metric)| mark(&value.text(metric), value.rank))
        .collect();
    texts.join(" / ")
}

fn markdown(table: &Table) -> String {
    let mut out = format!("**Table {}.** {}\n", table.number, table.title);
    for block in &table.blocks {
        let _ = write!(out, "\n{}\n\n| Method |", heading(block));
        for column in &block.columns {
            let _ = write!(out, " {} |", column.name);
        }
        out.push_str("\n|---|");
        out.push_str(&"---:|".repeat(block.columns.len()));
        out.push('\n');
        for row in &block.rows {
            let _ = write!(out, "| {} |", row.label.replace('|', "\\|"));
            for c in 0..block.columns.len() {
                let cell = joined(block, row, c, |text, rank| match rank {
                    Rank::Best => format!("**{text}**"),
                    Rank::Second => format!("<u>{text}</u>"),
                    Rank::Other => text.to_owned(),
                });
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
    }
    if !table.notes.is_empty() {
        out.push('\n');
    }
    for note in &table.notes {
        let _ = writeln!(out, "<sub>{note}</sub>  ");
    }
    out
}

/// Characters that LaTeX would take for commands.
fn tex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '{' | '}' | '%' | '&' | '#' | '_' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '…' => out.push_str("\\dots"),
            '–' => out.push_str("--"),
            _ => out.push(c),
        }
    }
    out
}

fn latex(table: &Table) -> String {
    let mut out = String::from("% needs \\usepackage{booktabs}\n");
    for block in &table.blocks {
        let _ = write!(
            out,
            "\\begin{{table}}[t]\n\\centering\n\\caption{{{} ({}).}}\n\\begin{{tabular}}{{l{}}}\n\\toprule\nMethod",
            tex(&table.title),
            tex(&heading(block)),
            "r".repeat(block.columns.len())
        );
        for column in &block.columns {
            let _ = write!(out, " & {}", tex(&column.name));
        }
        out.push_str(" \\\\\n\\midrule\n");
        for row in &block.rows {
            out.push_str(&tex(&row.label));
            for c in 0..block.columns.len() {
                let cell = joined(block, row, c, |text, rank| match rank {
                    Rank::Best => format!("\\textbf{{{}}}", tex(text)),
                    Rank::Second => format!("\\underline{{{}}}", tex(text)),
                    Rank::Other => tex(text),
                });
                let _ = write!(out, " & {cell}");
            }
            out.push_str(" \\\\\n");
        }
        out.push_str("\\bottomrule\n\\end{tabular}\n\\end{table}\n");
    }
    for note in &table.notes {
        let _ = writeln!(out, "% {note}");
    }
    out
}

fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn csv(table: &Table) -> String {
    let mut out = String::from("table,dataset,case,method,variant,metric,value,done,asked,rank\n");
    for block in &table.blocks {
        for row in &block.rows {
            for (column, cell) in block.columns.iter().zip(&row.cells) {
                for (metric, value) in column.metrics.iter().zip(cell) {
                    let rank = match value.rank {
                        Rank::Best => "best",
                        Rank::Second => "second",
                        Rank::Other => "",
                    };
                    let mean = value.mean.map(|mean| mean.to_string()).unwrap_or_default();
                    let _ = writeln!(
                        out,
                        "{},{},{},{},{},{},{},{},{},{}",
                        table.number,
                        field(&block.dataset),
                        field(block.case.as_deref().unwrap_or_default()),
                        field(&row.method),
                        field(&row.variant),
                        field(&metric.id),
                        mean,
                        value.done,
                        value.asked,
                        rank
                    );
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
        assert!(out.contains("\\dots / \\dots"));
    }

    #[test]
    fn csv_has_a_row_a_value() {
        let out = render(&table(), Format::Csv, false);
        assert_eq!(out.lines().count(), 1 + 9);
        assert!(out.contains("2,mosi,,lnln,,mae,1.0349,3,3,best"), "{out}");
        assert!(out.contains("2,mosi,,misa,,mae,,1,3,"), "{out}");
    }

    #[test]
    fn json_reads_back() {
        let out = render(&table(), Format::Json, false);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["blocks"][0]["rows"][1]["cells"][1][0]["rank"], "best");
    }
}
