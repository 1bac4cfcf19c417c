//! The page of `coord serve --http`: who may ask, the socket, and a server that slow clients do not hold up.

use crate::observe::observer::{Observer, Starting};
use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, StatusCode, header},
    middleware::map_response,
    response::Response,
};
use halfheard_page::{
    Page, Places,
    access::{Access, MIN_TOKEN, Proof, Token},
};
use halfheard_shared::{
    broker::{Broker, heartbeats::Heartbeats},
    error::{WithHint as _, hinted},
    text::quoted_path,
};
use halfheard_store::Store;
use halfheard_telemetry::{access, catalogue::COORDINATOR, http::routes, recorder::Recorder};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::{TowerToHyperService, TowerToHyperServiceFuture},
};
use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// The address of `--http` without one.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:9350";
/// The most connections at once.
const MAX_CONNECTIONS: usize = 512;
/// How long a client may take to send the head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers in progress may take after a signal.
const GRACE: Duration = Duration::from_secs(2);
/// The page's own connections to the database.
const CONNECTIONS: u32 = 4;
/// How long a page waits for one before it says that the database is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The flags of the page.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Page")]
pub(crate) struct HttpArgs {
    /// Serve the page at this address [default with --http alone: 127.0.0.1:9350]. Any other than
    /// loopback needs --http-token-file or --http-user-header
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = DEFAULT_ADDRESS)]
    pub(crate) http: Option<String>,
    /// Ask for the token in this file, of at least 32 characters; others must not be able to read it
    #[arg(
        long,
        value_name = "FILE",
        requires = "http",
        conflicts_with = "http_user_header"
    )]
    pub(crate) http_token_file: Option<PathBuf>,
    /// A reverse proxy has checked who asks and names the user in this header, which it lets no client
    /// set: let nothing but the proxy reach the address
    #[arg(long, value_name = "NAME", requires = "http")]
    pub(crate) http_user_header: Option<String>,
    /// Let everybody who reaches the address read /metrics; on loopback they may anyhow. /healthz and
    /// /readyz are always open
    #[arg(long, requires = "http")]
    pub(crate) http_open_metrics: bool,
    /// Let the page pause, resume, cancel and retry sweeps, set priorities, and drain workers
    #[arg(long, requires = "http")]
    pub(crate) http_control: bool,
}

/// A socket that waits for its server.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
    metrics: access::Access,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    router: Arc<OnceLock<Router>>,
    access: Arc<Access>,
    metrics: access::Access,
    recorder: Option<Recorder>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpArgs {
    /// Takes the address, if one was asked for.
    ///
    /// # Errors
    ///
    /// The address is invalid or taken, or more than loopback without a proof; the token's file is
    /// missing, too short or open to others.
    pub(crate) async fn listen(&self) -> anyhow::Result<Option<Listening>> {
        let Some(asked) = &self.http else {
            return Ok(None);
        };
        let access = Access {
            proof: self.proof()?,
            control: self.http_control,
        };
        let addresses: Vec<SocketAddr> = lookup_host(asked)
            .await
            .with_context(|| format!("invalid address `{asked}` of --http"))
            .hint("write it as 127.0.0.1:9350")?
            .collect();
        let loopback = addresses.iter().all(|address| address.ip().is_loopback());
        if !loopback && matches!(access.proof, Proof::Loopback) {
            let hint = "pass --http-token-file FILE, or --http-user-header NAME behind a reverse proxy; \
                        or stay on 127.0.0.1 and use `ssh -L`";
            let message = format!("--http {asked} would show the page to everybody who reaches it");
            return Err(hinted(message, hint).into());
        }
        let listener = TcpListener::bind(&*addresses)
            .await
            .with_context(|| format!("cannot serve the page at {asked}"))
            .hint("another program has the port, perhaps another coord: choose one with --http ADDRESS:PORT")?;
        let address = listener
            .local_addr()
            .context("cannot read the page's address")?;
        Ok(Some(Listening {
            address,
            listener,
            access,
            metrics: self.metrics()?.to_metrics(address, self.http_open_metrics),
        }))
    }

    /// What reading the metrics takes beyond loopback: the same as the page.
    fn metrics(&self) -> anyhow::Result<access::Access> {
        Ok(match (&self.http_token_file, &self.http_user_header) {
            (Some(file), _) => access::Access::token_file(file)?,
            (None, Some(name)) => access::Access::UserHeader(name.clone()),
            (None, None) => access::Access::Open,
        })
    }

    fn proof(&self) -> anyhow::Result<Proof> {
        if let Some(file) = &self.http_token_file {
            return Ok(Proof::Token(token(file)?));
        }
        let Some(name) = &self.http_user_header else {
            return Ok(Proof::Loopback);
        };
        let name = header::HeaderName::try_from(name.as_str())
            .with_context(|| format!("invalid header name `{name}` of --http-user-header"))
            .hint("such as X-Forwarded-User")?;
        Ok(Proof::UserHeader(name.as_str().to_owned()))
    }
}

/// Reads a token that only this user and group can read.
fn token(file: &Path) -> anyhow::Result<Token> {
    let cannot = || format!("cannot read the token in {}", file.display());
    let mode = std::fs::metadata(file)
        .with_context(cannot)?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        let hint = format!("chmod o= {}", quoted_path(file));
        return Err(hinted(
            format!("others can read the token in {}", file.display()),
            hint,
        )
        .into());
    }
    let text = std::fs::read_to_string(file).with_context(cannot)?;
    let token = Token::new(&text).ok_or_else(|| {
        let message = format!(
            "the token in {} has fewer than {MIN_TOKEN} characters, or white space inside",
            file.display()
        );
        let hint = format!("umask 077; openssl rand -hex 32 > {}", quoted_path(file));
        hinted(message, hint)
    })?;
    Ok(token)
}

impl Listening {
    /// Where the page will be.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until `stop`; until [`Server::show`] it only says that it starts.
    pub(crate) fn start(self, stop: &CancellationToken) -> Server {
        tracing::info!(address = self.url(), control = self.access.control, "page");
        let router = Arc::new(OnceLock::new());
        let stop = stop.child_token();
        let starting = Router::new()
            .fallback(starting)
            .merge(routes(Arc::new(Starting), self.metrics.clone()))
            .layer(map_response(close));
        let recorder = Recorder::install(COORDINATOR, &[]).inspect_err(|error| {
            tracing::warn!(%error, "counters are not exported");
        });
        let serving = accept(self.listener, starting, router.clone(), stop.clone());
        Server {
            router,
            access: Arc::new(self.access),
            metrics: self.metrics,
            recorder: recorder.ok(),
            stop,
            task: tokio::spawn(serving),
        }
    }
}

impl Server {
    /// Shows the pages from now on.
    pub(crate) fn show(&self, store: &Store, broker: &Broker, places: Places) {
        let heartbeats = Heartbeats::default();
        let observer = Observer::new(
            store.aside(2, PATIENCE),
            broker.clone(),
            heartbeats.clone(),
            places.artifacts.clone(),
            self.recorder.clone(),
        );
        let (heard, watching, broker) = (heartbeats.clone(), observer.clone(), broker.clone());
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = heard.listen(&broker) => {}
                () = watching.watch() => {}
                () = stop.cancelled() => {}
            }
        });
        let page = Page::new(
            store.aside(CONNECTIONS, PATIENCE),
            heartbeats,
            places,
            self.access.clone(),
            self.stop.clone(),
        );
        // It is shown once.
        let watched = routes(Arc::new(observer), self.metrics.clone());
        let _ = self.router.set(halfheard_page::routes(page).merge(watched));
    }

    /// Stops it and waits for answers in progress, for a moment.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        // A panic in it has been logged.
        let _ = self.task.await;
    }
}

/// Accepts connections until `stop`, and lets those that are open end.
async fn accept(
    listener: TcpListener,
    starting: Router,
    router: Arc<OnceLock<Router>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let service = Pages {
                    router: router.get().unwrap_or(&starting).clone(),
                    peer,
                };
                let stop = stop.clone();
                open.spawn(async move {
                    connection(stream, service, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, for instance.
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::debug!("connections of the page are cut off");
    }
}

async fn connection(stream: TcpStream, service: Pages, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the page failed");
    }
}

/// The routes, which learn where a request comes from.
struct Pages {
    router: Router,
    peer: SocketAddr,
}

impl Service<Request<Incoming>> for Pages {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = TowerToHyperServiceFuture<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

/// Who asks again asks the pages, once they are there.
async fn close(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer until the servers are there.
async fn starting() -> (StatusCode, [(header::HeaderName, &'static str); 2], Body) {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, "5"), (header::REFRESH, "5")],
        Body::from("coord starts: it waits for the database or the broker\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(http: &str) -> HttpArgs {
        HttpArgs {
            http: Some(http.to_owned()),
            ..HttpArgs::default()
        }
    }

    #[tokio::test]
    async fn more_than_loopback_needs_a_proof() {
        for open in ["0.0.0.0:0", "[::]:0"] {
            let error = args(open).listen().await.unwrap_err();
            assert!(error.to_string().contains("everybody"), "{error}");
        }
        for own in ["127.0.0.1:0", "localhost:0"] {
            assert!(args(own).listen().await.unwrap().is_some());
        }
        let header = HttpArgs {
            http_user_header: Some("X-User".to_owned()),
            ..args("0.0.0.0:0")
        };
        assert!(header.listen().await.unwrap().is_some());
        assert!(args("9350").listen().await.is_err());
    }

    #[tokio::test]
    async fn taken_port_is_named() {
        let first = args("127.0.0.1:0").listen().await.unwrap().unwrap();
        let again = first.address.to_string();
        let error = args(&again).listen().await.unwrap_err();
        assert!(format!("{error:#}").contains(&again), "{error:#}");
    }

    #[test]
    fn token_is_read_from_a_closed_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let write = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            token(&file).map_err(|error| error.to_string())
        };
        let long = "0123456789abcdef0123456789abcdef\n";
        assert!(write(long, 0o644).unwrap_err().contains("others can read"));
        assert!(write(long, 0o640).is_ok());
        let short = write("secret", 0o600).unwrap_err();
        assert!(
            short.contains("fewer than 32") && !short.contains("secret"),
            "{short}"
        );
        assert!(token(&folder.path().join("none")).is_err());
    }
}
