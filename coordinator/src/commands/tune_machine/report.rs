//! What is printed.

use crate::{
    submission::memory::gigabytes,
    tuning::{Candidate, Choice, Machine, Measured, Tuning, shares},
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_shared::text::{count, quoted_path};
use serde::Serialize;
use std::{fmt, path::Path};

/// A candidate that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Skipped {
    #[serde(flatten)]
    pub(super) candidate: Candidate,
    /// Bytes of memory that its slots would need.
    pub(super) needed: u64,
}

/// What was measured of a candidate.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    /// Its speed as a share of the fastest.
    share: f64,
    /// The most bytes of memory of all slots together.
    memory: u64,
}

/// The report of a measurement.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    machine: &'a Machine,
    gpus: usize,
    candidates: Vec<Row<'a>>,
    skipped: &'a [Skipped],
    chosen: Candidate,
    /// Whether faster ones need more memory than there is.
    limited_by_memory: bool,
    file: &'a Path,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        tuning: &'a Tuning,
        skipped: &'a [Skipped],
        choice: Choice,
        gpus: usize,
        file: &'a Path,
    ) -> Self {
        let rows = tuning.candidates.iter().zip(shares(&tuning.candidates));
        let row = |(measured, share): (&'a Measured, f64)| Row {
            measured,
            share,
            memory: measured.slot_memory() * measured.candidate.slots as u64,
        };
        Self {
            machine: &tuning.machine,
            gpus,
            candidates: rows.map(row).collect(),
            skipped,
            chosen: choice.candidate,
            limited_by_memory: choice.limited,
            file,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        let first = self.candidates.first();
        let methods = first.map_or(&[][..], |row| &row.measured.methods);
        let mut header = vec!["workers x threads".to_owned()];
        header.extend(methods.iter().map(|m| format!("{} steps/s", m.method)));
        header.extend(["speed", "memory"].map(str::to_owned));
        table.set_header(header);
        for row in &self.candidates {
            let candidate = row.measured.candidate;
            let mark = if candidate == self.chosen { " *" } else { "" };
            let mut cells = vec![format!("{candidate}{mark}")];
            let rates = row.measured.methods.iter();
            cells.extend(rates.map(|m| digits(m.steps_per_second)));
            cells.push(format!("{:.0} %", 100.0 * row.share));
            cells.push(gigabytes(row.memory));
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// Three digits.
fn digits(rate: f64) -> String {
    match rate {
        100.0.. => format!("{rate:.0}"),
        10.0.. => format!("{rate:.1}"),
        1.0.. => format!("{rate:.2}"),
        _ => format!("{rate:.3}"),
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine;
        writeln!(
            f,
            "{} of {}, {} of memory, {}",
            count(machine.cores, "core"),
            machine.processor,
            gigabytes(machine.memory),
            machine.build
        )?;
        if self.gpus > 0 {
            writeln!(
                f,
                "`coord run` gives each of the {} here one worker: several on one GPU take turns, and each needs its \
                 own CUDA context and memory. What follows is for `--device cpu`.",
                count(self.gpus, "GPU")
            )?;
        }
        writeln!(f, "{}", self.table())?;
        for Skipped { candidate, needed } in self.skipped {
            writeln!(
                f,
                "{candidate} was not measured: it needs about {}",
                gigabytes(*needed)
            )?;
        }
        if self.limited_by_memory {
            writeln!(f, "faster ones need more memory than is free")?;
        }
        let Candidate { slots, threads } = self.chosen;
        writeln!(
            f,
            "`coord run` starts {} of {} here from now on, fewer if a spec needs more memory (kept in {}).\n\
             On a cluster: worker --slots {slots} --threads {threads}",
            count(slots, "worker"),
            count(threads, "thread"),
            quoted_path(self.file),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::{MethodRate, Room, choose};

    #[test]
    fn report_names_choice_and_what_does_not_fit() {
        let measured = |slots, threads, rate| Measured {
            candidate: Candidate { slots, threads },
            methods: vec![MethodRate {
                method: "almt".to_owned(),
                steps_per_second: rate,
                slot_memory: 2_000_000_000,
            }],
        };
        let machine = Machine {
            host: "lab".to_owned(),
            processor: "AMD EPYC".to_owned(),
            cores: 4,
            memory: 6_000_000_000,
            build: "worker 0.1.0".to_owned(),
        };
        let tuning = Tuning::new(machine, vec![measured(1, 4, 1.0), measured(2, 2, 1.25)]);
        let choice = choose(&tuning.candidates, Room::default()).unwrap();
        let skipped = [Skipped {
            candidate: Candidate {
                slots: 4,
                threads: 1,
            },
            needed: 8_800_000_000,
        }];
        let file = Path::new("/data/machines/lab.json");
        let report = Report::new(&tuning, &skipped, choice, 0, file);
        insta::assert_snapshot!(report);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["chosen"]["slots"], 2);
        assert_eq!(json["candidates"][0]["share"], 0.8);
        assert_eq!(json["candidates"][1]["memory"], 4_000_000_000_u64);
        let with_gpus = Report::new(&tuning, &[], choice, 2, file).to_string();
        assert!(with_gpus.contains("each of the 2 GPUs here one worker"));
    }
}
