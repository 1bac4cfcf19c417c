//! Results of different processors: the last bits may differ without a conflict, and with portable
//! numerics they are the same everywhere.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    dump::{assert_same, dump, features},
    programs::{Process, worker},
    stage::Stage,
    sweeps::{eval_job, matrix, sweep, train_job, train_spec},
    tiny::{Tiny, jobs},
    worker::{Act, Script, ScriptedWorker, outcome},
};
use halfheard_shared::{
    ids::{JobId, SweepId},
    numerics::Numerics,
    wire::{JobMessage, ResultMessage, Work, WorkerInfo},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

async fn until(stage: &Stage, query: &'static str, expected: i64) -> Result<()> {
    let since = Instant::now();
    loop {
        let count = stage.count(query).await?;
        if count == expected {
            return Ok(());
        }
        ensure!(
            since.elapsed() < PATIENCE,
            "`{query}` is {count}, not {expected}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets a worker on some kind of processor report results of attempts that were given up as lost:
/// what `outcome` makes of each job and `twist`.
async fn report_late(
    stage: &Stage,
    jobs: &[(JobId, Work)],
    (worker, processor): (&str, &str),
    twist: u8,
) -> Result<()> {
    for (job, work) in jobs {
        let attempt = stage.lost_attempt(*job, worker).await?;
        let message = JobMessage {
            sweep: SweepId::derive(&[b"any"]),
            job: *job,
            attempt,
            work: work.clone(),
        };
        for body in outcome(&message, twist) {
            let report = ResultMessage {
                job: *job,
                attempt,
                worker: WorkerInfo {
                    name: worker.to_owned(),
                    host: "test".to_owned(),
                    device: "cpu".to_owned(),
                    version: "scripted".to_owned(),
                    processor: processor.to_owned(),
                },
                body,
            };
            stage.broker.deliver_result(&report).await?;
        }
    }
    Ok(())
}

/// Two results of a job are compared only if they come from the same kind of processor.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_different_processors_do_not_conflict() -> Result<()> {
    let stage = Stage::start().await?;
    let sweep = sweep("kinds", 0);
    stage
        .store
        .submit(&sweep, matrix(&sweep, 0..1, &["r=0"]))
        .await?;
    let _coordinator = stage.serve();
    let complete: Script = Arc::new(|_, _| Act::Complete);
    let first = ScriptedWorker::on(&stage.broker, "w1", "avx512", complete);
    stage.finished(sweep.id, PATIENCE).await?;
    first.kill().await;
    let before = dump(&stage.store).await?;
    let train = train_job(&sweep, 0);
    let checkpoints = stage.store.checkpoints(&[train]).await?[&train].clone();
    let work = [
        (train, Work::Train(train_spec(0))),
        (
            eval_job(&sweep, 0, "r=0"),
            Work::Eval {
                train,
                spec: train_spec(0),
                case: "r=0".parse()?,
                confusions: None,
                checkpoints,
            },
        ),
    ];
    let conflicts = "SELECT count(*) FROM conflict";
    let others = "SELECT count(*) FROM other_processor";
    let attempts = "SELECT count(*) FROM attempt WHERE outcome = 'done'";

    // Another kind of processor gives another result: two epochs, training and evaluation.
    report_late(&stage, &work, ("w2", "avx2"), 1).await?;
    until(&stage, attempts, 4).await?;
    until(&stage, others, 4).await?;
    // The same result once more: nothing new.
    report_late(&stage, &work, ("w2", "avx2"), 1).await?;
    until(&stage, attempts, 6).await?;
    assert_eq!(stage.count(conflicts).await?, 0);
    assert_eq!(stage.count(others).await?, 4);

    // The same kind gives a third result: a conflict.
    report_late(&stage, &work, ("w3", "avx2"), 2).await?;
    until(&stage, conflicts, 4).await?;
    let kept = "SELECT count(*) FROM conflict c JOIN other_processor o USING (job, what)
                WHERE c.kept = o.digest";
    assert_eq!(stage.count(kept).await?, 4, "compared within its kind");

    // So is a second result of the first kind.
    report_late(&stage, &work, ("w4", "avx512"), 1).await?;
    until(&stage, conflicts, 8).await?;
    assert_eq!(stage.count(others).await?, 4);
    // The first results remain.
    assert_same(&dump(&stage.store).await?, &before);
    let kinds = "SELECT count(*) FROM provenance
                 WHERE trained_processor = 'avx512' AND evaluated_processor = 'avx512'
                   AND numerics = 'machine'";
    assert!(stage.count(kinds).await? > 0);
    Ok(())
}

const CASES: [&str; 2] = ["r=0.5", "missing=la"];

/// A slot processes portable and machine jobs in any order; portable results are the same with other
/// vector instructions.
#[tokio::test(flavor = "multi_thread")]
async fn worker_switches_numerics_and_portable_results_are_identical() -> Result<()> {
    if let Err(error) = check_portable() {
        eprintln!("skipped: {error}");
        return Ok(());
    }
    let (mut dumps, mut stored) = (Vec::new(), Vec::new());
    for other in [false, true] {
        let stage = Stage::start().await?;
        let tiny = Tiny::make(stage.data_dir(), 48)?;
        let sweep = sweep("both", 0);
        let mut portable = tiny.spec("lnln", 1, 2)?;
        portable.numerics = Numerics::Portable;
        let mut all = jobs(&sweep, &portable, &CASES)?;
        if !other {
            all.extend(jobs(&sweep, &tiny.spec("almt", 2, 1)?, &CASES)?);
            let mut last = portable.clone();
            last.seed = 3;
            all.extend(jobs(&sweep, &last, &CASES)?);
        }
        let count = all.len() as i64;
        stage.store.submit(&sweep, all).await?;
        let _coordinator = stage.serve();
        let mut command = worker(&stage)?;
        if other {
            command
                .env("ATEN_CPU_CAPABILITY", "default")
                .env("MKL_CBWR", "AUTO");
        }
        let worker = Process::spawn(&mut command)?;
        let progress = stage.finished(sweep.id, PATIENCE).await?;
        assert_eq!((progress.done, progress.failed), (count, 0));
        let status = worker.terminate(PATIENCE)?;
        assert!(status.success(), "{status}");
        // Those handed back for the other mode do not count.
        let wrong = "SELECT count(*) FROM attempt a JOIN job j ON j.id = a.job
                     WHERE a.outcome = 'done'
                       AND ((a.processor = 'portable') <> (j.method = 'lnln') OR a.processor = '')";
        assert_eq!(stage.count(wrong).await?, 0);
        assert_eq!(stage.count("SELECT sum(failures) FROM job").await?, 0);
        let portable = "SELECT count(DISTINCT job) FROM provenance
                        WHERE numerics = 'portable' AND trained_processor = 'portable'
                          AND evaluated_processor = 'portable'";
        assert_eq!(stage.count(portable).await?, if other { 2 } else { 4 });
        if other {
            dumps.push(dump(&stage.store).await?);
            stored.push(features(stage.data_dir())?);
        } else {
            // The jobs that both stages have.
            sqlx::query("DELETE FROM job WHERE method <> 'lnln' OR seed <> 1")
                .execute(stage.store.pool())
                .await?;
            dumps.push(dump(&stage.store).await?);
            let mut features = features(stage.data_dir())?;
            let kept = "SELECT blake3 FROM checkpoint";
            let kept: Vec<String> = sqlx::query_scalar(kept)
                .fetch_all(stage.store.pool())
                .await?;
            features.retain(|name, _| kept.iter().any(|hash| name.starts_with(hash)));
            stored.push(features);
        }
    }
    assert_same(&dumps[0], &dumps[1]);
    assert_eq!(stored[0].len(), 1);
    assert!(stored[0] == stored[1], "the features are the same");
    Ok(())
}

/// The precision of products is part of what is trained: the same training in float32 and in bfloat16 are two, whose
/// results say which is which.
#[tokio::test(flavor = "multi_thread")]
async fn trainings_in_bfloat16_are_others_and_say_so() -> Result<()> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    if !cpus.contains("avx512_bf16") && !cpus.contains("amx_bf16") {
        eprintln!("skipped: this processor has no instructions for bfloat16");
        return Ok(());
    }
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 48)?;
    let exact = tiny.spec("almt", 1, 2)?;
    let mut reduced = exact.clone();
    reduced.numerics = Numerics::Bf16;
    let sweeps = [
        (sweep("float32", 0), exact),
        (sweep("bfloat16", 0), reduced),
    ];
    for (sweep, spec) in &sweeps {
        let jobs = jobs(sweep, spec, &CASES)?;
        stage.store.submit(sweep, jobs).await?;
    }
    let _coordinator = stage.serve();
    let worker = Process::spawn(&mut worker(&stage)?)?;
    for (sweep, _) in &sweeps {
        let progress = stage.finished(sweep.id, PATIENCE).await?;
        assert_eq!((progress.done, progress.failed), (3, 0));
    }
    let status = worker.terminate(PATIENCE)?;
    assert!(status.success(), "{status}");
    let told = "SELECT count(DISTINCT job) FROM provenance
                WHERE numerics = 'bf16' AND trained_processor LIKE '%-bf16'
                  AND evaluated_processor LIKE '%-bf16'";
    assert_eq!(stage.count(told).await?, 2);
    let others = "SELECT count(DISTINCT job) FROM provenance
                  WHERE numerics = 'machine' AND trained_processor NOT LIKE '%bf16'
                    AND evaluated_processor NOT LIKE '%bf16'";
    assert_eq!(stage.count(others).await?, 2);
    let checkpoints = "SELECT count(DISTINCT blake3) FROM checkpoint";
    ensure!(
        stage.count(checkpoints).await? > 1,
        "the same weights in float32 and in bfloat16"
    );
    Ok(())
}

/// Whether this machine can compute portably.
fn check_portable() -> Result<(), String> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Ok(());
    }
    Err("this processor has no AVX2".to_owned())
}

/// A training job that resumes on another kind of processor records both and is no conflict.
#[tokio::test(flavor = "multi_thread")]
async fn training_job_resumes_on_another_processor() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 640)?;
    let sweep = sweep("moves", 0);
    stage
        .store
        .submit(&sweep, jobs(&sweep, &tiny.spec("lnln", 1, 10)?, &CASES)?)
        .await?;
    let _coordinator = stage.serve();
    let first = Process::spawn(&mut worker(&stage)?)?;
    let since = Instant::now();
    while stage.count("SELECT count(*) FROM epoch_log").await? < 2 {
        ensure!(since.elapsed() < PATIENCE, "no epoch completes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(first.terminate(PATIENCE)?.success());
    until(
        &stage,
        "SELECT count(*) FROM attempt WHERE outcome = 'handed_back'",
        1,
    )
    .await?;
    // Without newer vector instructions, as on another processor.
    let mut other = worker(&stage)?;
    let other = Process::spawn(other.env("ATEN_CPU_CAPABILITY", "default"))?;
    assert_eq!(stage.finished(sweep.id, PATIENCE).await?.done, 3);
    other.terminate(PATIENCE)?;
    assert_eq!(stage.count("SELECT count(*) FROM conflict").await?, 0);
    let processors: Vec<String> = sqlx::query_scalar(
        "SELECT a.processor FROM attempt a JOIN job j ON j.id = a.job
         WHERE j.kind = 'train' ORDER BY a.started",
    )
    .fetch_all(stage.store.pool())
    .await?;
    let [began, ended] = &processors[..] else {
        anyhow::bail!("expected two attempts: {processors:?}");
    };
    let (before, after) = ended.split_once('+').unwrap_or_default();
    assert_eq!(before, began, "{ended}");
    assert_ne!(before, after);
    let recorded = "SELECT count(*) FROM provenance WHERE trained_processor LIKE '%+%'";
    assert!(stage.count(recorded).await? > 0);
    Ok(())
}
