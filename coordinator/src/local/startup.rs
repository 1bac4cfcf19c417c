//! What starting a server needs.

use super::LocalError;
use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

/// How long a server may take to answer. Postgres may have to replay its log first.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a free port of the loopback interface.
pub(super) fn free_port() -> Result<u16, LocalError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(LocalError::Port)
}
