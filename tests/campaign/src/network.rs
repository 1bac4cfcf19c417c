//! A network of several machines on one: each has a namespace with one interface, and this process is
//! the switch between them. What passes is decided frame by frame, so that links can be cut in one
//! direction, and frames come late or not at all, without support by the kernel.

use crate::fault::HOSTS;
use anyhow::{Context as _, Result, ensure};
use nix::libc;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    process::Command,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The longest frame, and more.
const FRAME: usize = 2048;
/// Frames that wait at most; more are lost, as in a switch.
const MAX_WAITING: usize = 50_000;

/// What is done to frames on their way.
#[derive(Clone, Debug)]
pub struct Effect {
    /// A machine by its place in [`HOSTS`].
    pub host: usize,
    /// Only between it and this one; `None`: all others.
    pub other: Option<usize>,
    /// Only what `host` sends.
    pub one_way: bool,
    /// How late frames are, and how much more at most, in milliseconds.
    pub delay_ms: u32,
    pub jitter_ms: u32,
    /// The share that is lost, 0 to 1.
    pub loss: f64,
}

impl Effect {
    fn concerns(&self, from: usize, to: usize) -> bool {
        let other = |machine| self.other.is_none_or(|other| other == machine);
        (from == self.host && other(to)) || (!self.one_way && to == self.host && other(from))
    }
}

/// A frame that is late.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    number: u64,
    to: usize,
    frame: Vec<u8>,
}

#[derive(Default)]
struct Traffic {
    effects: Vec<(u32, Effect)>,
    late: BinaryHeap<Reverse<Late>>,
    number: u64,
    noise: u64,
}

impl Traffic {
    /// A number from 0 to 1, for what need not be repeated: which frames are lost.
    fn random(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1_u64 << 53) as f64
    }
}

struct Switch {
    ports: Vec<File>,
    traffic: Mutex<Traffic>,
    woken: Condvar,
}

/// The network.
#[derive(Clone)]
pub struct Network(Arc<Switch>);

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("cannot run ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A machine's address.
pub fn address(host: &str) -> String {
    let place = HOSTS.iter().position(|name| *name == host).unwrap_or(0);
    format!("10.77.0.{}", place + 1)
}

/// The request of `TUNSETIFF`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

nix::ioctl_write_ptr_bad!(set_interface, 0x4004_54ca, InterfaceRequest);

/// Makes an interface whose frames are read from and written to the file.
fn tap(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as i16,
        padding: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request has the size and layout of the kernel's `struct ifreq`.
    unsafe { set_interface(file.as_raw_fd(), &request) }.context("cannot make an interface")?;
    Ok(file)
}

impl Network {
    /// Makes the machines and connects them.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn start() -> Result<Self> {
        // Names of namespaces are files: in a folder of this process's own.
        std::fs::create_dir_all("/run/netns")?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "campaign", "/run/netns"])
            .status()?;
        ensure!(done.success(), "cannot mount /run/netns");
        let mut ports = Vec::new();
        for (place, host) in HOSTS.iter().enumerate() {
            ip(&["netns", "add", host])?;
            let name = format!("hh{place}");
            ports.push(tap(&name)?);
            let mac = format!("02:00:00:00:00:{place:02x}");
            ip(&["link", "set", &name, "address", &mac])?;
            ip(&["link", "set", &name, "netns", host, "name", "eth0"])?;
            let address = format!("{}/24", address(host));
            ip(&["-n", host, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", host, "link", "set", "eth0", "up"])?;
            ip(&["-n", host, "link", "set", "lo", "up"])?;
        }
        let switch = Arc::new(Switch {
            ports,
            traffic: Mutex::new(Traffic {
                noise: 0x9e37_79b9_7f4a_7c15,
                ..Traffic::default()
            }),
            woken: Condvar::new(),
        });
        for from in 0..HOSTS.len() {
            let switch = Arc::clone(&switch);
            thread::spawn(move || switch.read(from));
        }
        let late = Arc::clone(&switch);
        thread::spawn(move || late.deliver_late());
        Ok(Self(switch))
    }

    /// Begins an effect.
    pub fn begin(&self, id: u32, effect: Effect) {
        self.0.lock().effects.push((id, effect));
    }

    /// Ends it.
    pub fn end(&self, id: u32) {
        self.0.lock().effects.retain(|(other, _)| *other != id);
    }
}

impl Switch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, from: usize) {
        let mut buffer = [0; FRAME];
        loop {
            let Ok(length @ 14..) = (&self.ports[from]).read(&mut buffer) else {
                // The interface is down for a moment at the start.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let frame = &buffer[..length];
            // The last byte of an address here is the machine's place; others are for all.
            let ours = frame[..5] == [2, 0, 0, 0, 0] && usize::from(frame[5]) < HOSTS.len();
            if ours {
                self.pass(from, usize::from(frame[5]), frame);
            } else {
                for to in (0..HOSTS.len()).filter(|&to| to != from) {
                    self.pass(from, to, frame);
                }
            }
        }
    }

    fn pass(&self, from: usize, to: usize, frame: &[u8]) {
        let mut traffic = self.lock();
        let (mut delay, mut jitter, mut passes) = (0, 0, 1.0);
        for (_, effect) in &traffic.effects {
            if effect.concerns(from, to) {
                delay += effect.delay_ms;
                jitter += effect.jitter_ms;
                passes *= 1.0 - effect.loss;
            }
        }
        if passes < 1.0 && traffic.random() >= passes {
            return;
        }
        if delay + jitter == 0 {
            drop(traffic);
            // A machine whose queue is full loses it, as it would on a wire.
            let _ = (&self.ports[to]).write(frame);
            return;
        }
        if traffic.late.len() < MAX_WAITING {
            let late_ms = f64::from(delay) + f64::from(jitter) * traffic.random();
            traffic.number += 1;
            let late = Late {
                due: Instant::now() + Duration::from_secs_f64(late_ms / 1000.0),
                number: traffic.number,
                to,
                frame: frame.to_vec(),
            };
            traffic.late.push(Reverse(late));
            self.woken.notify_one();
        }
    }

    fn deliver_late(&self) {
        let mut traffic = self.lock();
        loop {
            let wait = match traffic.late.peek() {
                Some(Reverse(late)) => late.due.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(1),
            };
            if wait.is_zero() {
                if let Some(Reverse(late)) = traffic.late.pop() {
                    let _ = (&self.ports[late.to]).write(&late.frame);
                }
                continue;
            }
            let woken = self.woken.wait_timeout(traffic, wait);
            traffic = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(host: usize, other: Option<usize>, one_way: bool) -> Effect {
        Effect {
            host,
            other,
            one_way,
            delay_ms: 0,
            jitter_ms: 0,
            loss: 1.0,
        }
    }

    #[test]
    fn cut_concerns_its_own_link_and_direction() {
        assert!(cut(3, None, false).concerns(3, 1) && cut(3, None, false).concerns(1, 3));
        assert!(!cut(3, None, false).concerns(1, 2));
        assert!(cut(3, Some(1), false).concerns(1, 3));
        assert!(!cut(3, Some(1), false).concerns(2, 3));
        assert!(cut(3, Some(1), true).concerns(3, 1));
        assert!(!cut(3, Some(1), true).concerns(1, 3));
    }
}
