//! The flags of `coord serve` and `coord run`.

use super::{options::NotifyOptions, webhook::Webhook};
use anyhow::Context as _;
use halfheard_shared::{
    env::{self, Env},
    error::{WithHint as _, hinted},
};
use std::{path::PathBuf, time::Duration};

/// What to do about a file that cannot be read.
const HINT: &str = "name a file that holds one address, such as https://hooks.example.org/…";

/// Whom to tell what happened.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Notifications")]
pub(crate) struct NotifyArgs {
    /// Run this command when a sweep finishes, stalls or is paused for its failures, a worker sits out,
    /// or messages are refused: without a shell, the event as JSON on standard input and in
    /// HALFHEARD_EVENT, HALFHEARD_TEXT, HALFHEARD_SWEEP (docs/guide/notifications.md)
    #[arg(long, value_name = "COMMAND")]
    notify: Option<String>,
    /// Post the same JSON to the address in this file, which is a secret [env:
    /// HALFHEARD_NOTIFY_WEBHOOK holds the address itself]
    #[arg(long, value_name = "FILE")]
    notify_webhook: Option<PathBuf>,
    /// Minutes without progress, or of a worker sitting out, before anybody is told [default: 30]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=10_080))]
    notify_after: Option<u32>,
}

impl NotifyArgs {
    /// Whom to tell; `None` without any.
    ///
    /// # Errors
    ///
    /// The command cannot be split into words; the file of the webhook cannot be read or holds no address.
    pub(crate) fn options(&self, env: Env) -> anyhow::Result<Option<NotifyOptions>> {
        let command = self.notify.as_deref().map(words).transpose()?;
        let webhook = match (&self.notify_webhook, env(env::NOTIFY_WEBHOOK)) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path)
                    .hint(HINT)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Some(Webhook::parse(&text, &path.display().to_string())?)
            }
            (None, Some(text)) => Some(Webhook::parse(&text, env::NOTIFY_WEBHOOK)?),
            (None, None) => None,
        };
        if command.is_none() && webhook.is_none() {
            return Ok(None);
        }
        let minutes = self.notify_after.map(u64::from);
        Ok(Some(NotifyOptions {
            command,
            webhook,
            after: minutes.map_or(NotifyOptions::AFTER, |m| Duration::from_secs(m * 60)),
            every: NotifyOptions::EVERY,
        }))
    }
}

/// The words of a command as a shell would split it, which runs none of it.
fn words(command: &str) -> anyhow::Result<Vec<String>> {
    let words = shlex::split(command).filter(|words| !words.is_empty());
    words.ok_or_else(|| {
        let message = format!("--notify is not a command: `{command}`");
        hinted(
            message,
            "close its quotes; for pipes and variables, name a script",
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &NotifyArgs, variable: Option<&str>) -> anyhow::Result<Option<NotifyOptions>> {
        let env = |name: &str| {
            variable
                .filter(|_| name == env::NOTIFY_WEBHOOK)
                .map(str::to_owned)
        };
        args.options(&env)
    }

    #[test]
    fn command_is_split_and_never_given_to_a_shell() {
        let notify = Some("mail -s 'a sweep' $(id) ops@example.org".to_owned());
        let args = NotifyArgs {
            notify,
            ..NotifyArgs::default()
        };
        let options = options(&args, None).unwrap().unwrap();
        let words = ["mail", "-s", "a sweep", "$(id)", "ops@example.org"].map(str::to_owned);
        assert_eq!(options.command.unwrap(), words);
        assert_eq!(options.after, NotifyOptions::AFTER);
    }

    #[test]
    fn invalid_flags_are_refused_and_a_secret_address_is_not_shown() {
        for notify in ["", "mail 'open"] {
            let notify = Some(notify.to_owned());
            let args = NotifyArgs {
                notify,
                ..NotifyArgs::default()
            };
            assert!(options(&args, None).is_err());
        }
        let none = NotifyArgs::default();
        assert!(options(&none, None).unwrap().is_none());
        let secret = "https://hooks.example.org/T0/secret";
        let found = options(&none, Some(secret)).unwrap().unwrap();
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
        for wrong in [
            "hooks/secret",
            "file:///secret",
            "https://a/secret\nhttps://b/secret",
        ] {
            let error = options(&none, Some(wrong)).unwrap_err();
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
        let args = NotifyArgs {
            notify_webhook: Some("/nonexistent/hook".into()),
            ..NotifyArgs::default()
        };
        assert!(options(&args, None).is_err());
    }
}
