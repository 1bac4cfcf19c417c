//! The report as Markdown, with figures as files.

use super::{Item, Report};
use crate::{
    audit::render::{Format as AuditFormat, render as render_audit},
    certify::Grid,
    tables::render::{Format, render as render_table},
};
use std::fmt::Write as _;

/// The folder of the figures, next to the text.
pub const FIGURES: &str = "figures";

/// Renders the text.
pub fn render(report: &Report) -> String {
    let mut out = format!("# halfheard: {}\n", one_line(&report.sweep));
    for sentence in &report.summary {
        let _ = write!(out, "\n{}\n", one_line(sentence));
    }
    for section in &report.sections {
        let _ = write!(out, "\n## {}\n", section.title);
        for item in &section.items {
            out.push('\n');
            match item {
                Item::Text(text) => {
                    let _ = writeln!(out, "{}", one_line(text));
                }
                Item::Table(table) => out.push_str(&render_table(table, Format::Markdown, false)),
                Item::Grid(grid) => out.push_str(&pipes(grid)),
                Item::Figure(image) => {
                    let (name, number) = (&image.name, &image.number);
                    let caption = one_line(&image.caption);
                    let alternative = caption.replace(['[', ']'], "");
                    let _ = write!(
                        out,
                        "![{alternative}]({FIGURES}/{name}.png)\n\n**{number}** {caption}\n"
                    );
                }
                Item::Findings { subject, findings } => {
                    let text = render_audit(subject, findings, AuditFormat::Markdown, false);
                    // Its headings are below that of the section.
                    for line in text.lines() {
                        let deeper = if line.starts_with('#') { "##" } else { "" };
                        let _ = writeln!(out, "{deeper}{line}");
                    }
                }
                Item::Facts(facts) => {
                    for (name, value) in facts {
                        let _ = writeln!(out, "- **{}**: {}", one_line(name), one_line(value));
                    }
                }
                Item::File { title, text } => {
                    let fence = fence(text);
                    let end = if text.ends_with('\n') { "" } else { "\n" };
                    let title = one_line(title);
                    let _ = write!(out, "{title}:\n\n{fence}\n{text}{end}{fence}\n");
                }
            }
        }
    }
    out
}

/// On one line, without HTML.
fn one_line(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.replace('<', "&lt;")
}

fn pipes(grid: &Grid) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| one_line(cell).replace('|', "\\|"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = format!("**{}**\n\n{}", one_line(&grid.title), row(&grid.headings));
    out.push_str(&format!("|{}\n", "---|".repeat(grid.headings.len())));
    out.extend(grid.rows.iter().map(|cells| row(cells)));
    out
}

/// A fence longer than any in the text.
fn fence(text: &str) -> String {
    let runs = text.split(|c| c != '`').map(str::len);
    "`".repeat(runs.max().unwrap_or(0).max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_is_longer_than_any_in_the_text() {
        assert_eq!(fence("a"), "```");
        assert_eq!(fence("```toml\n````"), "`````");
        assert_eq!(one_line("a\n# b <i>"), "a # b &lt;i>");
    }
}
