//! Values far off the line through their neighbors.
//!
//! A metric falls smoothly with the missing rate. Each value is compared with the polynomial through its
//! nearest neighbors at other rates. The scale follows from the values of all models for the same metric
//! and dataset: 1.4826 times the median distance, which a few wrong values cannot move; or from the line
//! itself if that is noisier, unless the value has the digits of another model.

use super::{
    Cell, Finding, Rule, Severity,
    cell::{by, column, median, noise, show},
};
use std::collections::BTreeMap;

/// The distance in robust standard deviations that is a finding.
const FAR: f64 = 6.0;
/// The least number of rates of a line.
const RATES: usize = 5;
/// The least number of distances for a scale.
const SCALE: usize = 6;
/// The least number of inner values for a line's own scale: one wrong value affects three of them.
const OWN: usize = 8;
/// How much more chance moves the distance of an end than of an inner value, at least: three neighbors
/// on one side have the weights 3, -3 and 1, four on both sides -1/6, 2/3, 2/3 and -1/6.
const END: f64 = 3.2;
/// The most wrong values searched in one line.
const WRONG: usize = 3;

/// One metric of one model over the rates.
struct Line<'a> {
    cells: Vec<&'a Cell>,
    rates: Vec<f64>,
    own: f64,
}

/// A value and its distance from the line.
struct Off {
    at: usize,
    expected: f64,
    /// In units of the scale of its line.
    far: f64,
    /// In units of the scale of all lines.
    common: f64,
}

/// Scales by metric; the ends of lines, with neighbors on one side only, have their own.
type Scales = BTreeMap<(String, bool), f64>;

/// Finds values far off their line: one finding each.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of_rates = cells.iter().filter(|cell| cell.place.rate().is_some());
    for cells in by(of_rates, |p| (p.table, p.dataset)).into_values() {
        let lines: Vec<Line<'_>> = by(cells, column)
            .into_values()
            .filter_map(Line::new)
            .collect();
        let scales = scales(&lines);
        let offs: Vec<Vec<Off>> = lines
            .iter()
            .map(|line| line.offs(&scales, &lines))
            .collect();
        for (line, found) in lines.iter().zip(&offs) {
            for off in found {
                findings.push(finding(line, off, &lines, &scales));
            }
        }
    }
    findings
}

impl<'a> Line<'a> {
    fn new(mut cells: Vec<&'a Cell>) -> Option<Self> {
        cells.sort_by(|a, b| {
            a.place
                .rate()
                .partial_cmp(&b.place.rate())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let rates: Vec<f64> = cells.iter().filter_map(|cell| cell.place.rate()).collect();
        let distinct = rates.windows(2).all(|two| two[0] < two[1]);
        if rates.len() < RATES || !distinct {
            return None;
        }
        let mut line = Self {
            cells,
            rates,
            own: 0.0,
        };
        line.own = line.own_scale();
        Some(line)
    }

    fn values(&self) -> Vec<f64> {
        self.cells.iter().map(|cell| cell.value).collect()
    }

    fn is_end(&self, at: usize) -> bool {
        at == 0 || at + 1 == self.rates.len()
    }

    fn metric(&self) -> &str {
        &self.cells[0].place.metric
    }

    /// The value at `at` by its nearest neighbors: `reach` on each side, or three on the one side of an
    /// end.
    fn expected(&self, values: &[f64], at: usize, reach: usize) -> f64 {
        let last = self.rates.len() - 1;
        let near: Vec<usize> = if at == 0 {
            (1..=3).collect()
        } else if at == last {
            (last - 3..last).collect()
        } else {
            // As many on both sides: an asymmetric line would bend.
            let reach = reach.min(at).min(last - at);
            (at - reach..=at + reach).filter(|&i| i != at).collect()
        };
        let x = self.rates[at];
        near.iter()
            .map(|&i| {
                let others = near.iter().filter(|&&j| j != i);
                let weight: f64 = others
                    .map(|&j| (x - self.rates[j]) / (self.rates[i] - self.rates[j]))
                    .product();
                weight * values[i]
            })
            .sum()
    }

    /// The line's own scale, if it is long enough: a model that is noisier than the others is not wrong
    /// for that.
    fn own_scale(&self) -> f64 {
        let values = self.values();
        let inner = 1..values.len() - 1;
        if inner.len() < OWN {
            return 0.0;
        }
        let middle = |reach| {
            let distances: Vec<f64> = inner
                .clone()
                .map(|at| (values[at] - self.expected(&values, at, reach)).abs())
                .collect();
            median(&distances).unwrap_or_default()
        };
        1.4826 * middle(2).min(middle(1))
    }

    fn distance(&self, values: &[f64], at: usize, scales: &Scales) -> Option<Off> {
        let common = *scales.get(&(self.metric().to_owned(), self.is_end(at)))?;
        let scale = if self.is_end(at) {
            common.max(END * self.own)
        } else {
            common.max(self.own)
        };
        let expected = self.expected(values, at, 2);
        Some(Off {
            at,
            expected,
            far: (values[at] - expected).abs() / scale,
            common: (values[at] - expected).abs() / common,
        })
    }

    /// The values far off. A wrong value bends the line for its neighbors, too: of all candidates, the
    /// one is taken whose repair reduces the total distance most; then the next is searched.
    fn offs(&self, scales: &Scales, lines: &[Line<'_>]) -> Vec<Off> {
        let mut values = self.values();
        let all_off = |values: &[f64]| -> f64 {
            let offs = (0..values.len()).filter_map(|at| self.distance(values, at, scales));
            offs.map(|off| off.far).sum()
        };
        let mut found = Vec::new();
        for _ in 0..WRONG {
            let before = all_off(&values);
            let best = (0..values.len())
                .filter_map(|at| self.distance(&values, at, scales))
                .map(|off| {
                    // The digits of another model are not noise of this one.
                    let copied = off.common >= FAR && !twins(self.cells[off.at], lines).is_empty();
                    let far = if copied { off.common } else { off.far };
                    Off { far, ..off }
                })
                .filter(|off| off.far >= FAR)
                .map(|off| {
                    let mut repaired = values.clone();
                    repaired[off.at] = off.expected;
                    (all_off(&repaired), off)
                })
                .min_by(|a, b| a.0.total_cmp(&b.0));
            match best {
                Some((after, off)) if after < before => {
                    values[off.at] = off.expected;
                    found.push(off);
                }
                _ => break,
            }
        }
        found
    }
}

fn scales(lines: &[Line<'_>]) -> Scales {
    // Distances by the wide and the narrow neighborhood: a wrong value affects four others of the
    // former and two of the latter, which matters with few lines.
    let mut distances: BTreeMap<(String, bool), [Vec<f64>; 2]> = BTreeMap::new();
    let mut floors: BTreeMap<String, f64> = BTreeMap::new();
    for line in lines {
        let values = line.values();
        floors.insert(line.metric().to_owned(), noise(line.cells[0]));
        for at in 0..values.len() {
            let key = (line.metric().to_owned(), line.is_end(at));
            let both = distances.entry(key).or_default();
            for (reach, distances) in [2, 1].into_iter().zip(both) {
                let expected = line.expected(&values, at, reach);
                distances.push((values[at] - expected).abs());
            }
        }
    }
    let mut scales: Scales = distances
        .into_iter()
        .filter(|(_, [wide, _])| wide.len() >= SCALE)
        .filter_map(|((metric, end), [wide, narrow])| {
            let middle = median(&wide)?.min(median(&narrow)?);
            let floor = floors.get(&metric).copied().unwrap_or_default();
            Some(((metric, end), (1.4826 * middle).max(floor)))
        })
        .collect();
    for (metric, _) in floors {
        let inner = scales.get(&(metric.clone(), false)).copied();
        match (inner, scales.get_mut(&(metric.clone(), true))) {
            (Some(inner), Some(end)) => *end = end.max(END * inner),
            // Too few lines for a scale of their ends.
            (Some(inner), None) => {
                scales.insert((metric, true), END * inner);
            }
            (None, _) => {}
        }
    }
    scales
}

/// The models with the same digits at the same place.
fn twins(cell: &Cell, lines: &[Line<'_>]) -> Vec<String> {
    let place = &cell.place;
    lines
        .iter()
        .filter(|line| line.metric() == place.metric)
        .flat_map(|line| &line.cells)
        .filter(|other| {
            let p = &other.place;
            other.value == cell.value && p.model != place.model && p.case == place.case
        })
        .map(|other| other.place.label())
        .collect()
}

fn finding(line: &Line<'_>, off: &Off, lines: &[Line<'_>], scales: &Scales) -> Finding {
    let cell = line.cells[off.at];
    let place = &cell.place;
    let mut numbers = vec![format!(
        "{} {}: {}; its neighbors suggest {}: {:.0} robust standard deviations off",
        place.metric,
        place.case_text(),
        cell.text(),
        show(place, off.expected),
        off.far
    )];
    let sisters: Vec<String> = lines
        .iter()
        .filter(|other| {
            let p = &other.cells[0].place;
            (&p.model, p.seed) == (&place.model, place.seed) && p.metric != place.metric
        })
        .filter_map(|other| {
            let at = other.rates.iter().position(|r| Some(*r) == place.rate())?;
            let off = other.distance(&other.values(), at, scales)?;
            Some(format!("{} {:.1}", other.metric(), off.far))
        })
        .collect();
    if !sisters.is_empty() {
        numbers.push(format!(
            "the other metrics at the same rate: {}",
            sisters.join(", ")
        ));
    }
    let twins = twins(cell, lines);
    if !twins.is_empty() {
        numbers.push(format!("the same digits there: {}", twins.join(", ")));
    }
    Finding::new(
        Rule::Trend,
        Severity::Warning,
        "the value breaks the line of its neighbors",
        vec![place.clone()],
        numbers,
    )
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    /// Lines that fall like the paper's, with small bumps.
    fn lines() -> Vec<Cell> {
        let mut cells = Vec::new();
        for (m, method) in ["lnln", "almt", "misa"].iter().enumerate() {
            for i in 0..10 {
                let r = f64::from(i) / 10.0;
                let bump = 0.003 * f64::from((i * 7 + m as i32 * 3) % 5 - 2);
                let value = 0.45 - 0.25 * r * (1.5 - 0.5 * r) + bump;
                cells.push(cell(9, method, "acc5", &format!("r={r}"), value));
            }
        }
        cells
    }

    #[test]
    fn smooth_lines_have_no_finding() {
        assert_eq!(check(&lines()), []);
    }

    #[test]
    fn one_wrong_value_is_one_finding() {
        let mut cells = lines();
        cells[7].value = 0.5986;
        let found = check(&cells);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].places, [cells[7].place.clone()]);
    }

    #[test]
    fn wrong_value_is_found_in_a_single_line() {
        let mut cells = lines();
        cells.truncate(10);
        assert_eq!(check(&cells), []);
        cells[4].value += 0.2;
        let found = check(&cells);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].places[0].case_text(), "r=0.4");
    }

    #[test]
    fn wrong_value_is_found_at_the_end_of_a_line() {
        let mut cells = lines();
        cells[9].value += 0.2;
        let found = check(&cells);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].places[0].case_text(), "r=0.9");
    }
}
