//! Tells systemd what this process does (`sd_notify`), where it asks: units of `Type=notify`.

use crate::env;
use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// What a service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It started, and works.
    Ready,
    /// It shuts down.
    Stopping,
}

/// Tells the manager that started this process, if it asked. A failure is logged: the manager finds out by itself.
pub fn notify(state: State) {
    let Some(socket) = env::process(env::NOTIFY_SOCKET) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, ?state, "cannot tell the service manager");
    }
}

fn send(socket: &str, state: State) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let words: &[u8] = match state {
        State::Ready => b"READY=1",
        State::Stopping => b"STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(words, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_reach_a_socket_with_a_path_and_an_abstract_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").display().to_string();
        let name = format!("@halfheard-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        for (socket, listener) in [
            (&path, UnixDatagram::bind(&path).unwrap()),
            (&name, UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ] {
            for (state, words) in [(State::Ready, "READY=1"), (State::Stopping, "STOPPING=1")] {
                send(socket, state).unwrap();
                let mut buffer = [0; 64];
                let length = listener.recv(&mut buffer).unwrap();
                assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), words);
            }
        }
        assert!(send(&format!("{path}x"), State::Ready).is_err());
    }
}
