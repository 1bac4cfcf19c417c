//! A table as text: the datasets side by side as in the paper, or one below the other on a narrow
//! terminal.

use super::{
    Block, Rank, Table,
    headings::{NOTHING, case_heading, datasets},
    layout,
    lines::Line,
};
use halfheard_shared::case::Case;
use unicode_width::UnicodeWidthStr as _;

/// The gap between columns.
const GAP: usize = 2;
/// The width of a page without a terminal.
const WIDEST: usize = 240;
/// The gap between datasets.
const WIDE_GAP: usize = 4;

/// A printed cell, and its width without escape codes.
struct Shown {
    width: usize,
    marked: String,
}

/// A cell: the best bold, the second underlined, companions dim; without color the best is followed
/// by `*` and the second by `'`, which a pipe or a log shows too.
fn show(line: &Line, column: usize, color: bool) -> Shown {
    let Some(cell) = line.cells.get(column) else {
        return Shown {
            width: 0,
            marked: String::new(),
        };
    };
    let mut width = 0;
    let mut parts = Vec::new();
    for (text, rank) in cell {
        width += text.width() + usize::from(!color);
        parts.push(match (rank, color) {
            (Rank::Best, true) => format!("\u{1b}[1m{text}\u{1b}[22m"),
            (Rank::Second, true) => format!("\u{1b}[4m{text}\u{1b}[24m"),
            (Rank::Best, false) => format!("{text}*"),
            (Rank::Second, false) => format!("{text}'"),
            (Rank::Other, true) if line.companion => format!("\u{1b}[2m{text}\u{1b}[22m"),
            (Rank::Other, true) => text.clone(),
            (Rank::Other, false) => format!("{text} "),
        });
    }
    Shown {
        width: width + 3 * parts.len().saturating_sub(1),
        marked: parts.join(" / "),
    }
}

/// The first column of a line.
fn label(line: &Line) -> String {
    if line.companion {
        format!("  {}", line.label)
    } else {
        line.label.clone()
    }
}

/// Prints `table`; `width` is that of the terminal.
pub(super) fn render(table: &Table, color: bool, width: Option<usize>) -> String {
    let mut out = format!("{}\n\n", table.heading());
    let datasets = datasets(&table.blocks);
    if datasets.is_empty() {
        out.push_str(NOTHING);
        out.push_str("\n\n");
    } else {
        let page = Page::new(table, &datasets, color);
        if page.width() <= width.unwrap_or(WIDEST) {
            page.write(&mut out);
            out.push('\n');
        } else {
            for dataset in datasets {
                Page::new(table, &[dataset], color).write(&mut out);
                out.push('\n');
            }
        }
    }
    for note in &table.notes {
        out.push_str(note);
        out.push('\n');
    }
    out
}

/// Some datasets side by side.
struct Page<'a> {
    table: &'a Table,
    datasets: Vec<&'a str>,
    name_width: usize,
    /// By dataset, the widths of its columns.
    widths: Vec<Vec<usize>>,
    color: bool,
}

impl<'a> Page<'a> {
    fn new(table: &'a Table, datasets: &[&'a str], color: bool) -> Self {
        let lines: Vec<(&Block, Vec<Line>)> = table
            .blocks
            .iter()
            .map(|block| (block, block.lines(table.spread)))
            .collect();
        let name_width = lines
            .iter()
            .flat_map(|(_, lines)| lines)
            .map(|line| label(line).width())
            .chain([table.stub.width()])
            .max()
            .unwrap_or(0);
        let widths = datasets
            .iter()
            .map(|dataset| {
                let own = || lines.iter().filter(|(block, _)| block.dataset == *dataset);
                let columns = own().next().map_or(0, |(block, _)| block.columns.len());
                let width = |column: usize| {
                    own()
                        .flat_map(|(block, lines)| {
                            let cells = lines
                                .iter()
                                .map(move |line| show(line, column, color).width);
                            let name = block.columns.get(column);
                            cells.chain(name.map(|column| column.name.width()))
                        })
                        .max()
                        .unwrap_or(0)
                };
                (0..columns).map(width).collect()
            })
            .collect();
        Self {
            table,
            datasets: datasets.to_vec(),
            name_width,
            widths,
            color,
        }
    }

    fn block(&self, dataset: &str, case: Option<Case>) -> Option<&'a Block> {
        let mut blocks = self.table.blocks.iter();
        blocks.find(|block| block.dataset == dataset && block.case == case)
    }

    /// The cases of the blocks, in their order.
    fn cases(&self) -> Vec<Option<Case>> {
        let mut cases = Vec::new();
        for block in &self.table.blocks {
            let case = block.case;
            if self.datasets.contains(&block.dataset.as_str()) && !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    fn group_width(&self, group: usize) -> usize {
        let widths = &self.widths[group];
        widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }

    fn width(&self) -> usize {
        let groups = 0..self.datasets.len();
        self.name_width
            + groups
                .map(|group| WIDE_GAP + self.group_width(group))
                .sum::<usize>()
    }

    fn write(&self, out: &mut String) {
        let rule = "─".repeat(self.width());
        let mut line = " ".repeat(self.name_width);
        for (group, dataset) in self.datasets.iter().enumerate() {
            let width = self.group_width(group);
            line.push_str(&format!(
                "{:WIDE_GAP$}{:^width$}",
                "",
                layout::dataset_title(dataset)
            ));
        }
        push_line(out, &line);
        let mut line = format!("{:width$}", self.table.stub, width = self.name_width);
        for (group, dataset) in self.datasets.iter().enumerate() {
            let first = self
                .table
                .blocks
                .iter()
                .find(|block| block.dataset == *dataset);
            let columns = first.map_or(&[][..], |block| &block.columns);
            for (number, column) in columns.iter().enumerate() {
                let gap = if number == 0 { WIDE_GAP } else { GAP };
                // A mark follows the numbers; the heading ends above their last digit.
                let mark = usize::from(!self.color);
                let width = self.widths[group][number].saturating_sub(mark);
                line.push_str(&format!("{:gap$}{:>width$}{:mark$}", "", column.name, ""));
            }
        }
        push_line(out, &line);
        push_line(out, &rule);
        for case in self.cases() {
            if let Some(case) = case {
                let heading = case_heading(case);
                push_line(out, &format!("{heading:^width$}", width = self.width()));
            }
            self.write_rows(out, case);
            push_line(out, &rule);
        }
    }

    fn write_rows(&self, out: &mut String, case: Option<Case>) {
        let spread = self.table.spread;
        let blocks: Vec<Vec<Line>> = self
            .datasets
            .iter()
            .map(|dataset| {
                let block = self.block(dataset, case);
                block.map_or_else(Vec::new, |block| block.lines(spread))
            })
            .collect();
        let mut keys: Vec<(&(String, usize), String)> = Vec::new();
        for line in blocks.iter().flatten() {
            if !keys.iter().any(|(key, _)| *key == &line.key) {
                // Companions of a later dataset only follow their row.
                let row = keys.iter().rposition(|(key, _)| key.0 == line.key.0);
                let place = row.map_or(keys.len(), |row| row + 1);
                keys.insert(place, (&line.key, label(line)));
            }
        }
        for (key, label) in keys {
            let mut out_line = format!("{label:width$}", width = self.name_width);
            for (group, lines) in blocks.iter().enumerate() {
                let line = lines.iter().find(|line| line.key == *key);
                for (number, width) in self.widths[group].iter().enumerate() {
                    let gap = if number == 0 { WIDE_GAP } else { GAP };
                    // The sweep may have this method on another dataset only.
                    let shown = line.map(|line| show(line, number, self.color));
                    let taken = shown.as_ref().map_or(0, |shown| shown.width);
                    out_line.push_str(&" ".repeat(gap + width.saturating_sub(taken)));
                    out_line.push_str(shown.as_ref().map_or("", |shown| &shown.marked));
                }
            }
            push_line(out, &out_line);
        }
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::example as table;

    #[test]
    fn datasets_are_side_by_side_unless_the_terminal_is_narrow() {
        let mut table = table();
        let mut other = table.blocks[0].clone();
        other.dataset = "mosei".to_owned();
        table.blocks.push(other);
        let wide = render(&table, false, None);
        assert_eq!(
            wide,
            "\
Table 2. Overall

                   MOSI                       MOSEI
Method             Acc-2     MAE              Acc-2     MAE
────────────────────────────────────────────────────────────
ALMT      72.12' / 71.00*  1.046'    72.12' / 71.00*  1.046'
LNLN      73.50* / 70.00'  1.035*    73.50* / 70.00'  1.035*
MISA              …  / …       …             …  / …       …
────────────────────────────────────────────────────────────

sweep x
"
        );
        let narrow = render(&table, false, Some(50));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 50),
            "{narrow}"
        );
        assert_eq!(narrow.matches("ALMT").count(), 2);
    }
}
