//! The jobs of a sweep: what is missing, what has two different results, what results rest on.

use super::builds;
use crate::audit::{Finding, Place, Rule, Severity};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    results::{AuditRecords, DatasetFile, Job, JobOutcome, Model, Results},
    wire::Selection,
};
use std::collections::{BTreeMap, BTreeSet};

/// The paper's number of seeds.
const SEEDS: usize = 3;

pub(super) fn check(results: &Results, records: &AuditRecords) -> Vec<Finding> {
    let mut findings = failed(results);
    findings.extend(open(results));
    findings.extend(absent(results));
    findings.extend(without_results(results, records));
    findings.extend(few_seeds(results));
    findings.extend(conflicts(records));
    findings.extend(builds::mixed(&records.builds));
    findings.extend(files(results));
    findings.extend(sizes(results));
    findings.extend(test_selection(records));
    findings
}

fn place(job: &Job) -> Place {
    Place {
        seed: Some(job.seed),
        case: job.case.map(Into::into),
        ..Place::of_model(job.dataset, &job.model)
    }
}

/// A whole dataset.
fn of_dataset(dataset: Benchmark) -> Place {
    Place::of_model(dataset, &Model::default())
}

fn kind(job: &Job) -> &'static str {
    if job.case.is_some() {
        "evaluation"
    } else {
        "training"
    }
}

/// Jobs that failed or were cancelled: one finding per model.
fn failed(results: &Results) -> Vec<Finding> {
    let mut models: BTreeMap<_, Vec<&Job>> = BTreeMap::new();
    let ended = |job: &&Job| matches!(job.outcome, JobOutcome::Failed | JobOutcome::Cancelled);
    for job in results.each_job().iter().filter(ended) {
        let key = (job.dataset, &job.model);
        models.entry(key).or_default().push(job);
    }
    models
        .into_values()
        .map(|jobs| {
            let line = |job: &&Job| {
                let case = job.case.map(|case| case.to_string()).unwrap_or_default();
                let error = job.error.as_deref().unwrap_or_default();
                let outcome = match job.outcome {
                    JobOutcome::Cancelled => "cancelled",
                    _ => "failed",
                };
                format!(
                    "{} of seed {} {case} {outcome}: {error}",
                    kind(job),
                    job.seed
                )
                .trim_end_matches([' ', ':'])
                .to_owned()
            };
            Finding::new(
                Rule::Incomplete,
                Severity::Warning,
                format!("{} of its jobs failed or were cancelled", jobs.len()),
                jobs.iter().map(|job| place(job)).collect(),
                jobs.iter().map(line).collect(),
            )
        })
        .collect()
}

/// Unfinished jobs: one note.
fn open(results: &Results) -> Option<Finding> {
    let jobs = results.each_job().iter();
    let open: Vec<&Job> = jobs.filter(|job| job.outcome == JobOutcome::Open).collect();
    (!open.is_empty()).then(|| {
        Finding::new(
            Rule::Incomplete,
            Severity::Note,
            "the sweep is not finished",
            open.iter().map(|job| place(job)).collect(),
            vec![format!(
                "{} of {} jobs are not done",
                open.len(),
                results.each_job().len()
            )],
        )
    })
}

/// Every model should have every seed and every case that any model has.
fn absent(results: &Results) -> Vec<Finding> {
    let seeds: BTreeSet<u64> = results.each_job().iter().map(|job| job.seed).collect();
    let cases: BTreeSet<Option<Case>> = results.each_job().iter().map(|job| job.case).collect();
    let mut models: BTreeMap<_, BTreeSet<(u64, Option<Case>)>> = BTreeMap::new();
    for job in results.each_job() {
        let key = (job.dataset, &job.model);
        models.entry(key).or_default().insert((job.seed, job.case));
    }
    models
        .into_iter()
        .filter_map(|((dataset, model), present)| {
            let absent: Vec<(u64, Option<Case>)> = seeds
                .iter()
                .flat_map(|&seed| cases.iter().map(move |&case| (seed, case)))
                .filter(|one| !present.contains(one))
                .collect();
            let line = |(seed, case): &(u64, Option<Case>)| match case {
                Some(case) => format!("evaluation of seed {seed} on {case}"),
                None => format!("training of seed {seed}"),
            };
            (!absent.is_empty()).then(|| {
                Finding::new(
                    Rule::Incomplete,
                    Severity::Error,
                    "jobs are missing that other models of the sweep have",
                    absent
                        .iter()
                        .map(|(seed, case)| Place {
                            seed: Some(*seed),
                            case: case.map(Into::into),
                            ..Place::of_model(dataset, model)
                        })
                        .collect(),
                    absent.iter().map(line).collect(),
                )
            })
        })
        .collect()
}

/// On which splits the checkpoints of a job were selected; of imported predictions, on one.
fn selection(results: &Results, job: &Job) -> Selection {
    let mut protocols = results.protocols.iter();
    let own = protocols.find(|protocol| protocol.models.contains(&job.model));
    match results.imported.contains(&job.model) {
        true => Selection::Validation,
        false => own.map_or(Selection::Validation, |protocol| protocol.selection),
    }
}

/// Finished evaluations without a criterion or a metric: one finding per model.
fn without_results(results: &Results, records: &AuditRecords) -> Vec<Finding> {
    let mut models: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    let done = |job: &&Job| job.outcome == JobOutcome::Done;
    for job in results.each_job().iter().filter(done) {
        let Some(case) = job.case else { continue };
        let values = records.values.get(&job.id);
        let mut lacking = Vec::new();
        let criteria = selection(results, job).criteria(job.dataset);
        for criterion in &criteria {
            for metric in job.dataset.metrics() {
                let key = (criterion.clone(), metric.id.to_owned());
                if values.is_none_or(|values| !values.contains_key(&key)) {
                    lacking.push(format!("{} by {criterion}", metric.id));
                }
            }
        }
        if !lacking.is_empty() {
            let key = (job.dataset, &job.model);
            let entry = models.entry(key).or_default();
            entry.0.push(place(job));
            entry.1.push(format!(
                "seed {} {case}: {} of {} values, first {}",
                job.seed,
                lacking.len(),
                criteria.len() * job.dataset.metrics().len(),
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
                "evaluations are done, but some of their results are missing",
                places,
                numbers,
            )
        })
        .collect()
}

fn few_seeds(results: &Results) -> Option<Finding> {
    let seeds: BTreeSet<u64> = results.each_job().iter().map(|job| job.seed).collect();
    (!seeds.is_empty() && seeds.len() < SEEDS).then(|| {
        let datasets: BTreeSet<Benchmark> =
            results.each_job().iter().map(|job| job.dataset).collect();
        let places = datasets.into_iter().map(of_dataset).collect();
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

/// Results that arrived twice and differ: one finding per model.
fn conflicts(records: &AuditRecords) -> Vec<Finding> {
    let mut models: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    for conflict in &records.conflicts {
        let entry = models
            .entry((conflict.dataset, &conflict.model))
            .or_default();
        entry.0.push(Place {
            seed: Some(conflict.seed),
            case: conflict.case.map(Into::into),
            ..Place::of_model(conflict.dataset, &conflict.model)
        });
        let kept = match &conflict.first_worker {
            Some(worker) => format!("; the result of {worker} is kept"),
            None => String::new(),
        };
        entry.1.push(format!(
            "seed {} {}: {} by {} on {} differs{kept}",
            conflict.seed,
            conflict
                .case
                .map_or_else(|| "training".to_owned(), |case| case.to_string()),
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
                "two attempts at the same job have different results",
                places,
                numbers,
            )
        })
        .collect()
}

/// Models of one dataset that were trained on different files: of the same samples, as a spec may ask
/// for single methods, or of others.
fn files(results: &Results) -> Vec<Finding> {
    let mut datasets: BTreeMap<_, Vec<&DatasetFile>> = BTreeMap::new();
    for file in &results.files {
        datasets.entry(file.dataset).or_default().push(file);
    }
    let several = datasets.into_iter().filter(|(_, files)| files.len() > 1);
    several
        .map(|(dataset, files)| {
            let samples = |file: &DatasetFile| (file.sizes, file.test_labels.clone());
            let same = files.iter().all(|file| samples(file) == samples(files[0]));
            let (severity, what) = match same {
                true => (
                    Severity::Note,
                    "models of one dataset were trained on different files of the same samples",
                ),
                false => (
                    Severity::Error,
                    "models of one dataset were trained on different files",
                ),
            };
            Finding::new(
                Rule::SplitSize,
                severity,
                what,
                vec![of_dataset(dataset)],
                vec![format!("{} files", files.len())],
            )
        })
        .collect()
}

/// Splits with other sizes than published, or of a dataset without published sizes.
fn sizes(results: &Results) -> Vec<Finding> {
    let text = |sizes: [usize; 3]| sizes.map(|size| size.to_string()).join("/");
    let mut findings = Vec::new();
    let unpublished = results.files.iter();
    let unpublished = unpublished.filter(|file| file.dataset.split_sizes().is_none());
    findings.extend(unpublished.map(|file| {
        Finding::new(
            Rule::SplitSize,
            Severity::Note,
            "nothing is published for a dataset with a protocol of its own: neither its split sizes \
             nor its results are compared with published ones",
            vec![of_dataset(file.dataset)],
            vec![format!(
                "file {}: {} samples",
                file.blake3.get(..12).unwrap_or(&file.blake3),
                text(file.sizes)
            )],
        )
    }));
    let others = results
        .files
        .iter()
        .filter_map(|file| Some((file, file.dataset.split_sizes()?)))
        .filter(|(file, published)| file.sizes != *published);
    findings.extend(others.map(|(file, published)| {
        Finding::new(
            Rule::SplitSize,
            Severity::Warning,
            "the splits do not have the published sizes",
            vec![of_dataset(file.dataset)],
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

fn test_selection(records: &AuditRecords) -> Option<Finding> {
    let models = records.selected_on_test.iter();
    let places: Vec<Place> = models
        .map(|(d, model)| Place::of_model(*d, model))
        .collect();
    (!places.is_empty()).then(|| {
        let count = places.len();
        Finding::new(
            Rule::TestSelection,
            Severity::Warning,
            "checkpoints were selected on the split that results are reported on",
            places,
            vec![format!("{count} models")],
        )
    })
}
