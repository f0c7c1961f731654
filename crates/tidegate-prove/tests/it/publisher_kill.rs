//! A short run of `publisher-kill`.

use std::process::Command;

#[test]
fn publisher_killed_twenty_five_times_uses_no_number_twice() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate-prove"))
        .args(["publisher-kill", "--runs", "25", "--seed", "7"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let report = std::fs::read(folder.path().join("target/prove/publisher-kill.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let count = |what: &str| {
        let counts = report["counts"].as_array().unwrap();
        let row = counts.iter().find(|row| row[0] == what);
        row.unwrap_or_else(|| panic!("no count of {what}"))[1]
            .as_u64()
            .unwrap()
    };
    assert_eq!(count("publishers killed"), 25);
    assert_eq!(count("simulated power cuts"), 250);
    // A proof that saw nothing would hold too.
    assert!(count("numbers used") > 25, "{said}");
    assert!(count("of these received by a broker") > 0, "{said}");
    assert_eq!(report["violations"], serde_json::json!([]));
}
