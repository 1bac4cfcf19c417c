//! A table as markdown: best in bold, second underlined.

use super::{
    Rank, Table,
    headings::{NOTHING, heading},
    lines::joined,
};
use std::fmt::Write as _;

/// Prints `table`.
pub(super) fn render(table: &Table) -> String {
    let mut out = match table.number {
        Some(number) => format!("**Table {number}.** {}\n", table.title),
        None => format!("**{}**\n", table.title),
    };
    if table.blocks.is_empty() {
        let _ = write!(out, "\n{NOTHING}\n");
    }
    for block in &table.blocks {
        let _ = write!(out, "\n{}\n\n| {} |", heading(block), table.stub);
        for column in &block.columns {
            let _ = write!(out, " {} |", column.name);
        }
        out.push_str("\n|---|");
        out.push_str(&"---:|".repeat(block.columns.len()));
        out.push('\n');
        for line in block.lines(table.spread) {
            let label = line.label.replace('|', "\\|");
            if line.companion {
                let _ = write!(out, "| _{label}_ |");
            } else {
                let _ = write!(out, "| {label} |");
            }
            for cell in &line.cells {
                let cell = joined(cell, |text, rank| match rank {
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
        let _ = writeln!(out, "<sub>{}</sub>  ", html_escape::encode_text(note));
    }
    out
}
