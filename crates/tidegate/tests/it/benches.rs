//! The benchmarks run, compare with their peers and report; their figures are not judged here.

use crate::support::{PATIENCE, Site, wait_for};
use std::process::{Command, Stdio};

#[test]
fn latency_and_rate_run_a_short_round_without_loss() {
    let site = Site::new("ai", "");
    let report = site.succeed(&[
        "bench",
        "latency",
        "--rounds",
        "1",
        "--per-s",
        "50",
        "--seconds",
        "2",
        "--json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["lost"], 0);
    assert_eq!(report["messages"], 100);
    let report = site.succeed(&[
        "bench",
        "rate",
        "--rounds",
        "1",
        "--messages",
        "20000",
        "--devices",
        "5",
        "--json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["tidegate_per_s"]["median"].as_f64().unwrap() > 0.0);
    assert!(report["mosquitto_per_s"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn handshakes_of_every_kind_are_made_with_tidegate_and_the_resumed_ones_resume() {
    let report = bench(&["handshake", "--rounds", "1", "--handshakes", "40"]);
    let kinds = report["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 6);
    for kind in kinds {
        let figures = &kind["tidegate"]["measured"];
        let name = kind["name"].as_str().unwrap();
        assert!(figures["per_s"]["median"].as_f64().unwrap() > 0.0, "{kind}");
        let resumed = if name.ends_with("resumed") { 1.0 } else { 0.0 };
        assert_eq!(figures["resumed"].as_f64().unwrap(), resumed, "{kind}");
        let version = if name.contains("1.3") {
            "TLS 1.3"
        } else {
            "TLS 1.2"
        };
        assert_eq!(figures["version"], version);
    }
    assert_eq!(kinds[1]["tidegate"]["measured"]["key_exchange"], "X25519MLKEM768");
    assert_eq!(kinds[2]["tidegate"]["measured"]["key_exchange"], "X25519");
    // What Mosquitto makes of resumption is its own affair.
    assert!(
        kinds[1]["mosquitto"]["measured"]["per_s"]["median"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

#[test]
fn idle_sessions_are_held_by_all_brokers() {
    let report = bench(&["sessions", "--rounds", "1", "--sessions", "20", "--seconds", "1"]);
    let brokers = report["brokers"].as_array().unwrap();
    assert_eq!(brokers.len(), 3);
    for broker in brokers {
        assert_eq!(broker["held"], 20, "{broker}");
        assert!(broker["with_all_mb"]["median"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn revoked_sessions_are_closed_and_no_others() {
    let report = bench(&["revoke", "--rounds", "1", "--sessions", "6", "--revocations", "2"]);
    assert_eq!(report["revocations"], 2);
    assert_eq!(report["others_ended"], 0);
    assert_eq!(report["came_back"], 0);
    assert!(report["from_command"]["most_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn flood_of_every_kind_is_gone_in_the_end_and_no_message_is_lost() {
    let report = bench(&[
        "flood",
        "--rounds",
        "1",
        "--sockets",
        "40",
        "--seconds",
        "1",
        "--devices",
        "2",
        "--per-s",
        "50",
    ]);
    for kind in report["kinds"].as_array().unwrap() {
        assert_eq!(kind["opened"], 10, "{kind}");
        // One that stays has no time.
        assert!(kind["most_s"].as_f64().is_some(), "{kind}");
    }
    assert_eq!(report["lost"], 0);
}

#[test]
fn stopped_benchmark_leaves_nothing_behind() {
    let site = Site::new("ai", "");
    let folders = site.path("temporary");
    std::fs::create_dir(&folders).unwrap();
    let mut child = site
        .command(&["bench", "sessions", "--sessions", "5000"])
        .env("TMPDIR", &folders)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let left = || std::fs::read_dir(&folders).unwrap().count();
    wait_for("the benchmark to begin", || left() == 1);
    let asked = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(asked.unwrap().success());
    let start = std::time::Instant::now();
    wait_for("the benchmark to end", || child.try_wait().unwrap().is_some());
    assert!(start.elapsed() < PATIENCE);
    assert!(!child.wait().unwrap().success());
    assert_eq!(left(), 0);
}

/// A benchmark's report.
fn bench(arguments: &[&str]) -> serde_json::Value {
    let site = Site::new("ai", "");
    let report = site.succeed(&[&["bench", "--json"], arguments].concat());
    serde_json::from_str(&report).unwrap()
}
