//! Certificates, sessions, revocation lists and alarms: in the stream and in the metrics.

use crate::support::{Client, Running, accepted, ask, blocked, get, start};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_envelope::reason::Reason;
use tidegate_serve::protocol::{
    Alarm, AlarmSeverity, CertificateRole, CertificateRow, CertificateState, RevocationList, RevocationView,
    SessionRow, SessionTls,
};

fn certificate(id: &str) -> CertificateRow {
    CertificateRow {
        id: id.into(),
        role: CertificateRole::Device,
        serial: "0a1b".into(),
        not_before_ms: 1_800_000_000_000,
        not_after_ms: 1_800_600_000_000,
        state: CertificateState::Valid,
        authority: "Tidegate CA".into(),
    }
}

fn session(client_id: &str) -> SessionRow {
    SessionRow {
        id: Some("device-002".into()),
        role: Some(CertificateRole::Device),
        client_id: client_id.into(),
        peer: "127.0.0.1:50000".into(),
        since_ms: 1_800_000_000_000,
        tls: Some(SessionTls {
            version: "TLS 1.3".into(),
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            key_exchange: "X25519MLKEM768".into(),
            post_quantum: true,
            resumed: false,
        }),
    }
}

fn alarm(text: &str) -> Alarm {
    Alarm {
        severity: AlarmSeverity::Warning,
        text: text.into(),
        remedy: "Run `tidegate certs renew`".into(),
        since_ms: 1_800_000_000_000,
    }
}

fn revocation() -> RevocationView {
    RevocationView {
        lists: vec![RevocationList {
            authority: "Tidegate CA".into(),
            number: "7".into(),
            this_update_ms: 1_800_000_000_000,
            next_update_ms: 1_802_592_000_000,
            revoked: 2,
        }],
    }
}

fn set_all(server: &Running) {
    server.hub.set_certificates(vec![certificate("device-002")]);
    server
        .hub
        .set_sessions(vec![session("<img src=x onerror=alert(1)>\u{202e}")]);
    server.hub.set_revocation(revocation());
    server
        .hub
        .set_alarms(vec![alarm("The certificate ends in 6 days")]);
}

#[tokio::test]
async fn nothing_is_known_until_the_program_says_it() {
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    assert_eq!(
        page.json().await["identity"],
        json!({"certificates": null, "sessions": null, "revocation": null, "alarms": []})
    );
    assert_eq!(page.json().await["identity"], Value::Null);
}

#[tokio::test]
async fn who_comes_late_gets_all_of_it_in_the_hello() {
    let server = start().await;
    set_all(&server);
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    let identity = page.json().await["identity"].clone();
    assert_eq!(
        identity["certificates"],
        json!({
            "rows": [{
                "id": "device-002",
                "role": "device",
                "serial": "0a1b",
                "not_before_ms": 1_800_000_000_000_i64,
                "not_after_ms": 1_800_600_000_000_i64,
                "state": "valid",
                "authority": "Tidegate CA",
            }],
            "counts": {"valid": 1, "expiring": 0, "expired": 0, "revoked": 0, "superseded": 0},
            "left_out": 0,
        })
    );
    let sessions = &identity["sessions"];
    assert_eq!(
        (
            &sessions["total"],
            &sessions["post_quantum"],
            &sessions["left_out"]
        ),
        (&1.into(), &1.into(), &0.into())
    );
    // Markup stays text, and what would turn the direction of writing is gone.
    assert_eq!(sessions["rows"][0]["client_id"], "<img src=x onerror=alert(1)> ");
    assert_eq!(sessions["rows"][0]["tls"]["key_exchange"], "X25519MLKEM768");
    assert_eq!(identity["revocation"]["lists"][0]["number"], "7");
    assert_eq!(identity["alarms"][0]["severity"], "warning");
}

#[tokio::test]
async fn who_is_there_gets_what_changed_and_nothing_else() {
    let server = start().await;
    server.hub.set_certificates(vec![certificate("device-002")]);
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    page.json().await;
    // What was set before the hello may be sent once more; applying it twice is harmless.
    server.hub.set_certificates(vec![certificate("device-002")]);
    server.hub.set_alarms(vec![alarm("A reload was refused")]);
    let frame = page
        .json_where(|message| !message["identity"]["alarms"].is_null())
        .await;
    assert_eq!(frame["identity"]["alarms"][0]["text"], "A reload was refused");
    assert_eq!(frame["identity"]["sessions"], Value::Null);

    server.hub.set_sessions(vec![session("device-002")]);
    let frame = page
        .json_where(|message| !message["identity"]["sessions"].is_null())
        .await;
    assert_eq!(frame["identity"]["sessions"]["rows"][0]["id"], "device-002");
    assert_eq!(
        (&frame["identity"]["alarms"], &frame["identity"]["certificates"]),
        (&Value::Null, &Value::Null)
    );

    server.hub.set_alarms(Vec::new());
    let frame = page.json_where(|message| !message["identity"].is_null()).await;
    assert_eq!(frame["identity"]["alarms"], json!([]));
}

#[tokio::test]
async fn lists_are_bounded_and_what_is_left_out_is_counted() {
    let server = start().await;
    server.hub.set_sessions(vec![session("x"); 2_000]);
    server
        .hub
        .set_certificates(vec![certificate("device-002"); 2_000]);
    server.hub.set_alarms(vec![alarm("again"); 2_000]);
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    let identity = page.json().await["identity"].clone();
    let length = |value: &Value| value.as_array().unwrap().len();
    assert_eq!(
        (
            length(&identity["sessions"]["rows"]),
            &identity["sessions"]["left_out"],
            &identity["sessions"]["total"]
        ),
        (500, &1_500.into(), &2_000.into())
    );
    assert_eq!(
        (
            length(&identity["certificates"]["rows"]),
            &identity["certificates"]["left_out"]
        ),
        (1_000, &1_000.into())
    );
    assert_eq!(length(&identity["alarms"]), 20);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = start().await;
    set_all(&server);
    server.hub.publish(Arc::new(accepted()));
    server.hub.publish(Arc::new(blocked(1, Reason::BadMac)));
    let answer = get(server.page, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        r#"tidegate_messages_total{outcome="accepted",reason=""} 1"#,
        r#"tidegate_messages_total{outcome="blocked",reason="bad_mac"} 1"#,
        r#"tidegate_certificate_expiry_timestamp_seconds{id="device-002",role="device"} 1800600000.0"#,
        r#"tidegate_crl_next_update_timestamp_seconds{authority="Tidegate CA"} 1802592000.0"#,
        r#"tidegate_sessions{role="device"} 1.0"#,
        r#"tidegate_alarms{severity="warning"} 1.0"#,
        "tidegate_registered_devices 3.0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
    // A client id may be anything, so it is no label.
    assert!(!text.contains("onerror"));
    let mut series: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "a series is there twice");
}

#[tokio::test]
async fn metrics_have_the_doors_of_the_page() {
    let server = start().await;
    let asked = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let own = server.page.to_string();
    assert_eq!(ask(server.page, &asked(&own)).await.status, 200);
    let foreign = ask(server.page, &asked("evil.example")).await;
    assert_eq!(foreign.status, 403);
    assert!(!String::from_utf8(foreign.body).unwrap().contains("tidegate_"));
    let post =
        format!("POST /metrics HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(server.page, &post).await.status, 405);
}

#[tokio::test]
async fn metrics_are_bounded_however_many_certificates_there_are() {
    let server = start().await;
    let rows = (0..5_000)
        .map(|number| certificate(&format!("device-{number:04}")))
        .collect();
    server.hub.set_certificates(rows);
    let text = String::from_utf8(get(server.page, "/metrics").await.body).unwrap();
    let expiry = text
        .lines()
        .filter(|line| line.starts_with("tidegate_certificate_expiry"));
    assert_eq!(expiry.count(), 1_000);
    assert!(text.contains(r#"tidegate_certificates{state="valid"} 5000.0"#));
}
