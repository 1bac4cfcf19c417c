//! What the jobs themselves say: what is not there, what came out twice and differently, what the
//! results rest on.

use super::{
    Finding, Place, Rule, Severity,
    load::{Job, Loaded},
};
use std::collections::{BTreeMap, BTreeSet};

/// The paper's number of seeds.
const SEEDS: usize = 3;

pub(super) fn check(loaded: &Loaded) -> Vec<Finding> {
    let mut findings = failed(loaded);
    findings.extend(open(loaded));
    findings.extend(absent(loaded));
    findings.extend(without_results(loaded));
    findings.extend(few_seeds(loaded));
    findings.extend(conflicts(loaded));
    findings.extend(sizes(loaded));
    findings.extend(test_selection(loaded));
    findings
}

fn kind(job: &Job) -> &'static str {
    if job.case.is_some() {
        "evaluation"
    } else {
        "training"
    }
}

/// Jobs that were given up or cancelled: one finding for each model.
fn failed(loaded: &Loaded) -> Vec<Finding> {
    let mut models: BTreeMap<_, Vec<&Job>> = BTreeMap::new();
    let ended = |job: &&Job| job.state == "failed" || job.state == "cancelled";
    for job in loaded.jobs.iter().filter(ended) {
        let key = (job.dataset, &job.method, &job.variant);
        models.entry(key).or_default().push(job);
    }
    models
        .into_values()
        .map(|jobs| {
            let line = |job: &&Job| {
                let case = job.case.as_deref().unwrap_or_default();
                let error = job.error.as_deref().unwrap_or_default();
                format!(
                    "{} of seed {} {case} {}: {error}",
                    kind(job),
                    job.seed,
                    job.state
                )
                .trim_end_matches([' ', ':'])
                .to_owned()
            };
            Finding::new(
                Rule::Incomplete,
                Severity::Warning,
                format!("{} of its jobs failed or were cancelled", jobs.len()),
                jobs.iter().map(|job| job.place()).collect(),
                jobs.iter().map(line).collect(),
            )
        })
        .collect()
}

/// What is still being worked on: one note.
fn open(loaded: &Loaded) -> Option<Finding> {
    let open: Vec<&Job> = loaded
        .jobs
        .iter()
        .filter(|job| !["done", "failed", "cancelled"].contains(&job.state.as_str()))
        .collect();
    (!open.is_empty()).then(|| {
        Finding::new(
            Rule::Incomplete,
            Severity::Note,
            "the sweep is not finished",
            open.iter().map(|job| job.place()).collect(),
            vec![format!(
                "{} of {} jobs are not done",
                open.len(),
                loaded.jobs.len()
            )],
        )
    })
}

/// Every model should have every seed and every case that any model has.
fn absent(loaded: &Loaded) -> Vec<Finding> {
    let seeds: BTreeSet<u64> = loaded.jobs.iter().map(|job| job.seed).collect();
    let cases: BTreeSet<&Option<String>> = loaded.jobs.iter().map(|job| &job.case).collect();
    let mut models: BTreeMap<_, BTreeSet<(u64, &Option<String>)>> = BTreeMap::new();
    for job in &loaded.jobs {
        let key = (job.dataset, &job.method, &job.variant);
        models.entry(key).or_default().insert((job.seed, &job.case));
    }
    models
        .into_iter()
        .filter_map(|((dataset, method, variant), there)| {
            let absent: Vec<(u64, &Option<String>)> = seeds
                .iter()
                .flat_map(|&seed| cases.iter().map(move |&case| (seed, case)))
                .filter(|one| !there.contains(one))
                .collect();
            let line = |(seed, case): &(u64, &Option<String>)| match case {
                Some(case) => format!("evaluation of seed {seed} on {case}"),
                None => format!("training of seed {seed}"),
            };
            (!absent.is_empty()).then(|| {
                Finding::new(
                    Rule::Incomplete,
                    Severity::Error,
                    "jobs that other models of the sweep have are not in the database",
                    absent
                        .iter()
                        .map(|(seed, case)| Place {
                            seed: Some(*seed),
                            case: (*case).clone().unwrap_or_default(),
                            ..super::load::place(dataset, method, variant)
                        })
                        .collect(),
                    absent.iter().map(line).collect(),
                )
            })
        })
        .collect()
}

/// Evaluations that are done and lack a criterion or a metric: one finding for each model.
fn without_results(loaded: &Loaded) -> Vec<Finding> {
    let mut models: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    for job in loaded.jobs.iter().filter(|job| job.is_done()) {
        let Some(case) = &job.case else { continue };
        let results = loaded.results.get(&job.id);
        let mut lacking = Vec::new();
        for criterion in job.dataset.criteria() {
            for metric in job.dataset.metrics() {
                let key = (criterion.id.to_owned(), metric.id.to_owned());
                if results.is_none_or(|results| !results.contains_key(&key)) {
                    lacking.push(format!("{} by {}", metric.id, criterion.id));
                }
            }
        }
        if !lacking.is_empty() {
            let key = (job.dataset, &job.method, &job.variant);
            let entry = models.entry(key).or_default();
            entry.0.push(job.place());
            entry.1.push(format!(
                "seed {} {case}: {} of {} values, first {}",
                job.seed,
                lacking.len(),
                job.dataset.criteria().len() * job.dataset.metrics().len(),
                lacking[0]
            ));
        }
    }
    models
        .into_values()
        .map(|(places, numbers)| {
            Finding::new(
                Rule::Incomplete,
                Severity::Error,
                "evaluations are done and their results are not all there",
                places,
                numbers,
            )
        })
        .collect()
}

fn few_seeds(loaded: &Loaded) -> Option<Finding> {
    let seeds: BTreeSet<u64> = loaded.jobs.iter().map(|job| job.seed).collect();
    let first = loaded.jobs.first()?;
    (seeds.len() < SEEDS).then(|| {
        let place = Place {
            seed: None,
            ..super::load::place(first.dataset, "", "")
        };
        let mut places: Vec<Place> = loaded
            .jobs
            .iter()
            .map(|job| Place {
                dataset: job.dataset,
                ..place.clone()
            })
            .collect();
        places.sort();
        places.dedup();
        let all: Vec<String> = seeds.iter().map(u64::to_string).collect();
        Finding::new(
            Rule::Incomplete,
            Severity::Note,
            "fewer seeds than the paper's three",
            places,
            vec![format!("seeds: {}", all.join(", "))],
        )
    })
}

/// Results that came twice and differ: one finding for each model.
fn conflicts(loaded: &Loaded) -> Vec<Finding> {
    let mut models: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    for conflict in &loaded.conflicts {
        let place = &conflict.place;
        let key = (place.dataset, &place.method, &place.variant);
        let entry = models.entry(key).or_default();
        entry.0.push(place.clone());
        let kept = match &conflict.first_worker {
            Some(worker) => format!("; kept is that of {worker}"),
            None => String::new(),
        };
        entry.1.push(format!(
            "seed {} {}: {} by {} on {} differs{kept}",
            place.seed.unwrap_or_default(),
            if place.case.is_empty() {
                "training"
            } else {
                &place.case
            },
            conflict.what,
            conflict.worker,
            conflict.device,
        ));
    }
    models
        .into_values()
        .map(|(places, numbers)| {
            Finding::new(
                Rule::Conflict,
                Severity::Error,
                "two attempts at the same job came out differently",
                places,
                numbers,
            )
        })
        .collect()
}

fn sizes(loaded: &Loaded) -> Vec<Finding> {
    let mut datasets: BTreeMap<_, usize> = BTreeMap::new();
    for file in &loaded.files {
        *datasets.entry(file.dataset).or_default() += 1;
    }
    let several = datasets.into_iter().filter(|(_, count)| *count > 1);
    let mut findings: Vec<Finding> = several
        .map(|(dataset, count)| {
            Finding::new(
                Rule::SplitSize,
                Severity::Error,
                "models of one dataset were trained on different files",
                vec![super::load::place(dataset, "", "")],
                vec![format!("{count} files")],
            )
        })
        .collect();
    let unpublished = loaded.files.iter();
    let unpublished = unpublished.filter(|file| file.dataset.split_sizes().is_none());
    findings.extend(unpublished.map(|file| {
        Finding::new(
            Rule::SplitSize,
            Severity::Note,
            "nothing is published of a dataset with a protocol of its own: neither the sizes of its \
             splits nor its results are held against published ones",
            vec![super::load::place(file.dataset, "", "")],
            vec![format!(
                "file {}: {} samples",
                file.blake3.get(..12).unwrap_or(&file.blake3),
                file.sizes.map(|size| size.to_string()).join("/")
            )],
        )
    }));
    let others = loaded
        .files
        .iter()
        .filter_map(|file| Some((file, file.dataset.split_sizes()?)))
        .filter(|(file, published)| file.sizes != *published);
    findings.extend(others.map(|(file, published)| {
        let text = |sizes: [usize; 3]| sizes.map(|size| size.to_string()).join("/");
        Finding::new(
            Rule::SplitSize,
            Severity::Warning,
            "the splits do not have the published sizes",
            vec![super::load::place(file.dataset, "", "")],
            vec![format!(
                "file {}: {} samples; published {}",
                file.blake3.get(..12).unwrap_or(&file.blake3),
                text(file.sizes),
                text(published)
            )],
        )
    }));
    findings
}

fn test_selection(loaded: &Loaded) -> Option<Finding> {
    let places = loaded.chosen_on_test.clone();
    (!places.is_empty()).then(|| {
        let count = places.len();
        Finding::new(
            Rule::TestSelection,
            Severity::Warning,
            "checkpoints were chosen on the split that results are reported on",
            places,
            vec![format!("{count} models")],
        )
    })
}
