//! The C library: built without std, it holds no allocator, and what its C example signs verifies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use tidegate_envelope::cose_v1::{Freshness, Mac0, TagLength};
use tidegate_envelope::id::{Boot, DeviceId, KeyEpoch, Sequence};
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::time_echo::{answer, parse_request};

const TOPIC: &str = "hydroficient/grandmarina/device-001/sensors";
const NAMES: [&str; 5] = [
    "pressure_upstream",
    "pressure_downstream",
    "flow_rate",
    "gate_a_position",
    "gate_b_position",
];
const VALUES: [f64; 5] = [60.12, 55.7, 50.0, 45.3, 44.9];
const EPOCH: KeyEpoch = KeyEpoch(1);
/// All that a C compiler expects of the platform it compiles for (GCC manual, "Standards"), and
/// `strlen`.
const PLATFORM: [&str; 6] = ["bcmp", "memcmp", "memcpy", "memmove", "memset", "strlen"];

fn device() -> DeviceId {
    DeviceId::new("device-001").unwrap()
}

/// As the example derives it.
fn key() -> MacKey {
    let root = RootKey::from_bytes(core::array::from_fn(|i| i as u8));
    MacKey::derive(&root, &device(), EPOCH)
}

fn fresh() -> Freshness {
    Freshness {
        boot: Boot(3),
        sequence: Sequence::new(70_000).unwrap(),
        timestamp: Timestamp::from_micros(1_771_472_105_551_904),
    }
}

fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Library and example are built once, and this is the folder they are in.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    output(
        Command::new("make")
            .arg("-s")
            .arg("-C")
            .arg(workspace.join("clients/c")),
    );
    workspace.join("target/c")
});

/// What the example prints, by name.
fn printed(time_answer: &[u8]) -> HashMap<String, String> {
    let text = output(Command::new(BUILT.join("example")).arg(std::str::from_utf8(time_answer).unwrap()));
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn what_the_c_example_signs_verifies() {
    let printed = printed(b"");
    let key = key();

    let document = Document::parse(printed["json"].as_bytes()).unwrap();
    let mut canonical = Vec::new();
    document.canonical(&mut canonical);
    assert!(key.check(&canonical, document.hmac().unwrap()));
    let reading = json_v1::reading(&document).unwrap();
    let names = NAMES.map(CompactString::new);
    let values = names.iter().cloned().zip(VALUES).collect();
    assert_eq!(reading.device.unwrap().as_str(), "HYDROLOGIC-Device-001");
    assert_eq!((reading.boot, reading.epoch), (Some(fresh().boot), Some(EPOCH)));
    assert_eq!(reading.sequence, Some(fresh().sequence));
    assert_eq!(reading.timestamp, Some(fresh().timestamp));
    assert_eq!(reading.status, "operational");
    assert_eq!(reading.channels, Channels::new(values).unwrap());

    let to_millisecond = Timestamp::from_micros(1_771_472_105_551_000);
    let carried = Freshness {
        timestamp: to_millisecond,
        ..fresh()
    };
    for (name, length) in [("cose", TagLength::Full), ("cose-short", TagLength::Short)] {
        let message = hex::decode(&printed[name]).unwrap();
        let mac0 = Mac0::parse(&message).unwrap();
        assert!(mac0.verified(&key, TOPIC).is_some(), "{name}");
        assert_eq!((mac0.tag_length(), mac0.epoch()), (length, EPOCH));
        assert_eq!(mac0.freshness(), carried);
        let channels = mac0.reading(&names).unwrap().channels;
        for (name, value) in NAMES.iter().zip(VALUES) {
            assert_eq!(channels.get(name), Some(f64::from(value as f32)), "{name}");
        }
    }

    let message = hex::decode(&printed["cose-loaded"]).unwrap();
    let mac0 = Mac0::parse(&message).unwrap();
    assert!(mac0.verified(&MacKey::from_bytes(b"secret"), TOPIC).is_some());
    assert_eq!((mac0.epoch(), mac0.values().len()), (KeyEpoch(0xfffe), 0));

    let structure = URL_SAFE_NO_PAD.decode(&printed["detached"]).unwrap();
    let mac0 = Mac0::parse_detached(&structure, printed["detached-payload"].as_bytes()).unwrap();
    assert!(mac0.verified(&key, TOPIC).is_some());
    assert_eq!(mac0.freshness(), carried);
}

#[test]
fn time_answer_is_taken_in_c_and_one_bit_away_refused() {
    let request = printed(b"")["time-request"].clone();
    let nonce = parse_request(request.as_bytes()).unwrap();
    let time = fresh().timestamp;
    let right = answer(&nonce, &device(), time, EPOCH, &key());
    assert_eq!(printed(&right)["time-check"], format!("0 {}", time.as_micros()));
    let mut wrong = right;
    let last_digit = wrong.len() - 3;
    wrong[last_digit] = if wrong[last_digit] == b'0' { b'1' } else { b'0' };
    assert_eq!(printed(&wrong)["time-check"], "-7 0");
}

#[test]
fn misuse_in_c_gets_its_number_and_nothing_else() {
    assert_eq!(
        printed(b"")["refusals"],
        "-1 -2 -3 -4 -5 -5 -6 -6 -2 -1 -2 -2 -6",
        "the order of print_refusals in clients/c/example.c"
    );
}

#[test]
fn c_library_needs_nothing_but_what_every_compiler_expects() {
    let text = output(
        Command::new("nm")
            .args(["-A", "--format=posix"])
            .arg(BUILT.join("release/libtidegate.a")),
    );
    // Beside our own member, into which core is linked, the archive holds the compiler's helpers
    // for arithmetic; a linker takes of them what ours needs.
    let own = text.lines().filter(|line| line.contains("[tidegate-"));
    let symbols: Vec<Vec<&str>> = own.map(|line| line.split(' ').skip(1).collect()).collect();
    assert!(
        symbols
            .iter()
            .any(|symbol| symbol[..2] == ["tidegate_sign_cose", "T"])
    );
    let needed: Vec<_> = symbols
        .iter()
        .filter(|symbol| symbol[1] == "U")
        .map(|symbol| symbol[0])
        .collect();
    let foreign = needed.iter().find(|symbol| !PLATFORM.contains(symbol));
    assert_eq!(foreign, None, "{needed:?}");
    // An allocator brought along would be one all the same.
    assert!(!symbols.iter().any(|symbol| symbol[0].contains("alloc")));
}
