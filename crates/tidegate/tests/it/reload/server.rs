//! The server's own certificate and the CA, exchanged while sessions go on.

use super::{
    CRITICAL, Session, WARNING, details, file_serial, is_let_in, now, shown_serial, up, wait_for_metric,
};
use crate::support::wait_for;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tidegate_pki::authority::{Authority, Revoked};
use tidegate_pki::inspect;

#[test]
fn server_certificate_is_exchanged_without_dropping_a_session() {
    let (site, running, lines) = up();
    let session = Session::device(&site, "device-001");
    let old = shown_serial(&site, site.ports.mqtts);
    assert_eq!(old, file_serial(&site, "certs/server.pem"));
    site.succeed(&["certs", "issue", "server", "--force"]);
    lines.wait_for("Took the server's certificate");
    let new = shown_serial(&site, site.ports.mqtts);
    assert_eq!(new, file_serial(&site, "certs/server.pem"));
    assert_ne!(new, old);
    assert_eq!(
        shown_serial(&site, site.ports.enroll),
        new,
        "the enrolment service too"
    );
    session.goes_on(&site, "device-001", "open");
    assert!(is_let_in(&site, "device-001"));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn broken_server_certificate_leaves_the_old_one_and_does_not_hinder_a_revocation() {
    let (site, running, lines) = up();
    let serial = shown_serial(&site, site.ports.mqtts);
    let whole = fs::read(site.path("certs/server.pem")).unwrap();
    let key = site.path("certs/server-key.pem");

    fs::write(site.path("certs/server.pem"), "junk").unwrap();
    wait_for("junk to be refused", || {
        details(&site, "certificate_rejected").len() == 1
    });
    wait_for_metric(&site, WARNING, 1.0);
    assert_eq!(shown_serial(&site, site.ports.mqtts), serial);
    let session = Session::device(&site, "device-001");
    site.succeed(&["certs", "revoke", "device-001"]);
    session.is_closed();
    lines.wait_for("Took revocation list");
    assert!(!is_let_in(&site, "device-001"));

    // A certificate of another key, and a key that others can read.
    fs::copy(site.path("certs/operator.pem"), site.path("certs/server.pem")).unwrap();
    wait_for("a foreign certificate to be refused", || {
        details(&site, "certificate_rejected").len() == 2
    });
    let said = details(&site, "certificate_rejected").pop().unwrap();
    assert!(said.contains("does not fit"), "{said}");
    fs::write(site.path("certs/server.pem"), &whole).unwrap();
    wait_for_metric(&site, WARNING, 0.0);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    wait_for("an exposed key to be refused", || {
        details(&site, "certificate_rejected").len() == 3
    });
    let said = details(&site, "certificate_rejected").pop().unwrap();
    assert!(said.contains("chmod 600"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    wait_for_metric(&site, WARNING, 0.0);
    assert_eq!(shown_serial(&site, site.ports.mqtts), serial);
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn ca_is_changed_under_running_sessions_and_whoever_is_left_behind_is_shut_out() {
    let (site, running, lines) = up();
    let (first, second) = (
        Session::device(&site, "device-001"),
        Session::device(&site, "device-002"),
    );
    site.succeed(&["certs", "rotate-ca", "--begin"]);
    lines.wait_for("Took the CA bundle, 2 CAs");
    first.goes_on(&site, "device-001", "one");
    assert!(is_let_in(&site, "device-003"));
    site.succeed(&["certs", "rotate-ca", "--reissue"]);
    lines.wait_for("Took the server's certificate");
    assert!(is_let_in(&site, "device-003"));
    second.goes_on(&site, "device-002", "two");
    // A session of the new CA, beside the two of the old one.
    let third = Session::device(&site, "device-003");
    site.succeed(&["certs", "rotate-ca", "--finish", "--force"]);
    lines.wait_for("Took the CA bundle, 1 CA");
    first.is_closed();
    second.is_closed();
    third.goes_on(&site, "device-003", "three");
    assert!(is_let_in(&site, "device-001"), "with its new certificate");
    wait_for_metric(&site, CRITICAL, 0.0);
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn broken_ca_bundle_leaves_the_old_one_and_does_not_hinder_a_revocation() {
    let (site, running, lines) = up();
    let bundle = site.path("certs/ca.pem");
    let whole = fs::read(&bundle).unwrap();
    let authority = Authority::open(&bundle, &site.path("secrets/ca-key.pem")).unwrap();
    let (first, second) = (
        Session::device(&site, "device-001"),
        Session::device(&site, "device-002"),
    );
    fs::copy(site.path("certs/operator.pem"), &bundle).unwrap();
    wait_for("the bundle to be refused", || {
        details(&site, "certificate_rejected").len() == 1
    });
    wait_for_metric(&site, CRITICAL, 1.0);
    let said = details(&site, "certificate_rejected").pop().unwrap();
    assert!(said.contains("is not the certificate of a CA"), "{said}");

    // A list that was signed elsewhere.
    let serial = inspect::certificate(&site.path("certs/device-001.pem"))
        .unwrap()
        .serial;
    let now = now();
    let revoked = Revoked {
        serial: hex::decode(serial).unwrap(),
        since: now,
        reason: None,
    };
    let hour = Duration::from_secs(3_600);
    let list = authority
        .revocation_list(9, &[revoked], now.minus(hour), 2 * hour)
        .unwrap();
    fs::write(site.path("certs/crl.pem"), list).unwrap();
    first.is_closed();
    lines.wait_for("Took revocation list 9 with 1 revoked");

    fs::write(&bundle, whole).unwrap();
    wait_for_metric(&site, CRITICAL, 0.0);
    assert!(!is_let_in(&site, "device-001"));
    second.goes_on(&site, "device-002", "open");
    assert_eq!(running.interrupt(), 0);
}
