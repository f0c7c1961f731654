//! The benchmarks run, compare with their peers and report; their figures are not judged here.

use crate::support::Site;

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
