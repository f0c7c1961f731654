//! PKCS#12 files, read back by OpenSSL.

use super::{openssl, ready, refused};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn openssl_reads_the_exported_key_certificate_and_ca_and_needs_the_password() {
    let site = ready(1);
    fs::write(site.path("password.txt"), "correct horse\nnot this line\n").unwrap();
    let export = [
        "certs",
        "export",
        "operator",
        "--out",
        "operator.p12",
        "--password-file",
        "password.txt",
    ];
    site.succeed(&export);
    let mode = fs::metadata(site.path("operator.p12"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(site.path("first-line.txt"), "correct horse").unwrap();
    let read = |what: &str| {
        let (read, said) = openssl(
            &site,
            &format!("pkcs12 -in operator.p12 -passin file:first-line.txt -nodes {what}"),
        );
        assert!(read, "{what}: {said}");
        said
    };
    assert!(read("-noout -info").contains("PBES2, PBKDF2, AES-256-CBC"));
    for (what, file) in [
        ("-clcerts -nokeys", "operator.pem"),
        ("-cacerts -nokeys", "ca.pem"),
    ] {
        let wanted = fs::read_to_string(site.path(&format!("certs/{file}"))).unwrap();
        let said = read(what).replace(['\n', '\r'], "");
        assert!(said.contains(&wanted.replace('\n', "")), "{file}: {said}");
    }
    fs::write(site.path("key.pem"), read("-nocerts")).unwrap();
    let (_, packed) = openssl(&site, "pkey -in key.pem -pubout");
    let (_, original) = openssl(&site, "pkey -in certs/operator-key.pem -pubout");
    assert_eq!(packed, original);
    fs::write(site.path("wrong.txt"), "another password").unwrap();
    assert!(!openssl(&site, "pkcs12 -in operator.p12 -passin file:wrong.txt -noout").0);
}

#[test]
fn export_overwrites_nothing_and_takes_no_short_missing_or_unasked_password() {
    let site = ready(1);
    fs::write(site.path("password.txt"), "correct horse\n").unwrap();
    fs::write(site.path("short.txt"), "1234567\n").unwrap();
    fs::write(site.path("there.p12"), "mine").unwrap();
    let export = |name: &str, out: &str, more: &[&str]| {
        refused(&site, &[&["certs", "export", name, "--out", out], more].concat())
    };
    let password = ["--password-file", "password.txt"];
    let cases = [
        (export("operator", "there.p12", &password), "--force replaces it"),
        (
            export("operator", "new.p12", &["--password-file", "short.txt"]),
            "fewer than 8",
        ),
        (
            export("operator", "new.p12", &["--password-file", "none.txt"]),
            "none.txt",
        ),
        (export("operator", "new.p12", &[]), "--password-file"),
        (export("nobody", "new.p12", &password), "nobody.pem"),
        (
            export("../secrets/ca-key", "new.p12", &password),
            "is not a device name",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(fs::read(site.path("there.p12")).unwrap(), b"mine");
    assert!(!site.path("new.p12").exists());
    let key = site.path("certs/operator-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(export("operator", "new.p12", &password).contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    site.succeed(&[
        "certs",
        "export",
        "operator",
        "--out",
        "there.p12",
        "--force",
        password[0],
        password[1],
    ]);
}
