//! Each case of `exhaustion` once, as far as this machine lets it be carried out.

use crate::support::{gateway, prove};

#[test]
fn gateway_without_disk_or_descriptors_refuses_and_goes_on_by_itself() {
    let gateway = gateway();
    // A busy machine is no reason to fail: the full run judges by one second.
    let arguments = [
        "--runs",
        "1",
        "--within",
        "20s",
        "--binary",
        gateway.to_str().unwrap(),
    ];
    let proof = prove("exhaustion", &arguments);
    for (case, sign) in [
        ("disk full", Some("answered storage_unavailable")),
        ("disk full behind Mosquitto", None),
        ("disk read-only", Some("answered storage_unavailable")),
        ("disk failed", Some("answered storage_unavailable")),
        ("no descriptors", None),
    ] {
        if proof.notes(&format!("{case}: not run")) {
            continue;
        }
        let count = |what: &str| proof.count(&format!("{case}: {what}"));
        assert_eq!(count("times carried out"), 1);
        assert_eq!(count("acknowledged and missing"), 0);
        assert!(count("database rows compared") > 0, "{}", proof.said);
        if let Some(sign) = sign {
            assert!(count(sign) > 0, "{}", proof.said);
        }
        if case != "disk failed" {
            // What was refused for want of room is sent again, and taken once there is room: a refusal
            // that was measured by an admission that came to nothing must not be for good.
            let (taken, signed) = (
                count("messages acknowledged"),
                count("messages signed and published"),
            );
            assert!(taken * 2 > signed, "{}", proof.said);
        }
    }
}
