//! The benchmarks' own commands.

use halfheard_e2e::programs::{bare, program};
use std::{error::Error, fs, path::Path};

type Outcome = Result<(), Box<dyn Error>>;

/// Every program of this package's `src/bin`.
fn benchmarks() -> Result<Vec<String>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut names = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.path();
        names.extend(
            name.file_stem()
                .and_then(|stem| stem.to_str().map(str::to_owned)),
        );
    }
    Ok(names)
}

#[test]
fn every_benchmark_says_how_it_is_used_and_refuses_what_it_does_not_know() -> Outcome {
    let names = benchmarks()?;
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let run = |argument: &str| {
            bare(program(&name)?)
                .arg(argument)
                .output()
                .map_err(Box::<dyn Error>::from)
        };
        let help = run("--help")?;
        let said = String::from_utf8(help.stdout)?;
        assert!(help.status.success(), "{name}: {}", help.status);
        for part in ["Usage: ", "Examples:", "Options:"] {
            assert!(said.contains(part), "{name}: {said}");
        }
        // The processes that it starts beside itself are not for its users.
        assert!(!said.contains("Commands:"), "{name}: {said}");
        let unknown = run("--sped")?;
        let said = String::from_utf8(unknown.stderr)?;
        assert_eq!(unknown.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains("unexpected argument '--sped'"),
            "{name}: {said}"
        );
    }
    Ok(())
}

#[test]
fn sizes_of_a_simulated_cluster_are_checked_before_anything_starts() -> Outcome {
    for (arguments, says) in [
        (
            &["--workers", "64,0"][..],
            "invalid value '0' for '--workers",
        ),
        (&["--matrices", "many"], "invalid value 'many'"),
        (&["--speed=-1"], "it must be positive"),
        (&["--spot", "0"], "it must be positive"),
        (&["--replaced-after", "60"], "--spot"),
    ] {
        let out = bare(program("bench_cluster")?).args(arguments).output()?;
        let said = String::from_utf8(out.stderr)?;
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    Ok(())
}
