//! Numbers that another paper prints too.
//!
//! Only what is known of other papers can be compared: `other_papers.csv`, and files in its format. An
//! equal number is chance now and then, so several must be; which paper has taken them from the other
//! follows from the years, if at all.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, is_percent, noise},
    chance::{self, RARE},
};
use halfheard_shared::{
    benchmark::Benchmark, case::CaseOrMean, error::Hint, results::Model, text::count,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The least number of equal values of a method on a dataset.
const EQUAL: usize = 3;

/// The numbers of other papers that the program carries, as a CSV file.
pub const KNOWN: &str = include_str!("other_papers.csv");

/// The columns of the file.
pub const COLUMNS: &str = "paper,year,dataset,method,variant,case_id,metric,printed,source";

/// A number that another paper prints.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherNumber {
    paper: String,
    year: u16,
    source: String,
    place: Place,
    value: f64,
    half: f64,
}

/// What is wrong with a file of other papers' numbers.
#[derive(Debug, thiserror::Error)]
pub enum OtherPapersError {
    /// Not a CSV file with the columns.
    #[error("cannot read line {line}")]
    Csv {
        /// Its line, from 1.
        line: u64,
        /// The cause.
        source: csv::Error,
    },
    /// A value that the program does not know.
    #[error("line {line}: unknown {what} \"{value}\"")]
    Unknown {
        /// Its line, from 1.
        line: u64,
        /// The column.
        what: &'static str,
        /// The value.
        value: String,
    },
}

impl Hint for OtherPapersError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Csv { .. } => format!("the first line must be: {COLUMNS}"),
            Self::Unknown { what, .. } => match *what {
                "dataset" => "use mosi, mosei or sims".to_owned(),
                "case" => "cases are r=0.3, missing=la, r=mean and missing=mean".to_owned(),
                "metric" => "metrics are those of `coord audit published --format json`: acc7, \
                             acc2_nonzero, f1_nonneg, mae, corr"
                    .to_owned(),
                _ => "write numbers as printed, accuracies and F1 in percent: 77.20".to_owned(),
            },
        })
    }
}

#[derive(Deserialize)]
struct Record {
    paper: String,
    year: u16,
    dataset: String,
    method: String,
    variant: String,
    case_id: String,
    metric: String,
    printed: String,
    source: String,
}

/// Reads numbers of other papers from CSV text with the [`COLUMNS`]. Values are as printed, accuracies
/// and F1 in percent.
///
/// # Errors
///
/// Not a CSV file with these columns; an unknown dataset, case or metric; a value that is not a number.
pub fn read(text: &str) -> Result<Vec<OtherNumber>, OtherPapersError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let invalid = |line| move |source| OtherPapersError::Csv { line, source };
    let header = reader.headers().map_err(invalid(1))?.clone();
    let mut numbers = Vec::new();
    for (row, record) in (2..).zip(reader.records()) {
        let record = record.map_err(invalid(row))?;
        // Not the row: fields may have line breaks.
        let line = record.position().map_or(row, csv::Position::line);
        let record = record.deserialize(Some(&header)).map_err(invalid(line))?;
        numbers.push(number(record, line)?);
    }
    Ok(numbers)
}

fn number(record: Record, line: u64) -> Result<OtherNumber, OtherPapersError> {
    let unknown = |what, value: &str| OtherPapersError::Unknown {
        line,
        what,
        value: value.to_owned(),
    };
    let dataset = record.dataset.parse::<Benchmark>();
    let dataset = dataset.map_err(|_| unknown("dataset", &record.dataset))?;
    let case = record.case_id.parse::<CaseOrMean>();
    let case = case.map_err(|_| unknown("case", &record.case_id))?;
    if dataset.metric(&record.metric).is_none() {
        return Err(unknown("metric", &record.metric));
    }
    let printed: Option<f64> = record.printed.parse().ok();
    let printed = printed.filter(|printed| printed.is_finite());
    let printed = printed.ok_or_else(|| unknown("number", &record.printed))?;
    let place = Place {
        metric: record.metric,
        case: Some(case),
        ..Place::of_model(dataset, &Model::new(record.method, record.variant))
    };
    let unit = if is_percent(&place) { 0.01 } else { 1.0 };
    let decimals = record.printed.split_once('.').map_or(0, |(_, d)| d.len());
    let decimals = i32::try_from(decimals).unwrap_or(i32::MAX);
    Ok(OtherNumber {
        paper: record.paper,
        year: record.year,
        source: record.source,
        value: printed * unit,
        half: 0.5 * unit * 10_f64.powi(-decimals),
        place,
    })
}

/// Finds numbers of tables of `year` that other papers print at the same place: one finding per paper,
/// dataset and method, a warning if the other paper is older and chance does not explain it.
pub(super) fn check(cells: &[Cell], others: &[OtherNumber], year: u16) -> Vec<Finding> {
    let mut blocks: BTreeMap<_, Vec<&OtherNumber>> = BTreeMap::new();
    for other in others {
        let place = &other.place;
        let key = (&other.paper, other.year, place.dataset, &place.model);
        blocks.entry(key).or_default().push(other);
    }
    let places = by(cells, |p| Place {
        table: None,
        ..p.clone()
    });
    let compared = blocks.len();
    let blocks = blocks.into_values();
    blocks
        .filter_map(|block| compare(&block, cells, &places, compared, year))
        .collect()
}

fn compare(
    block: &[&OtherNumber],
    cells: &[Cell],
    places: &BTreeMap<Place, Vec<&Cell>>,
    compared: usize,
    year: u16,
) -> Option<Finding> {
    let (mut equal, mut chances) = (Vec::new(), Vec::new());
    for other in block {
        let Some(&cell) = places.get(&other.place).and_then(|cells| cells.first()) else {
            continue;
        };
        // Rounded to the coarser of the two.
        let half = cell.half.max(other.half);
        chances.push(chance::equal(2.0 * half, variation(cell, cells)));
        if (cell.value - other.value).abs() <= half + 1e-9 {
            equal.push((cell, *other));
        }
    }
    if equal.len() < EQUAL {
        return None;
    }
    // A number that is printed several times is one coincidence.
    let distinct: BTreeSet<(&str, u64)> = equal
        .iter()
        .map(|(cell, _)| (cell.place.metric.as_str(), cell.value.to_bits()))
        .collect();
    let expected = chance::at_least(distinct.len(), &chances) * compared as f64;
    let (_, first) = equal[0];
    let severity = if first.year <= year && expected <= RARE {
        Severity::Warning
    } else {
        Severity::Note
    };
    let mut numbers = vec![format!(
        "{} of {} equal, {} different: {} are expected by chance in {}",
        equal.len(),
        chances.len(),
        distinct.len(),
        chance::text(expected),
        count(compared, "comparison"),
    )];
    numbers.push(match first.year.cmp(&year) {
        std::cmp::Ordering::Greater => {
            format!(
                "{} is of {}, later than these tables",
                first.paper, first.year
            )
        }
        _ => format!(
            "{} is of {}, not later than these tables",
            first.paper, first.year
        ),
    });
    numbers.push(format!("source: {}", first.source));
    numbers.extend(equal.iter().map(|(cell, _)| {
        let place = &cell.place;
        format!("{} {}: {}", place.metric, place.case_text(), cell.text())
    }));
    let equal_places = equal.iter().flat_map(|(cell, other)| {
        let everywhere = places.get(&other.place).into_iter().flatten();
        let same = everywhere.filter(|c| c.value == cell.value);
        same.map(|c| c.place.clone()).collect::<Vec<_>>()
    });
    Some(Finding::new(
        Rule::OtherPaper,
        severity,
        format!("{} prints the same numbers", first.paper),
        equal_places.collect(),
        numbers,
    ))
}

/// How much a number varies from one measurement to another: a quarter of its sampling error, or the
/// spread over the models of its table if that is smaller.
fn variation(cell: &Cell, cells: &[Cell]) -> f64 {
    let place = &cell.place;
    let column = cells.iter().filter(|other| {
        let p = &other.place;
        (p.table, p.dataset, &p.metric, p.case)
            == (place.table, place.dataset, &place.metric, place.case)
    });
    let values: Vec<f64> = column.map(|cell| cell.value).collect();
    chance::spread(&values).map_or(noise(cell), |spread| spread.min(noise(cell)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{cell::tests::cell, chance::tests::Normal},
        *,
    };

    const METRICS: [&str; 6] = [
        "acc7",
        "acc5",
        "acc2_nonzero",
        "acc2_nonneg",
        "f1_nonzero",
        "f1_nonneg",
    ];

    fn table(normal: &mut Normal) -> Vec<Cell> {
        let mut cells = Vec::new();
        for method in ["misa", "mmim", "almt", "lnln", "cenet"] {
            for metric in METRICS {
                let value = 0.6 + 0.02 * normal.next();
                cells.push(cell(9, method, metric, "r=0", value));
            }
        }
        cells
    }

    /// A paper's numbers of MISA: those of `cells`, each moved by `off`.
    fn paper(year: u16, cells: &[Cell], off: &mut dyn FnMut() -> f64) -> Vec<OtherNumber> {
        let lines = cells[..METRICS.len()].iter().map(|cell| {
            let value = (cell.value + off()) * 100.0;
            format!("X,{year},mosi,misa,,r=0,{},{value:.2},s", cell.place.metric)
        });
        let text: Vec<String> = lines.collect();
        read(&format!("{COLUMNS}\n{}", text.join("\n"))).unwrap()
    }

    #[test]
    fn known_numbers_can_be_read_and_have_a_source() {
        let known = read(KNOWN).unwrap();
        assert!(KNOWN.starts_with(COLUMNS));
        assert_eq!(known.len(), KNOWN.lines().count() - 1);
        assert!(known.iter().all(|number| !number.source.is_empty()));
        for number in &known {
            let method = halfheard_shared::methods::find(&number.place.model.method);
            assert!(method.is_some(), "{number:?}");
            let percent = is_percent(&number.place);
            assert!(
                number.value > 0.0 && (number.value < 1.0 || !percent),
                "{number:?}"
            );
        }
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        let of = |line: &str| read(&format!("{COLUMNS}\n{line}")).unwrap_err().to_string();
        assert_eq!(of("X,2024,mosi"), "cannot read line 2");
        assert_eq!(of("X,soon,mosi,misa,,r=0,acc7,1,s"), "cannot read line 2");
        assert_eq!(
            of("X,2024,moon,misa,,r=0,acc7,1,s"),
            "line 2: unknown dataset \"moon\""
        );
        assert_eq!(
            of("X,2024,mosi,misa,,r=2,acc7,1,s"),
            "line 2: unknown case \"r=2\""
        );
        assert_eq!(
            of("X,2024,mosi,misa,,r=0,acc9,1,s"),
            "line 2: unknown metric \"acc9\""
        );
        assert_eq!(
            of("X,2024,mosi,misa,,r=0,acc7,NaN,s"),
            "line 2: unknown number \"NaN\""
        );
        assert!(read("a,b\n1,2\n").is_err());
        let second = "X,2024,mosi,misa,,r=0,acc7,1,\"two\nlines\"\nX,2024,moon,,,,,,s";
        assert_eq!(of(second), "line 4: unknown dataset \"moon\"");
    }

    #[test]
    fn copied_numbers_are_found() {
        let cells = table(&mut Normal::new(1));
        let found = check(&cells, &paper(2023, &cells, &mut || 0.0), 2024);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[0].places.len(), METRICS.len());
        // A later paper may have them from here.
        let found = check(&cells, &paper(2025, &cells, &mut || 0.0), 2024);
        assert_eq!(found[0].severity, Severity::Note);
        assert!(found[0].numbers[1].contains("later than these tables"));
        assert_eq!(check(&cells, &paper(2023, &cells, &mut || 0.002), 2024), []);
    }

    #[test]
    fn numbers_are_compared_at_the_coarser_rounding() {
        let cells = [
            cell(13, "lnln", "f1_nonzero", "missing=l", 0.7719),
            cell(13, "lnln", "f1_nonzero", "missing=la", 0.7719),
            cell(13, "lnln", "f1_nonzero", "missing=lv", 0.7719),
        ];
        let rows = ["l", "la", "lv"]
            .map(|set| format!("X,2025,mosi,lnln,,missing={set},f1_nonzero,77.2,s"));
        let others = read(&format!("{COLUMNS}\n{}", rows.join("\n"))).unwrap();
        let found = check(&cells, &others, 2024);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].numbers[0].starts_with("3 of 3 equal, 1 different: "),
            "{found:?}"
        );
    }

    /// A repeated measurement with the spread of seeds: at most one paper in a hundred has a finding.
    #[test]
    fn repeated_measurements_have_findings_as_rarely_as_promised() {
        let mut normal = Normal::new(2);
        let mut false_alarms = 0;
        for _ in 0..1000 {
            let cells = table(&mut normal);
            let others = paper(2023, &cells, &mut || 0.01 * normal.next());
            false_alarms += usize::from(!check(&cells, &others, 2024).is_empty());
        }
        println!("{false_alarms} of 1000 repeated measurements have a finding");
        assert!(false_alarms <= 10, "{false_alarms}");
    }
}
