//! Makes a fault and undoes it.

use crate::{
    cluster::Cluster,
    daemon::{Daemon, arguments, children},
    fault::{Fault, HOSTS, What},
    network::Effect,
};
use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How long a worker may take to hand back its jobs.
const HAND_BACK: Duration = Duration::from_secs(20);

/// Makes the fault, waits, undoes it.
///
/// # Errors
///
/// There is nothing to make it on at the moment, or the machine refuses.
pub fn apply(cluster: &Cluster, fault: &Fault) -> Result<()> {
    let lasting = Duration::from_secs_f64(fault.seconds);
    match &fault.what {
        What::SlotStop { host, slot } => {
            let pid = slot_of(cluster, host, *slot)?;
            kill(pid, Signal::SIGSTOP)?;
            thread::sleep(lasting);
            // It may have been killed meanwhile.
            let _ = kill(pid, Signal::SIGCONT);
        }
        What::SlotKill { host, slot } => kill(slot_of(cluster, host, *slot)?, Signal::SIGKILL)?,
        What::SupervisorStop { host } | What::CoordStop { host } => {
            let program = cluster.program(host)?;
            stop(&program, lasting)?;
        }
        What::SupervisorKill { host } | What::CoordKill { host } => {
            let mut program = cluster.program(host)?;
            program.pid().context("it does not run")?;
            program.kill()?;
            thread::sleep(lasting);
            cluster.start_locked(host, &mut program)?;
        }
        What::SupervisorTerm { host } => {
            let mut program = cluster.program(host)?;
            program.pid().context("it does not run")?;
            // One whose slot is stopped by another fault is killed in the end.
            program.end(Signal::SIGTERM, HAND_BACK)?;
            thread::sleep(lasting);
            cluster.start_locked(host, &mut program)?;
        }
        What::BrokerStop | What::BrokerKill | What::BrokerLost | What::BrokerFull => {
            broker(cluster, &fault.what, lasting)?;
        }
        What::DatabaseStop
        | What::DatabaseKill
        | What::DatabaseRestart
        | What::DatabaseReadOnly => database(cluster, &fault.what, lasting)?,
        What::StoreFull => full(cluster, "store", lasting)?,
        What::DataFull { host } => full(cluster, host, lasting)?,
        What::StoreMissing { host } => missing(cluster, host, lasting)?,
        What::Cut { .. } | What::Slow { .. } => link(cluster, fault, lasting)?,
        What::WorkerClock { host, shift_s } | What::CoordClock { host, shift_s } => {
            let clock = cluster.clocks.get(host).context("no clock")?;
            clock.shift(*shift_s)?;
            thread::sleep(lasting);
            clock.shift(0)?;
        }
    }
    Ok(())
}

/// The process of a slot, as long as its supervisor lives.
fn slot_of(cluster: &Cluster, host: &str, slot: usize) -> Result<Pid> {
    let supervisor = cluster.supervisor(host).context("no supervisor")?;
    let number = slot.to_string();
    let is_it = |&pid: &i32| {
        let arguments = arguments(pid);
        let mut pairs = arguments.windows(2);
        pairs.any(|pair| pair[0] == "--slot" && pair[1] == number)
    };
    let pid = children(supervisor).into_iter().find(is_it);
    Ok(Pid::from_raw(pid.context("the slot does not run")?))
}

fn stop(program: &Daemon, lasting: Duration) -> Result<()> {
    program.pid().context("it does not run")?;
    program.signal(Signal::SIGSTOP);
    thread::sleep(lasting);
    program.signal(Signal::SIGCONT);
    Ok(())
}

fn broker(cluster: &Cluster, what: &What, lasting: Duration) -> Result<()> {
    let mut broker = cluster.broker();
    match what {
        What::BrokerStop => stop(&broker, lasting)?,
        What::BrokerFull => {
            let disk = cluster.disks.get("broker").context("no disk")?;
            disk.fill()?;
            thread::sleep(lasting);
            disk.free()?;
            // It may have given up its streams: its operator makes room and starts it again.
            broker.kill()?;
            broker.start()?;
        }
        _ => {
            broker.kill()?;
            if *what == What::BrokerLost {
                fs::remove_dir_all(cluster.folders.broker.join("data"))?;
            }
            thread::sleep(lasting);
            broker.start()?;
        }
    }
    Ok(())
}

fn database(cluster: &Cluster, what: &What, lasting: Duration) -> Result<()> {
    let mut database = cluster.database();
    match what {
        What::DatabaseStop => {
            database.signal_all(Signal::SIGSTOP);
            thread::sleep(lasting);
            database.signal_all(Signal::SIGCONT);
        }
        What::DatabaseReadOnly => {
            read_only(cluster, true)?;
            thread::sleep(lasting);
            read_only(cluster, false)?;
        }
        What::DatabaseRestart => {
            database.end(Signal::SIGINT, Duration::from_secs(30))?;
            thread::sleep(lasting);
            start_database(cluster, &mut database)?;
        }
        _ => {
            database.kill()?;
            thread::sleep(lasting);
            start_database(cluster, &mut database)?;
        }
    }
    Ok(())
}

/// The children of a killed postmaster take a moment to exit, and it does not start before.
fn start_database(cluster: &Cluster, database: &mut Daemon) -> Result<()> {
    let since = Instant::now();
    loop {
        database.start()?;
        while database.ended().is_none() {
            if cluster.sql.rows("SELECT 1").is_ok() {
                return Ok(());
            }
            if since.elapsed() > Duration::from_secs(60) {
                bail!("the database does not start");
            }
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn read_only(cluster: &Cluster, on: bool) -> Result<()> {
    let word = if on { "on" } else { "off" };
    let sql = cluster.sql.patient();
    // One at a time: it cannot be in a transaction.
    sql.rows(&format!(
        "ALTER SYSTEM SET default_transaction_read_only = {word}"
    ))?;
    sql.rows("SELECT pg_reload_conf()")?;
    Ok(())
}

fn full(cluster: &Cluster, disk: &str, lasting: Duration) -> Result<()> {
    let disk = cluster.disks.get(disk).context("no disk")?;
    disk.fill()?;
    thread::sleep(lasting);
    disk.free()
}

/// An empty folder lies over the store's, for the processes of one machine.
fn missing(cluster: &Cluster, host: &str, lasting: Duration) -> Result<()> {
    // Locked: the mount belongs to the processes of this supervisor.
    let program = cluster.program(host)?;
    let pid = program.pid().context("it does not run")?.to_string();
    let store = cluster.folders.store.display().to_string();
    let inside = |args: &[&str]| -> Result<()> {
        let status = Command::new("nsenter")
            .args(["-t", &pid, "-m", "--"])
            .args(args)
            .arg(&store)
            .status()?;
        if !status.success() {
            bail!("{}: {status}", args.join(" "));
        }
        Ok(())
    };
    inside(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=64m,mode=0755",
        "campaign",
    ])?;
    thread::sleep(lasting);
    inside(&["umount", "-l"])
}

fn link(cluster: &Cluster, fault: &Fault, lasting: Duration) -> Result<()> {
    let network = cluster.ground.network.as_ref().context("no network")?;
    let place = |host: &str| HOSTS.iter().position(|name| *name == host);
    let effect = match &fault.what {
        What::Cut {
            host,
            other,
            one_way,
        } => Effect {
            host: place(host).context("no such machine")?,
            other: other.as_deref().and_then(place),
            one_way: *one_way,
            delay_ms: 0,
            jitter_ms: 0,
            loss: 1.0,
        },
        What::Slow {
            host,
            delay_ms,
            jitter_ms,
            loss,
        } => Effect {
            host: place(host).context("no such machine")?,
            other: None,
            one_way: false,
            delay_ms: *delay_ms,
            jitter_ms: *jitter_ms,
            loss: *loss,
        },
        _ => bail!("not a fault of a link"),
    };
    network.begin(fault.id, effect);
    thread::sleep(lasting);
    network.end(fault.id);
    Ok(())
}
