//! What every request passes: access, the origin of changes, and the headers of every answer.

use crate::{
    Page,
    access::{Proof, Token},
    error::PageError,
    login, origin,
    visit::Visit,
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use halfheard_shared::text::plain;
use std::time::{Duration, SystemTime};

/// Nothing is loaded from elsewhere, nothing inline runs, and no other site may frame the page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// How long an answer may take. Drawing a figure of a large sweep takes longest.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest name of a user that is kept.
const MAX_USER: usize = 64;

/// Refuses who may not look, and changes that the page does not offer or did not ask for.
pub(crate) async fn guard(State(page): State<Page>, request: Request, next: Next) -> Response {
    let user = match admit(&page, &request) {
        Ok(user) => user,
        Err(refusal) => return refusal.answer(&request),
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let refused = if !page.access.control {
            "this page is read-only: `coord serve --http-control` lets it change sweeps"
        } else if !origin::is_own(request.headers()) {
            "the request comes from another site"
        } else {
            ""
        };
        if !refused.is_empty() {
            return PageError::Forbidden(refused.to_owned()).into_response();
        }
    }
    let query = request.uri().query().unwrap_or_default();
    let did = query.split('&').find_map(|pair| pair.strip_prefix("did="));
    let visit = Visit {
        user,
        did: did.and_then(|did| did.parse().ok()),
    };
    visit.answer(next.run(request)).await
}

/// Why a request is not answered.
#[derive(Debug)]
enum Refusal {
    /// It was sent to another name.
    OtherHost,
    /// Nothing shows that it may be.
    NoProof,
    /// The reverse proxy named nobody.
    NoUser,
    /// Its address has guessed wrong too often.
    TooMany,
}

impl Refusal {
    fn answer(self, request: &Request) -> Response {
        match self {
            Self::OtherHost => PageError::OtherHost.into_response(),
            Self::NoProof => {
                let accept = request.headers().get(header::ACCEPT);
                let browser = accept.is_some_and(|accept| {
                    accept
                        .to_str()
                        .is_ok_and(|accept| accept.contains("text/html"))
                });
                // The script of a page that was left open shows that its login has ended.
                let by_script = request.headers().contains_key("x-live");
                login::ask(browser && !by_script, request.uri())
            }
            Self::NoUser => PageError::NoUser.into_response(),
            Self::TooMany => PageError::TooMany.into_response(),
        }
    }
}

/// Whether a request may be answered, and who sent it as far as that is known.
fn admit(page: &Page, request: &Request) -> Result<Option<String>, Refusal> {
    let headers = request.headers();
    match &page.access.proof {
        Proof::Loopback if origin::is_to_loopback(headers) => Ok(None),
        Proof::Loopback => Err(Refusal::OtherHost),
        Proof::Token(token) if is_logged_in(token, headers) => Ok(None),
        Proof::Token(token) => {
            let bearer = origin::text(headers, header::AUTHORIZATION.as_str())
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let Some((_, guess)) = bearer else {
                return Err(Refusal::NoProof);
            };
            let from = origin::peer(request);
            if !page.guesses.may(from) {
                return Err(Refusal::TooMany);
            }
            if token.is(guess) {
                return Ok(None);
            }
            page.guesses.wrong(from);
            Err(Refusal::NoProof)
        }
        Proof::UserHeader(name) => match origin::text(headers, name) {
            Some(user) if !user.is_empty() => {
                Ok(Some(plain(user).chars().take(MAX_USER).collect()))
            }
            _ => Err(Refusal::NoUser),
        },
    }
}

fn is_logged_in(token: &Token, headers: &HeaderMap) -> bool {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.any(|(name, value)| name == login::COOKIE && token.knows(value, SystemTime::now()))
}

/// Gives up answers that take too long.
pub(crate) async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => PageError::TooSlow.into_response(),
    }
}

/// Adds the security headers.
pub(crate) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY.as_str(), POLICY),
        (header::X_CONTENT_TYPE_OPTIONS.as_str(), "nosniff"),
        (header::X_FRAME_OPTIONS.as_str(), "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        // Not `no-referrer`: browsers would then hide the origin of the page's own forms, too.
        (header::REFERRER_POLICY.as_str(), "same-origin"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
