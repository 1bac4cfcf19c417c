//! Specs with external programs, from the command line: their files reach the artifact store and stay as long
//! as they are needed, and what the programs wrote can be read.

use anyhow::{Result, ensure};
use halfheard_e2e::{programs::output, site::Site};
use halfheard_shared::{
    artifacts::{ArtifactStore, Key},
    bundle::Bundle,
    ids::{AttemptId, JobId},
};
use serde_json::json;
use std::{
    fs::File,
    path::Path,
    time::{Duration, SystemTime},
};

const SPEC: &str = r#"
name = "mine"
methods = ["my-model"]
seeds = [1]
rates = [0.0]
[datasets.mosi]
file = "tiny.safetensors"
[encoders.en]
path = "tiny-encoder"
[[external]]
id = "my-model"
command = ["python", "train.py"]
files = ["*.py"]
"#;

/// A site with a spec that runs a program.
fn site() -> Result<Site> {
    let site = Site::start()?;
    std::fs::write(site.folder().join("mine.toml"), SPEC)?;
    std::fs::write(site.folder().join("train.py"), "print(1)")?;
    Ok(site)
}

fn make_old(path: &Path) -> Result<()> {
    let old = SystemTime::now() - Duration::from_secs(30 * 86_400);
    Ok(File::options().write(true).open(path)?.set_modified(old)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn program_is_stored_when_submitted_and_kept_while_it_is_needed() -> Result<()> {
    let site = site()?;
    let plan = site.json(&["plan", "mine.toml"])?;
    let program = &plan["external_programs"][0];
    assert_eq!(program["method"], "my-model");
    assert_eq!(
        (&program["files"], &program["command"]),
        (&json!(1), &json!(["python", "train.py"]))
    );
    let text = output(&mut site.coord(&["plan", "mine.toml"])?)?;
    ensure!(
        text.contains("external program my-model: python train.py (1 file, bundle "),
        "{text}"
    );
    ensure!(
        text.contains("only workers started with `--allow-external`"),
        "{text}"
    );
    let bundle = program["bundle"].as_str().unwrap_or_default();
    let blob = site.artifacts().join("blobs").join(bundle);
    ensure!(!blob.exists(), "planning writes nothing");

    output(&mut site.coord(&["submit", "mine.toml"])?)?;
    let files = Bundle::decode(&std::fs::read(&blob)?)?.files;
    assert_eq!(
        files.get("train.py").map(Vec::as_slice),
        Some(&b"print(1)"[..])
    );
    // Another program is another sweep.
    std::fs::write(site.folder().join("train.py"), "print(2)")?;
    let other = site.json(&["plan", "mine.toml"])?;
    ensure!(other["sweep"] != plan["sweep"] && other["submitted"] == false);

    // However old it is.
    make_old(&blob)?;
    site.json(&["gc", "--yes"])?;
    ensure!(blob.exists(), "a needed program is gone");
    output(&mut site.coord(&["delete", "mine", "--yes"])?)?;
    site.json(&["gc", "--yes"])?;
    ensure!(!blob.exists(), "a program that nobody needs is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn submission_without_a_store_queues_nothing() -> Result<()> {
    let mut site = site()?;
    let file = site.folder().join("file");
    std::fs::write(&file, "")?;
    site.use_artifacts(&ArtifactStore::url_of(&file.join("artifacts")));
    let refused = site.coord(&["submit", "mine.toml"])?.output()?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success());
    ensure!(
        said.contains("cannot store the files of the external programs"),
        "{said}"
    );
    assert_eq!(site.until("SELECT count(*) FROM job", |_| true).await?, 0);
    Ok(())
}

#[test]
fn run_refuses_programs_that_are_not_allowed() -> Result<()> {
    let site = site()?;
    let refused = site
        .coord(&["run", "mine.toml", "--device", "cpu"])?
        .env_remove("HALFHEARD_DATABASE_URL")
        .output()?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success());
    ensure!(
        said.contains("the spec runs external programs, which is not allowed: my-model")
            && said.contains("--allow-external"),
        "{said}"
    );
    ensure!(
        !site.folder().join("data/embedded").exists(),
        "a server was started"
    );
    Ok(())
}

/// What a command prints to standard error.
fn complaint(site: &Site, arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(site.coord(arguments)?.output()?.stderr)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_from_the_database_and_the_store() -> Result<()> {
    let site = site()?;
    output(&mut site.coord(&["submit", "mine.toml"])?)?;
    let store = site.store().await?;
    let job: uuid::Uuid = sqlx::query_scalar("SELECT id FROM job WHERE kind = 'train'")
        .fetch_one(store.pool())
        .await?;
    let job = JobId(job);
    let said = complaint(&site, &["logs", &job.short(), "--all"])?;
    ensure!(
        said.contains("has no output: no worker has begun it"),
        "{said}"
    );
    let said = complaint(&site, &["logs", "00000000"])?;
    ensure!(
        said.contains("no job has an id that begins with `00000000`"),
        "{said}"
    );

    let attempt = AttemptId::derive(&[b"attempt"]);
    sqlx::query(
        "INSERT INTO attempt (id, job, worker, session, ended, outcome, failure_kind, errors)
         VALUES ($1, $2, 'gpu1', gen_random_uuid(), now(), 'failed', 'permanent',
                 ARRAY['the program exited with 1'])",
    )
    .bind(attempt.0)
    .bind(job.0)
    .execute(store.pool())
    .await?;
    let said = complaint(&site, &["logs", &job.short(), "--all"])?;
    ensure!(
        said.contains("only external programs do") && said.contains("the program exited with 1"),
        "{said}"
    );
    let whole = "first\n\x1b[2Jlast\n";
    sqlx::query("INSERT INTO attempt_output VALUES ($1, E'last\\n', $2, true)")
        .bind(attempt.0)
        .bind(whole.len() as i64)
        .execute(store.pool())
        .await?;
    let said = output(&mut site.coord(&["logs", &job.short()])?)?;
    ensure!(
        said.contains("on gpu1")
            && said.contains("failed (permanent)\n    the program exited with 1"),
        "{said}"
    );
    ensure!(said.ends_with("\nlast\n"), "{said}");
    let logs = site
        .coord(&["logs", &job.short(), "--attempt", &attempt.short()])?
        .output()?;
    assert_eq!(String::from_utf8(logs.stdout)?, "last\n");
    let said = String::from_utf8(logs.stderr)?;
    ensure!(said.contains("failed (permanent)"), "{said}");
    // The store does not have it yet.
    let said = complaint(&site, &["logs", &job.short(), "--all"])?;
    ensure!(said.contains("is not in the artifact store"), "{said}");
    let artifacts = ArtifactStore::open(&ArtifactStore::url_of(&site.artifacts()), None).await?;
    let stray = AttemptId::derive(&[b"stray"]);
    for key in [Key::Output(attempt), Key::Output(stray)] {
        artifacts.put(&key, whole.into()).await?;
        make_old(&site.artifacts().join(key.to_string()))?;
    }
    let all = output(&mut site.coord(&["logs", &job.short(), "--all"])?)?;
    assert_eq!(all, "first\n\u{fffd}[2Jlast\n");
    let json = site.json(&[
        "logs",
        &job.to_string(),
        "--all",
        "--attempt",
        &attempt.short(),
    ])?;
    assert_eq!(
        (&json["output"], &json["complete"]),
        (&json!(whole), &json!(true))
    );
    // Outputs of attempts that are not there any more go.
    site.json(&["gc", "--yes"])?;
    let there = |attempt| {
        site.artifacts()
            .join(Key::Output(attempt).to_string())
            .exists()
    };
    ensure!(there(attempt) && !there(stray));
    Ok(())
}
