use super::*;
use halfheard_shared::{
    ids::JobId,
    wire::{Doing, Fault, FaultKind, Heartbeat, Trouble, WorkerInfo},
};
use halfheard_store::sweeps::Progress;

fn snapshot(sweep: SweepId, train_done: i64, eval_done: i64, epoch: u32) -> Snapshot {
    let doing = Doing {
        sweep,
        job: JobId::derive(&[b"x"]),
        what: "train lnln on mosi, seed 1111".into(),
        epoch,
        max_epochs: 10,
        step: 2,
        steps: 4,
        loss: Some(0.512_34),
        case: 0,
        cases: 0,
    };
    Snapshot {
        progress: Progress {
            blocked: 132 - eval_done,
            running: 2 - train_done,
            done: train_done + eval_done,
            ..Progress::default()
        },
        train_done,
        train_jobs: 4,
        eval_done,
        eval_jobs: 128,
        finished: false,
        workers: vec![Heartbeat {
            worker: WorkerInfo {
                name: "w0".into(),
                host: "h".into(),
                device: "cpu".into(),
                version: "0".into(),
                processor: String::new(),
            },
            pid: 1,
            session: uuid::Uuid::nil(),
            holds: Vec::new(),
            wire: 0,
            methods: Vec::new(),
            labels: Vec::new(),
            device_memory: 0,
            at_ms: 0,
            memory_bytes: 0,
            doing: (epoch > 0).then_some(doing),
            trouble: None,
        }],
    }
}

#[test]
fn time_left_follows_the_pace() {
    let sweep = SweepId::derive(&[b"x"]);
    let mut pace = Pace::new(sweep);
    let began = Instant::now();
    assert_eq!(pace.left_at(&snapshot(sweep, 0, 0, 0), began), None);
    // One of four training jobs and half of another; evaluation jobs count as two of them in all.
    let later = began + Duration::from_secs(30);
    let left = pace.left_at(&snapshot(sweep, 1, 0, 5), later).unwrap();
    // 1.45 of 6 in 30 s: 94 s for the rest.
    assert_eq!(left.as_secs(), 94);
    assert_eq!(pace.left_at(&snapshot(sweep, 4, 128, 0), later), None);
}

#[test]
fn line_reports_the_fault_of_a_worker() {
    let sweep = SweepId::derive(&[b"x"]);
    let mut snapshot = snapshot(sweep, 1, 3, 0);
    let worker = &mut snapshot.workers[0];
    worker.at_ms = 1_000_000;
    worker.trouble = Some(Trouble {
        fault: Fault::new(
            FaultKind::Dataset,
            "dataset mosi",
            vec!["it is\x1bnowhere".into()],
        ),
        since_ms: 1_000_000 - 65_000,
        times: 2,
        next_try_ms: Some(1_020_000),
        sits_out: true,
    });
    assert!(line(&snapshot, None).ends_with(
        " | w0: sits out: cannot read dataset mosi: it is\u{fffd}nowhere (for 1 min 5 s, retries in 20 s)"
    ));
    snapshot.workers[0].doing = Some(Doing {
        sweep,
        job: JobId::derive(&[b"x"]),
        what: "evaluate lnln on mosi, seed 1".into(),
        epoch: 0,
        max_epochs: 0,
        step: 3,
        steps: 12,
        loss: None,
        case: 2,
        cases: 16,
    });
    snapshot.workers[0].trouble = None;
    assert!(
        line(&snapshot, None)
            .ends_with(" | w0: evaluate lnln on mosi, seed 1, case 2 of 16, batch 3 of 12")
    );
}

#[test]
fn line_reports_progress() {
    let sweep = SweepId::derive(&[b"x"]);
    let line = line(&snapshot(sweep, 1, 3, 5), Some(Duration::from_secs(94)));
    assert_eq!(
        line,
        "4/134 jobs done, 1 running, 0 failed, trained 1/4, evaluated 3/128, about 1 min 34 s left \
         | w0: train lnln on mosi, seed 1111, epoch 5/10, step 2/4, loss 0.5123"
    );
}
