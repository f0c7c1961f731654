//! What a client of the compatible stream may say: a ping, and nothing else.
//!
//! A file of its own, without the server around it, so that a fuzz target can take it in.

use serde::Deserialize;

/// Whether a text frame is a JSON object of type `ping`; further members are allowed.
pub(crate) fn is_ping(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    // Serde would take the list `["ping"]` for the same.
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object && serde_json::from_str::<Frame<'_>>(text).is_ok_and(|frame| frame.kind == "ping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_of_type_ping_is_a_ping() {
        for ping in [r#"{"type":"ping"}"#, r#" { "t": 1, "type" : "p\u0069ng" } "#] {
            assert!(is_ping(ping), "{ping}");
        }
        for other in [
            "",
            "ping",
            r#""ping""#,
            r#"{"type":"pong"}"#,
            r#"{"type":1}"#,
            r#"{"type":"ping""#,
            "[]",
            r#"["ping"]"#,
        ] {
            assert!(!is_ping(other), "{other}");
        }
    }
}
