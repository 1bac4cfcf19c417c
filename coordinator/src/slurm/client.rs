//! Slurm, through its programs.

use super::{
    SlurmError,
    program::{command, output},
    queue::{self, Seen},
};
use std::sync::atomic::{AtomicBool, Ordering};

/// How much is read of `squeue --json`: Slurm 22.05 ignores `--user` and `--partition` there and prints
/// 4 kB for every job of the cluster. Where that is more, the text form is used, which is filtered.
const JSON: usize = 4 << 20;
/// How much is read of anything else.
const TEXT: usize = 1 << 20;

/// A Slurm cluster.
#[derive(Debug)]
pub(crate) struct Slurm {
    cluster: String,
    text_only: AtomicBool,
}

impl Slurm {
    /// The cluster of this machine.
    ///
    /// # Errors
    ///
    /// As for all methods here: a program is missing or fails, or Slurm does not answer.
    pub(crate) async fn connect() -> Result<Self, SlurmError> {
        let config = run("scontrol", &["show", "config"]).await?;
        let cluster = config
            .lines()
            .find_map(|line| line.strip_prefix("ClusterName"))
            .map(|rest| rest.trim_start_matches([' ', '=']).trim().to_owned())
            .filter(|name| !name.is_empty())
            .ok_or_else(|| SlurmError::Unreadable {
                program: "scontrol",
                found: "no ClusterName".to_owned(),
            })?;
        Ok(Self {
            cluster,
            text_only: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Checks that a partition exists.
    pub(crate) async fn check_partition(&self, name: &str) -> Result<(), SlurmError> {
        let printed = run("sinfo", &["--noheader", "--all", "-o", "%R"]).await?;
        let mut all: Vec<&str> = printed.lines().map(str::trim).collect();
        all.sort_unstable();
        all.dedup();
        match all.contains(&name) {
            true => Ok(()),
            false => Err(SlurmError::NoPartition {
                name: name.to_owned(),
                have: all.join(", "),
            }),
        }
    }

    /// This user's jobs called `name` in a partition that have not ended.
    pub(crate) async fn queue(&self, name: &str, partition: &str) -> Result<Vec<Seen>, SlurmError> {
        let user = format!("--user={}", nix::unistd::geteuid());
        let of = format!("--partition={partition}");
        if !self.text_only.load(Ordering::Relaxed) {
            match self
                .json(&user, &of)
                .await
                .and_then(|printed| queue::json(&printed, name, partition))
            {
                Ok(seen) => return Ok(seen),
                Err(error) => tracing::debug!(%error, "no JSON of squeue; reading its text"),
            }
        }
        let printed = run("squeue", &["--noheader", &user, &of, "-o", queue::FORMAT]).await?;
        // Slurm answers, so it was the form.
        self.text_only.store(true, Ordering::Relaxed);
        Ok(queue::text(&printed, name, partition))
    }

    async fn json(&self, user: &str, partition: &str) -> Result<String, SlurmError> {
        let arguments = ["--json", user, partition].map(str::to_owned);
        let printed = output("squeue", command("squeue", &arguments), JSON).await?;
        match printed.cut {
            true => Err(SlurmError::Large {
                program: "squeue",
                limit: JSON,
            }),
            false => Ok(printed.stdout),
        }
    }

    /// What became of a job that is not in the queue; `None` if Slurm does not know it any more.
    pub(crate) async fn look_up(&self, id: i64) -> Result<Option<Seen>, SlurmError> {
        let id = id.to_string();
        match run("scontrol", &["show", "job", "-o", &id]).await {
            Ok(printed) => return Ok(queue::scontrol(&printed)),
            // Some minutes after its end.
            Err(SlurmError::Failed { stderr, .. }) if stderr.contains("Invalid job id") => {}
            Err(error) => return Err(error),
        }
        let accounts = [
            "--noheader",
            "--parsable2",
            "--allocations",
            "-o",
            queue::FIELDS,
            "-j",
            &id,
        ];
        // Many clusters keep no accounts.
        let printed = run("sacct", &accounts).await.unwrap_or_default();
        Ok(queue::sacct(&printed))
    }

    /// Submits a job with `sbatch`. Returns its number.
    pub(crate) async fn submit(
        &self,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<i64, SlurmError> {
        let mut sbatch = command("sbatch", arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_ours) {
                sbatch.env_remove(name);
            }
        }
        // The worker's log has the machine's time.
        sbatch.env_remove("TZ").env_remove("LC_ALL");
        for name in ["TZ", "LC_ALL"] {
            if let Some(value) = std::env::var_os(name) {
                sbatch.env(name, value);
            }
        }
        sbatch.envs(environment.iter().map(|(name, value)| (name, value)));
        let printed = output("sbatch", sbatch, TEXT).await?.stdout;
        // `123`, or `123;cluster`.
        let number = printed.trim().lines().last().unwrap_or_default();
        let number = number.split(';').next().unwrap_or_default();
        number.parse().map_err(|_| SlurmError::Unreadable {
            program: "sbatch",
            found: halfheard_shared::text::plain(printed.trim())
                .chars()
                .take(200)
                .collect(),
        })
    }

    /// Cancels jobs, those that wait only: one that was started meanwhile goes on.
    pub(crate) async fn cancel_pending(&self, ids: &[i64]) -> Result<(), SlurmError> {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        let mut arguments = vec!["--state=PENDING"];
        arguments.extend(ids.iter().map(String::as_str));
        run("scancel", &arguments).await.map(drop)
    }
}

/// Whether a variable must not get into a job's environment: settings of `coord`, and logins.
fn is_ours(variable: &str) -> bool {
    ["HALFHEARD_", "PG", "AWS_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || variable == "DATABASE_URL"
}

async fn run(program: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
    let printed = output(program, command(program, &arguments), TEXT).await?;
    Ok(printed.stdout)
}
