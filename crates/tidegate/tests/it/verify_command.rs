//! `tidegate verify` gives every vector its verdict, canonical bytes and MAC.

use crate::support::{Site, feed, json_lines};
use serde_json::json;

const VECTORS: &str = include_str!("../../../tidegate-envelope/testdata/json-v1.jsonl");

#[test]
fn json_lines_answer_all_vectors() {
    let site = Site::new("ai", "");
    let vectors = json_lines(VECTORS);
    let secrets: std::collections::BTreeSet<_> = vectors
        .iter()
        .map(|vector| vector["secret"].as_str().unwrap())
        .collect();
    let mut checked = 0;
    for secret in secrets {
        let file = site.path("secret");
        std::fs::write(&file, secret).unwrap();
        let of_secret: Vec<_> = vectors
            .iter()
            .filter(|vector| vector["secret"] == secret)
            .collect();
        let input: String = of_secret
            .iter()
            .map(|vector| format!("{}\n", json!({"payload": vector["payload"]})))
            .collect();
        let command = site.command(&["verify", "--json-lines", "--secret-file", file.to_str().unwrap()]);
        let output = feed(command, input.as_bytes());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answers = json_lines(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(answers.len(), of_secret.len());
        for (answer, vector) in answers.iter().zip(of_secret) {
            for field in ["verdict", "canonical", "hmac"] {
                assert_eq!(answer[field], vector[field], "{field} of {}", vector["name"]);
            }
            assert_eq!(
                answer["reason"].is_null(),
                answer["verdict"] == "authentic",
                "{answer}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 104);
}

#[test]
fn line_break_at_the_end_of_a_key_file_is_pointed_out() {
    let site = Site::new("ai", "");
    let vectors = json_lines(VECTORS);
    let vector = vectors
        .iter()
        .find(|vector| vector["verdict"] == "authentic")
        .unwrap();
    let file = site.path("secret");
    std::fs::write(&file, format!("{}\n", vector["secret"].as_str().unwrap())).unwrap();
    let input = format!("{}\n", json!({"payload": vector["payload"]}));
    let command = site.command(&["verify", "--json-lines", "--secret-file", file.to_str().unwrap()]);
    let answer = String::from_utf8(feed(command, input.as_bytes()).stdout).unwrap();
    assert!(
        answer.contains("bad_mac") && answer.contains("line break"),
        "{answer}"
    );
}

#[test]
fn single_message_is_explained_and_the_exit_code_tells() {
    let site = Site::new("ai", "");
    let file = site.path("secret");
    std::fs::write(&file, "key").unwrap();
    let command = site.command(&["verify", "--secret-file", file.to_str().unwrap()]);
    let output = feed(command, br#"{"sequence": 1, "flow": 60.10}"#);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("missing_mac") && text.contains(r#"{"flow": 60.1, "sequence": 1}"#),
        "{text}"
    );
}
