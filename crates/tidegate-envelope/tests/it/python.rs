//! 100,000 random documents in random spellings must give the bytes that Python's
//! `json.dumps(document, sort_keys=True)` gives. Damaged, they must be refused or give them too.

use std::io::{BufReader, Read};
use std::process::{Command, Stdio};
use tidegate_envelope::json::Parser;

const GENERATOR: &str = include_str!("generator.py");
const DOCUMENTS: usize = 100_000;

#[test]
fn hundred_thousand_random_documents_agree_with_json_dumps() {
    let mut python = Command::new("python3")
        .args(["-c", GENERATOR, &DOCUMENTS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let mut output = BufReader::with_capacity(1 << 16, python.stdout.take().unwrap());
    let (mut parser, mut canonical) = (Parser::new(), Vec::new());
    let (mut payload, mut expected) = (Vec::new(), Vec::new());
    let mut damaged_but_accepted = 0;
    for number in 0..DOCUMENTS * 2 {
        next(&mut output, &mut payload, &mut expected);
        let damaged = number % 2 == 1;
        let shown = String::from_utf8_lossy(&payload);
        canonical.clear();
        match parser.parse(&payload) {
            Ok(document) => document.canonical(&mut canonical),
            Err(_) if damaged => continue,
            Err(error) => panic!("{error}: {shown}"),
        }
        damaged_but_accepted += usize::from(damaged);
        assert_eq!(
            String::from_utf8_lossy(&canonical),
            String::from_utf8_lossy(&expected),
            "{shown}"
        );
    }
    assert!(damaged_but_accepted > DOCUMENTS / 10, "{damaged_but_accepted}");
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert!(python.wait().unwrap().success());
}

fn next(output: &mut impl Read, payload: &mut Vec<u8>, expected: &mut Vec<u8>) {
    for bytes in [&mut *payload, &mut *expected] {
        bytes.clear();
    }
    let mut lengths = [0; 8];
    output
        .read_exact(&mut lengths)
        .expect("python gives every document");
    let [a, b, c, d, e, f, g, h] = lengths;
    payload.resize(u32::from_le_bytes([a, b, c, d]) as usize, 0);
    expected.resize(u32::from_le_bytes([e, f, g, h]) as usize, 0);
    output.read_exact(payload).expect("the payload follows");
    output.read_exact(expected).expect("its canonical form follows");
}
