//! Hostile input through a real broker: a counted verdict or a closed connection, the process
//! lives, and the next good message passes.

use crate::support::{PATIENCE, Site, mtls, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Payloads of every class in the format's list of refusals, with the reason each must get.
fn hostile_payloads() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let signed = |body: &str| {
        format!(r#"{{"device_id": "HYDROLOGIC-Device-001", "timestamp": "2026-01-01T00:00:00Z", "sequence": 1, "readings": {{"flow_rate": 1}}, {body}}}"#).into_bytes()
    };
    vec![
        ("empty object", b"{}".to_vec(), "missing_mac"),
        ("not JSON", b"hello".to_vec(), "malformed"),
        ("a list", b"[1, 2]".to_vec(), "malformed"),
        ("a number", b"5".to_vec(), "malformed"),
        ("null", b"null".to_vec(), "malformed"),
        ("not UTF-8", b"\xff\xfe\x00".to_vec(), "malformed"),
        ("byte-order mark", b"\xef\xbb\xbf{}".to_vec(), "malformed"),
        ("60,000 levels of nesting", b"[".repeat(60_000), "malformed"),
        (
            "nested objects",
            "{\"a\":".repeat(12_000).into_bytes(),
            "malformed",
        ),
        ("duplicate member", signed(r#""sequence": 1"#), "malformed"),
        ("NaN", signed(r#""x": NaN"#), "malformed"),
        ("overflow", signed(r#""x": 1e999"#), "malformed"),
        ("lone surrogate", signed(r#""x": "\ud800""#), "malformed"),
        (
            "trailing bytes",
            [signed(r#""x": 1"#), b"{}".to_vec()].concat(),
            "malformed",
        ),
        ("MAC is a number", signed(r#""hmac": 5"#), "malformed"),
        (
            "sequence is a boolean",
            br#"{"sequence": true}"#.to_vec(),
            "malformed",
        ),
        (
            "timestamp without offset",
            br#"{"timestamp": "2026-01-01T00:00:00"}"#.to_vec(),
            "malformed",
        ),
        ("no MAC", signed(r#""x": 1"#), "missing_mac"),
        ("short MAC", signed(r#""hmac": "00""#), "bad_mac"),
        (
            "MAC of zeros",
            signed(&format!(r#""hmac": "{}""#, "0".repeat(64))),
            "bad_mac",
        ),
        (
            "readings are a list",
            br#"{"readings": []}"#.to_vec(),
            "missing_mac",
        ),
    ]
}

fn publish(site: &Site, topic: &str, payload: &[u8]) -> bool {
    let mut child = site
        .stock_client("mosquitto_pub", "device-001")
        .args(["-t", topic, "-s"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(payload).unwrap();
    child.wait().unwrap().success()
}

fn good_message_passes(site: &Site, sequence: u64) {
    let key = site.path("device-001.key");
    let mut options = mtls("device-001");
    options.extend(["--secret-file".into(), key.display().to_string()]);
    options.extend(["--first-sequence".into(), sequence.to_string()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let reasons = site.python_publish(site.ports.mqtts, 1, &options);
    assert!(reasons.iter().all(|reason| *reason < 0x80), "{reasons:?}");
}

const TOPIC: &str = "hydroficient/grandmarina/device-001/sensors";

#[test]
fn every_hostile_payload_gets_its_reason_and_the_next_good_message_passes() {
    let site = Site::new("signed", "");
    let mut running = site.start(&["up"]);
    site.key("device-001");
    let mut expected = std::collections::BTreeMap::new();
    for (name, payload, reason) in hostile_payloads() {
        assert!(publish(&site, TOPIC, &payload), "{name}");
        *expected.entry(reason).or_insert(0) += 1;
    }
    good_message_passes(&site, 1);
    for (reason, count) in expected {
        wait_for(reason, || {
            site.stored_events()
                .iter()
                .filter(|event| event["reason"] == reason)
                .count()
                >= count
        });
    }
    // Larger than the broker takes: the connection ends, and only that.
    publish(&site, TOPIC, &vec![b'x'; 300_000]);
    good_message_passes(&site, 2);
    assert!(running.is_alive());
    assert_eq!(site.stored_readings().len(), 2);
}

#[test]
fn wrong_topics_are_refused_and_counted() {
    let site = Site::new("plain", "");
    let running = site.start(&["up"]);
    for topic in ["elsewhere", "hydroficient/grandmarina/sensors"] {
        let port = site.ports.mqtt.to_string();
        let sent = Command::new("mosquitto_pub")
            .args(["-p", &port, "-q", "1", "-t", topic, "-m", "{}"])
            .status();
        assert!(sent.unwrap().success());
    }
    wait_for("two refusals", || {
        site.stored_events()
            .iter()
            .filter(|event| event["reason"] == "topic_invalid")
            .count()
            == 2
    });
    drop(running);
}

#[test]
fn garbage_on_every_port_closes_the_connection_and_nothing_else() {
    let site = Site::new("signed", "");
    let mut running = site.start(&["up"]);
    site.key("device-001");
    // A fixed generator: the same garbage in every run.
    let mut state = 1_u64;
    let mut garbage = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for port in [site.ports.mqtts, site.ports.page, site.ports.events] {
        for length in [1, 100, 5_000] {
            let bytes: Vec<u8> = (0..length).map(|_| garbage()).collect();
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // The other side may close while this is still being written.
            drop(stream.write_all(&bytes));
            drop(stream.shutdown(std::net::Shutdown::Write));
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer));
        }
    }
    good_message_passes(&site, 1);
    assert!(running.is_alive());
    assert!(
        crate::support::http_get(site.ports.page, "/healthz")
            .unwrap()
            .contains("200")
    );
}

#[test]
fn hostile_payloads_through_mosquitto_do_not_stop_the_gateway() {
    let site = Site::new("signed", "");
    site.succeed(&["certs", "init"]);
    site.succeed(&["configs", "write"]);
    let _broker = site.mosquitto("mosquitto_signed.conf", site.ports.mqtts);
    let mut gateway = site.start_gateway();
    site.key("device-001");
    let payloads = hostile_payloads();
    for (name, payload, _) in &payloads {
        assert!(publish(&site, TOPIC, payload), "{name}");
    }
    good_message_passes(&site, 1);
    wait_for("all verdicts", || site.stored_events().len() >= payloads.len());
    wait_for("the good message", || site.stored_readings().len() == 1);
    assert!(gateway.is_alive());
}
