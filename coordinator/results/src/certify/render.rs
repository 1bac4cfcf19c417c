//! A certificate for a terminal, as CSV and as JSON.

use super::{
    Certificate, Certified, Grid,
    grid::{chance, overview, rule},
};

/// The most rows of a grid on a terminal.
const ROWS: usize = 60;

/// For a terminal: verdicts by table and method, and the numbers that differ.
pub fn text(certificate: &Certificate) -> String {
    let mut out = format!(
        "Certificate of sweep {} ({})\n\n",
        certificate.sweep, certificate.id
    );
    for protocol in &certificate.protocols {
        out.push_str(protocol);
        out.push('\n');
    }
    out.push_str(&rule(certificate));
    out.push_str("\n\n");
    for grid in overview(certificate) {
        push(&mut out, &grid);
    }
    out.push_str(&chance(certificate));
    out.push('\n');
    out
}

fn push(out: &mut String, grid: &Grid) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    // A line a row, however narrow the terminal: the numbers are to be read down their columns.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(&grid.headings);
    for row in grid.rows.iter().take(ROWS) {
        table.add_row(row);
    }
    out.push_str(&grid.title);
    out.push('\n');
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let more = grid.rows.len().saturating_sub(ROWS);
    if more > 0 {
        out.push_str(&format!(" and {more} more: see --csv or --out FILE\n"));
    }
    out.push('\n');
}

/// Everything, for programs.
pub fn json(certificate: &Certificate) -> serde_json::Result<String> {
    serde_json::to_string_pretty(certificate)
}

const CSV_HEADER: [&str; 25] = [
    "address",
    "table",
    "dataset",
    "method",
    "variant",
    "case",
    "metric",
    "verdict",
    "reason",
    "printed",
    "published",
    "spread",
    "spread_source",
    "measured",
    "std",
    "seeds",
    "bound",
    "difference",
    "standard_error",
    "freedom",
    "low",
    "high",
    "p_equivalence",
    "p_difference",
    "seeds_needed",
];

/// One row a number; values are fractions except MAE and correlation.
pub fn csv(certificate: &Certificate) -> csv::Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(CSV_HEADER)?;
    for number in &certificate.numbers {
        out.write_record(record(number))?;
    }
    let bytes = out.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn record(number: &Certified) -> [String; 25] {
    fn text<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let evidence = number.evidence.as_ref();
    let tost = evidence.and_then(|evidence| evidence.tost);
    [
        number.address.clone(),
        number.table.to_string(),
        number.dataset.to_owned(),
        number.method.to_owned(),
        number.variant.to_owned(),
        number.case.to_owned(),
        number.metric.to_owned(),
        number.verdict.id().to_owned(),
        number.reason.clone(),
        number.printed.to_owned(),
        text(number.published),
        text(number.spread),
        number.spread_source.clone(),
        text(evidence.map(|e| e.measured)),
        text(evidence.and_then(|e| e.std)),
        text(evidence.map(|e| e.seeds)),
        text(evidence.map(|e| e.bound)),
        text(tost.map(|t| t.difference)),
        text(tost.map(|t| t.standard_error)),
        text(tost.and_then(|t| t.freedom)),
        text(tost.map(|t| t.low)),
        text(tost.map(|t| t.high)),
        text(tost.map(|t| t.p_equivalence)),
        text(tost.map(|t| t.p_difference)),
        text(evidence.and_then(|e| e.seeds_needed)),
    ]
}
