//! Nothing accepted twice and nothing lost, across kill -9 and Ctrl-C.

use crate::support::{Running, Site, has_ended, mtls, wait_for};
use std::process::Stdio;

#[test]
fn message_captured_before_kill_9_is_refused_after_it_and_all_readings_are_there() {
    let site = Site::new("signed", "");
    let running = site.start(&["up"]);
    let key = site.key("device-001");
    let own = [
        mtls("device-001"),
        vec!["--secret-file".into(), key.display().to_string()],
    ]
    .concat();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let topic = "hydroficient/grandmarina/device-001/sensors";

    let tap = site
        .stock_client("mosquitto_sub", "operator")
        .args(["-t", topic, "-C", "1", "-N", "-W", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut sequence = 0;
    wait_for("the tap to see a message", || {
        sequence += 1;
        let first = sequence.to_string();
        site.python_publish(
            site.ports.mqtts,
            1,
            &[own.clone(), vec!["--first-sequence", &first]].concat(),
        );
        has_ended(&tap)
    });
    let captured = tap.wait_with_output().unwrap().stdout;
    assert!(!captured.is_empty());
    let file = site.path("captured.json");
    std::fs::write(&file, &captured).unwrap();
    running.kill();

    let running = site.start(&["up"]);
    let replayed = site
        .stock_client("mosquitto_pub", "device-001")
        .args(["-t", topic, "-f", file.to_str().unwrap(), "-i", "thief"])
        .status();
    assert!(replayed.unwrap().success());
    wait_for("the replay to be refused", || {
        site.stored_events()
            .iter()
            .any(|event| event["reason"] == "replay" || event["reason"] == "stale")
    });
    assert_eq!(running.interrupt(), 0);
    assert_eq!(site.stored_readings().len(), sequence);
}

#[test]
fn restart_goes_on_with_its_totals() {
    let site = Site::new("mtls", "");
    let own = mtls("device-001");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    for _ in 0..2 {
        let running = site.start(&["up"]);
        site.python_publish(site.ports.mqtts, 1, &[own.clone(), vec!["--count", "3"]].concat());
        assert_eq!(running.interrupt(), 0);
    }
    let running = site.start(&["up"]);
    let summary = crate::support::http_get(site.ports.page, "/api/v1/summary").unwrap();
    let body: serde_json::Value = serde_json::from_str(summary.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["totals"]["accepted"], 6);
    drop(running);
}

/// Whether the reading that makes a sensor count as stuck is known for it, when those before it came
/// in an earlier life.
fn stuck_over_a_restart(end: impl Fn(Running)) -> bool {
    let site = Site::new("ai", "");
    let running = site.start(&["up"]);
    let key = site.key("device-001");
    let key = key.to_str().unwrap();
    let own = mtls("device-001");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let publish = |first: &str| {
        let options = [
            "--secret-file",
            key,
            "--stuck",
            "--count",
            "8",
            "--first-sequence",
            first,
        ];
        site.python_publish(site.ports.mqtts, 1, &[own.clone(), options.to_vec()].concat());
    };
    let stuck = || {
        let events = site.stored_events();
        events.iter().any(|event| event["reason"] == "anomaly")
    };
    publish("1");
    wait_for("the readings", || site.stored_readings().len() == 8);
    end(running);
    assert!(!stuck());
    let running = site.start(&["up"]);
    publish("9");
    wait_for("the readings", || site.stored_readings().len() == 16);
    assert_eq!(running.interrupt(), 0);
    stuck()
}

#[test]
fn stuck_sensor_is_known_after_a_clean_end_and_after_kill_9() {
    assert!(stuck_over_a_restart(|running| assert_eq!(running.interrupt(), 0)));
    assert!(stuck_over_a_restart(Running::kill));
}
