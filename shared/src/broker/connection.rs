//! How to reach the broker, and reaching it.

use super::{Broker, BrokerError, Names};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerAddr, jetstream};
use percent_encoding::percent_decode_str;
use std::{fmt, path::PathBuf, time::Duration};

/// The default address of the broker.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// How to reach the broker.
///
/// The address may carry a user and a password when it comes from the environment or a file;
/// neither `Debug` nor any error or log line shows them.
#[derive(Clone)]
pub struct BrokerSettings {
    /// `nats://host:4222`, or several with commas between them.
    pub url: String,
    /// A credentials file as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// How to encrypt; an address that starts with `tls://` asks for encryption too.
    pub tls: Tls,
    /// Name of the connection, as the broker shows it.
    pub name: String,
    /// How many servers of a NATS cluster keep each stream.
    pub replicas: usize,
    /// The names of the installation's subjects, stream and buckets.
    pub names: Names,
    /// How many bytes artifacts may take on the broker, for the bucket that is made; `None`: four
    /// fifths of what the broker has to give.
    pub artifacts_max_bytes: Option<u64>,
    /// The first token of the subjects on which the broker answers this login, so that no other
    /// login can listen to them. `None`: `_INBOX_<user>` for a user in the address, else `_INBOX`.
    pub inbox: Option<String>,
}

/// Whether the inbox of a login may have this prefix: one token of letters, digits, hyphens and
/// underscores.
pub fn valid_inbox(prefix: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=64).contains(&prefix.len()) && prefix.bytes().all(allowed)
}

/// How the connection is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Refuse connections without encryption.
    pub required: bool,
    /// The authority to trust besides the system's, in PEM.
    pub ca: Option<PathBuf>,
    /// The client's certificate and key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            url: DEFAULT_URL.to_owned(),
            credentials: None,
            tls: Tls::default(),
            name: "halfheard".to_owned(),
            replicas: 1,
            names: Names::default(),
            artifacts_max_bytes: None,
            inbox: None,
        }
    }
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerSettings")
            .field("url", &self.address())
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("name", &self.name)
            .field("replicas", &self.replicas)
            .field("names", &self.names)
            .field("artifacts_max_bytes", &self.artifacts_max_bytes)
            .field("inbox", &self.inbox)
            .finish()
    }
}

impl BrokerSettings {
    /// Settings for `url`, everything else as by default.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// The address without user and password, for people and logs.
    pub fn address(&self) -> String {
        self.servers()
            .map(|servers| {
                let shown: Vec<String> = servers.iter().map(bare).collect();
                shown.join(",")
            })
            .unwrap_or_else(|_| "an address that cannot be read".to_owned())
    }

    fn servers(&self) -> Result<Vec<ServerAddr>, BrokerError> {
        self.url
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse::<ServerAddr>()
                    .map_err(|error| BrokerError::Address {
                        reason: error.to_string(),
                    })
            })
            .collect()
    }

    /// The prefix of the inbox: see [`Self::inbox`].
    fn inbox_of(&self, servers: &[ServerAddr]) -> String {
        self.inbox.clone().unwrap_or_else(|| {
            servers
                .iter()
                .find_map(login)
                .map(|(user, _)| format!("_INBOX_{user}"))
                .filter(|prefix| valid_inbox(prefix))
                .unwrap_or_else(|| "_INBOX".to_owned())
        })
    }

    /// Connects once; afterwards the connection is restored automatically.
    pub async fn connect(&self) -> Result<Broker, BrokerError> {
        crate::cryptography::choose();
        let servers = self.servers()?;
        let inbox = self.inbox_of(&servers);
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .custom_inbox_prefix(&inbox)
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                report(&event, &inbox);
                std::future::ready(())
            });
        // The client itself ignores user and password in an address.
        if let Some((user, password)) = servers.iter().find_map(login) {
            options = options.user_and_password(user, password);
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await.map_err(|source| {
                BrokerError::Credentials {
                    path: path.display().to_string(),
                    source,
                }
            })?;
        }
        if self.tls.required {
            options = options.require_tls(true);
        }
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &self.tls.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let client = options
            .connect(servers)
            .await
            .map_err(|source| BrokerError::Connect {
                address: self.address(),
                remedy: match crate::cryptography::refusal(&source) {
                    Some(_) => remedy(ConnectErrorKind::Tls),
                    None => remedy(source.kind()),
                },
                source,
            })?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .max_ack_inflight(4096)
            .build(client.clone());
        Ok(Broker {
            client,
            jetstream,
            names: self.names.clone(),
            replicas: self.replicas.max(1),
            artifacts_max_bytes: self.artifacts_max_bytes,
        })
    }

    /// Connects, however long it takes: only a wrong address, wrong credentials or wrong TLS
    /// settings end it.
    pub async fn connect_with_retry(&self) -> Result<Broker, BrokerError> {
        let mut attempt = 0;
        loop {
            match self.connect().await {
                Err(error) if error.is_transient() => {
                    attempt += 1;
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "the broker is not there, trying again"
                    );
                    tokio::time::sleep(reconnect_delay(attempt)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// User and password of an address, as written before they were escaped for it.
fn login(server: &ServerAddr) -> Option<(String, String)> {
    let plain = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(server.username()?), plain(server.password()?)))
}

/// An address without user and password.
fn bare(server: &ServerAddr) -> String {
    let host = server.host();
    if host.contains(':') {
        format!("{}://[{host}]:{}", server.scheme(), server.port())
    } else {
        format!("{}://{host}:{}", server.scheme(), server.port())
    }
}

/// 50 ms, 100 ms, ... up to 3 s.
fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = attempt.saturating_sub(1).min(6) as u32;
    Duration::from_millis(50 << doublings).min(Duration::from_secs(3))
}

fn report(event: &Event, inbox: &str) {
    match event {
        // Without it no request is ever answered, and each looks as if the broker were away.
        Event::ServerError(error) if forbids(&error.to_string(), inbox) => tracing::error!(
            hint = format!(
                "allow the login to subscribe to `{inbox}.>`, or set HALFHEARD_NATS_INBOX to what it may (`_INBOX`)"
            ),
            "the broker does not let this login listen to its answers"
        ),
        Event::ServerError(error) if error.to_string().contains("ermissions") => {
            tracing::warn!(
                error = crate::text::plain(&error.to_string()),
                "the broker refuses"
            );
        }
        Event::Connected => tracing::info!("connected to the broker"),
        Event::Disconnected => tracing::warn!("lost the connection to the broker; reconnecting"),
        other => tracing::debug!(event = %other, "broker"),
    }
}

/// Whether the broker's refusal is about the inbox.
fn forbids(refusal: &str, inbox: &str) -> bool {
    refusal
        .to_lowercase()
        .contains(&format!("subscription to \"{}.", inbox.to_lowercase()))
}

fn remedy(kind: ConnectErrorKind) -> &'static str {
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            "pass the right credentials file (HALFHEARD_NATS_CREDS)"
        }
        ConnectErrorKind::Tls => {
            "check the certificates (HALFHEARD_NATS_CA names the authority) and whether the server speaks TLS"
        }
        _ => "start nats-server with JetStream (-js), or set HALFHEARD_NATS_URL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Hint as _;

    #[test]
    fn password_is_never_shown() {
        let settings = BrokerSettings::at("nats://ann:hush@broker.example:4333,tls://[::1]:1");
        let shown = format!("{settings:?} {}", settings.address());
        assert!(!shown.contains("hush") && !shown.contains("ann"), "{shown}");
        assert_eq!(
            settings.address(),
            "nats://broker.example:4333,tls://[::1]:1"
        );
    }

    #[test]
    fn login_in_address_is_unescaped() {
        let server: ServerAddr = "nats://ann:h%40sh%2f@y".parse().unwrap();
        assert_eq!(login(&server), Some(("ann".into(), "h@sh/".into())));
        let server: ServerAddr = "nats://y".parse().unwrap();
        assert_eq!(login(&server), None);
    }

    #[test]
    fn every_login_has_its_own_inbox() {
        let inbox = |settings: BrokerSettings| {
            let servers = settings.servers().unwrap();
            settings.inbox_of(&servers)
        };
        assert_eq!(inbox(BrokerSettings::at("nats://y")), "_INBOX");
        assert_eq!(inbox(BrokerSettings::at("nats://ann:h@y")), "_INBOX_ann");
        assert_eq!(inbox(BrokerSettings::at("nats://a.%3E:h@y")), "_INBOX");
        let chosen = BrokerSettings {
            inbox: Some("_INBOX".to_owned()),
            ..BrokerSettings::at("nats://ann:h@y")
        };
        assert_eq!(inbox(chosen), "_INBOX");
        for bad in ["", "a.b", ">", "*", "a b"] {
            assert!(!valid_inbox(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn refused_connection_has_hint() {
        // Port 1 of the loopback has no listener.
        let error = BrokerSettings::at("nats://ann:hush@127.0.0.1:1")
            .connect()
            .await
            .unwrap_err();
        let text = format!("{error}; {}", error.hint().unwrap());
        assert!(text.contains("nats://127.0.0.1:1"), "{text}");
        assert!(text.contains("HALFHEARD_NATS_URL"), "{text}");
        assert!(!text.contains("hush"), "{text}");
        assert!(error.is_transient());
    }

    #[test]
    fn invalid_address_is_rejected() {
        let error = BrokerSettings::at("http://x:hush@y").servers().unwrap_err();
        let error = format!("{error}; {}", error.hint().unwrap());
        assert!(error.contains("nats://host:4222"), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
}
