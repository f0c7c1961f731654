//! The routes of the page's port, and the guard before every request.

use crate::access::{Denied, Doors, Reports, shown};
use crate::api;
use crate::assets;
use crate::metrics;
use crate::server::Context;
use crate::stream;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;

/// Nothing but the page's own files: no inline script or style, no framing, no other origin.
///
/// `svelte-trusted-html` is the one Trusted Types policy that Svelte makes for its own templates.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    font-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types svelte-trusted-html";

const SECURITY_HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// The address of a connection's other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The page, its stream and its API.
pub(crate) fn routes(context: Context) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/dashboard", get(assets::index))
        .route("/certificates", get(assets::index))
        .route("/api/v1/stream", get(stream::open))
        .route("/api/v1/summary", get(api::summary))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/devices", get(api::devices))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .fallback_service(get(assets::asset))
        .with_state(context)
}

/// Puts the Host and Origin checks before all of `routes`, and the security headers on every answer.
pub(crate) fn guarded(routes: Router, context: Context, doors: Doors) -> Router {
    let guard = Guard {
        context,
        doors: Arc::new(doors),
        reports: Arc::default(),
    };
    routes.layer(from_fn_with_state(guard, check))
}

#[derive(Clone)]
struct Guard {
    context: Context,
    doors: Arc<Doors>,
    reports: Arc<Reports>,
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard
        .doors
        .check(request.method(), request.uri(), request.headers())
    {
        Ok(()) => next.run(request).await,
        Err((foreign, value)) => {
            guard.report(&request, foreign, &value);
            (
                StatusCode::FORBIDDEN,
                "This server answers its own pages alone.\n",
            )
                .into_response()
        }
    };
    harden(response.headers_mut());
    response
}

impl Guard {
    fn report(&self, request: &Request, foreign: crate::access::Foreign, value: &str) {
        let now_s = self.context.hub.now().as_millis().div_euclid(1_000);
        let (Some(left_out), Some(Peer(peer))) =
            (self.reports.take(now_s), request.extensions().get().copied())
        else {
            return;
        };
        let path = shown(request.uri().path());
        (self.context.on_denied)(Denied {
            foreign,
            value: shown(value),
            path,
            peer,
            left_out,
        });
    }
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, value);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Whether a request asks for a WebSocket (RFC 6455 §4.1).
pub(crate) fn wants_websocket(request: &Request) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    request.method() == Method::GET
        && upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}
