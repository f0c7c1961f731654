//! pycose, live: it verifies what Tidegate signs, and signs the same bytes itself.

use crate::cose_properties::{Parts, parts};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tidegate_envelope::cose_v1::TagLength;

const PEER: &str = include_str!("pycose_peer.py");
const MESSAGES: usize = 300;

#[test]
fn pycose_verifies_what_tidegate_signs_and_signs_the_same_bytes() {
    let mut pycose = pycose();
    let mut questions = pycose.stdin.take().unwrap();
    let mut answers = BufReader::new(pycose.stdout.take().unwrap()).lines();
    let mut runner = TestRunner::deterministic();
    for _ in 0..MESSAGES {
        let parts = parts().new_tree(&mut runner).unwrap().current();
        for (form, message) in [("attached", parts.attached()), ("detached", parts.detached())] {
            let right = ask(&mut questions, &mut answers, &parts, form, &message);
            assert_eq!(right["verified"], true, "{form} {parts:?}");
            assert_eq!(right["verified_elsewhere"], false, "{form} {parts:?}");
            assert_eq!(right["signed"], hex::encode(&message), "{form} {parts:?}");
            let mut damaged = message.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let wrong = ask(&mut questions, &mut answers, &parts, form, &damaged);
            assert_eq!(wrong["verified"], false, "{form} {parts:?}");
        }
    }
    drop(questions);
    assert!(pycose.wait().unwrap().success());
}

fn ask(
    questions: &mut impl Write,
    answers: &mut impl Iterator<Item = std::io::Result<String>>,
    parts: &Parts,
    form: &str,
    message: &[u8],
) -> Value {
    let freshness = parts.freshness;
    let question = json!({
        "form": form,
        "message": hex::encode(message),
        "payload": hex::encode(&parts.payload),
        "key": hex::encode(&parts.secret),
        "topic": parts.topic,
        "epoch": parts.epoch.0,
        "tag": match parts.length { TagLength::Full => "full", TagLength::Short => "short" },
        "numbers": [freshness.boot.0, freshness.sequence.get(), freshness.timestamp.as_millis()],
        "status": parts.status,
        "values": parts.values,
    });
    writeln!(questions, "{question}").expect("pycose reads");
    let answer = answers.next().expect("pycose answers").unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn pycose() -> Child {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python/bin/python");
    let python = std::env::var_os("TIDEGATE_TEST_PYTHON").map_or_else(|| default.into(), PathBuf::from);
    Command::new(&python)
        .args(["-c", PEER, "live"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make setup`", python.display()))
}
