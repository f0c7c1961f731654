//! Foreign origins and foreign host names, on both ports.

use crate::support::{Client, Running, ask, start};
use std::net::SocketAddr;
use tidegate_serve::access::Foreign;

async fn request(address: SocketAddr, host: &str, more: &str) -> u16 {
    ask(
        address,
        &format!("GET /api/v1/summary HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"),
    )
    .await
    .status
}

fn both_ports(server: &Running) -> [SocketAddr; 2] {
    [server.page, server.compatible]
}

#[tokio::test]
async fn foreign_host_is_refused_on_both_ports_and_reported() {
    let server = start().await;
    for address in both_ports(&server) {
        let port = address.port();
        assert_eq!(request(address, &format!("localhost:{port}"), "").await, 200);
        assert_eq!(
            request(address, &format!("rebound.example:{port}"), "").await,
            403
        );
        assert_eq!(request(address, "localhost:1", "").await, 403);
        let host = format!("rebound.example:{port}");
        assert_eq!(
            Client::connect(address, "/api/v1/stream", &[("host", &host)])
                .await
                .err(),
            Some(403)
        );
    }
    let denied = server.denied.lock().unwrap();
    assert_eq!(denied.len(), 6);
    assert!(
        denied
            .iter()
            .all(|denial| denial.foreign == Foreign::Host && denial.peer.ip().is_loopback())
    );
    let sentence = denied[0].to_string();
    assert!(
        sentence.contains("asked for /api/v1/summary under the host name \"rebound.example:"),
        "{sentence}"
    );
}

#[tokio::test]
async fn foreign_origin_is_refused_on_both_ports_and_reported() {
    let server = start().await;
    let page = format!("http://localhost:{}", server.page.port());
    for address in both_ports(&server) {
        let host = format!("127.0.0.1:{}", address.port());
        assert_eq!(request(address, &host, &format!("Origin: {page}\r\n")).await, 200);
        // Another program's page on this machine: the cookie and the name are the same, the port is not.
        assert_eq!(
            request(address, &host, "Origin: http://localhost:1\r\n").await,
            403
        );
        for path in ["/", "/api/v1/stream"] {
            for origin in ["http://localhost:1", "https://evil.example", "null"] {
                let outcome = Client::connect(address, path, &[("origin", origin)]).await;
                assert_eq!(outcome.err(), Some(403), "{origin}");
            }
        }
    }
    assert!(
        Client::connect(server.compatible, "/", &[("origin", &page)])
            .await
            .is_ok()
    );
    assert!(
        Client::connect(server.page, "/api/v1/stream", &[("origin", &page)])
            .await
            .is_ok()
    );
    assert!(
        server
            .denied
            .lock()
            .unwrap()
            .iter()
            .all(|denial| denial.foreign == Foreign::Origin)
    );
}

#[tokio::test]
async fn embedding_by_another_site_is_refused_without_an_origin_header_too() {
    let server = start().await;
    let host = server.page.to_string();
    let script = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    assert_eq!(request(server.page, &host, script).await, 403);
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(request(server.page, &host, link).await, 200);
}

#[tokio::test]
async fn refused_requests_flood_no_reports() {
    let server = start().await;
    for _ in 0..40 {
        assert_eq!(request(server.page, "evil.example", "").await, 403);
    }
    // The test's clock stands still, so all of this is one second.
    assert_eq!(server.denied.lock().unwrap().len(), 10);
}

#[tokio::test]
async fn hostile_header_values_are_reported_as_harmless_text() {
    let server = start().await;
    let origin = format!("Origin: http://<script>\u{1f4a7}{}\r\n", "x".repeat(500));
    assert_eq!(request(server.page, &server.page.to_string(), &origin).await, 403);
    let value = server.denied.lock().unwrap()[0].value.clone();
    assert!(
        value.chars().count() <= 121 && value.starts_with("http://<script>"),
        "{value}"
    );
}
