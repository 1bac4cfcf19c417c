//! A table as text: the datasets side by side as in the paper, or one below the other where the
//! terminal is too narrow.

use super::{Block, Line, Rank, Table, layout};

/// Between columns.
const GAP: usize = 2;
/// Where there is no terminal.
const WIDEST: usize = 240;
/// Between datasets.
const WIDE_GAP: usize = 4;

/// What a place on the page holds, and how wide it is without marks.
struct Shown {
    width: usize,
    marked: String,
}

/// A cell. The best is bold and the second underlined, and companions are dim; without colour `*`
/// and `'` stand behind the best and the second, so that a pipe or a log shows them too.
fn show(line: &Line, column: usize, colour: bool) -> Shown {
    let Some(cell) = line.cells.get(column) else {
        return Shown {
            width: 0,
            marked: String::new(),
        };
    };
    let mut width = 0;
    let mut parts = Vec::new();
    for (text, rank) in cell {
        width += text.chars().count() + usize::from(!colour);
        parts.push(match (rank, colour) {
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

/// What stands before a line.
fn label(line: &Line) -> String {
    if line.companion {
        format!("  {}", line.label)
    } else {
        line.label.clone()
    }
}

/// Prints `table`; `width` is that of the terminal, if there is one.
pub(super) fn render(table: &Table, colour: bool, width: Option<usize>) -> String {
    let mut out = format!("{}\n\n", table.heading());
    let mut datasets: Vec<&str> = Vec::new();
    for block in &table.blocks {
        if !datasets.contains(&block.dataset.as_str()) {
            datasets.push(&block.dataset);
        }
    }
    if datasets.is_empty() {
        out.push_str("This sweep has nothing of it.\n\n");
    } else {
        let whole = Page::new(table, &datasets, colour);
        // Without a terminal there is no width, but nobody reads lines that are as long as that.
        if whole.width() <= width.unwrap_or(WIDEST) {
            whole.write(&mut out);
            out.push('\n');
        } else {
            for dataset in datasets {
                Page::new(table, &[dataset], colour).write(&mut out);
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
    colour: bool,
}

impl<'a> Page<'a> {
    fn new(table: &'a Table, datasets: &[&'a str], colour: bool) -> Self {
        let lines: Vec<(&Block, Vec<Line>)> = table
            .blocks
            .iter()
            .map(|block| (block, block.lines(table.spread)))
            .collect();
        let name_width = lines
            .iter()
            .flat_map(|(_, lines)| lines)
            .map(|line| label(line).chars().count())
            .chain([table.stub.chars().count()])
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
                                .map(move |line| show(line, column, colour).width);
                            let name = block.columns.get(column);
                            cells.chain(name.map(|column| column.name.chars().count()))
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
            colour,
        }
    }

    fn block(&self, dataset: &str, case: Option<&str>) -> Option<&'a Block> {
        let mut blocks = self.table.blocks.iter();
        blocks.find(|block| block.dataset == dataset && block.case.as_deref() == case)
    }

    /// The cases in the order in which they come.
    fn cases(&self) -> Vec<Option<&'a str>> {
        let mut cases = Vec::new();
        for block in &self.table.blocks {
            let case = block.case.as_deref();
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
                // A mark stands behind the numbers; the heading ends above their last digit.
                let mark = usize::from(!self.colour);
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

    fn write_rows(&self, out: &mut String, case: Option<&str>) {
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
                // Companions that only a later dataset has come after their row.
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
                    let shown = line.map(|line| show(line, number, self.colour));
                    let taken = shown.as_ref().map_or(0, |shown| shown.width);
                    out_line.push_str(&" ".repeat(gap + width.saturating_sub(taken)));
                    out_line.push_str(shown.as_ref().map_or("", |shown| &shown.marked));
                }
            }
            push_line(out, &out_line);
        }
    }
}

/// `r = 0.3`, `missing language and audio`.
pub(super) fn case_heading(case: &str) -> String {
    if let Some(rate) = case.strip_prefix("r=") {
        return format!("r = {rate}");
    }
    let Some(set) = case.strip_prefix("missing=") else {
        return case.to_owned();
    };
    let words: Vec<&str> = set
        .chars()
        .map(|letter| match letter {
            'l' => "language",
            'a' => "audio",
            _ => "vision",
        })
        .collect();
    format!("missing {}", words.join(" and "))
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::tests::table;

    #[test]
    fn datasets_stand_side_by_side_where_there_is_room() {
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

    #[test]
    fn cases_are_said_in_words() {
        assert_eq!(case_heading("r=0.3"), "r = 0.3");
        assert_eq!(case_heading("missing=la"), "missing language and audio");
    }
}
