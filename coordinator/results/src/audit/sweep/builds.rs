//! Programs, devices and machines behind the results of a sweep: several of a kind are a difference
//! between models besides the models.

use crate::audit::{Finding, Place, Rule, Severity};
use halfheard_shared::{
    benchmark::Benchmark,
    results::{Build, Model},
    text::count,
};
use std::collections::{BTreeMap, BTreeSet};

/// What jobs can have in common.
struct Kind {
    what: &'static str,
    severity: Severity,
    of: fn(&Build) -> &str,
}

/// What is compared. Devices and numerics change every number: the initial weights of a seed are others
/// on a GPU. Machines of one kind change last bits, and training makes the most of these.
const KINDS: [Kind; 4] = [
    Kind {
        what: "versions of the worker",
        severity: Severity::Warning,
        of: |build| &build.version,
    },
    Kind {
        what: "kinds of devices",
        severity: Severity::Warning,
        of: |build| match build.device.as_str() {
            "" => "",
            "cpu" => "CPU",
            _ => "GPU",
        },
    },
    Kind {
        what: "numerics",
        severity: Severity::Warning,
        of: |build| &build.numerics,
    },
    Kind {
        what: "kinds of processors",
        severity: Severity::Note,
        of: |build| &build.processor,
    },
];

/// The jobs with one value: trainings, evaluations, and the models that they are of.
#[derive(Default)]
struct Jobs<'a> {
    trainings: usize,
    evaluations: usize,
    models: BTreeSet<&'a Model>,
}

/// Finds results of several versions, devices, numerics or processors: one finding of each per dataset.
pub(super) fn mixed(builds: &[Build]) -> Vec<Finding> {
    let mut datasets: BTreeMap<Benchmark, Vec<&Build>> = BTreeMap::new();
    for build in builds {
        datasets.entry(build.dataset).or_default().push(build);
    }
    datasets
        .into_iter()
        .flat_map(|(dataset, builds)| {
            let found = KINDS
                .iter()
                .filter_map(|kind| finding(dataset, &builds, kind));
            found.collect::<Vec<_>>()
        })
        .collect()
}

fn finding(dataset: Benchmark, builds: &[&Build], kind: &Kind) -> Option<Finding> {
    let mut values: BTreeMap<&str, Jobs<'_>> = BTreeMap::new();
    for build in builds {
        let name = match (kind.of)(build) {
            "" => "unknown",
            name => name,
        };
        let jobs = values.entry(name).or_default();
        if build.evaluations {
            jobs.evaluations += build.jobs;
        } else {
            jobs.trainings += build.jobs;
        }
        jobs.models.insert(&build.model);
    }
    // A training that moved between machines has several values by itself.
    let resumed = values.keys().any(|value| value.contains('+'));
    if values.len() < 2 && !(resumed && kind.severity == Severity::Note) {
        return None;
    }
    let models: BTreeSet<&Model> = builds.iter().map(|build| &build.model).collect();
    let line = |(name, jobs): (&&str, &Jobs<'_>)| {
        let of = if jobs.models == models {
            "of all models".to_owned()
        } else {
            let names = jobs.models.iter().map(ToString::to_string);
            format!("of {} only", names.collect::<Vec<_>>().join(", "))
        };
        format!(
            "{name}: {}, {}, {of}",
            count(jobs.trainings, "training job"),
            count(jobs.evaluations, "evaluation job"),
        )
    };
    let apart = values.values().any(|jobs| jobs.models != models);
    let what = if apart {
        format!("its models come from different {}", kind.what)
    } else {
        format!("its results come from several {}", kind.what)
    };
    Some(Finding::new(
        Rule::MixedBuilds,
        kind.severity,
        what,
        vec![Place::of_model(dataset, &Model::default())],
        values.iter().map(line).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(version: &str, processor: &str, evaluations: bool) -> Build {
        Build {
            dataset: Benchmark::Mosi,
            model: Model::new("misa", ""),
            evaluations,
            version: version.to_owned(),
            device: "cpu".to_owned(),
            numerics: "machine".to_owned(),
            processor: processor.to_owned(),
            jobs: 3,
        }
    }

    fn found(builds: &[Build]) -> Vec<(Severity, String, Vec<String>)> {
        mixed(builds)
            .into_iter()
            .inspect(|finding| assert_eq!(finding.rule, Rule::MixedBuilds))
            .map(|finding| (finding.severity, finding.what, finding.numbers))
            .collect()
    }

    #[test]
    fn results_of_several_versions_or_machines_are_named() {
        let clean = [build("1", "avx2", false), build("1", "avx2", true)];
        assert!(found(&clean).is_empty());
        let versions = found(&[
            build("1", "avx2", false),
            build("1", "avx2", true),
            build("2", "avx2", true),
        ]);
        assert_eq!(
            versions,
            [(
                Severity::Warning,
                "its results come from several versions of the worker".to_owned(),
                vec![
                    "1: 3 training jobs, 3 evaluation jobs, of all models".to_owned(),
                    "2: 0 training jobs, 3 evaluation jobs, of all models".to_owned(),
                ]
            )]
        );
        let machines = found(&[build("1", "avx2", false), build("1", "", true)]);
        assert_eq!(machines[0].0, Severity::Note);
        assert!(machines[0].2[1].starts_with("unknown: "));
        assert_eq!(found(&[build("1", "avx2+avx512", false)]).len(), 1);
        // A version with build metadata is one version.
        assert!(found(&[build("1+abc", "avx2", false)]).is_empty());
    }

    #[test]
    fn devices_and_numerics_of_single_models_are_named() {
        let gpu = |name: &str| Build {
            model: Model::new("lnln", ""),
            device: name.to_owned(),
            ..build("1", "avx2", false)
        };
        // Two kinds of GPUs are a matter of processors.
        assert!(found(&[gpu("NVIDIA A"), gpu("NVIDIA B")]).is_empty());
        let devices = found(&[build("1", "avx2", false), gpu("NVIDIA A")]);
        assert_eq!(
            devices,
            [(
                Severity::Warning,
                "its models come from different kinds of devices".to_owned(),
                vec![
                    "CPU: 3 training jobs, 0 evaluation jobs, of misa only".to_owned(),
                    "GPU: 3 training jobs, 0 evaluation jobs, of lnln only".to_owned(),
                ]
            )]
        );
        let portable = Build {
            numerics: "portable".to_owned(),
            ..build("1", "avx2", false)
        };
        let numerics = found(&[build("1", "avx2", false), portable]);
        assert_eq!(numerics.len(), 1);
        assert_eq!(numerics[0].1, "its results come from several numerics");
    }

    /// Several datasets are not compared with each other.
    #[test]
    fn datasets_may_differ() {
        let other = Build {
            dataset: Benchmark::Sims,
            ..build("2", "avx512", false)
        };
        assert!(found(&[build("1", "avx2", false), other]).is_empty());
    }
}
