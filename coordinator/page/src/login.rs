//! The form by which a browser shows that it knows the token.

use crate::{
    Page,
    access::{LOGIN, Proof},
    error::PageError,
    layout, origin,
};
use axum::{
    Form, Router,
    extract::{FromRequest as _, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;
use std::time::SystemTime;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "halfheard";

pub(crate) fn routes() -> Router<Page> {
    Router::new().route("/login", get(form).post(log_in))
}

#[derive(Deserialize)]
struct To {
    #[serde(default)]
    to: String,
}

#[derive(Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    to: String,
}

/// Asks for the token: a browser by a form, anything else in one line.
pub(crate) fn ask(browser: bool, address: &Uri) -> Response {
    let to = address.path_and_query().map_or("/", |path| path.as_str());
    let mut response = match browser {
        true => (StatusCode::UNAUTHORIZED, page(to, None)).into_response(),
        false => (
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong: send `Authorization: Bearer TOKEN`\n",
        )
            .into_response(),
    };
    let scheme = HeaderValue::from_static("Bearer realm=\"halfheard\"");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    response
}

async fn form(State(page_): State<Page>, Query(to): Query<To>) -> Result<Markup, PageError> {
    match page_.access.proof {
        Proof::Token(_) => Ok(page(&to.to, None)),
        _ => Err(PageError::NotFound(
            "this page asks for no token".to_owned(),
        )),
    }
}

async fn log_in(State(page_): State<Page>, request: Request) -> Result<Response, PageError> {
    let Proof::Token(token) = &page_.access.proof else {
        return Err(PageError::NotFound(
            "this page asks for no token".to_owned(),
        ));
    };
    if !origin::is_own(request.headers()) {
        return Err(PageError::Forbidden(
            "the request comes from another site".to_owned(),
        ));
    }
    let from = origin::peer(&request);
    if !page_.guesses.may(from) {
        return Err(PageError::TooMany);
    }
    let encrypted = is_encrypted(request.headers());
    let Form(login) = Form::<Login>::from_request(request, &())
        .await
        .map_err(|error| PageError::BadRequest(error.body_text()))?;
    if !token.is(&login.token) {
        page_.guesses.wrong(from);
        tracing::warn!(%from, "a login with a wrong token was refused");
        let wrong = page(&login.to, Some("This is not the token."));
        return Ok((StatusCode::UNAUTHORIZED, wrong).into_response());
    }
    tracing::info!(%from, "logged in");
    let secure = if encrypted { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
        token.login(SystemTime::now() + LOGIN),
        LOGIN.as_secs(),
    );
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(own(&login.to))).into_response())
}

/// Whether a reverse proxy says that the browser's connection is encrypted.
fn is_encrypted(headers: &HeaderMap) -> bool {
    origin::text(headers, "x-forwarded-proto") == Some("https")
}

/// An address on this server; the list of sweeps instead of any other. Browsers read `//name` and `/\name`
/// as another server.
fn own(to: &str) -> &str {
    let plain = to
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match plain && to.starts_with('/') && !to.starts_with("//") {
        true => to,
        false => "/",
    }
}

fn page(to: &str, wrong: Option<&str>) -> Markup {
    let main = html! {
        h1 { "Log in" }
        @if let Some(wrong) = wrong {
            p class="message bad" role="alert" { (wrong) }
        }
        form method="post" action="/login" class="login" {
            input type="hidden" name="to" value=(own(to));
            label for="token" { "Token" }
            input id="token" name="token" type="password" required autofocus
                autocomplete="current-password" spellcheck="false";
            button { "Log in" }
        }
        p class="muted" { "The token is in the file that `coord serve --http-token-file` names." }
    };
    layout::bare("Log in", &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_leads_to_own_pages_only() {
        assert_eq!(own("/sweeps/1?x=1"), "/sweeps/1?x=1");
        for other in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\nb",
        ] {
            assert_eq!(own(other), "/", "{other}");
        }
    }
}
