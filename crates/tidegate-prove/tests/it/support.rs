//! Runs a proof in a folder of its own, against the gateway that stands beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a proof left behind.
pub(crate) struct Proof {
    pub(crate) report: serde_json::Value,
    /// Its whole output, for the message of a test that fails.
    pub(crate) said: String,
}

/// Runs `tidegate-prove NAME` with these arguments; its claim must hold.
pub(crate) fn prove(name: &str, arguments: &[&str]) -> Proof {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate-prove"))
        .arg(name)
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(ran.status.success(), "{said}");
    let report = std::fs::read(folder.path().join(format!("target/prove/{name}.json"))).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["violations"], serde_json::json!([]), "{said}");
    Proof { report, said }
}

/// The gateway of the same build.
pub(crate) fn gateway() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tidegate-prove")).with_file_name("tidegate");
    assert!(
        path.exists(),
        "{} is missing, and this test kills it: `cargo build -p tidegate` makes it, as `cargo test --workspace` does",
        path.display()
    );
    path
}

impl Proof {
    /// A count of the report, by its name.
    pub(crate) fn count(&self, what: &str) -> u64 {
        let counts = self.report["counts"].as_array().unwrap();
        let row = counts.iter().find(|row| row[0] == what);
        let row = row.unwrap_or_else(|| panic!("no count of {what}: {}", self.said));
        row[1].as_u64().unwrap()
    }

    /// Whether a note of the report begins so.
    pub(crate) fn notes(&self, beginning: &str) -> bool {
        let notes = self.report["notes"].as_array().unwrap();
        notes
            .iter()
            .any(|note| note.as_str().unwrap().starts_with(beginning))
    }
}
