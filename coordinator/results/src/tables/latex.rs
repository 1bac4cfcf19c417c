//! A table as LaTeX with booktabs: one `table` environment per dataset.

use super::{
    Block, Rank, Table,
    headings::{case_heading, datasets, heading},
    layout,
    lines::joined,
};
use std::fmt::Write as _;

/// Escapes what LaTeX would read as commands or cannot print.
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
            '…' => out.push_str("\\dots{}"),
            '–' => out.push_str("--"),
            '±' => out.push_str("$\\pm$"),
            '†' => out.push_str("$^\\dagger$"),
            'α' => out.push_str("$\\alpha$"),
            'β' => out.push_str("$\\beta$"),
            'γ' => out.push_str("$\\gamma$"),
            _ => out.push(c),
        }
    }
    out
}

/// Prints `table`: one float per dataset, its cases below each other.
pub(super) fn render(table: &Table) -> String {
    let mut out = String::from("% needs \\usepackage{booktabs} and \\usepackage{graphicx}\n");
    for dataset in datasets(&table.blocks) {
        let own = table.blocks.iter().filter(|block| block.dataset == dataset);
        let blocks: Vec<&Block> = own.collect();
        float(table, &blocks, &mut out);
    }
    for note in &table.notes {
        let _ = writeln!(out, "% {}", note.replace('\n', " "));
    }
    out
}

fn float(table: &Table, blocks: &[&Block], out: &mut String) {
    let Some(first) = blocks.first() else { return };
    let columns = first.columns.len();
    let _ = write!(
        out,
        "\\begin{{table}}[t]\n\\centering\n\\caption{{{} ({}).}}\n\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n\\begin{{tabular}}{{l{}}}\n\\toprule\n{}",
        tex(&table.title),
        tex(&match (blocks.len(), &first.case) {
            (1, Some(_)) => heading(first),
            _ => layout::dataset_title(&first.dataset),
        }),
        "r".repeat(columns),
        tex(table.stub)
    );
    for column in &first.columns {
        let _ = write!(out, " & {}", tex(&column.name));
    }
    out.push_str(" \\\\\n");
    for block in blocks {
        out.push_str("\\midrule\n");
        if let (true, Some(case)) = (blocks.len() > 1, block.case) {
            let _ = writeln!(
                out,
                "\\multicolumn{{{}}}{{c}}{{{}}} \\\\",
                columns + 1,
                tex(&case_heading(case))
            );
        }
        for line in block.lines(table.spread) {
            if line.companion {
                let _ = write!(out, "\\quad\\textit{{{}}}", tex(&line.label));
            } else {
                out.push_str(&tex(&line.label));
            }
            for cell in &line.cells {
                let cell = joined(cell, |text, rank| match rank {
                    Rank::Best => format!("\\textbf{{{}}}", tex(text)),
                    Rank::Second => format!("\\underline{{{}}}", tex(text)),
                    Rank::Other => tex(text),
                });
                let _ = write!(out, " & {cell}");
            }
            out.push_str(" \\\\\n");
        }
    }
    out.push_str("\\bottomrule\n\\end{tabular}}\n\\end{table}\n");
}
