//! From one CA to the next, step by step and interrupted.

use super::{check_good, check_revoked, crl_numbers, openssl, ready, refused, row, rows, verdict};
use crate::support::Site;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The start of the key id of the CA that signed a holder's newest certificate.
fn ca_of(site: &Site, name: &str) -> String {
    row(site, name)["authority"].as_str().unwrap().to_owned()
}

fn cas(site: &Site) -> Vec<String> {
    let rows = rows(site, &[])
        .into_iter()
        .filter(|row| row["role"] == "authority");
    rows.map(|row| row["authority"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn ca_is_changed_in_three_steps_with_both_trusted_in_between() {
    let site = ready(2);
    let [old] = &cas(&site)[..] else { panic!("one CA") };
    fs::copy(site.path("certs/device-001.pem"), site.path("old.pem")).unwrap();
    fs::copy(site.path("certs/ca.pem"), site.path("old-ca.pem")).unwrap();
    site.succeed(&["certs", "revoke", "device-002"]);
    fs::copy(site.path("certs/device-002.pem"), site.path("revoked.pem")).unwrap();

    let said = site.succeed(&["certs", "rotate-ca", "--begin"]);
    assert!(
        said.contains("both are trusted") && said.contains("--reissue"),
        "{said}"
    );
    let [new, second] = &cas(&site)[..] else {
        panic!("two CAs")
    };
    assert!(second == old && new != old);
    assert_eq!(crl_numbers(&site).len(), 2);
    site.succeed(&["certs", "issue", "device-013"]);
    assert_eq!(
        (&ca_of(&site, "device-013"), &ca_of(&site, "device-001")),
        (new, old)
    );
    for file in ["certs/device-013.pem", "certs/device-001.pem", "certs/server.pem"] {
        check_good(&site, file);
    }
    check_revoked(&site, "revoked.pem");
    site.succeed(&["certs", "revoke", "device-013"]);
    check_revoked(&site, "certs/device-013.pem");

    let error = refused(&site, &["certs", "rotate-ca", "--begin"]);
    assert!(error.contains("being changed already"), "{error}");
    let error = refused(&site, &["certs", "rotate-ca", "--finish"]);
    assert!(
        error.contains("device-001") && error.contains("--force"),
        "{error}"
    );
    assert!(site.succeed(&["certs", "rotate-ca"]).contains("--reissue"));

    let said = site.succeed(&["certs", "rotate-ca", "--reissue", "--force"]);
    assert!(said.contains("--finish"), "{said}");
    for name in ["server", "gateway", "operator", "device-001"] {
        assert_eq!(&ca_of(&site, name), new, "{name}");
        check_good(&site, &format!("certs/{name}.pem"));
    }
    check_revoked(&site, "certs/device-002.pem");
    check_good(&site, "old.pem");

    // Devices 3 to 12 have theirs elsewhere.
    let error = refused(&site, &["certs", "rotate-ca", "--finish"]);
    assert!(
        error.contains("device-003") && !error.contains("device-001"),
        "{error}"
    );
    for device in 3..=12 {
        site.succeed(&["certs", "revoke", &format!("device-{device:03}")]);
    }
    assert!(
        site.succeed(&["certs", "rotate-ca"])
            .contains("next: tidegate certs rotate-ca --finish")
    );
    let said = site.succeed(&["certs", "rotate-ca", "--finish"]);
    assert!(said.contains("no longer trusted"), "{said}");
    assert_eq!(cas(&site), std::slice::from_ref(new));
    assert_eq!(crl_numbers(&site).len(), 1);
    check_good(&site, "certs/device-001.pem");
    let said = verdict(&site, "old.pem");
    assert!(!said.contains(": OK"), "{said}");
    assert!(site.path(&format!("secrets/ca-key-retired-{old}.pem")).exists());
    assert!(!site.path("secrets/ca-key-old.pem").exists());
    assert!(
        openssl(&site, "verify -CAfile old-ca.pem old.pem").0,
        "the old CA itself is unchanged"
    );

    // And once more, from the new one to the next.
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    check_good(&site, "certs/device-001.pem");
}

#[test]
fn server_keeps_its_old_certificate_while_devices_elsewhere_may_not_know_the_new_ca() {
    let site = ready(1);
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    let old = cas(&site)[1].clone();
    let said = site.succeed(&["certs", "rotate-ca", "--reissue"]);
    assert!(
        said.contains("the server keeps its certificate") && said.contains("11 holders"),
        "{said}"
    );
    assert_eq!(ca_of(&site, "server"), old);
    assert_ne!(ca_of(&site, "device-001"), old);
    site.succeed(&["certs", "rotate-ca", "--reissue", "--force"]);
    assert_ne!(ca_of(&site, "server"), old);
}

#[test]
fn file_that_a_newer_certificate_elsewhere_has_replaced_is_neither_reissued_nor_in_the_way() {
    let site = ready(1);
    fs::copy(site.path("certs/device-001.pem"), site.path("stale.pem")).unwrap();
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    site.succeed(&["certs", "renew", "device-001"]);
    let elsewhere = row(&site, "device-001");
    fs::rename(site.path("stale.pem"), site.path("certs/device-001.pem")).unwrap();
    site.succeed(&["certs", "rotate-ca", "--reissue", "--force"]);
    assert_eq!(row(&site, "device-001")["serial"], elsewhere["serial"]);
    let error = refused(&site, &["certs", "rotate-ca", "--finish"]);
    assert!(
        error.contains("11 holders") && !error.contains("device-001"),
        "{error}"
    );
}

#[test]
fn exposed_or_missing_key_of_the_new_ca_does_not_make_the_old_one_issue_again() {
    let site = ready(1);
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    let key = site.path("secrets/ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = refused(&site, &["certs", "renew", "device-001"]);
    assert!(error.contains("chmod 600"), "{error}");
    fs::remove_file(&key).unwrap();
    let error = refused(&site, &["certs", "renew", "device-001"]);
    assert!(error.contains("ca-key.pem is not the key of"), "{error}");
}

#[test]
fn forced_finish_says_whom_it_shuts_out() {
    let site = ready(1);
    fs::copy(site.path("certs/device-001.pem"), site.path("old.pem")).unwrap();
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    let said = site.succeed(&["certs", "rotate-ca", "--finish", "--force"]);
    assert!(said.contains("shut out") && said.contains("and 5 more"), "{said}");
    assert!(!verdict(&site, "old.pem").contains(": OK"));
    for step in ["--reissue", "--finish"] {
        let error = refused(&site, &["certs", "rotate-ca", step]);
        assert!(error.contains("not being changed"), "{error}");
    }
}

#[test]
fn change_that_was_interrupted_at_any_step_goes_on() {
    let site = ready(1);
    // After the new key, before anything else.
    let leftover = fs::read(site.path("certs/device-001-key.pem")).unwrap();
    fs::write(site.path("secrets/ca-key-new.pem"), leftover).unwrap();
    fs::set_permissions(
        site.path("secrets/ca-key-new.pem"),
        fs::metadata(site.path("secrets/ca-key.pem"))
            .unwrap()
            .permissions(),
    )
    .unwrap();
    site.succeed(&["certs", "renew", "device-001"]);
    let bundle = fs::read(site.path("certs/ca.pem")).unwrap();
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    let both = fs::read(site.path("certs/ca.pem")).unwrap();
    let new = cas(&site)[0].clone();

    // After the lists, before the bundle: the lists of both serve the old bundle.
    fs::write(site.path("certs/ca.pem"), bundle).unwrap();
    check_good(&site, "certs/device-001.pem");
    fs::write(site.path("certs/ca.pem"), both).unwrap();

    // After the bundle, before the keys have their names.
    let rename = |from: &str, to: &str| fs::rename(site.path(from), site.path(to)).unwrap();
    rename("secrets/ca-key.pem", "secrets/ca-key-new.pem");
    rename("secrets/ca-key-old.pem", "secrets/ca-key.pem");
    site.succeed(&["certs", "renew", "gateway"]);
    assert_eq!(ca_of(&site, "gateway"), new);
    check_good(&site, "certs/gateway.pem");
    site.succeed(&["certs", "revoke", "device-001"]);
    check_revoked(&site, "certs/device-001.pem");

    // Between the two renamings.
    rename("secrets/ca-key.pem", "secrets/ca-key-old.pem");
    site.succeed(&["certs", "refresh-crl"]);
    refused(&site, &["certs", "rotate-ca", "--begin"]);
    for (file, there) in [
        ("ca-key.pem", true),
        ("ca-key-old.pem", true),
        ("ca-key-new.pem", false),
    ] {
        assert_eq!(site.path(&format!("secrets/{file}")).exists(), there, "{file}");
    }
    site.succeed(&["certs", "renew", "operator"]);
    assert_eq!(ca_of(&site, "operator"), new);
}
