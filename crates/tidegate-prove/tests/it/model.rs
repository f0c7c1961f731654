//! The model within small bounds, and whole.

use crate::support::prove;

#[test]
fn every_order_of_events_within_small_bounds_keeps_the_promises() {
    let proof = prove("model", &["--small"]);
    assert!(
        proof.count("states visited, each once") > 10_000,
        "{}",
        proof.said
    );
    // A walk that met no refusal would show nothing about refusals.
    for reached in [
        "accepted",
        "duplicate",
        "replay",
        "cold_start",
        "storage_unavailable",
    ] {
        assert!(
            proof.count(&format!("times reached: {reached}")) > 0,
            "{}",
            proof.said
        );
    }
    assert!(!proof.notes("Stopped"), "{}", proof.said);
}

#[test]
fn walk_that_is_cut_short_says_so() {
    let proof = prove("model", &["--small", "--runs", "100"]);
    assert!(proof.notes("Stopped"), "{}", proof.said);
}
