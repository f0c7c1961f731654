//! Levels are real: what each lets in, and what it stops, by the embedded broker.

use crate::support::{Site, mtls, wait_for};
use std::process::Command;

/// Accepted, by the reason code of a PUBACK: success, or success without a subscriber.
fn accepted(reasons: &[u64]) -> bool {
    !reasons.is_empty() && reasons.iter().all(|reason| *reason == 0 || *reason == 16)
}

fn refs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn reasons(site: &Site) -> Vec<String> {
    let events = site.stored_events();
    events
        .iter()
        .map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn wait_for_reason(site: &Site, reason: &str) {
    wait_for(reason, || reasons(site).iter().any(|found| found == reason));
}

#[test]
fn plain_takes_everything_and_calls_it_unprotected() {
    let site = Site::new("plain", "");
    let running = site.start(&["up"]);
    for protocol in ["3.1.1", "5"] {
        assert!(accepted(&site.python_publish(
            site.ports.mqtt,
            1,
            &["--protocol", protocol]
        )));
    }
    // Older forms on their own topics.
    for (topic, payload) in [
        (
            "hydroficient/grandmarina/sensors/pool/readings",
            r#"{"device_id": "x", "counter": 1, "pressure_upstream": 60}"#,
        ),
        (
            "grandmarina/sensors/kitchen/telemetry",
            r#"{"payload": {"device_id": "y", "zone": "kitchen", "pressure_psi": 61}}"#,
        ),
    ] {
        let port = site.ports.mqtt.to_string();
        let sent = Command::new("mosquitto_pub")
            .args(["-p", &port, "-q", "1", "-t", topic, "-m", payload])
            .status();
        assert!(sent.unwrap().success());
    }
    assert_eq!(running.interrupt(), 0);
    let readings = site.stored_readings();
    assert_eq!(readings.len(), 4);
    assert!(readings.iter().all(|reading| reading["protected"] == false));
}

#[test]
fn tls_needs_no_client_certificate_and_mtls_does() {
    let site = Site::new("tls", "");
    let running = site.start(&["up"]);
    assert!(accepted(&site.python_publish(
        site.ports.mqtts,
        1,
        &["--ca", "certs/ca.pem"]
    )));
    drop(running);

    let running = site.start(&["up", "--level", "mtls"]);
    let refused = site
        .python_publisher(site.ports.mqtts, 1, &["--ca", "certs/ca.pem"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    wait_for_reason(&site, "tls_no_certificate");
    assert!(accepted(&site.python_publish(
        site.ports.mqtts,
        1,
        &refs(&mtls("device-001"))
    )));
    // The certificate of one device on the topic of another.
    let foreign = site.python_publish(site.ports.mqtts, 2, &refs(&mtls("device-001")));
    assert_eq!(foreign, [0x87]);
    wait_for_reason(&site, "acl_denied");
    drop(running);
}

#[test]
fn signed_takes_python_publishers_over_both_versions_and_no_forgery() {
    let site = Site::new("signed", "");
    let running = site.start(&["up"]);
    let port = site.ports.mqtts;
    let key = site.key("device-001");
    let signed = [
        mtls("device-001"),
        vec!["--secret-file".into(), key.display().to_string()],
    ]
    .concat();
    for protocol in ["3.1.1", "5"] {
        let options = [
            signed.clone(),
            vec!["--protocol".into(), protocol.into(), "--count".into(), "5".into()],
        ];
        assert!(
            accepted(&site.python_publish(port, 1, &refs(&options.concat()))),
            "{protocol}"
        );
    }

    // Unsigned, and signed with another device's key: refused with a reason code, and with a reason.
    let unsigned = site.python_publish(port, 2, &refs(&mtls("device-002")));
    assert_eq!(unsigned, [0x87]);
    let stolen = [
        mtls("device-002"),
        vec!["--secret-file".into(), key.display().to_string()],
    ]
    .concat();
    assert_eq!(site.python_publish(port, 2, &refs(&stolen)), [0x87]);
    wait_for_reason(&site, "bad_mac");
    wait_for_reason(&site, "missing_mac");
    assert_eq!(running.interrupt(), 0);
    let readings = site.stored_readings();
    assert_eq!(readings.len(), 10);
    assert!(
        readings
            .iter()
            .all(|reading| reading["protected"] == true && reading["device"] == "device-001")
    );
}

#[test]
fn demo_shows_accepted_flagged_and_blocked_within_ten_seconds() {
    let site = Site::new("ai", "");
    let running = site.start(&["up", "--demo"]);
    let found = || reasons(&site);
    wait_for("a blocked message", || {
        found()
            .iter()
            .any(|reason| reason == "replay" || reason == "bad_mac")
    });
    wait_for("a flagged reading", || {
        found().iter().any(|reason| reason == "anomaly")
    });
    assert!(!site.stored_readings().is_empty());
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn shared_secret_of_an_older_deployment_works_only_by_name_and_with_a_warning() {
    let site = Site::new("signed", "[keys]\nlegacy_shared_secret = \"shared.key\"");
    site.succeed(&["certs", "init"]);
    let secret = site.path("shared.key");
    std::fs::write(&secret, b"one-for-all").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).unwrap();
    let running = site.start(&["up"]);
    for device in [1, 2] {
        let own = mtls(&format!("device-{device:03}"));
        let options = [own, vec!["--secret-file".into(), secret.display().to_string()]].concat();
        assert!(accepted(&site.python_publish(
            site.ports.mqtts,
            device,
            &refs(&options)
        )));
    }
    let summary = crate::support::http_get(site.ports.page, "/api/v1/summary").unwrap();
    assert!(summary.contains("share one secret"), "{summary}");
    drop(running);
}
