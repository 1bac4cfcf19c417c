//! The audit of the paper's tables.

use super::{
    Cell, Finding, Place, carry, cell, classes,
    classes::Splits,
    close, f1, finding, known, means, no_effect,
    other::{self, OtherNumber},
    range, repeated, same,
    shifted::{self, SameObjective},
    spread, trend,
};
use halfheard_shared::{
    published::{Number, numbers},
    results::Model,
};

/// The paper's tables of means, with the tables of their details.
const DETAILS: &[means::Details] = &[(2, 9), (3, 10), (11, 13), (12, 14)];

/// Variants that the paper describes differently and that train by the same objective: the reconstructor
/// (Table 4) serves the reconstruction loss (Table 5) alone.
const SAME_OBJECTIVE: &[SameObjective] = &[("lnln", "no-reconstructor", "no-l-rec")];

/// The year of the paper.
const YEAR: u16 = 2024;

/// Audits the paper's Tables 2 to 14, and labels the findings by the known errata.
pub fn published() -> Vec<Finding> {
    published_beside(&[])
}

/// The same, comparing with numbers of other papers besides those that the program carries.
pub fn published_beside(others: &[OtherNumber]) -> Vec<Finding> {
    // A test reads the numbers that the program carries.
    let mut known_numbers = other::read(other::KNOWN).unwrap_or_default();
    known_numbers.extend_from_slice(others);
    let cells: Vec<Cell> = numbers().iter().map(from_number).collect();
    let mut findings = check(&cells, &known_numbers);
    known::label(&mut findings);
    findings
}

/// The paper's standard deviations that are out of proportion to their rows (rule
/// [`Spread`](super::Rule::Spread)).
pub fn implausible_spreads() -> Vec<Finding> {
    let cells: Vec<Cell> = numbers().iter().map(from_number).collect();
    spread::check(&cells)
}

/// Applies all rules for tables.
fn check(cells: &[Cell], others: &[OtherNumber]) -> Vec<Finding> {
    let splits = Splits::published();
    let mut findings = [
        range::check(cells),
        f1::check(cells, &splits),
        means::check(cells, DETAILS),
        same::check(cells),
        repeated::columns(cells),
        repeated::rows(cells),
        shifted::check(cells, SAME_OBJECTIVE),
        other::check(cells, others, YEAR),
        trend::check(cells),
        range::nesting(cells),
        spread::check(cells),
        close::check(cells),
        no_effect::check(cells),
        classes::one_class(cells, &splits),
        classes::majority(cells, &splits),
    ]
    .concat();
    carry::carry(&mut findings, cells, DETAILS);
    finding::sort(&mut findings);
    findings
}

fn from_number(number: &Number) -> Cell {
    let place = Place {
        table: Some(number.table),
        dataset: number.dataset,
        model: Model::new(number.method, number.variant),
        seed: None,
        metric: number.metric.to_owned(),
        case: number.case.parse().ok(),
    };
    // The paper prints two decimals in percent and three otherwise; the file omits trailing zeros.
    let half = if cell::is_percent(&place) {
        0.5e-4
    } else {
        0.5e-3
    };
    Cell {
        place,
        value: number.value,
        half,
        std: number.std,
        samples: number.dataset.split_sizes().map_or(1, |sizes| sizes[2]),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Rule, *};
    use crate::audit::known::errata_of;
    use halfheard_shared::published::{Erratum, ErratumKind, errata};

    #[test]
    fn every_erratum_is_found_without_errata() {
        let findings = published();
        let found: Vec<_> = findings
            .iter()
            .filter(|finding| finding.counts())
            .flat_map(errata_of)
            .collect();
        for erratum in errata() {
            // If we concluded from most values of a column that all are swapped, those possible both
            // ways are not suspect on their own.
            let concluded =
                erratum.kind == ErratumKind::LabelsSwapped && erratum.source == "computed";
            let of_the_same = |other: &&Erratum| {
                (other.dataset, other.method, other.kind)
                    == (erratum.dataset, erratum.method, erratum.kind)
            };
            let is_found = found.contains(&erratum)
                || concluded && found.iter().copied().any(|other| of_the_same(&other));
            assert!(is_found, "not found: {erratum:?}");
        }
        let counts = crate::audit::render::Counts::of(&findings);
        println!("{}", counts.text());
    }

    /// docs/reference/audit.md lists every finding with a verdict, in the order of the command.
    #[test]
    fn page_lists_every_finding() {
        let page = include_str!("../../../../docs/reference/audit.md");
        let findings = published();
        let counts = crate::audit::render::Counts::of(&findings).text();
        assert!(page.contains(&counts), "{counts}");
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| {
                let levels = ["| error |", "| warning |", "| note |"];
                levels.iter().any(|level| line.starts_with(level))
            })
            .collect();
        assert_eq!(rows.len(), findings.len());
        for (row, f) in rows.iter().zip(&findings) {
            let wanted = format!(
                "| {} | `{}` | {} |",
                f.severity.id(),
                f.rule.id(),
                f.place()
            );
            assert!(row.starts_with(&wanted), "{row}\n{wanted}");
            let known = f.known.as_ref().is_some_and(|errata| !errata.is_empty());
            assert_eq!(row.contains("known erratum"), known, "{row} {:?}", f.known);
        }
    }

    /// Most numbers have no finding: errata are not found by suspecting everything.
    #[test]
    fn most_numbers_have_no_finding() {
        let findings = published();
        let suspect = |n: &&Number| {
            let place = from_number(n).place;
            findings
                .iter()
                .any(|f| f.counts() && f.places.contains(&place))
        };
        let others = |n: &&Number| !["almt", "lnln"].contains(&n.method);
        let all = numbers().iter().filter(others).count();
        let named = numbers().iter().filter(others).filter(suspect).count();
        assert!(named * 15 < all, "{named} of {all}");
    }

    /// The rules about coincidences find in the paper what a reader found by eye, and no more.
    #[test]
    fn coincidences_are_those_that_readers_found() {
        let places = |findings: Vec<Finding>| -> Vec<String> {
            findings.iter().map(Finding::place).collect()
        };
        let cells: Vec<Cell> = numbers().iter().map(from_number).collect();
        // Table 4's row without the reconstructor and Table 5's without its loss, with and without the
        // knowledge that their objective is the same.
        for known in [SAME_OBJECTIVE, &[]] {
            let found = places(shifted::check(&cells, known));
            assert_eq!(found.len(), 1, "{found:?}");
            let two = "Tables 4, 5, 7, MOSI, LNLN/no-reconstructor and LNLN/no-l-rec, ";
            assert!(found[0].starts_with(two), "{found:?}");
        }
        let near = close::check(&cells);
        assert!(
            near[0].numbers[0].starts_with("0.004 such pairs"),
            "{near:?}"
        );
        let near = places(near);
        assert_eq!(
            near,
            ["Table 6, MOSI, LNLN/no-audio and LNLN/no-vision, 6 metrics, r=mean"]
        );
        let others = other::read(other::KNOWN).unwrap();
        let others = places(other::check(&cells, &others, YEAR));
        let hme = "Table 13, MOSEI, LNLN, F1 (neg/pos), missing=l and missing=la and missing=lv";
        assert_eq!(others, [hme]);
    }

    /// The numbers of methods without findings.
    fn clean() -> Vec<Cell> {
        let clean = |n: &&Number| {
            ["misa", "mmim"].contains(&n.method) || (n.method == "self-mm" && n.table != 14)
        };
        numbers().iter().filter(clean).map(from_number).collect()
    }

    fn counted(cells: &[Cell]) -> Vec<Finding> {
        let findings = check(cells, &[]).into_iter();
        findings.filter(Finding::counts).collect()
    }

    /// Plants a fault in clean numbers, which a rule must find.
    fn plant(rule: Rule, edit: &dyn Fn(&mut Vec<Cell>)) {
        let mut cells = clean();
        edit(&mut cells);
        let found = counted(&cells);
        assert!(found.iter().any(|f| f.rule == rule), "{rule:?}: {found:?}");
    }

    #[test]
    fn planted_coincidences_are_found() {
        assert_eq!(counted(&clean()), []);
        let row = |cells: &[Cell], method: &str, table: u8| -> Vec<usize> {
            let is = |c: &&Cell| {
                let p = &c.place;
                p.table == Some(table) && p.model.method == method && p.dataset.id() == "mosi"
            };
            let found = cells.iter().filter(is).map(|c| c.place.clone());
            let found: Vec<Place> = found.collect();
            let at = |p: &Place| cells.iter().position(|c| c.place == *p).unwrap();
            found.iter().map(at).collect()
        };
        plant(Rule::Shifted, &|cells| {
            let (from, to) = (row(cells, "misa", 2), row(cells, "misa", 8));
            for i in 1..5 {
                cells[to[i + 1]].value = cells[from[i]].value;
            }
        });
        plant(Rule::TooClose, &|cells| {
            let (from, to) = (row(cells, "misa", 8), row(cells, "self-mm", 8));
            for i in 0..8 {
                cells[to[i]].value = cells[from[i]].value + 2.0 * cells[from[i]].half;
            }
        });
    }

    #[test]
    fn planted_faults_are_found() {
        let at = |cells: &[Cell], place: [&str; 3], table| {
            let is = |c: &Cell| {
                let p = &c.place;
                p.table == Some(table)
                    && [p.model.method.as_str(), &p.metric, &p.case_text()] == place
                    && p.dataset.id() != "mosei"
            };
            cells.iter().position(is).unwrap()
        };
        plant(Rule::OutOfRange, &|cells| {
            let i = at(cells, ["misa", "corr", "r=0.3"], 9);
            cells[i].value = 6.18;
        });
        plant(Rule::Mean, &|cells| {
            let i = at(cells, ["misa", "acc7", "r=mean"], 2);
            cells[i].value += 0.0003;
        });
        plant(Rule::SameNumber, &|cells| {
            let i = at(cells, ["misa", "acc7", "r=mean"], 8);
            cells[i].value += 0.01;
        });
        plant(Rule::Trend, &|cells| {
            let i = at(cells, ["mmim", "acc5", "r=0.4"], 9);
            cells[i].value += 0.3;
        });
        plant(Rule::ImpossibleF1, &|cells| {
            let i = at(cells, ["mmim", "f1", "missing=la"], 14);
            cells[i].value = 0.8191;
        });
        plant(Rule::Repeated, &|cells| {
            let from = at(cells, ["misa", "mae", "r=0"], 9);
            let to = at(cells, ["mmim", "mae", "r=0"], 9);
            let metrics = |cells: &[Cell], start: usize| -> Vec<usize> {
                let p = cells[start].place.clone();
                (0..cells.len())
                    .filter(|&i| {
                        let q = &cells[i].place;
                        (q.table, q.dataset, &q.model.method, &q.metric)
                            == (p.table, p.dataset, &p.model.method, &p.metric)
                    })
                    .collect()
            };
            for (a, b) in metrics(cells, from).into_iter().zip(metrics(cells, to)) {
                cells[b].value = cells[a].value;
            }
        });
        plant(Rule::Majority, &|cells| {
            let i = at(cells, ["mmim", "acc2", "r=0"], 10);
            cells[i].value = 0.69;
        });
        plant(Rule::Nested, &|cells| {
            let i = at(cells, ["mmim", "acc5", "r=0"], 9);
            cells[i].value = 0.3;
        });
    }
}
