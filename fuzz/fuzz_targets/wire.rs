//! Messages from the broker: what can be read can be written and read again, to the same bytes.

#![no_main]

use halfheard_shared::{
    broker::Names,
    wire::{self, Answer, Ask, Heartbeat, JobMessage, ResultMessage, Tell},
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let once = serde_json::to_vec(&message).expect("what was read can be written");
    let again: T = serde_json::from_slice(&once).expect("what was written can be read");
    assert_eq!(once, serde_json::to_vec(&again).expect("as before"));
}

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else {
        return;
    };
    match which {
        b'a' => {
            if let Ok(answer) = Answer::decode(bytes) {
                // A shorter form of a number may have been longer in the input.
                let once = answer.encode_for(wire::VERSION).expect("an answer");
                let again = Answer::decode(&once).expect("what was written can be read");
                assert_eq!(answer, again);
            }
        }
        b'r' => {
            if let Ok(report) = wire::decode_report(bytes) {
                let once = wire::encode(&report).expect("a report");
                let again: ResultMessage = wire::decode(&once).expect("what was written");
                // Not the values: one that is no number equals nothing.
                assert_eq!(once, wire::encode(&again).expect("as before"));
            }
        }
        b'j' => {
            if let Ok(job) = wire::decode::<JobMessage>(bytes) {
                let once = wire::encode(&job).expect("a job");
                assert_eq!(job, wire::decode(&once).expect("what was written"));
            }
        }
        b'q' => json::<Ask>(bytes),
        b'h' => json::<Heartbeat>(bytes),
        b't' => json::<Tell>(bytes),
        b'n' => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = text.parse::<Names>();
                let _ = text.parse::<halfheard_shared::case::Case>();
            }
        }
        _ => {}
    }
});
