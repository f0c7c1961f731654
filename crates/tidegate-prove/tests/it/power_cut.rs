//! Some hundred power cuts, and as many on disks that only seem to sync.

use crate::support::prove;
use std::process::Command;

#[test]
fn three_hundred_power_cuts_lose_nothing_that_was_acknowledged() {
    let proof = prove("power-cut", &["--runs", "300"]);
    assert_eq!(proof.count("power cuts"), 300);
    assert_eq!(proof.count("recoveries that hold what was acknowledged"), 300);
    // A run in which nothing was at stake would show nothing.
    for counted in [
        "unsynced writes lost",
        "unsynced writes torn",
        "sectors zeroed, bit-flipped or garbage",
        "acknowledged readings compared",
        "replays offered and refused",
        "files damaged otherwise, and refused at opening",
    ] {
        assert!(proof.count(counted) > 0, "{counted}: {}", proof.said);
    }
}

#[test]
fn disks_that_only_seem_to_sync_are_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate-prove"))
        .args(["power-cut", "--runs", "60", "--lying-disks"])
        .current_dir(folder.path())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("readings were acknowledged"), "{said}");
}
