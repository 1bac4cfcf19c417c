//! `coord top` in a terminal: a sweep driven by keys alone, through outages; and its ways to end.

use anyhow::{Result, ensure};
use halfheard_e2e::{PATIENCE, programs::output, pty::Terminal, site::Site};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::time::Duration;

/// What leaves the other screen, on which everything is drawn.
const LEAVE: &str = "\x1b[?1049l";

async fn number(site: &Site, query: &'static str, wanted: i64) -> Result<()> {
    site.until(query, |found| found == wanted).await.map(drop)
}

const PAUSED: &str = "SELECT count(*) FROM sweep WHERE state = 'paused'";

/// Plants the failure of one training job with its evaluations.
async fn plant_failure(site: &Site) -> Result<()> {
    let store = site.store().await?;
    sqlx::query(
        "UPDATE job SET state = 'failed', last_error = 'planted', finished = now() WHERE seed = 3",
    )
    .execute(store.pool())
    .await?;
    store.pool().close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_is_driven_by_keys_until_it_ends() -> Result<()> {
    let mut site = Site::start()?;
    // Long enough that a screen that is drawn once a second finds the worker at work.
    site.spec_of_epochs("tiny", &[1, 2, 3], 40)?;
    output(&mut site.coord(&["submit", "tiny.toml"])?)?;
    plant_failure(&site).await?;
    let _coordinator = site.serve()?;
    let mut command = site.coord(&["top"])?;
    command.env_remove("NO_COLOR");
    let mut top = Terminal::start(command, 80, 24)?;
    top.shows("▶ running")?;

    // Asked, and answered with no.
    top.press("p")?;
    top.shows("Pause tiny")?;
    top.press("n")?;
    top.shows("nothing changed")?;
    number(&site, PAUSED, 0).await?;
    top.press("p")?;
    top.shows("Pause tiny")?;
    top.press("y")?;
    top.shows("‖ paused")?;
    number(&site, PAUSED, 1).await?;

    top.press("++")?;
    top.shows("Set the priority of tiny")?;
    top.press("y")?;
    top.shows("priority 2 (was 0)")?;
    number(&site, "SELECT priority::bigint FROM sweep", 2).await?;

    // The failure, its cause, and another try.
    top.press("5")?;
    top.shows("planted")?;
    top.press("R")?;
    top.shows("again?")?;
    top.press("y")?;
    top.shows("will run again once the sweep is resumed")?;
    number(&site, "SELECT count(*) FROM job WHERE state = 'failed'", 0).await?;
    top.shows("✓ none")?;

    // A worker gets nothing of a paused sweep.
    let _worker = halfheard_e2e::programs::Process::spawn(&mut site.worker("solo")?)?;
    top.press("3")?;
    top.shows("solo-0")?;
    number(&site, "SELECT count(*) FROM attempt", 0).await?;
    top.press("r")?;
    top.shows("Resume tiny")?;
    top.press("y")?;
    top.shows("resumed")?;
    top.until("the worker at work", |shown| shown.contains("working"))?;

    // An outage is told, and what was known stays; then it goes on.
    top.press("2")?;
    top.until("the map", |shown| {
        shown.contains("[2 map]") && shown.contains("mosi")
    })?;
    site.postgres.kill()?;
    let shown = top.shows("! database unreachable")?;
    ensure!(shown.contains("almt"), "{shown}");
    site.postgres.resume()?;
    top.until("the end of the outage", |shown| {
        !shown.contains("unreachable")
    })?;

    top.until("three numbers", |shown| {
        shown.matches("✓0.").count() + shown.matches("✓1.").count() == 3
    })?;
    top.press("1")?;
    top.shows("✓ finished")?;
    top.press("\r\r")?;
    let shown = top.until("curves", |shown| {
        shown.contains("seed 3") && shown.contains('█')
    })?;
    ensure!(
        shown.contains("solo-0") && shown.contains("✓ done"),
        "{shown}"
    );
    top.press("q")?;
    let raw = top.raw();
    let status = top.process.wait(PATIENCE)?;
    ensure!(status.success(), "{status}: {raw}");
    ensure!(raw.contains("\x1b[38;5;"), "no color");
    assert_eq!(site.finished().await?, 12);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_is_restored_and_needed() -> Result<()> {
    let site = Site::start()?;
    let refused = site.coord(&["top"])?.output()?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    ensure!(
        said.contains("needs a terminal") && said.contains("coord status --json"),
        "{said}"
    );

    for (keys, signal, code) in [
        ("q", None, 0),
        ("\x03", None, 130),
        ("", Some(Signal::SIGTERM), 130),
    ] {
        let mut command = site.coord(&["top"])?;
        command.env("NO_COLOR", "1");
        let mut top = Terminal::start(command, 40, 20)?;
        top.shows("no sweeps yet")?;
        top.press(keys)?;
        if let Some(signal) = signal {
            kill(Pid::from_raw(top.process.id().cast_signed()), signal)?;
        }
        let shown = top.until("the end of the drawing", |_| top.raw().contains(LEAVE));
        let raw = top.raw();
        shown?;
        let status = top.process.wait(Duration::from_secs(10))?;
        ensure!(
            status.code() == Some(code),
            "{keys:?}, {signal:?}: {status}"
        );
        // Emphasis is no color.
        ensure!(
            !raw.contains("\x1b[38;") && !raw.contains("\x1b[48;"),
            "a color: {raw:?}"
        );
    }
    Ok(())
}
