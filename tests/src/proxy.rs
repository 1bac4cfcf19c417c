//! A TCP proxy that can be cut: what goes through it is isolated, and nobody else.

use anyhow::Result;
use std::net::Ipv4Addr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A port in front of a server. While it is cut, connections stand still without being closed, as behind
/// a network that drops packets.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Opens a port in front of the loopback port `server`.
    pub async fn to(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, is_cut.clone()));
            }
        });
        Ok(Self { port, cut })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more, or everything again.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn forward(mut client: TcpStream, server: u16, mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| !cut).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return;
    };
    loop {
        // Dropped while it waits for bytes, or between reading and writing some: what was in flight when
        // the network was cut is lost, and with it the connection.
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            changed = cut.wait_for(|cut| *cut) => if changed.is_err() { return },
        }
        if cut.wait_for(|cut| !cut).await.is_err() {
            return;
        }
    }
}
