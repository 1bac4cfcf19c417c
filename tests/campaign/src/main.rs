//! `make chaos`.

use clap::Parser as _;
use halfheard_campaign::{campaign, options::Options, sandbox};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    match sandbox::enter() {
        Ok(Some(code)) => return code,
        Ok(None) => {}
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    let out = options.out.display();
    match campaign::run(&options) {
        Ok(wrong) if wrong.is_empty() => {
            println!("campaign: passed; the tables are those of the undisturbed run");
            return ExitCode::SUCCESS;
        }
        Ok(wrong) => {
            for wrong in wrong {
                eprintln!("error: {wrong}");
            }
        }
        Err(error) => eprintln!("error: {error:#}"),
    }
    eprintln!("hint: logs are in {out}; `make chaos CHAOS_REPLAY={out}/campaign.jsonl` repeats it");
    ExitCode::FAILURE
}
