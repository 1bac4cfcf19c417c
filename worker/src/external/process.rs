//! The running program: what it says, what it uses, and its end.

use super::{
    error::{died, machine, misbehaved},
    folder::{JobFolder, excerpt},
    guard,
    limits::{GB, Limits},
    output::{Captured, Listening, OutputSink},
    tree,
};
use halfheard_models::{device::Device, train::TrainError};
use halfheard_shared::external::{Event, JOB_VARIABLE, MAX_LINE};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

/// How often processes and memory are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the disk is.
const DISK_EVERY: Duration = Duration::from_secs(2);
/// How long processes may take to die.
const DEATH: Duration = Duration::from_secs(5);
/// Lines that are read ahead; then the program waits.
const AHEAD: usize = 16;
/// The variables of the worker that a program gets. What holds logins or chooses libraries is not among
/// them.
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "UV_CACHE_DIR",
    "UV_PYTHON",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The environment of a program.
pub(super) fn environment(job: &Path, device: Device, threads: u32) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| PASSED.contains(&name.as_str()) || name.starts_with("LC_"))
        .collect();
    let mut set = |name: &str, value: String| {
        environment.insert(name.to_owned(), value);
    };
    set(JOB_VARIABLE, job.join("job.json").display().to_string());
    set("TMPDIR", job.join("tmp").display().to_string());
    set("PYTHONUNBUFFERED", "1".to_owned());
    set("PYTHONDONTWRITEBYTECODE", "1".to_owned());
    // The order of a set of texts would differ from run to run.
    set("PYTHONHASHSEED", "0".to_owned());
    for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
        set(variable, threads.to_string());
    }
    let visible = match device {
        Device::Cuda(number) => {
            // The worker may itself see some only.
            let own = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            let named = own.as_deref().and_then(|own| own.split(',').nth(number));
            named.map_or_else(|| number.to_string(), |name| name.trim().to_owned())
        }
        _ => String::new(),
    };
    set("CUDA_VISIBLE_DEVICES", visible);
    environment
}

/// What came of waiting for a program.
#[derive(Debug)]
pub(super) enum Said {
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// It has ended, with this code.
    Ended(i32),
}

enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// A program that runs, with all its processes.
pub(super) struct Running {
    guard: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<Line>,
    errors: Listening,
    output_file: PathBuf,
    sink: OutputSink,
    job: PathBuf,
    limits: Limits,
    began: Instant,
    heard: Instant,
    looked: Instant,
    looked_at_disk: Instant,
    peak: u64,
}

impl Running {
    /// Starts a command in a folder of the job.
    pub(super) fn start(
        folder: &JobFolder,
        command: Vec<String>,
        inside: PathBuf,
        environment: BTreeMap<String, String>,
        limits: Limits,
        sink: OutputSink,
    ) -> Result<Self, TrainError> {
        let cannot = |error: std::io::Error| machine("cannot start the program", &error);
        let order = guard::Order {
            command,
            folder: inside,
            environment,
            processes: limits.processes,
            file: limits.disk.max(limits.file),
        };
        let mut guard = Command::new("/proc/self/exe")
            .arg(guard::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let (mut orders, stdout, stderr) =
            (guard.stdin.take(), guard.stdout.take(), guard.stderr.take());
        let (sender, lines) = sync_channel(AHEAD);
        let output_file = folder.output();
        let errors = Listening::start(stderr, File::create(&output_file).ok());
        let events = std::thread::Builder::new().name("program-events".to_owned());
        let events = events.spawn(move || {
            if let Some(stdout) = stdout {
                read_lines(BufReader::new(stdout), &sender);
            }
        });
        let now = Instant::now();
        let mut running = Self {
            guard,
            orders: None,
            lines,
            errors: errors.map_err(cannot)?,
            output_file,
            sink,
            job: folder.job().to_owned(),
            limits,
            began: now,
            heard: now,
            looked: now,
            looked_at_disk: now,
            peak: 0,
        };
        // From here on `running` ends what was started.
        events.map_err(cannot)?;
        let line = serde_json::to_string(&order).unwrap_or_default() + "\n";
        if let Some(orders) = &mut orders {
            orders.write_all(line.as_bytes()).map_err(cannot)?;
        }
        running.orders = orders;
        Ok(running)
    }

    /// Waits a moment for the program to say something.
    ///
    /// # Errors
    ///
    /// It said something that is not agreed, or took more than it may.
    pub(super) fn wait(&mut self) -> Result<Said, TrainError> {
        match self.lines.recv_timeout(LOOK_EVERY) {
            Ok(Line::Text(line)) => {
                self.heard = Instant::now();
                self.look()?;
                if line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(Said::Nothing);
                }
                serde_json::from_slice(&line).map(Said::Event).map_err(|error| {
                    misbehaved(format!(
                        "it wrote a line to standard output that is not an event ({error}): `{}`; \
                         what is for people belongs on standard error",
                        excerpt(&String::from_utf8_lossy(&line))
                    ))
                })
            }
            Ok(Line::TooLong) => Err(misbehaved(format!(
                "it wrote a line of more than {MAX_LINE} bytes to standard output"
            ))),
            Err(RecvTimeoutError::Timeout) => {
                self.look()?;
                Ok(Said::Nothing)
            }
            // No process holds its output any more, the guard included.
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.guard.wait();
                let status =
                    status.map_err(|error| machine("cannot wait for the program", &error))?;
                Ok(Said::Ended(status.code().unwrap_or(137)))
            }
        }
    }

    /// Whether it keeps within its limits.
    fn look(&mut self) -> Result<(), TrainError> {
        let limits = self.limits;
        let too_long = |what: &str, limit: Duration| {
            Err(died(
                format!("it {what} for {}", minutes(limit)),
                self.errors.so_far().last_words(),
            ))
        };
        if self.heard.elapsed() > limits.silence {
            return too_long("said nothing", limits.silence);
        }
        if self.began.elapsed() > limits.time {
            return too_long("ran", limits.time);
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        // The guard itself is none of them.
        let usage = tree::usage(self.guard.id() as i32);
        self.peak = self.peak.max(usage.memory);
        let took = |what: String| Err(died(what, self.errors.so_far().last_words()));
        if usage.processes > limits.processes {
            return took(format!(
                "it had {} processes, over the limit of {}",
                usage.processes, limits.processes
            ));
        }
        if usage.memory > limits.memory {
            return took(format!(
                "it used {} GB of memory, over the limit of {}",
                gigabytes(usage.memory),
                gigabytes(limits.memory)
            ));
        }
        if self.looked_at_disk.elapsed() >= DISK_EVERY {
            self.looked_at_disk = Instant::now();
            let used = JobFolder::used(&self.job);
            if used > limits.disk {
                return took(format!(
                    "it wrote {} GB into its folder, over the limit of {}",
                    gigabytes(used),
                    gigabytes(limits.disk)
                ));
            }
        }
        Ok(())
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&mut self) {
        if let Some(orders) = &mut self.orders {
            // It may have ended already.
            let _ = writeln!(orders, "{}", guard::TERMINATE);
        }
    }

    /// The most memory that all its processes together have had, in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        self.peak
    }

    /// How it failed by ending with this code.
    pub(super) fn ended_early(&self, code: i32) -> TrainError {
        let how = match code {
            0 => "it exited before it had finished".to_owned(),
            137 => "it was killed (SIGKILL; the machine may lack memory)".to_owned(),
            128.. => format!("it was ended by signal {}", code - 128),
            code => format!("it exited with code {code}"),
        };
        died(how, self.errors.to_the_end(DEATH).last_words())
    }

    fn end(&mut self) {
        let guard = self.guard.id() as i32;
        if !matches!(self.guard.try_wait(), Ok(Some(_))) {
            tree::end_below(guard, DEATH);
            // It notices that its program has ended, and that nobody speaks to it any more.
            drop(self.orders.take());
            let since = Instant::now();
            while matches!(self.guard.try_wait(), Ok(None)) {
                if since.elapsed() > DEATH {
                    let _ = self.guard.kill();
                    let _ = self.guard.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Who reads ahead is let go.
        self.lines = sync_channel(0).1;
        let (tail, bytes) = self.errors.to_the_end(DEATH).now();
        self.sink.put(Captured {
            tail,
            bytes,
            whole: std::fs::read(&self.output_file).unwrap_or_default(),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / GB as f64)
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Reads lines of bounded length until the end, or until nobody wants them.
fn read_lines(mut from: BufReader<impl std::io::Read>, to: &SyncSender<Line>) {
    loop {
        let mut line = Vec::new();
        let bounded = &mut (&mut from).take(MAX_LINE as u64 + 1);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let line = match line.len() > MAX_LINE {
            true => Line::TooLong,
            false => Line::Text(line),
        };
        let is_last = matches!(line, Line::TooLong);
        if to.send(line).is_err() || is_last {
            return;
        }
    }
}
