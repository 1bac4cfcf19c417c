//! Reading what a real Slurm 22.05 printed (`tests/slurm/recorded`), and what later ones print.

use super::*;

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/slurm/recorded/", $name))
    };
}

fn brief(seen: &[Seen]) -> Vec<(i64, &str, &str)> {
    let mut brief: Vec<_> = seen
        .iter()
        .map(|seen| (seen.id, seen.state.word(), seen.reason.as_str()))
        .collect();
    brief.sort_unstable();
    brief
}

#[test]
fn both_forms_of_the_queue_say_the_same() {
    for (form, other, expected) in [
        (
            recorded!("running.json"),
            recorded!("running.txt"),
            vec![
                (1, "RUNNING", ""),
                (2, "RUNNING", ""),
                (3, "PENDING", "Resources"),
            ],
        ),
        (
            recorded!("preempted.json"),
            recorded!("preempted.txt"),
            vec![
                (1, "PENDING", "BeginTime"),
                (2, "RUNNING", ""),
                (3, "PENDING", "Resources"),
            ],
        ),
        (
            recorded!("completing.json"),
            recorded!("completing.txt"),
            vec![(7, "RUNNING", ""), (8, "COMPLETING", "")],
        ),
    ] {
        let from_json = json(form, "halfheard-1", "gpu").unwrap();
        let from_text = text(other, "halfheard-1", "gpu");
        assert_eq!(brief(&from_json), expected);
        assert_eq!(brief(&from_text), expected);
        let at = |seen: &[Seen], id| seen.iter().find(|s| s.id == id).unwrap().clone();
        let id = expected[expected.len() - 2].0;
        assert_eq!(at(&from_json, id).started, at(&from_text, id).started);
        assert_eq!(at(&from_json, id).ends, at(&from_text, id).ends);
    }
    let preempted = json(recorded!("preempted.json"), "halfheard-1", "gpu").unwrap();
    assert_eq!(preempted[0].restarts, Some(1));
    // Jobs of others are not looked at.
    assert_eq!(
        json(recorded!("preempted.json"), "halfheard-2", "gpu").unwrap(),
        []
    );
    assert_eq!(
        text(recorded!("preempted.txt"), "halfheard-1", "urgent"),
        []
    );
}

/// As the data parser of Slurm 23.11 and later prints it.
#[test]
fn json_of_later_versions_is_read() {
    let later = r#"{"jobs": [
        {"job_id": 7, "name": "h", "partition": "gpu", "job_state": ["RUNNING"],
         "state_reason": "None", "restart_cnt": {"set": true, "infinite": false, "number": 2},
         "start_time": {"set": true, "infinite": false, "number": 1795705319},
         "end_time": {"set": true, "infinite": false, "number": 1795705919}},
        {"job_id": 8, "name": "h", "partition": "gpu", "job_state": ["CANCELLED", "COMPLETING"],
         "start_time": {"set": false, "infinite": false, "number": 0},
         "end_time": {"set": false, "infinite": true, "number": 0}},
        {"job_id": 9, "name": "h", "partition": "gpu", "job_state": ["COMPLETED"],
         "start_time": 0, "end_time": 0},
        {"job_id": "odd", "name": "of somebody else", "job_state": 3}
    ], "meta": {}}"#;
    let seen = json(later, "h", "gpu").unwrap();
    assert_eq!(brief(&seen), [(7, "RUNNING", ""), (8, "COMPLETING", "")]);
    assert_eq!(seen[0].restarts, Some(2));
    assert_eq!(seen[0].started.unwrap().timestamp(), 1_795_705_319);
    assert_eq!(seen[1].started, None);
}

#[test]
fn hostile_output_is_an_error_or_nothing() {
    for printed in ["", "no JSON", "{}", "{\"jobs\": 3}", "[[[["] {
        assert!(json(printed, "h", "gpu").is_err(), "{printed}");
    }
    let odd = r#"{"jobs": [{"name": "h", "partition": "gpu", "job_id": -1}]}"#;
    assert!(json(odd, "h", "gpu").is_err());
    let lines = "||||||\nx|RUNNING|a|b|gpu|h|None\n12_3|RUNNING|a|b|gpu|h|None\n1|RUNNING";
    assert_eq!(text(lines, "h", "gpu"), []);
    let long = format!("4|PENDING|N/A|N/A|gpu|h|\u{1b}[31m{}", "x|".repeat(9000));
    let seen = text(&long, "h", "gpu");
    assert_eq!(seen[0].reason.chars().count(), REASON);
    assert!(!seen[0].reason.contains('\u{1b}'));
    assert_eq!(scontrol("JobId=x"), None);
    assert_eq!(sacct("\n\n"), None);
}

#[test]
fn ends_are_read_with_their_reason() {
    for (printed, id, state, reason, ran) in [
        (recorded!("failed.txt"), 6, "FAILED", "exit code 3", 0),
        (recorded!("cancelled.txt"), 8, "CANCELLED", "", 2),
        (recorded!("nodefail.txt"), 11, "NODE_FAIL", "NodeDown", 35),
        (
            recorded!("timeout.txt"),
            12,
            "TIMEOUT",
            "TimeLimit, signal 9",
            76,
        ),
        (
            recorded!("memory.txt"),
            10,
            "FAILED",
            "JobLaunchFailure, signal 9",
            2,
        ),
    ] {
        let seen = scontrol(printed).unwrap();
        assert_eq!(brief(std::slice::from_ref(&seen)), [(id, state, reason)]);
        let seconds = (seen.ends.unwrap() - seen.started.unwrap()).num_seconds();
        assert_eq!(seconds, ran, "{state}");
    }
    // A job that was queued again has a line for each time.
    let lines = "31|PREEMPTED|2026-11-26T15:01:59|2026-11-26T15:02:59|None|0:0\n\
                 31|OUT_OF_MEMORY|2026-11-26T15:04:59|2026-11-26T15:05:59|None|0:125\n";
    let seen = sacct(lines).unwrap();
    assert_eq!(
        brief(std::slice::from_ref(&seen)),
        [(31, "OUT_OF_MEMORY", "signal 125")]
    );
    assert_eq!(
        sacct("31|CANCELLED by 1000|Unknown|Unknown|None|0:0")
            .unwrap()
            .started,
        None
    );
}
