//! `coord slurm` with programs that print what a real Slurm printed (`tests/slurm/recorded`): submission, waiting,
//! running, preemption, the queue again, failure, the end of the work. `make test-slurm` runs the real one.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use anyhow::{Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{Process, output},
    site::Site,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const PROGRAMS: [&str; 6] = ["sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo"];

/// When what was recorded takes place: seconds from a scene's beginning.
const TIMES: [(&str, i64); 7] = [
    // The running ones.
    ("15:01:59", -100),
    ("15:11:59", 14_000),
    // Time limit, cancelled, and at last the failure.
    ("15:08:17", -90),
    ("15:09:33", -20),
    ("15:02:51", -15),
    ("15:02:53", -10),
    ("15:02:46", 0),
];

struct Scene {
    site: Site,
    fake: PathBuf,
    /// The name of the installation's jobs.
    name: String,
    /// The time at which what was recorded takes place, in seconds.
    now: u64,
}

impl Scene {
    /// An installation with a sweep of three training jobs of unknown length, and an empty queue.
    async fn start() -> Result<Self> {
        let site = Site::start()?;
        site.spec("small", &[1, 2, 3])?;
        output(&mut site.coord(&["submit", "small.toml"])?)?;
        let fake = site.folder().join("fake");
        fs::create_dir_all(fake.join("submitted"))?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("slurm/fake.sh");
        for program in PROGRAMS {
            std::os::unix::fs::symlink(&script, fake.join(program))?;
        }
        fs::write(fake.join("squeue.json"), "{\"jobs\": []}")?;
        fs::write(fake.join("squeue.txt"), "")?;
        let installation = site
            .store()
            .await?
            .installation()
            .await?
            .id
            .simple()
            .to_string();
        Ok(Self {
            site,
            fake,
            name: format!("halfheard-{}", &installation[..8]),
            now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        })
    }

    /// A recorded file with this installation's name, with times around now.
    fn recorded(&self, file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("slurm/recorded")
            .join(file);
        let mut text = fs::read_to_string(path)
            .unwrap()
            .replace("halfheard-1", &self.name)
            .replace("1795705319", &(self.now - 100).to_string())
            .replace("1795705919", &(self.now + 14_000).to_string());
        for (recorded, offset) in TIMES {
            let at = self.now.saturating_add_signed(offset);
            let mut date = Command::new("date");
            date.args(["-u", "-d", &format!("@{at}"), "+%Y-%m-%dT%H:%M:%S"]);
            let at = output(&mut date).unwrap();
            text = text.replace(&format!("2026-11-26T{recorded}"), at.trim());
        }
        text
    }

    fn queue(&self, form: &str, state: &str) -> Result<()> {
        let text = self.recorded(&format!("{state}.{form}"));
        Ok(fs::write(self.fake.join(format!("squeue.{form}")), text)?)
    }

    fn slurm(&self, arguments: &[&str]) -> Result<Command> {
        let fixed = [
            "slurm",
            "--partition",
            "gpu",
            "--max",
            "3",
            "--poll",
            "1",
            "--json",
        ];
        self.command(&[&fixed, arguments].concat())
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.site.coord(arguments)?;
        command
            .env("HALFHEARD_SLURM_BIN", &self.fake)
            .env("FAKE_SLURM", &self.fake)
            .env("AWS_SECRET_ACCESS_KEY", "hush");
        Ok(command)
    }

    /// Starts the loop; its events go to a file.
    fn feed(&self, arguments: &[&str]) -> Result<Process> {
        let mut append = fs::File::options();
        let log = append
            .create(true)
            .append(true)
            .open(self.fake.join("events"))?;
        Process::spawn(self.slurm(arguments)?.stdout(Stdio::from(log)))
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.fake.join(name)).unwrap_or_default()
    }

    fn submissions(&self) -> usize {
        self.file("calls").matches("sbatch --parsable").count()
    }

    async fn until_file(&self, name: &str, text: &str) -> Result<()> {
        let since = Instant::now();
        while !self.file(name).contains(text) {
            ensure!(
                since.elapsed() < PATIENCE,
                "no `{text}` in {name}:\n{}",
                self.file(name)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until `coord status` shows these allocations: number, state, reason, restarts.
    async fn until_status(&self, expected: &[(i64, &str, &str, i64)]) -> Result<serde_json::Value> {
        let since = Instant::now();
        loop {
            let shown = self.site.json(&["status"])?["allocations"].take();
            let open = shown["open"].as_array().unwrap();
            let found: Vec<_> = open
                .iter()
                .map(|a| {
                    let text = |key: &str| a[key].as_str().unwrap();
                    let number = |key: &str| a[key].as_i64().unwrap();
                    (
                        number("slurm_id"),
                        text("state"),
                        text("reason"),
                        number("restarts"),
                    )
                })
                .collect();
            if found == expected {
                return Ok(shown);
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "{shown:#}\n{}",
                self.file("events")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn allocations_follow_the_queue_through_preemption_crash_and_failure() -> Result<()> {
    let scene = Scene::start().await?;
    fs::write(
        scene.fake.join("submitted/squeue.json"),
        scene.recorded("running.json"),
    )?;
    let dry: serde_json::Value = serde_json::from_str(&output(&mut scene.slurm(&["--dry-run"])?)?)?;
    ensure!(dry["submit"] == 3 && dry["work"]["unknown"] == 3, "{dry:#}");
    ensure!(scene.submissions() == 0);

    let feed = scene.feed(&[])?;
    let running = (2, "RUNNING", "", 0);
    let waiting = (3, "PENDING", "Resources", 0);
    scene
        .until_status(&[(1, "RUNNING", "", 0), running, waiting])
        .await?;
    ensure!(scene.submissions() == 3);
    ensure!(
        scene.file("calls").contains("--gres=gpu:1") && scene.file("calls").contains("--once 300")
    );
    // Neither the logins of `coord` nor anything else of its settings gets into the job's environment.
    let environment = scene.file("environment");
    ensure!(environment.contains("HALFHEARD_ENV=") && !environment.contains("hush"));
    ensure!(
        !environment.contains("HALFHEARD_DATABASE_URL")
            && !environment.contains("HALFHEARD_NATS_URL")
    );

    let second = scene.slurm(&[])?.output()?;
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(
        second.status.code() == Some(1) && error.contains("another `coord slurm`"),
        "{error}"
    );

    scene.queue("json", "preempted")?;
    let preempted = (1, "PENDING", "BeginTime", 1);
    let shown = scene.until_status(&[preempted, running, waiting]).await?;
    ensure!(shown["preempted"] == 1, "{shown:#}");
    let text = output(&mut scene.site.coord(&["status"])?)?;
    ensure!(
        text.contains("1 PENDING (BeginTime), 1 PENDING (Resources), 1 RUNNING"),
        "{text}"
    );

    // After a crash the next one goes on with what is there; an old Slurm has the text form only.
    feed.kill()?;
    fs::remove_file(scene.fake.join("squeue.json"))?;
    fs::remove_dir_all(scene.fake.join("submitted"))?;
    scene.queue("txt", "running")?;
    let store = scene.site.store().await?;
    sqlx::query("UPDATE feeder SET expires = '-infinity'")
        .execute(store.pool())
        .await?;
    let feed = scene.feed(&[])?;
    scene
        .until_status(&[(1, "RUNNING", "", 1), running, waiting])
        .await?;

    // All of them end, the last one badly and at once.
    let log = scene.site.folder().join("data/slurm/gpu-3.log");
    fs::write(&log, "error: cannot connect to the broker\n")?;
    for (id, file, recorded) in [
        (1, "timeout.txt", 12),
        (2, "cancelled.txt", 8),
        (3, "failed.txt", 6),
    ] {
        let job = scene
            .recorded(file)
            .replace(&format!("JobId={recorded} "), &format!("JobId={id} "));
        fs::write(scene.fake.join(format!("job-{id}")), job)?;
    }
    fs::write(scene.fake.join("squeue.txt"), "")?;
    let shown = scene.until_status(&[]).await?;
    let failed = &shown["failed"][0];
    ensure!(
        failed["slurm_id"] == 3 && failed["reason"] == "exit code 3",
        "{shown:#}"
    );
    scene
        .until_file("events", "3 ended: FAILED (exit code 3)")
        .await?;
    scene
        .until_file("events", "cannot connect to the broker")
        .await?;
    ensure!(scene.submissions() == 3, "it backs off");
    ensure!(feed.terminate(PATIENCE)?.code() == Some(130));
    scene.until_file("events", "\"event\":\"stopped\"").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_submissions_back_off_and_waiting_ones_end_with_the_work() -> Result<()> {
    let scene = Scene::start().await?;
    let unknown = scene
        .command(&["slurm", "--partition", "gpus", "--max", "1"])?
        .output()?;
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(
        error.contains("unknown partition `gpus`; the cluster has gpu, urgent"),
        "{error}"
    );
    fs::write(
        scene.fake.join("refuse"),
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n",
    )?;
    let feed = scene.feed(&[])?;
    scene
        .until_file("events", "Invalid account or account/partition")
        .await?;
    ensure!(scene.file("events").contains("next attempt in 30 s"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        scene.submissions() == 1,
        "it backs off: {}",
        scene.file("calls")
    );
    ensure!(feed.terminate(PATIENCE)?.code() == Some(130));

    // A job of this installation that the database does not know is adopted, and cancelled when the work is gone.
    fs::remove_file(scene.fake.join("refuse"))?;
    scene.queue("json", "running")?;
    let feed = scene.feed(&["--until-done"])?;
    scene
        .until_status(&[
            (1, "RUNNING", "", 0),
            (2, "RUNNING", "", 0),
            (3, "PENDING", "Resources", 0),
        ])
        .await?;
    ensure!(scene.submissions() == 1, "three are enough");
    output(&mut scene.site.coord(&["cancel", "small"])?)?;
    scene
        .until_file("calls", "scancel --state=PENDING 3")
        .await?;
    fs::write(scene.fake.join("squeue.json"), "{\"jobs\": []}")?;
    ensure!(feed.wait(PATIENCE)?.code() == Some(0));
    scene.until_file("events", "3 ended: LOST").await?;
    Ok(())
}
