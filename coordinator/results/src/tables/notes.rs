//! What a table rests on, and what is missing.

use super::{
    layout::{self, Layout},
    protocols,
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    numerics::Numerics,
    results::{Job, JobOutcome, JobTally, Model, Results},
    text::count,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most lines about what is missing.
const MISSING_LINES: usize = 10;
/// The most seeds in such a line.
const MISSING_SEEDS: usize = 10;

/// The notes of a table that shows `datasets`.
pub(super) fn notes(results: &Results, layout: Layout, datasets: &[Benchmark]) -> Vec<String> {
    about(results, |dataset, case| {
        case.kind() == Some(layout.kind) && datasets.contains(&dataset)
    })
}

/// What numbers of evaluations on the cases for which `shown` is true rest on.
pub(super) fn about(results: &Results, shown: impl Fn(Benchmark, Case) -> bool) -> Vec<String> {
    let sweep = &results.sweep;
    let mut notes = vec![format!("sweep {} ({})", sweep.name, sweep.id)];
    let tallies: Vec<&JobTally> = results.evaluations(&shown).collect();
    let of = |outcome| JobTally::with(tallies.iter().copied(), outcome);
    let all = JobTally::all(tallies.iter().copied());
    if all == 0 {
        return notes;
    }
    let models: BTreeSet<&Model> = tallies.iter().map(|tally| &tally.model).collect();
    notes.extend(protocols::lines(&results.protocols, |model| {
        models.contains(model)
    }));
    notes.extend(processors(&results.processors));
    notes.extend(imported(&results.imported, &models));
    notes.extend(external(&results.external, &models));
    let (completed, failed) = (of(JobOutcome::Done), of(JobOutcome::Failed));
    notes.push(format!(
        "means over {}; {completed} of {all} evaluations are done",
        count(results.seeds(&shown), "seed")
    ));
    if completed < all {
        notes.extend(match &results.jobs {
            Some(jobs) => {
                let jobs = jobs.iter();
                missing_seeds(
                    jobs.filter(|job| job.case.is_some_and(|case| shown(job.dataset, case))),
                )
            }
            None => missing_evaluations(&tallies),
        });
    }
    if failed > 0 {
        let failed = usize::try_from(failed).unwrap_or(usize::MAX);
        notes.push(format!(
            "{} failed: see `coord status {}`",
            count(failed, "evaluation"),
            sweep.id.short()
        ));
    }
    notes
}

/// The kinds of processors behind the results, and whether their bits depend on them.
fn processors(kinds: &[String]) -> Option<String> {
    match kinds {
        [] => None,
        [one] if one == Numerics::Portable.as_str() => {
            Some("numerics: portable, the same bits on every x86-64 with AVX2".to_owned())
        }
        [one] => Some(format!("computed on {one}")),
        several => Some(format!(
            "computed on {} kinds of processors, which differ in the last bits: {}",
            several.len(),
            several.join(", ")
        )),
    }
}

/// The models of the table that were trained elsewhere.
fn imported(imported: &[Model], models: &BTreeSet<&Model>) -> Option<String> {
    let shown = imported.iter().filter(|model| models.contains(model));
    let shown: Vec<String> = shown.map(layout::label).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "imported predictions of models that were trained elsewhere: {}",
            shown.join(", ")
        )
    })
}

/// The external programs of the table.
fn external(programs: &[(String, String)], models: &BTreeSet<&Model>) -> Option<String> {
    let shown = |method: &str| models.iter().any(|model| model.method == method);
    let shown: Vec<String> = programs
        .iter()
        .filter(|(method, _)| shown(method))
        .map(|(method, bundle)| {
            let short: String = bundle.chars().take(8).collect();
            format!("{method} (files {short})")
        })
        .collect();
    (!shown.is_empty()).then(|| format!("external programs: {}", shown.join(", ")))
}

/// One line for each model with incomplete seeds.
fn missing_seeds<'j>(jobs: impl Iterator<Item = &'j Job>) -> Vec<String> {
    // By dataset and model, the finished and all evaluations of each seed.
    type Seeds = BTreeMap<u64, (usize, usize)>;
    let mut models: BTreeMap<(&str, String), Seeds> = BTreeMap::new();
    for job in jobs {
        let key = (job.dataset.id(), layout::label(&job.model));
        let seed = models.entry(key).or_default().entry(job.seed).or_default();
        seed.0 += usize::from(job.outcome == JobOutcome::Done);
        seed.1 += 1;
    }
    let mut lines = Vec::new();
    for ((dataset, label), seeds) in models {
        let incomplete = seeds.iter().filter(|(_, (completed, all))| completed < all);
        let mut incomplete: Vec<String> = incomplete
            .map(|(seed, (completed, all))| format!("seed {seed} ({completed} of {all})"))
            .collect();
        if incomplete.is_empty() {
            continue;
        }
        let complete = seeds.len() - incomplete.len();
        let more = incomplete.len().saturating_sub(MISSING_SEEDS);
        if more > 0 {
            incomplete.truncate(MISSING_SEEDS);
            incomplete.push(format!("{more} more"));
        }
        lines.push(format!(
            "incomplete: {label} on {}: {}; {complete} of {} complete",
            layout::dataset_title(dataset),
            incomplete.join(", "),
            count(seeds.len(), "seed")
        ));
    }
    at_most(lines)
}

/// One line for each model with open evaluations.
fn missing_evaluations(tallies: &[&JobTally]) -> Vec<String> {
    let mut models: BTreeMap<(&str, String), (u64, u64)> = BTreeMap::new();
    for tally in tallies {
        let key = (tally.dataset.id(), layout::label(&tally.model));
        let (completed, all) = models.entry(key).or_default();
        if tally.outcome == JobOutcome::Done {
            *completed += tally.jobs;
        }
        *all += tally.jobs;
    }
    let incomplete = models.into_iter().filter(|(_, (done, all))| done < all);
    at_most(
        incomplete
            .map(|((dataset, label), (completed, all))| {
                let dataset = layout::dataset_title(dataset);
                format!("incomplete: {label} on {dataset}: {completed} of {all} evaluations")
            })
            .collect(),
    )
}

/// The first lines, and how many more models there are.
fn at_most(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MISSING_LINES);
    if more > 0 {
        lines.truncate(MISSING_LINES);
        lines.push(format!("and {} more", count(more, "model")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::ids::JobId;

    #[test]
    fn incomplete_models_are_named_in_bounded_lines() {
        let job = |seed: u64, outcome| Job {
            id: JobId::derive(&[&seed.to_le_bytes()]),
            dataset: Benchmark::Mosi,
            model: Model::new("lnln", ""),
            seed,
            case: None,
            outcome,
            error: None,
        };
        let mut jobs: Vec<Job> = (1..=40).map(|seed| job(seed, JobOutcome::Open)).collect();
        jobs.push(job(99, JobOutcome::Done));
        let lines = missing_seeds(jobs.iter());
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert!(line.starts_with("incomplete: LNLN on MOSI: seed 1 (0 of 1), seed 2 (0 of 1)"));
        assert!(
            line.ends_with("seed 10 (0 of 1), 30 more; 1 of 41 seeds complete"),
            "{line}"
        );

        // Of so many jobs that they are only counted.
        let tally = |method: &str, outcome, jobs| JobTally {
            dataset: Benchmark::Mosi,
            model: Model::new(method, ""),
            case: None,
            outcome,
            jobs,
        };
        let tallies = [
            tally("lnln", JobOutcome::Done, 30),
            tally("lnln", JobOutcome::Open, 36_970),
            tally("almt", JobOutcome::Done, 37_000),
        ];
        assert_eq!(
            missing_evaluations(&tallies.each_ref()),
            ["incomplete: LNLN on MOSI: 30 of 37000 evaluations"]
        );
        let many: Vec<JobTally> = (0..12)
            .map(|n| tally(&format!("method-{n:02}"), JobOutcome::Open, 1))
            .collect();
        let lines = missing_evaluations(&many.iter().collect::<Vec<_>>());
        assert_eq!((lines.len(), lines[10].as_str()), (11, "and 2 models more"));
    }

    #[test]
    fn external_programs_of_a_table_are_named_with_their_files() {
        let program = |method: &str, digit: &str| (method.to_owned(), digit.repeat(64));
        let programs = [program("my-model", "a"), program("other", "b")];
        let (mine, almt) = (Model::new("my-model", "wide"), Model::new("almt", "wide"));
        assert_eq!(
            external(&programs, &BTreeSet::from([&mine, &almt])).unwrap(),
            "external programs: my-model (files aaaaaaaa)"
        );
        assert_eq!(external(&programs, &BTreeSet::from([&almt])), None);
    }
}
