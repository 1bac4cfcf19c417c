//! Servers that speak TLS: an authority of one's own, and a stand-in for a Postgres that encrypts.
//!
//! The Postgres of set-up is built without TLS. [`TlsProxy`] stands in front of it, answers the
//! request for encryption that a client begins with, and passes on what it has decrypted.

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// The first eight bytes of a client that asks Postgres for encryption: a length and a number that
/// no version of the protocol has (the manual's section on message formats, SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, which no client trusts yet.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// Writes its own certificate into a folder, for clients.
    pub fn write(&self, folder: &Path, file: &str) -> Result<PathBuf> {
        let path = folder.join(file);
        std::fs::write(&path, self.issuer.pem())?;
        Ok(path)
    }

    /// A certificate for these host names or addresses, and its key, both in PEM.
    pub fn sign(&self, names: &[&str]) -> Result<(String, String)> {
        let (certificate, key) = self.certificate(names)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn certificate(&self, names: &[&str]) -> Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }

    /// The TLS configuration of a server with these names.
    fn server(&self, names: &[&str]) -> Result<ServerConfig> {
        halfheard_shared::cryptography::choose();
        let (certificate, key) = self.certificate(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?)
    }
}

/// Stands in front of a Postgres.
#[derive(Debug)]
pub struct TlsProxy {
    port: u16,
    sessions: Arc<Sessions>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Sessions {
    encrypted: AtomicUsize,
    plain: AtomicUsize,
}

impl TlsProxy {
    /// A proxy that encrypts, with a certificate for these names.
    pub async fn encrypting(postgres: u16, authority: &Authority, names: &[&str]) -> Result<Self> {
        Self::start(postgres, Some(authority.server(names)?)).await
    }

    /// A proxy that declines encryption.
    pub async fn plain(postgres: u16) -> Result<Self> {
        Self::start(postgres, None).await
    }

    async fn start(postgres: u16, server: Option<ServerConfig>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let sessions = Arc::new(Sessions::default());
        let acceptor = server.map(|server| TlsAcceptor::from(Arc::new(server)));
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, postgres));
        let serving = tokio::spawn({
            let sessions = sessions.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    // The tests check the client's error.
                    tokio::spawn(serve(client, upstream, acceptor.clone(), sessions.clone()));
                }
            }
        });
        Ok(Self {
            port,
            sessions,
            serving,
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many sessions were encrypted.
    pub fn encrypted(&self) -> usize {
        self.sessions.encrypted.load(Ordering::SeqCst)
    }

    /// How many sessions were not.
    pub fn unencrypted(&self) -> usize {
        self.sessions.plain.load(Ordering::SeqCst)
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    sessions: Arc<Sessions>,
) -> Result<()> {
    let mut begin = [0; 8];
    client.read_exact(&mut begin).await?;
    if begin != SSL_REQUEST {
        sessions.plain.fetch_add(1, Ordering::SeqCst);
        return pass_on(client, upstream, &begin).await;
    }
    let Some(acceptor) = acceptor else {
        client.write_all(b"N").await?;
        client.read_exact(&mut begin).await?;
        sessions.plain.fetch_add(1, Ordering::SeqCst);
        return pass_on(client, upstream, &begin).await;
    };
    client.write_all(b"S").await?;
    let client = acceptor.accept(client).await.context("TLS")?;
    sessions.encrypted.fetch_add(1, Ordering::SeqCst);
    pass_on(client, upstream, &[]).await
}

async fn pass_on(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: SocketAddr,
    begin: &[u8],
) -> Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(begin).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
