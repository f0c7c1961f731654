//! TLS connections that a test holds: to see how they end, and what their sessions are good for.

use crate::server::{PATIENCE, Server};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::sync::Arc;
use tidegate_pki::files::{read_certificates, read_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that shows `NAME.pem` and remembers its sessions.
pub(crate) fn config(
    server: &Server,
    identity: Option<&str>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(server.authority().der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = read_certificates(&server.path(&format!("{name}.pem"))).unwrap();
            let key = read_key(&server.path(&format!("{name}-key.pem"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

pub(crate) async fn connect(
    server: &Server,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    connector.connect("localhost".try_into().unwrap(), socket).await
}

/// Asks for the attributes, and reads the answer's first line, which leaves the connection open.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let request = b"GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await?;
    let mut line = [0; 15];
    timeout(PATIENCE, stream.read_exact(&mut line)).await??;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Waits for the other side to end the connection; what came before that.
pub(crate) async fn end(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    // An end without ceremony is one too.
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    drop(ended.expect("the connection ends"));
    rest
}
