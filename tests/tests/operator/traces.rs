//! Traces of the real programs, sent to a small collector: one for each attempt, under its id.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    PATIENCE,
    programs::{self, Process},
    stage::Stage,
    sweeps::sweep,
    tiny::{self, Tiny},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

/// What a collector was sent.
#[derive(Default)]
struct Received {
    /// Spans with the service that sent them.
    spans: Vec<(String, Span)>,
    /// Requests without the header that was asked for.
    unauthorized: usize,
}

/// A collector on a loopback port. A hanging one takes connections and says nothing.
struct Collector {
    address: String,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    async fn start(hangs: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let received: Arc<Mutex<Received>> = Arc::default();
        let kept = received.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                match hangs {
                    true => open.push(stream),
                    false => drop(tokio::spawn(collect(stream, kept.clone()))),
                }
            }
        });
        Ok(Self { address, received })
    }

    fn take(&self) -> Received {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn collect(stream: TcpStream, received: Arc<Mutex<Received>>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).await? > 2 {}
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.context("no length")?.trim().parse()?];
    stream.read_exact(&mut body).await?;
    let request = ExportTraceServiceRequest::decode(body.as_slice())?;
    {
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        let authorized =
            head.starts_with("post /v1/traces ") && head.contains("authorization: bearer s3cret");
        received.unauthorized += usize::from(!authorized);
        for group in request.resource_spans {
            let attributes = group
                .resource
                .into_iter()
                .flat_map(|resource| resource.attributes);
            let mut names = attributes.filter(|attribute| attribute.key == "service.name");
            let service = match names.next().and_then(|name| name.value?.value) {
                Some(Value::StringValue(name)) => name,
                other => format!("{other:?}"),
            };
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received
                .spans
                .extend(spans.map(|span| (service.clone(), span)));
        }
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await?;
    Ok(())
}

/// Trains and evaluates one model with the real programs; their logs.
async fn run(
    stage: &Stage,
    tiny: &Tiny,
    seed: u64,
    collector: Option<&str>,
) -> Result<[String; 2]> {
    let sweep = sweep(&format!("traced {seed}"), 0);
    let jobs = tiny::jobs(&sweep, &tiny.spec("lnln", seed, 2)?, &["r=0", "r=0.5"])?;
    stage.store.submit(&sweep, jobs).await?;
    let logs = ["coord.log", "worker.log"].map(|name| stage.data_dir().join(name));
    let mut coord = programs::coord(stage)?;
    coord.args(["serve", "--once", "-vv", "--log-json"]);
    let mut worker = programs::worker(stage)?;
    worker.args(["--log-format", "json"]);
    let mut processes = Vec::new();
    for (mut command, log) in [coord, worker].into_iter().zip(&logs) {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
            command.env_remove(name);
        }
        if let Some(address) = collector {
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", address)
                .env(
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    "authorization=Bearer%20s3cret",
                )
                .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
                .env("OTEL_BSP_SCHEDULE_DELAY", "100");
        }
        command.env_remove("RUST_LOG").stderr(File::create(log)?);
        processes.push(Process::spawn(&mut command)?);
    }
    let worker = processes.pop().context("no worker")?;
    let coord = processes.pop().context("no coordinator")?;
    let status = coord.wait(PATIENCE)?;
    worker.terminate(PATIENCE)?;
    let logs = [fs::read_to_string(&logs[0])?, fs::read_to_string(&logs[1])?];
    ensure!(status.success(), "{status}: {}", logs[0]);
    assert!(!logs.concat().contains("s3cret"), "a header is logged");
    Ok(logs)
}

/// The ids of traces in the context of log lines.
fn logged(log: &str) -> BTreeSet<Uuid> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter_map(|line: serde_json::Value| line["span"]["trace_id"].as_str()?.parse().ok())
        .collect()
}

fn count(spans: &[&(String, Span)], name: &str) -> usize {
    spans.iter().filter(|(_, span)| span.name == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_programs_send_one_trace_for_each_attempt() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 48)?;
    let collector = Collector::start(false).await?;
    let [coord, worker] = run(&stage, &tiny, 1, Some(&collector.address)).await?;
    let received = collector.take();
    assert_eq!(received.unauthorized, 0);
    let mut traces: BTreeMap<Uuid, Vec<&(String, Span)>> = BTreeMap::new();
    for span in &received.spans {
        let id = Uuid::from_slice(&span.1.trace_id)?;
        traces.entry(id).or_default().push(span);
    }
    let attempts: Vec<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT a.id, j.kind::text, a.ready <= a.granted FROM attempt a JOIN job j ON j.id = a.job",
    )
    .fetch_all(stage.store.pool())
    .await?;
    assert_eq!(attempts.len(), 3, "one training and two cases");
    assert!(
        traces
            .keys()
            .eq(&attempts.iter().map(|(id, ..)| *id).collect::<BTreeSet<_>>())
    );
    for (id, kind, waited) in &attempts {
        assert!(waited);
        let spans = &traces[id];
        let services: BTreeSet<&str> = spans.iter().map(|(service, _)| service.as_str()).collect();
        assert!(
            services.iter().eq(&["halfheard-coord", "halfheard-worker"]),
            "{services:?}"
        );
        // One tree: every span but one is below another of the same trace, and within time.
        let ids: BTreeSet<&[u8]> = spans.iter().map(|(_, span)| &span.span_id[..]).collect();
        assert_eq!(ids.len(), spans.len());
        let roots: Vec<_> = spans
            .iter()
            .filter(|(_, s)| s.parent_span_id.is_empty())
            .collect();
        assert_eq!(roots.len(), 1, "{roots:?}");
        for (_, span) in spans {
            let parent = span.parent_span_id.as_slice();
            assert!(parent.is_empty() || ids.contains(parent), "{span:?}");
            assert!(
                span.start_time_unix_nano <= span.end_time_unix_nano,
                "{span:?}"
            );
        }
        for name in ["queue", "grant", "ingest", "data", "report"] {
            assert_eq!(count(spans, name), 1, "{name} of {kind}");
        }
        let own = match kind.as_str() {
            "train" => [
                ("training job", 1),
                ("train", 1),
                ("epoch", 2),
                ("store checkpoints", 1),
            ],
            _ => [
                ("evaluation job", 1),
                ("evaluate", 1),
                ("case", 1),
                ("epoch", 0),
            ],
        };
        for (name, number) in own {
            assert_eq!(count(spans, name), number, "{name} of {kind}");
        }
    }
    let attempts: BTreeSet<Uuid> = attempts.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(logged(&coord), attempts);
    assert_eq!(
        logged(&worker).len(),
        1,
        "the training; evaluations had nothing to say"
    );
    assert!(logged(&worker).is_subset(&attempts));
    Ok(())
}

/// Without the variable nothing is sent; with a collector that hangs or is away, work goes on as if there
/// were none, and the log says so once.
#[tokio::test(flavor = "multi_thread")]
async fn collector_that_is_away_delays_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let tiny = Tiny::make(stage.data_dir(), 48)?;
    let collector = Collector::start(false).await?;
    let [coord, _] = run(&stage, &tiny, 1, None).await?;
    assert!(collector.take().spans.is_empty() && !coord.contains("traces"));
    let hanging = Collector::start(true).await?;
    for (seed, address) in [(2, hanging.address.as_str()), (3, "http://127.0.0.1:9")] {
        for log in run(&stage, &tiny, seed, Some(address)).await? {
            assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
        }
    }
    Ok(())
}
