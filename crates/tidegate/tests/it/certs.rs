//! Certificates from first to last, with OpenSSL as the judge.

use crate::support::Site;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::profile::Profile;

mod export;
mod rotation;

/// `openssl` in the folder of a site: whether it succeeded, and all that it said.
fn openssl(site: &Site, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(site.path(""))
        .output()
        .expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What OpenSSL says of a certificate under our CAs and their lists.
fn verdict(site: &Site, file: &str) -> String {
    let arguments = format!("verify -crl_check -CAfile certs/ca.pem -CRLfile certs/crl.pem {file}");
    openssl(site, &arguments).1
}

fn check_good(site: &Site, file: &str) {
    let said = verdict(site, file);
    assert!(said.contains(": OK"), "{file}: {said}");
}

fn check_revoked(site: &Site, file: &str) {
    let said = verdict(site, file);
    assert!(said.contains("certificate revoked"), "{file}: {said}");
}

/// The standard error of a command that must fail.
fn refused(site: &Site, arguments: &[&str]) -> String {
    let output = site.run(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn rows(site: &Site, more: &[&str]) -> Vec<Value> {
    let arguments = [&["certs", "list", "--format", "json"], more].concat();
    let said = site.succeed(&arguments);
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The row of one holder that is not revoked.
fn row(site: &Site, name: &str) -> Value {
    let found = rows(site, &[name])
        .into_iter()
        .find(|row| row["state"] != "revoked");
    found.unwrap_or_else(|| panic!("no row of {name}"))
}

/// A server's certificate of somebody else's CA.
fn write_foreign(site: &Site, file: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let now = Timestamp::from_micros(i64::try_from(now).unwrap());
    let other = Authority::generate(now).unwrap();
    let issued = other.issue(&Profile::server(&["x"]).unwrap(), now).unwrap();
    fs::write(site.path(file), issued.certificate_pem).unwrap();
}

fn crl_numbers(site: &Site) -> Vec<u64> {
    let text = fs::read_to_string(site.path("certs/crl.pem")).unwrap();
    let end = "-----END X509 CRL-----\n";
    let lists = text.split_inclusive(end).enumerate();
    let number = |(position, list): (usize, &str)| {
        let file = format!("one-{position}.pem");
        fs::write(site.path(&file), list).unwrap();
        let (_, said) = openssl(site, &format!("crl -in {file} -noout -crlnumber"));
        let digits = said.trim().strip_prefix("crlNumber=0x").unwrap().to_owned();
        u64::from_str_radix(&digits, 16).unwrap()
    };
    lists.map(number).collect()
}

fn ready(devices: u32) -> Site {
    let site = Site::new("ai", "");
    site.succeed(&["certs", "init"]);
    for surplus in devices + 1..=12 {
        for file in [
            format!("certs/device-{surplus:03}.pem"),
            format!("certs/device-{surplus:03}-key.pem"),
        ] {
            fs::remove_file(site.path(&file)).unwrap();
        }
    }
    site
}

#[test]
fn init_makes_a_list_that_openssl_takes_and_a_private_ledger_of_all_certificates() {
    let site = ready(12);
    for name in ["server", "gateway", "operator", "device-001", "device-012"] {
        check_good(&site, &format!("certs/{name}.pem"));
        assert_eq!(row(&site, name)["how"], "issued", "{name}");
    }
    let (verified, said) = openssl(&site, "crl -in certs/crl.pem -CAfile certs/ca.pem -noout -text");
    assert!(verified && said.contains("verify OK"), "{said}");
    assert!(said.contains("No Revoked Certificates"), "{said}");
    let mode = fs::metadata(site.path("secrets/certificates.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(site.path("certs/crl.pem")).unwrap();
    site.succeed(&["certs", "init"]);
    assert_eq!(fs::read(site.path("certs/crl.pem")).unwrap(), before);
}

#[test]
fn folder_from_before_ledger_and_lists_is_taken_over_and_its_certificates_can_be_revoked() {
    let site = ready(12);
    fs::remove_file(site.path("secrets/certificates.jsonl")).unwrap();
    fs::remove_file(site.path("certs/crl.pem")).unwrap();
    // A certificate of somebody else's CA is none of ours.
    write_foreign(&site, "certs/foreign.pem");
    let said = site.succeed(&["certs", "init"]);
    assert!(said.contains("15 certificates that were there"), "{said}");
    assert!(said.contains("crl.pem"), "{said}");
    assert_eq!(row(&site, "device-004")["how"], "adopted");
    assert_eq!(row(&site, "server")["role"], "server");
    assert_eq!(row(&site, "operator")["role"], "operator");
    site.succeed(&["certs", "revoke", "device-004"]);
    check_revoked(&site, "certs/device-004.pem");
    check_good(&site, "certs/device-005.pem");
}

#[test]
fn revoked_name_is_refused_with_all_its_certificates_and_a_new_one_is_good() {
    let site = ready(2);
    fs::copy(site.path("certs/device-001.pem"), site.path("first.pem")).unwrap();
    site.succeed(&["certs", "issue", "device-001", "--force"]);
    fs::copy(site.path("certs/device-001.pem"), site.path("second.pem")).unwrap();
    check_good(&site, "first.pem");
    let number = crl_numbers(&site)[0];
    let said = site.succeed(&["certs", "revoke", "device-001", "--reason", "key-compromise"]);
    assert_eq!(
        said.matches("revoked device-001 (device, serial").count(),
        2,
        "{said}"
    );
    assert!(
        said.contains("within a second") && said.contains("SIGHUP"),
        "{said}"
    );
    assert!(
        said.contains("tidegate keys retire device-001 --stolen"),
        "{said}"
    );
    check_revoked(&site, "first.pem");
    check_revoked(&site, "second.pem");
    check_good(&site, "certs/device-002.pem");
    assert_eq!(crl_numbers(&site), [number + 1]);
    let (_, text) = openssl(&site, "crl -in certs/crl.pem -noout -text");
    assert_eq!(text.matches("Key Compromise").count(), 2, "{text}");

    site.succeed(&["certs", "issue", "device-001", "--force"]);
    check_good(&site, "certs/device-001.pem");
    check_revoked(&site, "second.pem");
    let states: Vec<_> = rows(&site, &["device-001"])
        .iter()
        .map(|row| row["state"].clone())
        .collect();
    assert_eq!(states.iter().filter(|state| *state == "revoked").count(), 2);
    assert_eq!(states.iter().filter(|state| *state == "valid").count(), 1);
}

#[test]
fn one_certificate_is_revoked_by_its_serial_number_as_openssl_shows_it() {
    let site = ready(2);
    fs::copy(site.path("certs/device-001.pem"), site.path("first.pem")).unwrap();
    let (_, said) = openssl(&site, "x509 -in first.pem -noout -serial");
    let serial = said.trim().strip_prefix("serial=").unwrap();
    site.succeed(&["certs", "issue", "device-001", "--force"]);
    site.succeed(&["certs", "revoke", "--serial", serial]);
    check_revoked(&site, "first.pem");
    check_good(&site, "certs/device-001.pem");
    let again = site.succeed(&["certs", "revoke", "--serial", serial]);
    assert!(again.contains("revoked since"), "{again}");
}

#[test]
fn serial_number_that_the_ledger_does_not_know_is_revoked_all_the_same() {
    let site = ready(1);
    let script = "openssl req -new -key certs/device-001-key.pem -subj /CN=device-001 -out a.csr && openssl x509 -req \
                  -in a.csr -CA certs/ca.pem -CAkey secrets/ca-key.pem -set_serial 0xABCDEF -days 9 -out elsewhere.pem";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    assert!(made.status.success());
    check_good(&site, "elsewhere.pem");
    let said = site.succeed(&["certs", "revoke", "--serial", "AB:CD:EF"]);
    assert!(said.contains("has no certificate AB:CD:EF"), "{said}");
    check_revoked(&site, "elsewhere.pem");
    for junk in ["xyz", "", &"a".repeat(41)] {
        let error = refused(&site, &["certs", "revoke", "--serial", junk]);
        assert!(error.contains("serial number"), "{junk}: {error}");
    }
}

#[test]
fn unknown_name_and_no_name_are_refused_and_the_list_stays() {
    let site = ready(1);
    let before = fs::read(site.path("certs/crl.pem")).unwrap();
    let error = refused(&site, &["certs", "revoke", "device-999"]);
    assert!(
        error.contains("device-999") && error.contains("certs list"),
        "{error}"
    );
    refused(&site, &["certs", "revoke"]);
    refused(&site, &["certs", "revoke", "device-001", "--serial", "01"]);
    refused(&site, &["certs", "revoke", "../device-001"]);
    assert_eq!(fs::read(site.path("certs/crl.pem")).unwrap(), before);
}

#[test]
fn revocation_that_was_interrupted_before_its_list_is_completed_by_the_next_start() {
    let site = ready(2);
    let list = fs::read(site.path("certs/crl.pem")).unwrap();
    site.succeed(&["certs", "revoke", "device-001"]);
    fs::write(site.path("certs/crl.pem"), list).unwrap();
    check_good(&site, "certs/device-001.pem");
    site.succeed(&["certs", "init"]);
    check_revoked(&site, "certs/device-001.pem");
}

#[test]
fn nothing_is_overwritten_or_recorded_without_force_and_an_exposed_ca_key_signs_nothing() {
    let site = ready(1);
    let ledger = fs::read(site.path("secrets/certificates.jsonl")).unwrap();
    let error = refused(&site, &["certs", "issue", "device-001"]);
    assert!(error.contains("--force"), "{error}");
    for name in ["ca", "crl", "device-001-key", "../x"] {
        refused(&site, &["certs", "issue", name, "--force"]);
    }
    check_good(&site, "certs/device-001.pem");
    let key = site.path("secrets/ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    for arguments in [
        &["certs", "issue", "device-001", "--force"][..],
        &["certs", "revoke", "device-001"],
        &["certs", "refresh-crl"],
        &["certs", "rotate-ca", "--begin"],
    ] {
        let error = refused(&site, arguments);
        assert!(error.contains("chmod 600"), "{arguments:?}: {error}");
    }
    assert_eq!(fs::read(site.path("secrets/certificates.jsonl")).unwrap(), ledger);
}

#[test]
fn renewed_certificate_has_a_new_key_and_the_same_holder_role_and_life() {
    let site = ready(1);
    site.succeed(&["certs", "issue", "alice", "--role", "operator", "--days", "30"]);
    let (before, key) = (
        row(&site, "alice"),
        fs::read(site.path("certs/alice-key.pem")).unwrap(),
    );
    site.succeed(&["certs", "renew", "alice"]);
    let after = row(&site, "alice");
    assert_eq!(
        (&after["role"], &after["how"]),
        (&"operator".into(), &"renewed".into())
    );
    assert_eq!(after["days_left"], before["days_left"]);
    assert_ne!(after["serial"], before["serial"]);
    assert_ne!(fs::read(site.path("certs/alice-key.pem")).unwrap(), key);
    site.succeed(&["certs", "renew", "server", "--days", "365"]);
    assert_eq!(row(&site, "server")["days_left"], 364);
    check_good(&site, "certs/server.pem");
    let error = refused(&site, &["certs", "renew", "nobody"]);
    assert!(error.contains("certs issue nobody"), "{error}");
    refused(&site, &["certs", "renew", "ca"]);
}

#[test]
fn list_shows_state_and_expiry_and_hides_what_was_replaced_unless_asked() {
    let site = ready(1);
    site.succeed(&["certs", "issue", "device-001", "--force", "--days", "90"]);
    assert_eq!(rows(&site, &["device-001"]).len(), 1);
    let all = rows(&site, &["device-001", "--all"]);
    let states: Vec<_> = all.iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert!(
        states.contains(&"superseded") && states.contains(&"valid"),
        "{states:?}"
    );
    let ca = &rows(&site, &[])[0];
    assert_eq!(
        (ca["role"].as_str(), ca["file"].as_str()),
        (Some("authority"), Some("ca.pem"))
    );
    // A certificate whose holder alone has it is listed without a file.
    fs::remove_file(site.path("certs/operator.pem")).unwrap();
    assert_eq!(row(&site, "operator")["file"], "");
    let table = site.succeed(&["certs", "list"]);
    for part in ["name", "state", "days left", "device-001", "gateway"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let csv = site.succeed(&["certs", "list", "--format", "csv"]);
    assert!(
        csv.starts_with("name,role,state,expires,days_left,serial,"),
        "{csv}"
    );
    write_foreign(&site, "certs/foreign.pem");
    assert_eq!(row(&site, "foreign")["state"], "foreign");
}

#[test]
fn start_makes_no_certificate_for_a_device_that_has_its_own_elsewhere_or_was_revoked() {
    let site = ready(1);
    let before = row(&site, "device-002");
    site.succeed(&["certs", "init"]);
    assert!(!site.path("certs/device-002.pem").exists());
    assert_eq!(row(&site, "device-002"), before);
    site.succeed(&["certs", "revoke", "device-002"]);
    site.succeed(&["certs", "init"]);
    assert!(!site.path("certs/device-002.pem").exists());
    site.succeed(&["certs", "issue", "device-002"]);
    check_good(&site, "certs/device-002.pem");
}

#[test]
fn lists_are_signed_anew_on_demand_with_the_next_number_and_only_when_due_if_asked() {
    let site = ready(1);
    let number = crl_numbers(&site)[0];
    let said = site.succeed(&["certs", "refresh-crl", "--if-due"]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(crl_numbers(&site), [number]);
    let said = site.succeed(&["certs", "refresh-crl"]);
    assert!(said.contains("copy the file"), "{said}");
    assert_eq!(crl_numbers(&site), [number + 1]);
    check_good(&site, "certs/device-001.pem");
}

#[test]
fn machine_without_the_ca_key_lists_what_it_has_and_says_where_the_rest_is_done() {
    let site = ready(1);
    fs::remove_dir_all(site.path("secrets")).unwrap();
    site.succeed(&["certs", "init"]);
    assert_eq!(row(&site, "device-001")["state"], "valid");
    for arguments in [
        &["certs", "issue", "device-002"][..],
        &["certs", "revoke", "device-001"],
        &["certs", "refresh-crl"],
        &["certs", "renew", "device-001"],
    ] {
        let error = refused(&site, arguments);
        assert!(
            error.contains("ca-key.pem is not on this machine"),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn damaged_ledger_stops_issuing_and_revoking_and_names_the_line() {
    let site = ready(1);
    let path = site.path("secrets/certificates.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("junk\n{text}")).unwrap();
    for arguments in [&["certs", "issue", "x"][..], &["certs", "revoke", "device-001"]] {
        let error = refused(&site, arguments);
        assert!(error.contains("line 1 of the ledger"), "{error}");
    }
}

#[test]
fn enroll_token_prints_the_line_for_the_device_and_keeps_no_secret() {
    let site = ready(1);
    let said = site.succeed(&[
        "certs",
        "enroll-token",
        "device-001",
        "--server",
        "gateway.example",
    ]);
    let line = said
        .lines()
        .find(|line| line.contains("certs enroll device-001"))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
    assert!(after("--server").starts_with("gateway.example:"), "{line}");
    let token = after("--token");
    assert_eq!(said.matches(token).count(), 2, "{said}");
    let kept = fs::read_to_string(site.path("secrets/enroll-tokens.json")).unwrap();
    assert!(!kept.contains(token));
    let (_, fingerprint) = openssl(&site, "x509 -in certs/ca.pem -noout -fingerprint -sha256");
    let fingerprint = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "");
    assert_eq!(after("--ca-sha256").replace(':', "").to_uppercase(), fingerprint);
    for (arguments, expected) in [
        (&["device-999"][..], "device-999"),
        (&["device-001", "--life", "2d"], "172800 s"),
        (&["device-001", "--life", "0s"], "1 to 86400 s"),
    ] {
        let error = refused(&site, &[&["certs", "enroll-token"], arguments].concat());
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn enroll_that_cannot_know_or_reach_its_gateway_is_refused_before_anything_is_written() {
    let site = Site::new("ai", "");
    let closed = format!("127.0.0.1:{}", site.ports.page);
    let base = ["certs", "enroll", "device-001", "--server", &closed];
    let pin = ["--ca-sha256", &"ab".repeat(32)];
    let cases: [(&[&str], &str); 4] = [
        (&[], "--ca-sha256"),
        (&["--ca-sha256", "ab", "--token", "x"], "64 hex digits"),
        (&pin, "--token-file"),
        (&[pin[0], pin[1], "--token", "x"], "got no certificate from"),
    ];
    for (more, expected) in cases {
        let error = refused(&site, &[&base, more].concat());
        assert!(error.contains(expected), "{more:?}: {error}");
    }
    assert!(!site.path("certs/device-001.pem").exists());
}
