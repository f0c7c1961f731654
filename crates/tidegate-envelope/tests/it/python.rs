//! 100,000 random documents, written by Python in its own way and in ours, must give the bytes
//! that `json.dumps(document, sort_keys=True)` gives.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tidegate_envelope::json::Document;

/// Prints payload and canonical form in turn, a line each.
const GENERATOR: &str = include_str!("generator.py");
const DOCUMENTS: usize = 100_000;

#[test]
fn hundred_thousand_random_documents_agree_with_json_dumps() {
    let mut python = Command::new("python3")
        .args(["-c", GENERATOR, &DOCUMENTS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut lines = BufReader::new(python.stdout.take().unwrap()).split(b'\n');
    let mut canonical = Vec::new();
    for _ in 0..DOCUMENTS {
        let payload = lines.next().unwrap().unwrap();
        let expected = lines.next().unwrap().unwrap();
        let document = Document::parse(&payload)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&payload)));
        canonical.clear();
        document.canonical(&mut canonical);
        assert_eq!(
            String::from_utf8_lossy(&canonical),
            String::from_utf8_lossy(&expected)
        );
    }
    assert!(lines.next().is_none());
    assert!(python.wait().unwrap().success());
}
