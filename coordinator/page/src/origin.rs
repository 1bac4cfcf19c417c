//! Where a request comes from, as its browser says.

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, header},
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whether the request was sent to a name of this machine itself. A page elsewhere can make its own name
/// point to 127.0.0.1 (DNS rebinding) and would then be of the same origin: its requests carry that name.
pub(crate) fn is_to_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = text(headers, header::HOST.as_str()) else {
        return false;
    };
    // Any port: a tunnel's entry may have another.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a request that changes something was sent by this server's own pages, or by no browser.
///
/// No token is hidden in the forms, because this check needs none. Browsers set `Sec-Fetch-Site` on every
/// request to a trustworthy origin (HTTPS or loopback) and `Origin` on every POST, and let no page change
/// either. What another site sends, even from another port of this host, is not `same-origin`, and its
/// origin is not the host that was asked. A request with neither is refused unless it carries the bearer
/// token, which no other site can make a browser send.
pub(crate) fn is_own(headers: &HeaderMap) -> bool {
    if let Some(site) = text(headers, "sec-fetch-site") {
        return site == "same-origin";
    }
    let host = text(headers, header::HOST.as_str());
    match (text(headers, header::ORIGIN.as_str()), host) {
        (Some(origin), Some(host)) => {
            let asked = origin.split_once("://").map(|(_, host)| host);
            asked.is_some_and(|asked| asked.eq_ignore_ascii_case(host))
        }
        _ => headers.contains_key(header::AUTHORIZATION),
    }
}

/// Where a request comes from.
pub(crate) fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip())
}

/// The value of a header that is there once.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter();
        all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn names_of_loopback_are_told_from_others() {
        for own in [
            "localhost:9350",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]:9350",
            "LOCALHOST",
        ] {
            assert!(is_to_loopback(&headers(&[("host", own)])), "{own}");
        }
        for other in [
            "evil.example:9350",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "10.0.0.1",
            "",
        ] {
            assert!(!is_to_loopback(&headers(&[("host", other)])), "{other}");
        }
        assert!(!is_to_loopback(&headers(&[])));
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(twice.len(), 2);
        assert!(!is_to_loopback(&twice));
    }

    #[test]
    fn changes_come_from_own_pages() {
        let own = |all: &[(&'static str, &str)]| is_own(&headers(all));
        assert!(own(&[
            ("sec-fetch-site", "same-origin"),
            ("origin", "null")
        ]));
        assert!(own(&[
            ("origin", "http://head:9350"),
            ("host", "head:9350")
        ]));
        assert!(own(&[("authorization", "Bearer x")]));
        for site in ["cross-site", "same-site", "none"] {
            // A form of another port of this host is `same-site`.
            let sent = [
                ("sec-fetch-site", site),
                ("origin", "http://a"),
                ("host", "a"),
            ];
            assert!(!own(&sent), "{site}");
        }
        assert!(!own(&[("origin", "http://evil"), ("host", "head:9350")]));
        assert!(!own(&[("origin", "null"), ("host", "head:9350")]));
        assert!(!own(&[("host", "head:9350")]));
    }
}
