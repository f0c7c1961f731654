//! EST over HTTP (RFC 7030 §3.2 and §4): paths, credentials, bodies, and answers in its words.

use crate::desk::{Desk, Issued};
use crate::event::{Event, OnEvent, Refusal, What};
use crate::limiter::{self, Client, Limiter};
use crate::limits::MAX_BODY_BYTES;
use crate::service::{Clock, Material};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_pki::est;
use tidegate_pki::identity::Leaf;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

const CERTIFICATES: &str = "application/pkcs7-mime; smime-type=certs-only";
const REQUEST: &str = "application/pkcs10";
const ATTRIBUTES: &str = "application/csrattrs";
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"device id and enrolment token\", charset=\"UTF-8\"");
/// When to come back after a fault that is ours.
const RETRY_AFTER_S: u64 = 60;
/// Of a body that is too long, this much is read and thrown away: a client that is still sending when
/// the connection ends may never see the answer.
const MAX_DISCARDED_BYTES: usize = 256 * 1_024;
/// Decisions at one time; others wait.
pub(crate) const MAX_DECISIONS: usize = 16;

/// What every handler shares.
pub(crate) struct Shared {
    pub(crate) desk: Desk,
    pub(crate) material: watch::Receiver<Arc<Material>>,
    pub(crate) limiter: Arc<Limiter>,
    /// Free places for decisions: each holds a thread, and files of which one is written at a time.
    pub(crate) decisions: Arc<Semaphore>,
    pub(crate) body_within: Duration,
    pub(crate) clock: Clock,
    pub(crate) on_event: OnEvent,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) shown: Shown,
}

/// The client certificate that TLS has verified.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// None was shown.
    Nothing,
    /// It names no identity of ours.
    Unnamed,
    /// It is somebody's.
    Leaf(Arc<Leaf>),
}

impl Peer {
    /// By what the client is counted.
    fn client(&self) -> Client {
        match self.device() {
            Some(id) => Client::Device(id),
            None => Client::Stranger(limiter::address(self.address.ip())),
        }
    }

    /// The device that has proven itself.
    fn device(&self) -> Option<DeviceId> {
        let Shown::Leaf(leaf) = &self.shown else {
            return None;
        };
        match &leaf.principal {
            Principal::Certificate {
                id,
                role: Role::Device,
            } => Some(id.clone()),
            _ => None,
        }
    }
}

impl Shared {
    pub(crate) fn tell(&self, address: SocketAddr, device: Option<DeviceId>, what: What) {
        (self.on_event)(Event {
            at: (self.clock)(),
            peer: address,
            device,
            what,
        });
    }

    /// Tells of a flood, now and then.
    pub(crate) fn tell_flood(&self, address: SocketAddr, device: Option<DeviceId>, refusal: Refusal) {
        if self.limiter.tell(Instant::now()) {
            self.tell(address, device, What::Refused(refusal));
        }
    }

    /// Counts and tells a refusal, and puts it into HTTP.
    fn refuse(&self, peer: &Peer, device: Option<DeviceId>, refusal: Refusal) -> Response {
        if !matches!(refusal, Refusal::Unavailable { .. }) {
            self.limiter.failed(&peer.client(), Instant::now());
        }
        let response = response(&refusal);
        self.tell(peer.address, device, What::Refused(refusal));
        response
    }
}

/// The service's paths for one connection.
pub(crate) fn routes(shared: &Arc<Shared>, peer: Peer) -> Router {
    Router::new()
        .route("/.well-known/est/cacerts", get(authorities))
        .route("/.well-known/est/csrattrs", get(attributes))
        .route("/.well-known/est/simpleenroll", post(enroll))
        .route("/.well-known/est/simplereenroll", post(renew))
        .layer(from_fn_with_state(Arc::clone(shared), limit))
        .layer(Extension(peer))
        .with_state(Arc::clone(shared))
}

/// Every request counts, those for paths that do not exist too.
async fn limit(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match shared.limiter.ask(&peer.client(), Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            shared.tell_flood(peer.address, peer.device(), Refusal::RateLimited);
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let mut response = response(&Refusal::RateLimited);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

async fn authorities(State(shared): State<Arc<Shared>>) -> Response {
    let material = Arc::clone(&shared.material.borrow());
    carried(CERTIFICATES, est::certs_only(&material.trusted))
}

async fn attributes() -> Response {
    carried(ATTRIBUTES, est::request_attributes())
}

async fn enroll(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    // The body first, whoever sent it: a client that is answered while it still sends may miss the
    // answer.
    let body = match read(body, shared.body_within).await {
        Ok(body) => body,
        Err(refusal) => return shared.refuse(&peer, None, refusal),
    };
    if !head.headers.contains_key(header::AUTHORIZATION) {
        // How a client begins that waits for the challenge: no attempt yet.
        return challenge("send the device's id and its token (HTTP Basic)");
    }
    let Some((id, secret)) = credentials(&head.headers) else {
        return shared.refuse(&peer, None, Refusal::Credentials);
    };
    if !is_request(&head.headers) {
        return shared.refuse(&peer, Some(id), Refusal::ContentType);
    }
    let given = id.clone();
    let answer = move |shared: &Shared, material: &Material| {
        shared
            .desk
            .enroll(material, &id, &secret, &body)
            .map(|issued| (What::Enrolled(issued.given.clone()), issued))
    };
    decide(shared, peer, Some(given), answer).await
}

async fn renew(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let device = peer.device();
    let body = match read(body, shared.body_within).await {
        Ok(body) => body,
        Err(refusal) => return shared.refuse(&peer, device, refusal),
    };
    let leaf = match &peer.shown {
        Shown::Leaf(leaf) => Arc::clone(leaf),
        Shown::Nothing => return shared.refuse(&peer, None, Refusal::NoCertificate),
        Shown::Unnamed => return shared.refuse(&peer, None, Refusal::NoIdentity),
    };
    if !is_request(&head.headers) {
        return shared.refuse(&peer, device, Refusal::ContentType);
    }
    let answer = move |shared: &Shared, material: &Material| {
        shared
            .desk
            .renew(material, &leaf, &body)
            .map(|issued| (What::Renewed(issued.given.clone()), issued))
    };
    decide(shared, peer, device, answer).await
}

/// Runs a decision where it may block. It is told from there: the client may be gone by then, and
/// its certificate is in the ledger all the same.
async fn decide<F>(shared: Arc<Shared>, peer: Peer, device: Option<DeviceId>, decision: F) -> Response
where
    F: FnOnce(&Shared, &Material) -> Result<(What, Issued), Refusal> + Send + 'static,
{
    let Ok(place) = Arc::clone(&shared.decisions).acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let material = Arc::clone(&shared.material.borrow());
    let decided = spawn_blocking(move || {
        // Held until the decision has ended, whatever becomes of the connection.
        let _place = place;
        match decision(&shared, &material) {
            Ok((what, issued)) => {
                shared.tell(peer.address, device, what);
                carried(CERTIFICATES, est::certs_only(&[issued.certificate]))
            }
            Err(refusal) => shared.refuse(&peer, device, refusal),
        }
    });
    // An error means that the process is about to end.
    decided
        .await
        .unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

/// The body, if it is short and comes in time.
async fn read(body: Body, within: Duration) -> Result<Bytes, Refusal> {
    let read = async {
        let mut frames = body.into_data_stream();
        let (mut kept, mut length) = (Vec::new(), 0);
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
            length += frame.len();
            if length <= MAX_BODY_BYTES {
                kept.extend_from_slice(&frame);
            } else if length > MAX_DISCARDED_BYTES {
                break;
            }
        }
        if length > MAX_BODY_BYTES {
            return Err(Refusal::Oversize);
        }
        Ok(kept.into())
    };
    timeout(within, read)
        .await
        .unwrap_or(Err(Refusal::BodyIncomplete))
}

/// User and password of HTTP Basic (RFC 7617): the device's id and its token.
fn credentials(headers: &HeaderMap) -> Option<(DeviceId, Zeroizing<String>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (id, secret) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((DeviceId::new(id).ok()?, Zeroizing::new(secret.to_owned())))
}

/// A web page cannot send this type to another site without asking, which nobody here answers.
fn is_request(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(REQUEST))
}

fn carried(kind: &'static str, body: String) -> Response {
    let encoding = HeaderName::from_static("content-transfer-encoding");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (encoding, HeaderValue::from_static("base64")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

fn challenge(text: &str) -> Response {
    let headers = [(header::WWW_AUTHENTICATE, CHALLENGE)];
    (StatusCode::UNAUTHORIZED, headers, format!("{text}\n")).into_response()
}

/// A refusal in HTTP, with its reason in plain text (RFC 7030 §4.2.3).
fn response(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Token(_) | Refusal::Credentials => return challenge(&refusal.to_string()),
        Refusal::Unavailable { .. } => {
            let headers = [(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S))];
            let text = "no certificate can be issued now; the service's log says why\n";
            return (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response();
        }
        Refusal::Body(_) | Refusal::Request(_) => StatusCode::BAD_REQUEST,
        Refusal::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refusal::Oversize => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::BodyIncomplete | Refusal::HandshakeTimeout => StatusCode::REQUEST_TIMEOUT,
        Refusal::RateLimited | Refusal::ConnectionLimit => StatusCode::TOO_MANY_REQUESTS,
        Refusal::UnknownDevice
        | Refusal::DeviceDisabled
        | Refusal::NoCertificate
        | Refusal::NoIdentity
        | Refusal::NotDevice { .. }
        | Refusal::Expired { .. }
        | Refusal::Revoked { .. }
        | Refusal::Superseded { .. }
        | Refusal::Handshake { .. } => StatusCode::FORBIDDEN,
    };
    (status, format!("{refusal}\n")).into_response()
}
