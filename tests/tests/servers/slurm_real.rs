//! `coord slurm` on a real Slurm: from no worker to a finished sweep with two preemptions. `make test-slurm`; needs
//! Debian's `slurm-wlm` and `munge`.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{Process, output},
    site::Site,
};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Slurm waits two minutes before it starts a requeued job again.
const PATIENCE: Duration = Duration::from_secs(600);

/// A cluster of two nodes. The order of fields is the order of their end.
struct Cluster {
    daemons: Vec<Process>,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("slurm").tempdir()?;
        fs::create_dir(folder.path().join("state"))?;
        let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = ports.map(|port| port.local_addr().unwrap().port().to_string());
        let user = output(Command::new("id").arg("-un"))?;
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("slurm/slurm.conf");
        let mut config = fs::read_to_string(template)?
            .replace("@FOLDER@", &folder.path().display().to_string())
            .replace("@USER@", user.trim());
        for (number, port) in ports.iter().enumerate() {
            config = config.replace(&format!("@PORT{number}@"), port);
        }
        fs::write(folder.path().join("slurm.conf"), config)?;
        fs::write(
            folder.path().join("gres.conf"),
            "NodeName=node[1-2] Name=gpu File=/dev/null\n",
        )?;
        let mut cluster = Self {
            daemons: Vec::new(),
            folder,
        };
        cluster.munge()?;
        cluster.daemon("slurmctld", &["-D", "-c"])?;
        cluster.daemon("slurmd", &["-D", "-N", "node1"])?;
        cluster.daemon("slurmd", &["-D", "-N", "node2"])?;
        let since = Instant::now();
        while !cluster
            .run("sinfo", &["-h", "-o", "%D %t"])
            .is_ok_and(|nodes| nodes.contains("2 idle"))
        {
            ensure!(
                since.elapsed() < Duration::from_secs(60),
                "the nodes do not come up"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn munge(&mut self) -> Result<()> {
        let key = self.path("munge.key");
        let random: Vec<u8> = (0..64)
            .flat_map(|_| uuid::Uuid::new_v4().into_bytes())
            .collect();
        fs::write(&key, random)?;
        let mut chmod = Command::new("chmod");
        output(chmod.arg("400").arg(&key))?;
        let flag = |flag: &str, file: &str| format!("--{flag}={}", self.path(file).display());
        let flags = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            flag("key-file", "munge.key"),
            flag("socket", "munge.socket"),
            flag("pid-file", "munged.pid"),
            flag("seed-file", "munge.seed"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.daemon("munged", &flags)?;
        let since = Instant::now();
        while !self.path("munge.socket").exists() {
            ensure!(
                since.elapsed() < Duration::from_secs(10),
                "munged does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn daemon(&mut self, program: &str, arguments: &[&str]) -> Result<()> {
        let log = fs::File::create(self.path(&format!("{program}-{}.out", self.daemons.len())))?;
        let mut command = self.command(program, arguments);
        command.stdout(log.try_clone()?).stderr(log);
        let started = Process::spawn(&mut command);
        let hint = || format!("cannot start {program}: `apt install slurm-wlm munge`");
        self.daemons.push(started.with_context(hint)?);
        Ok(())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command
            .env("SLURM_CONF", self.path("slurm.conf"))
            .env("PATH", path);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(program, arguments))
    }

    /// Runs something urgent on a node for ten seconds.
    fn preempt(&self, node: &str) -> Result<()> {
        let log = format!("--output={}", self.path("urgent.log").display());
        let node = format!("--nodelist={node}");
        let job = [
            "-p",
            "urgent",
            "--gres=gpu:1",
            &node,
            &log,
            "--wrap=sleep 10",
        ];
        self.run("sbatch", &job).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.run(
            "scancel",
            &["--state=RUNNING", "--signal=KILL", "-p", "gpu"],
        );
    }
}

fn spec(site: &Site) -> Result<()> {
    site.spec("small", &[1, 2, 3])?;
    let file = site.folder().join("small.toml");
    let longer = fs::read_to_string(&file)?
        .replace("epochs = 4", &format!("epochs = {EPOCHS}"))
        .replace("batch_size = 16", "batch_size = 16\nearly_stop = 0");
    fs::write(file, longer)?;
    output(&mut site.coord(&["submit", "small.toml"])?).map(drop)
}

/// A minute or two on one core: longer than both preemptions take, shorter than anybody's patience.
const EPOCHS: u32 = 600;

/// A number of seconds from the database.
async fn seconds(site: &Site, query: &'static str) -> Result<Vec<f64>> {
    let store = site.store().await?;
    Ok(sqlx::query_scalar(query).fetch_all(store.pool()).await?)
}

async fn until(site: &Site, query: &'static str, what: &str) -> Result<()> {
    let store = site.store().await?;
    let since = Instant::now();
    while !sqlx::query_scalar::<_, bool>(query)
        .fetch_one(store.pool())
        .await?
    {
        ensure!(since.elapsed() < PATIENCE, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Slurm: `make test-slurm`"]
async fn sweep_finishes_from_no_worker_with_two_preemptions() -> Result<()> {
    let undisturbed = Site::start()?;
    spec(&undisturbed)?;
    let serve = undisturbed.serve()?;
    let worker = Process::spawn(undisturbed.worker("alone")?.args(["--once", "3"]))?;
    until(&undisturbed, ALL_DONE, "the undisturbed run's end").await?;
    worker.wait(PATIENCE)?;
    let expected = undisturbed.tables("small")?;
    drop((serve, undisturbed));

    let cluster = Cluster::start()?;
    let site = Site::start()?;
    spec(&site)?;
    let _serve = site.serve()?;
    let began = Instant::now();
    let fixed = [
        "slurm",
        "--partition=gpu",
        "--max=2",
        "--poll=2",
        "--idle=10",
        "--until-done",
    ];
    let worker = ["--", "--device", "cpu", "--threads", "1"];
    let mut feed = site.coord(&[&fixed[..], &worker].concat())?;
    feed.env("SLURM_CONF", cluster.path("slurm.conf"));
    let feed = Process::spawn(&mut feed)?;
    until(
        &site,
        "SELECT EXISTS (SELECT FROM attempt WHERE started IS NOT NULL)",
        "a start",
    )
    .await?;
    println!(
        "time to the first worker at work: {:.1} s",
        began.elapsed().as_secs_f64()
    );

    // The second preemption takes the last allocation that trains.
    until(&site, TWO_TRAIN, "training in two allocations").await?;
    for number in [1, 2] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.preempt(&format!("node{number}"))?;
        let taken = match number {
            1 => "SELECT sum(restarts) >= 1 FROM allocation",
            _ => "SELECT sum(restarts) >= 2 FROM allocation",
        };
        until(&site, taken, "a preemption").await?;
        let status = output(&mut site.coord(&["status"])?)?;
        println!("{status}");
        ensure!(
            status.contains(&format!("Slurm took {number} back")),
            "{status}"
        );
    }
    until(&site, ALL_DONE, "the end of the sweep").await?;
    ensure!(
        feed.wait(PATIENCE)?.code() == Some(0),
        "it exits when nothing is left"
    );
    ensure!(
        cluster.run("squeue", &["-h", "-p", "gpu"])?.is_empty(),
        "allocations end by themselves"
    );
    ensure!(site.tables("small")? == expected, "the tables differ");

    let gaps = seconds(&site, GAPS).await?;
    println!("seconds until a preempted training job went on: {gaps:.1?}");
    println!("in all: {:.0} s", began.elapsed().as_secs_f64());
    ensure!(gaps.len() >= 2, "two trainings were interrupted");
    ensure!(
        seconds(&site, LOST).await? == [0.0],
        "they saved on leaving"
    );
    Ok(())
}

const ALL_DONE: &str = "SELECT count(*) > 0 AND bool_and(state = 'done') FROM job";
const TWO_TRAIN: &str =
    "SELECT count(DISTINCT worker) = 2 FROM job WHERE kind = 'train' AND state = 'running'";
/// From the end of an attempt that was handed back to the start of the next.
const GAPS: &str = "
    SELECT extract(epoch FROM n.started - a.ended)::float8
    FROM attempt a
    CROSS JOIN LATERAL (
        SELECT started FROM attempt n WHERE n.job = a.job AND n.granted > a.granted ORDER BY granted LIMIT 1
    ) n
    WHERE a.outcome IN ('handed_back', 'lost') AND a.started IS NOT NULL ORDER BY a.ended";
/// Attempts at training that ended otherwise than by saving and handing back.
const LOST: &str = "
    SELECT count(*)::float8 FROM attempt a JOIN job j ON j.id = a.job
    WHERE j.kind = 'train' AND a.outcome NOT IN ('done', 'handed_back')";
