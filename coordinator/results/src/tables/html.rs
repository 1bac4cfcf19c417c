//! A table as HTML: a `figure` with a `table` for each block, and what it rests on below.

use super::{
    Rank, Table,
    render::{heading, joined},
};
use html_escape::{encode_double_quoted_attribute, encode_text};
use std::fmt::Write as _;

/// Prints `table`.
pub(super) fn render(table: &Table) -> String {
    let mut out = String::from("<figure class=\"results\">\n<figcaption>");
    match table.number {
        Some(number) => {
            let _ = write!(out, "<b>Table {number}.</b> {}", encode_text(&table.title));
        }
        None => {
            let _ = write!(out, "<b>{}</b>", encode_text(&table.title));
        }
    }
    out.push_str("</figcaption>\n");
    if table.blocks.is_empty() {
        out.push_str("<p>This sweep has nothing of it.</p>\n");
    }
    for block in &table.blocks {
        let _ = write!(
            out,
            "<table>\n<caption>{}</caption>\n<thead><tr><th scope=\"col\">{}</th>",
            encode_text(&heading(block)),
            table.stub
        );
        for column in &block.columns {
            let ids: Vec<&str> = column.metrics.iter().map(|m| m.id.as_str()).collect();
            let _ = write!(
                out,
                "<th scope=\"col\" title=\"{}\">{}</th>",
                encode_double_quoted_attribute(&ids.join(" / ")),
                encode_text(&column.name)
            );
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for line in block.lines(table.spread) {
            let class = if line.companion {
                " class=\"beside\""
            } else {
                ""
            };
            let _ = write!(
                out,
                "<tr{class}><th scope=\"row\">{}</th>",
                encode_text(&line.label)
            );
            for cell in &line.cells {
                let cell = joined(cell, |text, rank| {
                    let text = minus(text);
                    let text = encode_text(&text);
                    match rank {
                        Rank::Best => format!("<b>{text}</b>"),
                        Rank::Second => format!("<u>{text}</u>"),
                        Rank::Other => text.into_owned(),
                    }
                });
                let _ = write!(out, "<td>{cell}</td>");
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
    }
    if !table.notes.is_empty() {
        out.push_str("<ul class=\"notes\">\n");
        for note in &table.notes {
            let _ = writeln!(out, "<li>{}</li>", encode_text(note));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</figure>\n");
    out
}

/// A number with a true minus, as figures have it.
fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}
