//! The arguments.

use halfheard_shared::{
    benchmark::Kind,
    methods::{self, nearest},
};
use std::time::Duration;

/// What is measured unless flags say otherwise: a light method, whose steps are many small products and an LSTM, and
/// a heavy one, whose transformers read all steps of audio and vision. LNLN and TFR-Net are like the heavy one, but
/// a step of theirs takes too long on a few cores to fit into a minute.
const METHODS: [&str; 2] = ["misa", "almt"];

/// Arguments of `coord tune-machine`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Starts workers on this machine's CPU, one to as many as there are cores, and has them train a light and a
heavy method on synthetic samples at once. Of the numbers whose steps per second, over all workers, are
within 3 % of the most, it keeps the one with the fewest workers, for `coord run`. Evaluation is the
forward half of the same steps, and a small part of a sweep's time.

The number of threads is part of what results are labelled with (computed on x86-64-avx512-amd-2t), and
their last bits depend on it: measure before a sweep, not in the midst of one.

Examples:
  coord tune-machine                              about a minute
  coord tune-machine --method lnln --seconds 600  with the heaviest method
  coord run SPEC                                  uses the result; --workers and --threads override it

Exit codes: 0 measured; 1 an error; 130 interrupted, with nothing changed.")]
pub(crate) struct TuneMachineArgs {
    /// The methods to train, several separated by commas
    #[arg(
        long = "method",
        value_name = "METHOD",
        value_delimiter = ',',
        default_values_t = METHODS.map(str::to_owned),
        value_parser = method
    )]
    pub(super) methods: Vec<String>,
    /// About how long to measure in all; a worker trains at least one step each time
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(super) seconds: Duration,
}

/// A method that can be trained on MOSI.
fn method(text: &str) -> Result<String, String> {
    let Some(info) = methods::find(text) else {
        let known = methods::all().iter().map(|method| method.id.as_str());
        return Err(match nearest(text, known) {
            Some(nearest) => format!("unknown method; did you mean `{nearest}`?"),
            None => "unknown method".to_owned(),
        });
    };
    match info.lacks(Kind::Mosi) {
        Some(lacking) => Err(format!(
            "it needs {lacking}, which the synthetic samples lack"
        )),
        None => Ok(text.to_owned()),
    }
}

/// A day is the longest.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.1..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0.1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_seconds_are_checked() {
        for known in METHODS {
            assert_eq!(method(known).as_deref(), Ok(known));
        }
        assert!(method("lnlm").unwrap_err().contains("`lnln`"));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "-1", "nan", "inf", "1e9", "a minute"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
