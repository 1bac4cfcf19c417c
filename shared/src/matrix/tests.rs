use super::*;
use std::collections::BTreeSet;

const FIXED: &str = r#"{"name":"fixed","methods":[{"method":"lnln","variant":"no-dmc","hyper":{"mosi":
    {"max_epochs":3,"batch_size":64}}},{"method":"lnln","variant":"","hyper":{"mosi":
    {"max_epochs":3,"batch_size":64}}}],
    "datasets":[{"benchmark":"mosi","data":{"blake3":"aa","path":"/somewhere"},
    "encoder":{"blake3":"bb","path":"/somewhere/else"}}],"seeds":[1111,1112],
    "cases":["r=0","r=0.3","missing=la"],"protocol":{"selection":"validation",
    "train_missing":"redrawn","erasure_seed":1111,"selection_rate":500,"fidelity":"reference",
    "switched":[]}}"#;

fn fixed() -> ResolvedSpec {
    serde_json::from_str(FIXED).unwrap()
}

fn ids(spec: ResolvedSpec, nonce: Option<&str>) -> BTreeSet<JobId> {
    expand(Arc::new(spec), nonce).map(|job| job.id).collect()
}

#[test]
fn job_belongs_to_its_content() {
    let spec = fixed();
    let jobs = ids(spec.clone(), None);
    assert_eq!(jobs.len(), 16, "ids differ");
    let with = |change: fn(&mut ResolvedSpec)| {
        let mut changed = spec.clone();
        change(&mut changed);
        let changed = ids(changed, None);
        (
            changed.difference(&jobs).count(),
            jobs.difference(&changed).count(),
        )
    };
    // New jobs, and jobs that are not asked for any more.
    assert_eq!(with(|spec| spec.name = "another".into()), (0, 0));
    assert_eq!(with(|spec| spec.datasets[0].data.path.clear()), (0, 0));
    assert_eq!(with(|spec| spec.datasets[0].encoder.path.clear()), (0, 0));
    assert_eq!(with(|spec| spec.seeds.reverse()), (0, 0));
    assert_eq!(with(|spec| spec.seeds.push(1113)), (8, 0));
    assert_eq!(with(|spec| spec.cases.push("r=0.5".into())), (4, 0));
    assert_eq!(with(|spec| spec.methods.truncate(1)), (0, 8));
    // What a result depends on is part of the content.
    let everything = (16, 16);
    assert_eq!(
        with(|spec| spec.datasets[0].data.blake3 = "cc".into()),
        everything
    );
    assert_eq!(
        with(|spec| spec.datasets[0].encoder.blake3 = "cc".into()),
        everything
    );
    assert_eq!(with(|spec| spec.protocol.erasure_seed = 1), everything);
    assert_eq!(
        with(|spec| spec.numerics = crate::numerics::Numerics::Portable),
        everything
    );
    let batch = with(|spec| {
        let hyper = spec.methods[0].hyper.get_mut("mosi").unwrap();
        hyper.insert("batch_size".into(), 32.into());
    });
    assert_eq!(batch, (8, 8));
}

#[test]
fn nonce_makes_all_jobs_anew() {
    let jobs = ids(fixed(), None);
    let again = ids(fixed(), Some("1"));
    assert!(jobs.is_disjoint(&again));
    assert!(again.is_disjoint(&ids(fixed(), Some("2"))));
    assert_eq!(again, ids(fixed(), Some("1")));
}

#[test]
fn config_is_named_by_its_content() {
    let spec = fixed();
    let train = |seed| spec.train_spec(&spec.methods[0], &spec.datasets[0], seed);
    let mut moved = train(2);
    moved.data.path = "/elsewhere".into();
    assert_eq!(config_id(&train(1)), config_id(&moved));
    assert_eq!(config_of(&train(1)), config_of(&moved));
    let jobs = ids(spec.clone(), None);
    assert!(jobs.contains(&train_job_id(config_id(&moved), 1111, None)));
}
