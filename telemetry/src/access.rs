//! Who may read what a program exports.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use halfheard_shared::{error::Hint, text::quoted_path};
use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use subtle::ConstantTimeEq as _;

/// Why nobody would be admitted, or everybody.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file with the token cannot be used.
    #[error("cannot read a token from {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The address is not loopback, and nothing says who may read.
    #[error(
        "{address} can be reached by other machines, and nothing says who may read the metrics"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
}

impl Hint for AccessError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Token { path, .. } => {
                format!("umask 077; openssl rand -hex 32 > {}", quoted_path(path))
            }
            Self::Unprotected { .. } => "pass --http-token-file FILE, or --http-open-metrics if everybody on this network may".to_owned(),
        })
    }
}

/// The least length of a token.
const TOKEN: usize = 32;

/// What a request must show.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// `Authorization: Bearer TOKEN`.
    Token(String),
    /// A header in which a reverse proxy names the user.
    UserHeader(String),
}

/// Whether only this machine reaches `address`.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Hides the token.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Token(_) => "Token",
            Self::UserHeader(_) => "UserHeader",
        })
    }
}

impl Access {
    /// The token in a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or what it holds is none.
    pub fn token_file(path: &Path) -> Result<Self, AccessError> {
        let read = fs::metadata(path).and_then(|file| {
            if file.permissions().mode() & 0o007 != 0 {
                return Err(io::Error::other("other users can read it"));
            }
            let text = fs::read_to_string(path)?;
            let token = text.trim();
            match token.len() >= TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok(Self::Token(token.to_owned())),
                false => Err(io::Error::other(format!(
                    "it has fewer than {TOKEN} characters, or white space inside"
                ))),
            }
        });
        read.map_err(|source| AccessError::Token {
            path: path.to_owned(),
            source,
        })
    }

    /// Who may read metrics at `address`: everybody on loopback, or where `open` says so; elsewhere who
    /// may see the rest.
    pub fn to_metrics(self, address: SocketAddr, open: bool) -> Self {
        match open || is_loopback(address) {
            true => Self::Open,
            false => self,
        }
    }

    /// Whether a request with these headers may be answered.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Open => true,
            Self::Token(token) => headers
                .get(header::AUTHORIZATION)
                .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
                .is_some_and(|given| given.ct_eq(token.as_bytes()).into()),
            Self::UserHeader(name) => headers.get(name).is_some_and(|user| !user.is_empty()),
        }
    }

    /// Puts this before `routes`.
    pub fn guard(self, routes: Router) -> Router {
        if self == Self::Open {
            return routes;
        }
        routes.layer(middleware::from_fn(move |request: Request, next: Next| {
            let access = self.clone();
            async move { access.check(request, next).await }
        }))
    }

    async fn check(&self, request: Request, next: Next) -> Response {
        if self.admits(request.headers()) {
            return next.run(request).await;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, "unauthorized\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn token_and_user_are_checked() {
        let token = Access::Token("hush".to_owned());
        assert!(token.admits(&headers("authorization", "Bearer hush")));
        for wrong in [
            "Bearer hus",
            "Bearer hushh",
            "hush",
            "Basic hush",
            "Bearer ",
        ] {
            assert!(!token.admits(&headers("authorization", wrong)), "{wrong}");
        }
        assert!(!token.admits(&HeaderMap::new()));
        let user = Access::UserHeader("x-user".to_owned());
        assert!(user.admits(&headers("x-user", "ann")) && !user.admits(&headers("x-user", "")));
        assert!(!format!("{token:?}").contains("hush"));
    }

    #[test]
    fn token_comes_from_a_file_and_a_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(Access::token_file(&path).is_err(), "missing");
        let long = "0123456789abcdef0123456789abcdef\n";
        for (text, mode, good) in [
            (long, 0o600, true),
            (long, 0o644, false),
            ("short", 0o600, false),
            ("", 0o600, false),
            (&long.replace('0', " "), 0o600, false),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Access::token_file(&path);
            assert_eq!(read.is_ok(), good, "{text}");
            if let Err(error) = read {
                assert!(error.hint().is_some());
            }
        }
    }

    #[test]
    fn metrics_are_open_on_loopback_or_where_the_operator_says_so() {
        let token = || Access::Token("hush".to_owned());
        let at = |address: &str, open| token().to_metrics(address.parse().unwrap(), open);
        assert_eq!(at("127.0.0.1:9350", false), Access::Open);
        assert_eq!(at("[::1]:9350", false), Access::Open);
        assert_eq!(at("[::ffff:127.0.0.1]:9350", false), Access::Open);
        assert_eq!(at("0.0.0.0:9350", false), token());
        assert_eq!(at("0.0.0.0:9350", true), Access::Open);
    }
}
