//! A table as HTML: a `figure` with one `table` per block, and the notes below.

use super::{
    Rank, Table,
    headings::{NOTHING, heading},
    lines::Line,
};
use maud::{Markup, html};

/// Prints `table`.
pub(crate) fn render(table: &Table) -> Markup {
    html! {
        figure class="results" {
            figcaption {
                @match table.number {
                    Some(number) => { b { "Table " (number) "." } " " (table.title) }
                    None => { b { (table.title) } }
                }
            } "\n"
            @if table.blocks.is_empty() {
                p { (NOTHING) } "\n"
            }
            @for block in &table.blocks {
                table {
                    caption { (heading(block)) }
                    thead {
                        tr {
                            th scope="col" { (table.stub) }
                            @for column in &block.columns {
                                @let ids: Vec<&str> =
                                    column.metrics.iter().map(|m| m.id.as_str()).collect();
                                th scope="col" title=(ids.join(" / ")) { (column.name) }
                            }
                        }
                    } "\n"
                    tbody {
                        @for line in block.lines(table.spread) { (row(&line)) "\n" }
                    }
                } "\n"
            }
            @if !table.notes.is_empty() {
                ul class="notes" {
                    @for note in &table.notes { li { (note) } "\n" }
                } "\n"
            }
        } "\n"
    }
}

fn row(line: &Line) -> Markup {
    html! {
        tr class=[line.companion.then_some("companion")] {
            th scope="row" { (line.label) }
            @for cell in &line.cells {
                td {
                    @for (number, (text, rank)) in cell.iter().enumerate() {
                        @if number > 0 { " / " }
                        @match rank {
                            Rank::Best => { b { (minus(text)) } }
                            Rank::Second => { u { (minus(text)) } }
                            Rank::Other => { (minus(text)) }
                        }
                    }
                }
            }
        }
    }
}

/// With a true minus, as in figures.
fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}
