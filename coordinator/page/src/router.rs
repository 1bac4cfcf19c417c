//! All routes, behind the guard.

use crate::{
    Page, control, error, failures, guard, live, login, results, sweep, sweeps, training, workers,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, header},
    middleware,
    response::IntoResponse,
    routing::get,
};

/// The most bytes that a form may have.
const MAX_FORM: usize = 16 << 10;

/// The routes of the page, with checks of access, of the request's origin, and the security headers.
pub fn routes(page: Page) -> Router {
    let pages = Router::new()
        .merge(sweeps::routes())
        .merge(sweep::routes())
        .merge(training::routes())
        .merge(workers::routes())
        .merge(results::routes())
        .merge(failures::routes())
        .merge(control::routes())
        .merge(live::routes())
        .fallback(error::not_found)
        .with_state(page.clone());
    guarded(&page, pages)
        .merge(open(login::routes().with_state(page)))
        .merge(open(
            Router::new()
                .route("/style.css", get(style))
                .route("/live.js", get(script)),
        ))
}

/// `routes` for those who may look at the page: behind the same checks.
pub fn guarded(page: &Page, routes: Router) -> Router {
    open(routes.layer(middleware::from_fn_with_state(page.clone(), guard::guard)))
}

/// What every answer has, whoever asks.
fn open(routes: Router) -> Router {
    routes
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn(guard::limit_time))
        .layer(middleware::from_fn(guard::security_headers))
}

type Asset = ([(HeaderName, &'static str); 1], &'static str);

async fn style() -> impl IntoResponse {
    let asset: Asset = (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        concat!(
            include_str!("assets/style.css"),
            include_str!("assets/content.css")
        ),
    );
    asset
}

async fn script() -> impl IntoResponse {
    let asset: Asset = (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("assets/live.js"),
    );
    asset
}
