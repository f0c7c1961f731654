//! A TLS server that answers as a test says.

use crate::gateway::now;
use std::io;
use std::sync::Arc;
use tidegate_device::enrollment::Server;
use tidegate_pki::authority::Authority;
use tidegate_pki::files::{read_certificates, read_key};
use tidegate_pki::profile::Profile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The content type of certificates.
pub(crate) const PKCS7: &str = "application/pkcs7-mime; smime-type=certs-only";

pub(crate) fn answer(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A TLS server with a certificate of `profile` that gives these answers, one on each connection,
/// and ends after one more connection; gives what it heard.
pub(crate) async fn scripted(
    authority: &Authority,
    profile: &Profile,
    answers: Vec<String>,
) -> (Server, JoinHandle<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    authority
        .issue(profile, now())
        .unwrap()
        .write(folder.path(), "server", false)
        .unwrap();
    let chain = read_certificates(&folder.path().join("server.pem")).unwrap();
    let key = read_key(&folder.path().join("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut heard = Vec::new();
        let mut answers = answers.into_iter();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                return heard;
            };
            let Some(answer) = answers.next() else {
                return heard;
            };
            heard.push(request(&mut tls).await.unwrap());
            // The device may have heard enough before the end.
            drop(tls.write_all(answer.as_bytes()).await);
            drop(tls.shutdown().await);
        }
    });
    let host = "127.0.0.1".into();
    (Server { host, port }, task)
}

/// The whole of a request.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await?);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    text.extend(body);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
