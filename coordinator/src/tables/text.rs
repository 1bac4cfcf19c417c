//! A table as text: the datasets side by side as in the paper, or one below the other where the
//! terminal is too narrow.

use super::{Block, Rank, Row, Table};

/// Between columns.
const GAP: usize = 2;
/// Between datasets.
const WIDE_GAP: usize = 4;

/// What a place on the page holds, and how wide it is without marks.
struct Shown {
    width: usize,
    marked: String,
}

/// A cell. The best is bold and the second underlined; without colour `*` and `'` stand behind
/// them, so that a pipe or a log shows them too.
fn show(block: &Block, row: &Row, column: usize, colour: bool) -> Shown {
    let metrics = &block.columns[column].metrics;
    let values = row.cells[column].iter().zip(metrics);
    let mut width = 0;
    let mut parts = Vec::new();
    for (value, metric) in values {
        let text = value.text(metric);
        width += text.chars().count() + usize::from(!colour);
        parts.push(match (value.rank, colour) {
            (Rank::Best, true) => format!("\u{1b}[1m{text}\u{1b}[22m"),
            (Rank::Second, true) => format!("\u{1b}[4m{text}\u{1b}[24m"),
            (Rank::Best, false) => format!("{text}*"),
            (Rank::Second, false) => format!("{text}'"),
            (Rank::Other, true) => text,
            (Rank::Other, false) => format!("{text} "),
        });
    }
    Shown {
        width: width + 3 * parts.len().saturating_sub(1),
        marked: parts.join(" / "),
    }
}

/// Prints `table`; `width` is that of the terminal, if there is one.
pub(super) fn render(table: &Table, colour: bool, width: Option<usize>) -> String {
    let mut out = format!("Table {}. {}\n\n", table.number, table.title);
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
        if width.is_none_or(|width| whole.width() <= width) {
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
        let of = |dataset: &str| {
            let dataset = dataset.to_owned();
            table
                .blocks
                .iter()
                .filter(move |block| block.dataset == dataset)
        };
        let labels = table.blocks.iter().flat_map(|block| &block.rows);
        let name_width = labels
            .map(|row| row.label.chars().count())
            .chain(["Method".len()])
            .max()
            .unwrap_or(0);
        let widths = datasets
            .iter()
            .map(|dataset| {
                let columns = of(dataset).next().map_or(0, |block| block.columns.len());
                let width = |column: usize| {
                    of(dataset)
                        .flat_map(|block| {
                            let cells = block
                                .rows
                                .iter()
                                .map(move |row| show(block, row, column, colour).width);
                            cells.chain([block.columns[column].name.chars().count()])
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
                dataset.to_uppercase()
            ));
        }
        push_line(out, &line);
        let mut line = format!("{:width$}", "Method", width = self.name_width);
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
                let heading = heading(case);
                push_line(out, &format!("{heading:^width$}", width = self.width()));
            }
            self.write_rows(out, case);
            push_line(out, &rule);
        }
    }

    fn write_rows(&self, out: &mut String, case: Option<&str>) {
        let blocks: Vec<Option<&Block>> = self
            .datasets
            .iter()
            .map(|dataset| self.block(dataset, case))
            .collect();
        let mut labels: Vec<&str> = Vec::new();
        for block in blocks.iter().flatten() {
            for row in &block.rows {
                if !labels.contains(&row.label.as_str()) {
                    labels.push(&row.label);
                }
            }
        }
        for label in labels {
            let mut line = format!("{label:width$}", width = self.name_width);
            for (group, block) in blocks.iter().enumerate() {
                let row = block.and_then(|block| {
                    let row = block.rows.iter().find(|row| row.label == label)?;
                    Some((block, row))
                });
                for (number, width) in self.widths[group].iter().enumerate() {
                    let gap = if number == 0 { WIDE_GAP } else { GAP };
                    // The sweep has this method on another dataset only.
                    let (shown, marked) = match row {
                        Some((block, row)) => {
                            let shown = show(block, row, number, self.colour);
                            (shown.width, shown.marked)
                        }
                        None => (0, String::new()),
                    };
                    let fill = gap + width.saturating_sub(shown);
                    line.push_str(&" ".repeat(fill));
                    line.push_str(&marked);
                }
            }
            push_line(out, &line);
        }
    }
}

/// `r = 0.3`, `missing language and audio`.
fn heading(case: &str) -> String {
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
        assert_eq!(heading("r=0.3"), "r = 0.3");
        assert_eq!(heading("missing=la"), "missing language and audio");
    }
}
