//! Addresses of servers and stores for display: the one place that decides what in an address is
//! secret.

/// Replaces a login.
const HIDDEN: &str = "***";

/// An address as it may be shown and logged: `***` in the place of everything before its last `@`,
/// and of the values of parameters that hold a secret.
///
/// It looks at the raw text, not at what a strict parser would call the login: neither an unescaped
/// `/` in a password nor an invalid address may reveal one. A `file://` address
/// is a path and holds none.
pub fn redacted(address: &str) -> String {
    if address.starts_with("file://") {
        return address.to_owned();
    }
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['@', ':', '/']) => (Some(scheme), rest),
        _ => (None, address),
    };
    let mut shown = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => {
            shown.push_str(HIDDEN);
            shown.push('@');
            rest
        }
        None => rest,
    };
    let Some((before, query)) = rest.split_once('?') else {
        return shown + rest;
    };
    shown.push_str(before);
    for (i, pair) in query.split('&').enumerate() {
        shown.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, _)) if is_secret(key) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(HIDDEN);
            }
            _ => shown.push_str(pair),
        }
    }
    shown
}

/// Whether an address holds a password or token. `user_is_secret`: a name without a password is a
/// token, as the broker has it.
///
/// Looks at everything before the last `@`, as [`redacted`] does.
pub fn holds_secret(address: &str, user_is_secret: bool) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.contains('@') && (user_is_secret || address.contains(':'));
    };
    if scheme == "file" {
        return false;
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let login = |text: &str| {
        text.rsplit_once('@')
            .is_some_and(|(login, _)| user_is_secret || login.contains(':'))
    };
    login(rest)
        || login(before)
        || query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(key, value)| !value.is_empty() && is_secret(key))
}

/// Whether a parameter of this name holds a secret.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key != "passfile"
        && ["pass", "secret", "token", "credential", "access_key"]
            .iter()
            .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_address_shows_no_secret() {
        for (address, shown) in [
            ("nats://host:4222", "nats://host:4222"),
            ("nats://ann:hush@host:4222", "nats://***@host:4222"),
            ("nats://hush@host", "nats://***@host"),
            ("nats://a:1,nats://ann:hush@b:2", "nats://***@b:2"),
            ("s3://a:hush@b", "s3://***@b"),
            ("s3://a:hu/sh@b/c", "s3://***@b/c"),
            ("s3://a:hu@sh@b/c", "s3://***@b/c"),
            ("a:hush@b", "***@b"),
            ("ann:hush@://b", "***@://b"),
            (
                "postgres://h/d?user=ann&password=hush&sslmode=require",
                "postgres://h/d?user=ann&password=***&sslmode=require",
            ),
            (
                "s3://b?AWS_SECRET_ACCESS_KEY=hush",
                "s3://b?AWS_SECRET_ACCESS_KEY=***",
            ),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("file:///a@b", "file:///a@b"),
            ("", ""),
        ] {
            assert_eq!(redacted(address), shown);
            assert!(!redacted(address).contains("hush"), "{address}");
        }
    }

    #[test]
    fn secret_is_found_anywhere_in_address() {
        for address in [
            "nats://ann:hush@host:4222",
            "nats://a:1,nats://ann:hush@b:2",
            "postgres://ann:hu/sh@host/db",
            "postgres://ann:hu?sh@host/db",
            "postgres://host/db?password=hush",
            "s3://key:hush@bucket",
            "ann:hush@host",
        ] {
            assert!(holds_secret(address, false), "{address}");
        }
        assert!(holds_secret("nats://hush@host", true));
        for address in [
            "postgres://ann@host/db?sslmode=verify-full&passfile=/a",
            "s3://bucket/prefix",
            "nats://host:4222",
            "file:///a:b@c",
        ] {
            assert!(!holds_secret(address, false), "{address}");
        }
    }
}
