//! Sending spans to a collector, by OTLP over HTTP.

use super::sampling::Sampling;
use halfheard_shared::{address::redacted, env::Env, ids::AttemptId};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// The service that a coordinator is, unless `OTEL_SERVICE_NAME` says otherwise.
pub const COORD: &str = "halfheard-coord";
/// The service that a worker is.
pub const WORKER: &str = "halfheard-worker";
/// The variables that switch traces on, the first that is set.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// The variables that choose a protocol, the first that is set.
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
/// How long a program that exits waits for its last spans.
const STOP: Duration = Duration::from_secs(2);
/// Attempts whose end was sent that are remembered.
const REMEMBERED: usize = 4096;

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Why traces cannot be switched on. No message holds an address or a header: they may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A protocol that this program does not speak.
    #[error("unsupported protocol `{0}` for traces")]
    Protocol(String),
    /// A sampler that is not known, or an argument that it does not take.
    #[error("invalid OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG")]
    Sampler,
    /// The address or another setting cannot be used.
    #[error("invalid settings of OpenTelemetry: see OTEL_EXPORTER_OTLP_ENDPOINT")]
    Settings,
}

impl halfheard_shared::error::Hint for TracesError {
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Protocol(_) => "set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf (port 4318)",
                Self::Sampler => {
                    "use always_on, always_off or traceidratio with a number from 0 to 1"
                }
                Self::Settings => "write it as http://collector:4318",
            }
            .to_owned(),
        )
    }
}

/// What spans are made with and sent by.
#[derive(Debug)]
pub(super) struct Tracer {
    processor: BatchSpanProcessor,
    pub(super) sampling: Sampling,
    pub(super) scope: InstrumentationScope,
    pub(super) ended: Ended,
}

impl Tracer {
    /// Queues a span; it is dropped if the queue is full.
    pub(super) fn send(&self, span: SpanData) {
        self.processor.on_end(span);
    }
}

/// The tracer of this process, if traces are on.
pub(super) fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Switches traces on if the environment names a collector. `service` and `instance` are who this
/// process is, unless `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say so. Returns whether they
/// are on. To be called in the runtime that is to send them.
///
/// # Errors
///
/// The settings are invalid.
pub fn start(
    service: &'static str,
    instance: &str,
    version: &'static str,
    env: Env,
) -> Result<bool, TracesError> {
    let first = |names: &[&str]| names.iter().find_map(|name| env(name));
    let off = env("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
        || env("OTEL_TRACES_EXPORTER").is_some_and(|text| text == "none");
    let Some(endpoint) = first(&ENDPOINTS).filter(|_| !off) else {
        return Ok(false);
    };
    if let Some(protocol) = first(&PROTOCOLS)
        && protocol != "http/protobuf"
    {
        return Err(TracesError::Protocol(protocol));
    }
    let sampler = (env("OTEL_TRACES_SAMPLER"), env("OTEL_TRACES_SAMPLER_ARG"));
    let sampling = Sampling::read(sampler.0.as_deref(), sampler.1.as_deref());
    let sampling = sampling.ok_or(TracesError::Sampler)?;
    halfheard_shared::cryptography::choose();
    // Address, headers and times come from the environment, which the exporter reads itself.
    let otlp = Otlp::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(|_| TracesError::Settings)?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", version),
    ]);
    if env("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let mut processor = BatchSpanProcessor::builder(OnRuntime {
        otlp: Arc::new(Mutex::new(Some(Arc::new(otlp)))),
        runtime: Handle::current(),
        endpoint: redacted(&endpoint),
        failing: AtomicBool::new(false),
    })
    .build();
    processor.set_resource(&resource.build());
    let tracer = Tracer {
        processor,
        sampling,
        scope: InstrumentationScope::builder("halfheard")
            .with_version(version)
            .build(),
        ended: Ended::default(),
    };
    // Fails only if they are on already.
    let _ = TRACER.set(tracer);
    tracing::info!(collector = redacted(&endpoint), "sending traces");
    Ok(true)
}

/// Sends what is queued and stops, within seconds even if the collector hangs.
pub async fn stop() {
    let Some(tracer) = tracer() else {
        return;
    };
    let stopped = tokio::task::spawn_blocking(|| tracer.processor.shutdown_with_timeout(STOP));
    // The thread may be in the middle of a request: it ends with the process.
    let _ = tokio::time::timeout(STOP + Duration::from_millis(500), stopped).await;
}

/// Runs the exporter in the runtime, which its client and its delays need, and says once that the
/// collector is away.
#[derive(Debug)]
struct OnRuntime {
    otlp: Arc<Mutex<Option<Arc<Otlp>>>>,
    runtime: Handle,
    endpoint: String,
    failing: AtomicBool,
}

impl OnRuntime {
    fn note(&self, outcome: &OTelSdkResult) {
        let failing = outcome.is_err();
        if failing == self.failing.swap(failing, Ordering::Relaxed) {
            return;
        }
        let collector = &self.endpoint;
        match outcome {
            Ok(()) => tracing::info!(collector, "the collector of traces takes them again"),
            // The error's text may hold the address with its secrets.
            Err(error) => tracing::warn!(
                collector,
                "traces cannot be sent and are dropped until they can: {}",
                match error {
                    OTelSdkError::Timeout(_) => "the collector does not answer",
                    _ => "the collector cannot be reached or refuses them",
                }
            ),
        }
    }
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let otlp = self
            .otlp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(otlp) = otlp else {
            return Err(OTelSdkError::AlreadyShutdown);
        };
        let sending = self.runtime.spawn(async move { otlp.export(batch).await });
        let outcome = sending
            .await
            .unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        self.note(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        self.otlp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        let mut otlp = self.otlp.lock().unwrap_or_else(PoisonError::into_inner);
        // Called before the first batch, so nobody else has it.
        if let Some(otlp) = otlp.as_mut().and_then(Arc::get_mut) {
            otlp.set_resource(resource);
        }
    }
}

/// Attempts whose end was sent, the last ones.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<(HashSet<AttemptId>, VecDeque<AttemptId>)>);

impl Ended {
    pub(super) fn is_new(&self, attempt: AttemptId) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, order) = &mut *known;
        if !set.insert(attempt) {
            return false;
        }
        order.push_back(attempt);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            set.remove(&oldest);
        }
        true
    }
}
