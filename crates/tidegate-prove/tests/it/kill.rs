//! A short run of `kill`, with both brokers.

use crate::support::{gateway, prove};

#[test]
fn gateway_killed_twelve_times_accepts_nothing_twice_and_loses_nothing() {
    let gateway = gateway();
    let proof = prove(
        "kill",
        &[
            "--runs",
            "12",
            "--seed",
            "7",
            "--binary",
            gateway.to_str().unwrap(),
        ],
    );
    for broker in ["embedded broker", "behind Mosquitto"] {
        let count = |what: &str| proof.count(&format!("{broker}: {what}"));
        assert_eq!(count("kills"), 6);
        assert_eq!(count("accepted twice"), 0);
        assert_eq!(count("acknowledged and missing"), 0);
        // A proof that saw nothing would hold too.
        assert!(count("database rows compared") > 0, "{}", proof.said);
        assert!(count("replays published by a thief") > 0, "{}", proof.said);
        assert!(count("starts with a log to recover") > 0, "{}", proof.said);
    }
    assert!(proof.count("embedded broker: replays refused: replay") > 0);
    assert!(
        proof.count("behind Mosquitto: messages too old when the gateway got them, each told as stale") > 0
    );
}
