//! The enrolment service of a running Tidegate.

use super::{details, is_let_in, up};
use crate::support::{Site, wait_for};
use std::fs;
use std::net::TcpListener;
use std::process::Command;

/// The arguments of the line that `enroll-token` prints for the device.
fn line_for(site: &Site, device: &str) -> Vec<String> {
    let said = site.succeed(&["certs", "enroll-token", device]);
    let line = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("tidegate "))
        .unwrap();
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn device_enrols_from_its_own_folder_once_and_both_are_in_the_journal() {
    let (site, running, lines) = up();
    site.succeed(&["devices", "add", "device-013", "--zone", "kitchen"]);
    lines.wait_for("Took the changed registry");
    let device = tempfile::tempdir().unwrap();
    let line = line_for(&site, "device-013");
    let enroll = |force: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("--dir").arg(device.path()).args(&line).args(force);
        command.output().unwrap()
    };
    let output = enroll(&[]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for file in ["device-013.pem", "device-013-key.pem"] {
        fs::copy(
            device.path().join("certs").join(file),
            site.path("certs").join(file),
        )
        .unwrap();
    }
    assert!(is_let_in(&site, "device-013"));
    wait_for("the event", || {
        details(&site, "certificate_issued")
            .iter()
            .any(|detail| detail.starts_with("enrolled with a token, serial number"))
    });
    assert!(!enroll(&["--force"]).status.success(), "the token is good once");
    wait_for("the refusal", || {
        details(&site, "not_authorized")
            .iter()
            .any(|detail| detail.contains("enrolment"))
    });
    let listed = site.succeed(&["certs", "list", "device-013", "--format", "json"]);
    assert!(listed.contains("enrolled"), "{listed}");
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn service_that_nobody_asked_for_gives_way_and_one_that_was_asked_for_is_an_error() {
    let site = Site::new("mtls", "");
    let _taken = TcpListener::bind(("127.0.0.1", site.ports.enroll)).unwrap();
    let running = site.start(&["up"]);
    assert!(is_let_in(&site, "device-001"));
    assert_eq!(running.interrupt(), 0);
    let path = site.path("tidegate.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("[enroll]", "[enroll]\nenabled = true")).unwrap();
    let output = site.run(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("enroll.port"), "{error}");
}
