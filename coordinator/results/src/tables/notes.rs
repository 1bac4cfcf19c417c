//! What a table rests on, and what is missing.

use super::{
    layout::{self, Layout},
    protocols,
};
use halfheard_shared::{
    benchmark::Benchmark,
    numerics::Numerics,
    results::{Job, JobOutcome, Model, Results},
    text::count,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most lines about what is missing.
const MISSING_LINES: usize = 10;

/// The notes of a table that shows `datasets`.
pub(super) fn notes(results: &Results, layout: Layout, datasets: &[Benchmark]) -> Vec<String> {
    let jobs = results.evaluations(layout.kind);
    let jobs: Vec<&Job> = jobs.filter(|job| datasets.contains(&job.dataset)).collect();
    about(results, &jobs)
}

/// What numbers of these evaluation jobs rest on.
pub(super) fn about(results: &Results, jobs: &[&Job]) -> Vec<String> {
    let sweep = &results.sweep;
    let mut notes = vec![format!("sweep {} ({})", sweep.name, sweep.id)];
    if jobs.is_empty() {
        return notes;
    }
    let models: BTreeSet<&Model> = jobs.iter().map(|job| &job.model).collect();
    let shown = |model: &Model| models.contains(model);
    notes.extend(protocols::lines(&results.protocols, shown));
    notes.extend(processors(&results.processors));
    notes.extend(imported(&results.imported, jobs));
    notes.extend(external(&results.external, jobs));
    let seeds: BTreeSet<u64> = jobs.iter().map(|job| job.seed).collect();
    let of = |outcome| jobs.iter().filter(|job| job.outcome == outcome).count();
    let (completed, failed) = (of(JobOutcome::Done), of(JobOutcome::Failed));
    notes.push(format!(
        "means over {}; {completed} of {} evaluations are done",
        count(seeds.len(), "seed"),
        jobs.len()
    ));
    if completed < jobs.len() {
        notes.extend(missing(jobs));
    }
    if failed > 0 {
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
fn imported(models: &[Model], jobs: &[&Job]) -> Option<String> {
    let shown = |model: &&Model| jobs.iter().any(|job| job.model == **model);
    let shown: Vec<String> = models.iter().filter(shown).map(layout::label).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "imported predictions of models that were trained elsewhere: {}",
            shown.join(", ")
        )
    })
}

/// The external programs of the table.
fn external(programs: &[(String, String)], jobs: &[&Job]) -> Option<String> {
    let shown = |method: &str| jobs.iter().any(|job| job.model.method == method);
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
fn missing(jobs: &[&Job]) -> Vec<String> {
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
        let incomplete: Vec<String> = incomplete
            .map(|(seed, (completed, all))| format!("seed {seed} ({completed} of {all})"))
            .collect();
        if !incomplete.is_empty() {
            lines.push(format!(
                "incomplete: {label} on {}: {}; {} of {} complete",
                layout::dataset_title(dataset),
                incomplete.join(", "),
                seeds.len() - incomplete.len(),
                count(seeds.len(), "seed")
            ));
        }
    }
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
    fn external_programs_of_a_table_are_named_with_their_files() {
        let job = |method: &str| Job {
            id: JobId::derive(&[method.as_bytes()]),
            dataset: Benchmark::Mosi,
            model: Model::new(method, "wide"),
            seed: 1,
            case: None,
            outcome: JobOutcome::Done,
            error: None,
        };
        let program = |method: &str, digit: &str| (method.to_owned(), digit.repeat(64));
        let programs = [program("my-model", "a"), program("other", "b")];
        let (mine, almt) = (job("my-model"), job("almt"));
        assert_eq!(
            external(&programs, &[&mine, &almt]).unwrap(),
            "external programs: my-model (files aaaaaaaa)"
        );
        assert_eq!(external(&programs, &[&almt]), None);
    }
}
