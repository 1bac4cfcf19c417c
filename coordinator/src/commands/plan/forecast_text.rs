//! A forecast as text for people.

use super::{
    estimate::duration,
    forecast::{Cost, Forecast, Row, Source, Unit},
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_shared::text::count;
use std::fmt;

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "method",
            "dataset",
            "epochs",
            "a training",
            "an evaluation",
            "from",
        ]);
        for row in &self.rows {
            table.add_row([
                row.method.clone(),
                row.dataset.clone(),
                epochs(row),
                cost(&row.training),
                cost(&row.evaluation),
                sources(row),
            ]);
        }
        for column in table.column_iter_mut().skip(2).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        self.write_total(f)
    }
}

impl Forecast {
    fn write_total(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        if total.flop > 0.0 {
            writeln!(f, "work: {}", flop(total.flop, ""))?;
        }
        if total.device_hours > 0.0 {
            let seconds = |hours: f64| duration(hours * 3600.0);
            let (most, expected) = (total.device_hours, total.expected_device_hours);
            let sooner = |most: f64, expected: f64| match expected < most {
                true => format!("{} expected, {} at most", seconds(expected), seconds(most)),
                false => seconds(most),
            };
            let on = match &self.hardware {
                Some(hardware) => format!(" on {hardware}"),
                None => " where it was measured".to_owned(),
            };
            writeln!(
                f,
                "time: about {} of device time{on}",
                sooner(most, expected)
            )?;
            if let Some(hardware) = self
                .hardware
                .as_ref()
                .filter(|hardware| hardware.devices > 1)
            {
                writeln!(
                    f,
                    "from beginning to end: about {} on {}, the longest training with an evaluation {}",
                    sooner(total.makespan_hours, total.expected_makespan_hours),
                    count(hardware.devices as usize, "device"),
                    seconds(total.longest_chain_hours)
                )?;
            }
        }
        let early = |row: &&Row| row.stops_early && row.training_jobs > 0;
        let unseen = self.rows.iter().filter(early);
        let unseen = unseen.filter(|row| row.expected_epochs.is_none()).count();
        if unseen > 0 {
            let models = count(unseen, "model");
            writeln!(
                f,
                "early stopping ends trainings of {models} sooner; by how much is not measured, so all epochs \
                 count"
            )?;
        }
        match (self.unknown.as_slice(), &self.hardware) {
            ([], _) => Ok(()),
            (unknown, None) => writeln!(
                f,
                "time of {} is not known: nothing of it was measured; `--hardware h100x8` estimates it",
                several(unknown)
            ),
            (unknown, Some(_)) => writeln!(
                f,
                "time of {} is not known: nothing of it was measured there, and its operations cannot be counted",
                several(unknown)
            ),
        }
    }
}

/// The first, and how many more.
fn several(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

fn epochs(row: &Row) -> String {
    match (row.expected_epochs, row.stops_early) {
        (Some(expected), true) => format!("{expected:.0} of up to {}", row.max_epochs),
        (None, true) => format!("up to {}", row.max_epochs),
        (_, false) => row.max_epochs.to_string(),
    }
}

/// Its time or, where that is not known, its work.
fn cost(cost: &Cost) -> String {
    match (cost.expected_seconds, cost.seconds, cost.flop) {
        (Some(expected), ..) => duration(expected),
        (None, Some(seconds), _) => duration(seconds),
        (None, None, Some(work)) => flop(work, ""),
        (None, None, None) => "unknown".to_owned(),
    }
}

/// From where both times are known.
fn sources(row: &Row) -> String {
    let (first, second) = (&row.training.source, &row.evaluation.source);
    let training = source(first, "training", "step", row.step_flop);
    let evaluation = source(second, "evaluation", "sample", row.sample_flop);
    match (row.training_jobs, row.evaluation_jobs, first, second) {
        (0, ..) => evaluation,
        (_, 0, ..) => training,
        (
            ..,
            Source::Measured { device, jobs },
            Source::Measured {
                device: other,
                jobs: evaluations,
            },
        ) if device == other => format!(
            "measured on {device} ({}, {})",
            number(*jobs, "training"),
            number(*evaluations, "evaluation")
        ),
        (.., Source::Measured { .. }, _) | (.., Source::Measured { .. }) => {
            format!("{training}; {evaluation}")
        }
        // One rate, one count of operations: that of a step says it.
        _ => training,
    }
}

fn number(jobs: u64, noun: &str) -> String {
    count(usize::try_from(jobs).unwrap_or(usize::MAX), noun)
}

fn source(source: &Source, job: &str, each: &str, work: Option<f64>) -> String {
    match source {
        Source::Measured { device, jobs } => {
            format!("measured on {device} ({})", number(*jobs, job))
        }
        Source::Estimated {
            amount,
            unit: Unit::Flop,
            per_second,
        } => format!(
            "estimated from {} a {each} at {}",
            flop(*amount, ""),
            flop(*per_second, "/s")
        ),
        Source::Estimated {
            amount,
            unit: Unit::Bytes,
            per_second,
        } => format!(
            "estimated from {} a {each} at {}",
            scaled(*amount, "B"),
            scaled(*per_second, "B/s")
        ),
        Source::Unknown => work.map_or_else(
            || "not known".to_owned(),
            |work| format!("{} a {each}", flop(work, "")),
        ),
    }
}

/// Operations as `3.1 TFLOP`.
fn flop(operations: f64, per: &str) -> String {
    scaled(operations, &format!("FLOP{per}"))
}

/// Two digits at least, with a decimal prefix.
fn scaled(number: f64, unit: &str) -> String {
    let prefixes = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
    ];
    // What rounds to a thousand has the next prefix.
    let (scale, prefix) = prefixes
        .into_iter()
        .find(|(scale, _)| number >= 0.9995 * scale)
        .unwrap_or((1e3, "k"));
    let number = number / scale;
    match number < 9.95 {
        true => format!("{number:.1} {prefix}{unit}"),
        false => format!("{number:.0} {prefix}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_prefix_that_fits() {
        for (number, text) in [
            (3.14e12, "3.1 TFLOP"),
            (33.5e12, "34 TFLOP"),
            (999.6e9, "1.0 TFLOP"),
            (8.1e19, "81 EFLOP"),
            (12.0, "0.0 kFLOP"),
        ] {
            assert_eq!(flop(number, ""), text);
        }
        assert_eq!(flop(33.4e12, "/s"), "33 TFLOP/s");
        assert_eq!(scaled(4.2e9, "B"), "4.2 GB");
    }
}
