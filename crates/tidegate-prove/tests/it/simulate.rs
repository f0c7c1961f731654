//! A few simulated runs, and one gateway that is broken on purpose.

use crate::support::prove;
use std::process::Command;

#[test]
fn simulated_faults_break_no_promise() {
    let proof = prove("simulate", &["--runs", "4", "--seed", "11"]);
    assert!(proof.said.contains("held"), "{}", proof.said);
}

#[test]
fn gateway_that_answers_before_the_disk_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate-prove"))
        .args([
            "simulate",
            "--runs",
            "6",
            "--seed",
            "1",
            "--sabotage",
            "acknowledge-early",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("VIOLATION"));
}
