//! Posting events.

use anyhow::Context as _;
use halfheard_shared::error::hinted;
use reqwest::{StatusCode, Url};
use std::{fmt, time::Duration};

/// The delays before each try. A receiver that is restarted is back by then.
const DELAYS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(6),
    Duration::from_secs(18),
];
/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where events are posted. The address is a secret, which no error and no log shows.
#[derive(Clone)]
pub struct Webhook(Url);

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook(***)")
    }
}

impl Webhook {
    /// Reads an address; `origin` says where it came from.
    ///
    /// # Errors
    ///
    /// It is not the address of a web server.
    pub fn parse(text: &str, origin: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let url = Url::parse(text).ok().filter(|url| {
            !text.contains(char::is_whitespace)
                && matches!(url.scheme(), "http" | "https")
                && url.has_host()
        });
        url.map(Self).ok_or_else(|| {
            let message = format!("invalid address of a webhook in {origin}");
            hinted(message, "write it as https://hooks.example.org/…, alone").into()
        })
    }

    /// Posts JSON, several times if need be.
    ///
    /// # Errors
    ///
    /// The server refuses it, or could not be reached in all tries.
    pub(super) async fn post(&self, json: &str) -> anyhow::Result<()> {
        halfheard_shared::cryptography::choose();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // Another address would get what is meant for this one.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("cannot set up HTTP")?;
        let mut last = None;
        for delay in DELAYS {
            tokio::time::sleep(delay).await;
            let request = client
                .post(self.0.clone())
                .header("content-type", "application/json")
                .body(json.to_owned());
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if !may_pass(answer.status()) => {
                    anyhow::bail!("the webhook refused it: {}", answer.status());
                }
                Ok(answer) => {
                    last = Some(anyhow::anyhow!("the webhook failed: {}", answer.status()))
                }
                Err(error) => {
                    last = Some(
                        anyhow::Error::from(error.without_url())
                            .context("cannot reach the webhook"),
                    );
                }
            }
        }
        // There is at least one delay.
        last.map_or(Ok(()), Err)
    }
}

/// Whether the next try may do better.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}
