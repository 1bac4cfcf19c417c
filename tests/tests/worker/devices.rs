//! Where slots compute: GPUs are assigned one per slot (simulated ones, in a debug build), and a GPU
//! that cannot be used is diagnosed, with libraries that really load or fail to.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, coord, output, program, worker},
    stage::Stage,
    tiny::Tiny,
};
use std::{
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);
const PRETEND: &str = "HALFHEARD_TEST_PRETEND_GPUS";

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The devices that `coord status` shows, once there are `count` workers.
async fn devices_in_status(stage: &Stage, count: usize) -> Result<Vec<(String, u64)>> {
    let since = Instant::now();
    loop {
        let status = output(coord(stage)?.args(["status", "--json"]))?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        if workers.len() == count {
            let mut devices: Vec<(String, u64)> = workers
                .iter()
                .map(|w| {
                    let worker = w.get("worker").unwrap_or(w);
                    let text = |key: &str| worker[key].as_str().unwrap_or_default().to_owned();
                    let memory = w["device_memory"].as_u64().unwrap_or_default();
                    (format!("{} {}", text("name"), text("device")), memory)
                })
                .collect();
            devices.sort_unstable();
            return Ok(devices);
        }
        ensure!(since.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_gets_its_own_gpu() -> Result<()> {
    let stage = Stage::start().await?;
    let log = stage.data_dir().join("worker.log");
    // With the number of slots on each slot's GPU.
    for (gpus, flags, devices) in [
        (
            "2",
            &["--slots", "2"][..],
            &[("w-0 cuda:0", 1), ("w-1 cuda:1", 1)][..],
        ),
        // No more slots than GPUs, unless they may share.
        (
            "2",
            &["--slots", "3"],
            &[("w-0 cuda:0", 1), ("w-1 cuda:1", 1)],
        ),
        (
            "2",
            &["--slots", "3", "--share-gpus"],
            &[("w-0 cuda:0", 2), ("w-1 cuda:1", 1), ("w-2 cuda:0", 2)],
        ),
        (
            "3",
            &["--device", "cuda:2,cuda:0"],
            &[("w-0 cuda:2", 1), ("w-1 cuda:0", 1)],
        ),
    ] {
        let mut command = Command::new(program("worker")?);
        let worker = Process::spawn(
            command
                .args(["--threads", "1", "--name", "w"])
                .args(flags)
                .env(PRETEND, gpus)
                .env("HALFHEARD_NATS_URL", stage.nats.url())
                .env("HALFHEARD_DATA_DIR", stage.data_dir())
                .env("HALFHEARD_CONFIG", "/dev/null")
                .stdin(Stdio::null())
                .stderr(std::fs::File::create(&log)?),
        )?;
        let shown = devices_in_status(&stage, devices.len()).await?;
        // A pretended GPU has the machine's memory, of which each slot announces its part.
        let machine = shown.iter().map(|(_, memory)| *memory).max().unwrap_or(0);
        ensure!(machine > 1 << 30, "{shown:?}");
        let expected: Vec<(String, u64)> = devices
            .iter()
            .map(|(device, sharing)| (format!("{device} (pretended)"), machine / sharing))
            .collect();
        assert_eq!(shown, expected, "{flags:?}");
        let text = read(&log);
        ensure!(text.contains("slot 0 on cuda:"), "{text}");
        ensure!(
            text.contains("--share-gpus") == (flags == ["--slots", "3"]),
            "{flags:?}: {text}"
        );
        let status = worker.terminate(PATIENCE)?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_gpu_is_rejected_with_its_exit_code() -> Result<()> {
    let stage = Stage::start().await?;
    for (gpus, flags, code, word) in [
        (
            "4",
            ["--slots", "2", "--device", "cuda:0"],
            2,
            "--share-gpus",
        ),
        ("1", ["--slots", "1", "--device", "cuda:1"], 4, "sees 1 GPU"),
        ("1", ["--slots", "1", "--device", "gpu"], 2, "cuda:0,cuda:1"),
    ] {
        let mut command = Command::new(program("worker")?);
        let refused = command
            .args(flags)
            .env(PRETEND, gpus)
            .env("HALFHEARD_NATS_URL", stage.nats.url())
            .env("HALFHEARD_DATA_DIR", stage.data_dir())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .stdin(Stdio::null())
            .output()?;
        let log = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(code), "{flags:?}: {log}");
        ensure!(log.contains(word), "{flags:?}: {log}");
    }
    Ok(())
}

/// Compiles a `libtorch_cuda.so` in `lib/`.
fn library(folder: &Path, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let lib = folder.join("lib");
    std::fs::create_dir_all(&lib)?;
    let path = lib.join("libtorch_cuda.so");
    compile(source, &path, flags)?;
    Ok(path)
}

fn compile(source: &str, path: &Path, flags: &[&str]) -> Result<()> {
    let file = path.with_extension("c");
    std::fs::write(&file, source)?;
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(path)
        .arg(&file)
        .args(flags)
        .output()
        .context("no C compiler, which building the worker requires as well")?;
    let log = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(made.status.success(), "{log}");
    Ok(())
}

/// A CUDA runtime with fixed answers.
fn runtime(driver: i32, build: i32, status: i32) -> String {
    format!(
        "int cudaGetDeviceCount(int *n) {{ *n = 0; return {status}; }}\n\
         int cudaDriverGetVersion(int *v) {{ *v = {driver}; return 0; }}\n\
         int cudaRuntimeGetVersion(int *v) {{ *v = {build}; return 0; }}\n\
         const char *cudaGetErrorString(int e) {{ return \"as the test says\"; }}\n"
    )
}

fn with_library(command: &mut Command, folder: &Path) -> Result<Output> {
    Ok(command
        .env("LIBTORCH", folder)
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env_remove("HALFHEARD_DEVICE")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove(PRETEND)
        .stdin(Stdio::null())
        .output()?)
}

/// What `worker --check` and `coord doctor` report about a library.
fn diagnosis(folder: &Path, data: &Path) -> Result<(serde_json::Value, serde_json::Value)> {
    let mut command = Command::new(program("worker")?);
    let check = with_library(command.args(["--check", "--threads", "1"]), folder)?;
    let log = String::from_utf8_lossy(&check.stderr).into_owned();
    ensure!(
        check.status.success(),
        "`auto` falls back to the CPU: {log}"
    );
    let check: serde_json::Value = serde_json::from_slice(&check.stdout)?;
    // The worker that `coord` asks is started with libtorch's folder in its library path.
    let mut command = Command::new(program("coord")?);
    command.args(["doctor", "--json", "--data-dir"]).arg(data);
    let doctor = with_library(
        command.env("LD_LIBRARY_PATH", libtorch().join("lib")),
        folder,
    )?;
    let findings: serde_json::Value = serde_json::from_slice(&doctor.stdout)?;
    let finding = findings
        .as_array()
        .context("findings")?
        .iter()
        .find(|finding| finding["what"] == "device")
        .with_context(|| format!("no device: {findings}"))?;
    Ok((check, finding.clone()))
}

fn libtorch() -> PathBuf {
    std::env::var_os("LIBTORCH").map_or_else(
        || {
            let deps = std::env::var_os("HALFHEARD_DEPS");
            let deps = deps.map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps"),
                PathBuf::from,
            );
            deps.join("libtorch")
        },
        PathBuf::from,
    )
}

struct Case {
    name: &'static str,
    kind: &'static str,
    says: &'static [&'static str],
    remedy: &'static str,
    verdict: &'static str,
}

fn verify(case: &Case, folder: &Path) -> Result<()> {
    let data = tempfile::tempdir()?;
    let (check, finding) = diagnosis(folder, data.path())?;
    let name = case.name;
    ensure!(check["trouble"]["kind"] == case.kind, "{name}: {check}");
    for words in case.says {
        for text in [&check["trouble_says"], &finding["found"]] {
            let text = text.as_str().unwrap_or_default();
            ensure!(text.contains(words), "{name}: `{words}` is not in {text}");
        }
    }
    for text in [&check["remedy"], &finding["remedy"]] {
        let text = text.as_str().unwrap_or_default();
        ensure!(text.contains(case.remedy), "{name}: {text}");
    }
    ensure!(finding["verdict"] == case.verdict, "{name}: {finding}");
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn gpu_problem_is_diagnosed_with_a_remedy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.join("lib"))?;
        Ok(path)
    };
    let none = at("none")?;
    verify(
        &Case {
            name: "no CUDA build",
            kind: "no_cuda_build",
            says: &["no libtorch_cuda.so in"],
            remedy: "set LIBTORCH",
            verdict: "warn",
        },
        &none,
    )?;

    let garbage = at("garbage")?;
    std::fs::write(garbage.join("lib/libtorch_cuda.so"), "not a library")?;
    verify(
        &Case {
            name: "garbage",
            kind: "does_not_load",
            says: &["does not load", "file too short"],
            remedy: "reinstall that libtorch",
            verdict: "bad",
        },
        &garbage,
    )?;

    // Linked against a cuDNN that is removed before loading.
    let lacking = at("lacking")?;
    let cudnn = lacking.join("libcudnn.so.9");
    compile(
        "int cudnn(void) { return 0; }\n",
        &cudnn,
        &["-Wl,-soname,libcudnn.so.9"],
    )?;
    library(
        &lacking,
        "int cudnn(void); int use(void) { return cudnn(); }\n",
        &[cudnn.to_str().context("a path")?],
    )?;
    std::fs::remove_file(&cudnn)?;
    verify(
        &Case {
            name: "a missing library",
            kind: "does_not_load",
            says: &["needs libcudnn.so.9 (cuDNN)"],
            remedy: "install NVIDIA's cuDNN",
            verdict: "bad",
        },
        &lacking,
    )?;

    let foreign = at("foreign")?;
    library(
        &foreign,
        "int of_another_release(void); int use(void) { return of_another_release(); }\n",
        &["-Wl,-z,now"],
    )?;
    verify(
        &Case {
            name: "another release",
            kind: "does_not_load",
            says: &["undefined symbol: of_another_release"],
            remedy: "the same CUDA build",
            verdict: "bad",
        },
        &foreign,
    )?;

    for (name, source, kind, says, remedy) in [
        (
            "an old driver",
            runtime(12_020, 12_080, 35),
            "driver_too_old",
            &["supports CUDA up to 12.2", "built for CUDA 12.8"][..],
            "update the NVIDIA driver",
        ),
        (
            "a much older driver",
            runtime(11_040, 12_080, 999),
            "driver_too_old",
            &["supports CUDA up to 11.4"],
            "CUDA 11.4 or older",
        ),
        (
            "no driver",
            runtime(0, 12_080, 35),
            "no_driver",
            &["no NVIDIA driver"],
            "install the NVIDIA driver",
        ),
        (
            "no GPU",
            runtime(12_080, 12_080, 100),
            "no_gpu",
            &["sees no GPU", "as the test says"],
            "nvidia-smi",
        ),
    ] {
        let place = at(&name.replace(' ', "-"))?;
        library(&place, &source, &[])?;
        let case = Case {
            name,
            kind,
            says,
            remedy,
            verdict: "bad",
        };
        verify(&case, &place)?;
    }
    Ok(())
}

/// If slots fall back to the CPU, the first line of the log says so, and why.
#[tokio::test(flavor = "multi_thread")]
async fn cpu_fallback_is_the_first_log_line() -> Result<()> {
    let stage = Stage::start().await?;
    let folder = stage.data_dir().join("garbage");
    std::fs::create_dir_all(folder.join("lib"))?;
    std::fs::write(folder.join("lib/libtorch_cuda.so"), "not a library")?;
    let mut auto = worker(&stage)?;
    let ended = with_library(auto.args(["--device", "auto", "--once", "0"]), &folder)?;
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    let first = log.lines().next().unwrap_or_default();
    ensure!(
        first.contains("WARN")
            && first.contains("on the CPU")
            && first.contains("file too short")
            && first.contains("reinstall that libtorch"),
        "{log}"
    );
    // A library that crashes its process does not crash the supervisor.
    let fatal = stage.data_dir().join("fatal");
    library(
        &fatal,
        "__attribute__((constructor)) static void end(void) { *(volatile int *)0 = 0; }\n",
        &[],
    )?;
    let mut auto = worker(&stage)?;
    let ended = with_library(auto.args(["--device", "auto", "--once", "0"]), &fatal)?;
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    let first = log.lines().next().unwrap_or_default();
    ensure!(
        first.contains("on the CPU") && first.contains("signal"),
        "{log}"
    );
    ensure!(ended.status.success(), "{}: {log}", ended.status);
    // A GPU requested explicitly is an error, without a fallback.
    let mut asked = worker(&stage)?;
    let ended = with_library(asked.args(["--device", "cuda:0"]), &folder)?;
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.code() == Some(4), "{}: {log}", ended.status);
    ensure!(log.contains("cannot use cuda:0"), "{log}");
    Ok(())
}

/// `coord` in this folder with its own data folder.
fn alone(place: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("coord")?);
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(place.join("data"))
        .current_dir(place)
        .env("HALFHEARD_CONFIG", "/dev/null")
        .env_remove("HALFHEARD_DEVICE")
        .env_remove("HALFHEARD_SLOTS")
        .env_remove(PRETEND)
        .stdin(Stdio::null());
    Ok(command)
}

#[test]
fn run_logs_its_devices_first() -> Result<()> {
    let place = Tiny::folder_with_spec("almt")?;
    let garbage = place.path().join("garbage");
    std::fs::create_dir_all(garbage.join("lib"))?;
    std::fs::write(garbage.join("lib/libtorch_cuda.so"), "not a library")?;
    for entry in std::fs::read_dir(libtorch().join("lib"))? {
        let entry = entry?;
        let link = garbage.join("lib").join(entry.file_name());
        std::os::unix::fs::symlink(entry.path(), link)?;
    }
    let garbage = garbage.to_string_lossy().into_owned();
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Variables<'_>, &[&str], &[&str]); 5] = [
        (
            &[(PRETEND, "3")],
            &[],
            &["workers: slot 0 on cuda:0", "slot 2 on cuda:2"],
        ),
        (
            &[(PRETEND, "1")],
            &["--workers", "2"],
            &["2 workers requested", "1 GPU", "--share-gpus"],
        ),
        (
            &[(PRETEND, "1")],
            &["--workers", "2", "--share-gpus"],
            &["workers: slots 0, 1 on cuda:0"],
        ),
        (&[], &["--device", "cpu"], &["workers: slots 0, 1 on cpu"]),
        (
            &[("LIBTORCH", &garbage)],
            &[],
            &["computing on the CPU", "file too short"],
        ),
    ];
    for (variables, flags, expected) in cases {
        let mut command = alone(place.path(), &["run", "tiny.toml"])?;
        command.args(flags).envs(variables.iter().copied());
        let mut run = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = run.stderr.take().context("its log")?;
        let mut first = String::new();
        let read = std::io::BufReader::new(stderr).read_line(&mut first);
        // The kernel kills its children.
        run.kill()?;
        run.wait()?;
        read?;
        for words in expected {
            ensure!(first.contains(words), "{flags:?}: {first}");
        }
    }
    Ok(())
}

#[test]
fn run_without_the_requested_gpus_starts_nothing() -> Result<()> {
    let place = Tiny::folder_with_spec("almt")?;
    for (gpus, flags, word) in [
        (
            "4",
            ["--workers", "2", "--device", "cuda:0"],
            "--share-gpus",
        ),
        ("1", ["--workers", "1", "--device", "cuda:3"], "sees 1 GPU"),
    ] {
        let mut command = alone(place.path(), &["run", "tiny.toml"])?;
        let refused = command.args(flags).env(PRETEND, gpus).output()?;
        let log = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1), "{log}");
        ensure!(log.contains(word), "{log}");
        ensure!(
            !place.path().join("data/embedded").exists(),
            "servers were started"
        );
    }
    Ok(())
}

#[test]
fn doctor_shows_the_device_of_each_slot() -> Result<()> {
    let place = Tiny::folder_with_spec("almt")?;
    for (slots, words) in [
        (
            "2",
            "2 GPUs; slot 0 on cuda:0 (pretended), slot 1 on cuda:1 (pretended)",
        ),
        ("1", "`worker --slots 2` uses all of them"),
        ("3", "3 workers requested"),
    ] {
        let mut command = alone(place.path(), &["doctor"])?;
        let doctor = command
            .env(PRETEND, "2")
            .env("HALFHEARD_SLOTS", slots)
            .output()?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(said.contains(words), "{slots}: {said}");
    }
    Ok(())
}
