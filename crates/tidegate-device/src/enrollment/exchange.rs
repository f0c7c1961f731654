//! One EST request and its answer, over a connection of its own.

use super::{EnrollError, Server, Token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::est::{self, MAX_BODY_BYTES};
use tidegate_pki::tls::classify_as_client;
use tokio::net::TcpStream;
use tokio::task::{self, JoinHandle};
use tokio::time;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// How long one request may take, from connecting to the last byte of its answer.
pub const EXCHANGE_WITHIN: Duration = Duration::from_secs(20);
/// Longest wait that a server may ask for; a longer one is taken for this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Wait where a server that is busy names none.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Longest text of a refusal that is shown.
const MAX_DETAIL_CHARACTERS: usize = 200;
/// How long to wait for the reason why a connection broke.
const CAUSE_WITHIN: Duration = Duration::from_secs(1);
const PKCS7: &str = "application/pkcs7-mime";

/// What is asked.
pub(super) enum Operation {
    /// Which CAs to trust (RFC 7030 §4.1).
    CaCertificates,
    /// A first certificate (§4.2.1).
    Enroll {
        /// PKCS#10 in DER.
        request: Vec<u8>,
        authorization: Authorization,
    },
    /// The next certificate (§4.2.2): PKCS#10 in DER.
    Reenroll(Vec<u8>),
}

/// HTTP Basic (RFC 7617) with the device as user and the token as password.
pub(super) struct Authorization {
    device: DeviceId,
    credentials: Zeroizing<String>,
}

impl Authorization {
    pub(super) fn token(device: &DeviceId, token: &Token) -> Self {
        let pair = Zeroizing::new(format!("{device}:{}", token.expose()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Self {
            device: device.clone(),
            credentials: Zeroizing::new(format!("Basic {}", encoded.as_str())),
        }
    }
}

/// The certificates that came, none of them checked, and who sent them.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) server: Server,
    /// The server's certificate and what it sent with it.
    pub(super) server_chain: Vec<CertificateDer<'static>>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Asks for certificates.
pub(super) async fn certificates(
    server: &Server,
    tls: Arc<ClientConfig>,
    operation: Operation,
    now: Timestamp,
) -> Result<Answer, EnrollError> {
    time::timeout(EXCHANGE_WITHIN, exchange(server, tls, &operation, now))
        .await
        .unwrap_or_else(|_| {
            Err(EnrollError::Timeout {
                server: server.clone(),
            })
        })
}

async fn exchange(
    server: &Server,
    tls: Arc<ClientConfig>,
    operation: &Operation,
    now: Timestamp,
) -> Result<Answer, EnrollError> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| EnrollError::Host(server.host.escape_default().to_string()))?;
    let failed = |error: Box<dyn Error + Send + Sync>| broken(server, error, now);
    let unreachable = |source| EnrollError::Connect {
        server: server.clone(),
        source,
    };
    let tcp = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(unreachable)?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| failed(error.into()))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let server_chain = chain
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let mut driver = Driver(task::spawn(connection));
    let response = match sender.send_request(operation.request(server)).await {
        Ok(response) => response,
        Err(error) => return Err(failed(driver.cause(error).await)),
    };
    let certificates = read(server, operation, response, &failed).await?;
    Ok(Answer {
        server: server.clone(),
        server_chain,
        certificates,
    })
}

impl Operation {
    fn request(&self, server: &Server) -> Request<Full<Bytes>> {
        let (method, path, body) = match self {
            Self::CaCertificates => (Method::GET, "cacerts", None),
            Self::Enroll { request, .. } => (Method::POST, "simpleenroll", Some(request)),
            Self::Reenroll(request) => (Method::POST, "simplereenroll", Some(request)),
        };
        let mut request = Request::new(Full::new(match body {
            None => Bytes::new(),
            Some(der) => est::encode(der).into(),
        }));
        *request.method_mut() = method;
        *request.uri_mut() = format!("/.well-known/est/{path}")
            .parse()
            .expect("a path of letters is a URI");
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(server.to_string()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if body.is_some() {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/pkcs10"),
            );
            headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
        }
        if let Self::Enroll { authorization, .. } = self
            && let Ok(mut value) = HeaderValue::try_from(authorization.credentials.as_str())
        {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        request
    }

    fn refused(
        &self,
        server: &Server,
        status: StatusCode,
        detail: String,
        retry_after: Duration,
    ) -> EnrollError {
        match (status, self) {
            (StatusCode::UNAUTHORIZED, Self::Enroll { .. }) => EnrollError::TokenRefused { detail },
            (StatusCode::FORBIDDEN, Self::Enroll { authorization, .. }) => EnrollError::NotRegistered {
                device: authorization.device.clone(),
                detail,
            },
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Self::Reenroll(_)) => {
                EnrollError::RenewalRefused { detail }
            }
            (StatusCode::ACCEPTED | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
                EnrollError::Busy { retry_after, detail }
            }
            (StatusCode::NOT_FOUND, _) => EnrollError::NoService {
                server: server.clone(),
            },
            _ => EnrollError::Refused {
                status: status.as_u16(),
                detail,
            },
        }
    }
}

async fn read(
    server: &Server,
    operation: &Operation,
    response: Response<Incoming>,
    failed: impl Fn(Box<dyn Error + Send + Sync>) -> EnrollError,
) -> Result<Vec<CertificateDer<'static>>, EnrollError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(&failed)?
        .to_bytes();
    if head.status != StatusCode::OK {
        let retry_after = retry_after(&head.headers);
        return Err(operation.refused(server, head.status, detail(&body, head.status), retry_after));
    }
    let content_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(PKCS7) {
        return Err(EnrollError::ContentType {
            server: server.clone(),
            content_type: shown(content_type),
        });
    }
    est::read_certs_only(&body).map_err(|source| EnrollError::Answer {
        server: server.clone(),
        source,
    })
}

/// The task that moves the bytes of a connection; it ends with this.
struct Driver(JoinHandle<hyper::Result<()>>);

impl Driver {
    /// Why a request failed. In TLS 1.3 the server's refusal of a certificate comes after the
    /// handshake, and may reach the connection before the request does: then the request only
    /// knows that its connection is gone.
    async fn cause(&mut self, error: hyper::Error) -> Box<dyn Error + Send + Sync> {
        if classify_as_client(&error).is_some() {
            return error.into();
        }
        match time::timeout(CAUSE_WITHIN, &mut self.0).await {
            Ok(Ok(Err(cause))) => cause.into(),
            _ => error.into(),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a broken connection means for the device.
fn broken(server: &Server, source: Box<dyn Error + Send + Sync>, now: Timestamp) -> EnrollError {
    let server = server.clone();
    let reason = classify_as_client(&*source);
    match reason {
        Some(Reason::TlsServerRejected) if is_about_time(&*source) => {
            EnrollError::Clock { server, now, source }
        }
        Some(Reason::TlsServerRejected) => EnrollError::UntrustedServer { server, source },
        Some(Reason::TlsExpired) => EnrollError::CertificateRefused {
            server,
            detail: "it has expired".into(),
        },
        Some(Reason::TlsRevoked) => EnrollError::CertificateRefused {
            server,
            detail: "it is revoked".into(),
        },
        Some(Reason::TlsBadCertificate | Reason::TlsNoCertificate) => EnrollError::CertificateRefused {
            server,
            detail: "its TLS refused it".into(),
        },
        _ => EnrollError::Connection { server, source },
    }
}

/// Whether the server's certificate was refused for its validity.
fn is_about_time(error: &(dyn Error + 'static)) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(error)) = error.downcast_ref() {
            return matches!(
                error,
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
            );
        }
        // An I/O error skips the error that it wraps when it is asked for its source.
        next = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// The text of a refusal, for people; servers of other makes send pages.
fn detail(body: &[u8], status: StatusCode) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() || text.starts_with('<') {
        return status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_lowercase();
    }
    shown(text)
}

/// Text from outside: one line, of bounded length.
fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_DETAIL_CHARACTERS)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

/// Seconds only: a date (RFC 9110 §10.2.3) would need two clocks to agree.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok());
    seconds
        .map_or(DEFAULT_RETRY_AFTER, Duration::from_secs)
        .min(MAX_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_carries_the_credentials_and_the_certificate_request_as_est_says() {
        let server: Server = "[::1]:8443".parse().unwrap();
        let device = DeviceId::new("device-001").unwrap();
        let authorization = Authorization::token(&device, &Token::new("secret").unwrap());
        let request = vec![0x30, 0];
        let request = Operation::Enroll {
            request,
            authorization,
        }
        .request(&server);
        assert_eq!(request.uri(), "/.well-known/est/simpleenroll");
        let of = |name| request.headers().get::<&str>(name).unwrap();
        assert_eq!(of("authorization"), "Basic ZGV2aWNlLTAwMTpzZWNyZXQ=");
        assert_eq!(of("content-type"), "application/pkcs10");
        assert_eq!(of("host"), "[::1]:8443");
        assert!(!format!("{request:?}").contains("ZGV2"), "{request:?}");
    }

    #[test]
    fn wait_that_a_server_asks_for_is_bounded() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.try_into().unwrap());
            retry_after(&headers).as_secs()
        };
        assert_eq!(of("7"), 7);
        assert_eq!(of("99999999"), MAX_RETRY_AFTER.as_secs());
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), DEFAULT_RETRY_AFTER.as_secs());
        assert_eq!(retry_after(&HeaderMap::new()), DEFAULT_RETRY_AFTER);
    }

    #[test]
    fn text_of_a_refusal_is_one_short_line() {
        let status = StatusCode::UNAUTHORIZED;
        assert_eq!(detail(b" the token was used\n", status), "the token was used");
        assert_eq!(detail(b"a\x1b[31m\nb", status), "a [31m b");
        assert_eq!(detail(b"<html>", status), "unauthorized");
        assert_eq!(detail(b"", status), "unauthorized");
        assert_eq!(detail(&[b'x'; 9_999], status).len(), MAX_DETAIL_CHARACTERS);
    }
}
