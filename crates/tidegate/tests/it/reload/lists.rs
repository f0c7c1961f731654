//! Revocation lists: in force within a second on every path, and never a worse one than before.

use super::{CRITICAL, Session, a_few_looks, details, is_let_in, now, up, wait_for_metric};
use crate::support::{Site, wait_for};
use std::fs;
use std::time::Duration;
use tidegate_pki::authority::Authority;

const TAKEN: &str = "Took revocation list";

fn write_list(site: &Site, text: &str) {
    fs::write(site.path("certs/crl.pem"), text).unwrap();
}

fn read_list(site: &Site) -> String {
    fs::read_to_string(site.path("certs/crl.pem")).unwrap()
}

fn own_authority(site: &Site) -> Authority {
    Authority::open(&site.path("certs/ca.pem"), &site.path("secrets/ca-key.pem")).unwrap()
}

#[test]
fn revoked_device_loses_its_live_session_and_cannot_come_back_while_others_stay() {
    let (site, running, lines) = up();
    let (first, second, operator) = (
        Session::device(&site, "device-001"),
        Session::device(&site, "device-002"),
        Session::open(&site, "operator", "hydroficient/grandmarina/+/sensors"),
    );
    wait_for_metric(&site, "tidegate_sessions{role=\"device\"}", 2.0);
    site.succeed(&["certs", "revoke", "device-001"]);
    first.is_closed();
    lines.wait_for(TAKEN);
    assert!(!is_let_in(&site, "device-001"));
    second.goes_on(&site, "device-002", "open");
    assert!(is_let_in(&site, "device-002"));
    operator.wait_for("pressure_upstream");

    wait_for("both events to be stored", || {
        details(&site, "session_closed_revoked").len() == 1 && !details(&site, "tls_revoked").is_empty()
    });
    wait_for_metric(&site, "tidegate_certificates{state=\"revoked\"}", 1.0);
    wait_for_metric(&site, "tidegate_sessions{role=\"device\"}", 1.0);
    // A new certificate lets the device in again.
    site.succeed(&["certs", "issue", "device-001", "--force"]);
    assert!(is_let_in(&site, "device-001"));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn revoked_before_the_start_is_refused_from_the_first_handshake() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    site.succeed(&["certs", "revoke", "device-001"]);
    let running = site.start(&["up"]);
    assert!(!is_let_in(&site, "device-001"));
    assert!(is_let_in(&site, "device-002"));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn list_that_is_no_good_is_refused_with_one_event_and_the_revoked_stay_out() {
    let (site, running, lines) = up();
    let first = read_list(&site);
    site.succeed(&["certs", "revoke", "device-001"]);
    lines.wait_for(TAKEN);
    let good = read_list(&site);
    let own = own_authority(&site);
    let hour = Duration::from_secs(3_600);
    let (cut, _) = good.split_at(good.len() / 2);
    let bad = [
        ("", "holds no revocation list"),
        ("junk\n", "holds no revocation list"),
        (cut, "not valid PEM"),
        (
            &Authority::generate(now())
                .unwrap()
                .revocation_list(9, &[], now().minus(hour), 2 * hour)
                .unwrap(),
            "the CA did not sign",
        ),
        (&first, "01 (hex), and one with 02 was in use"),
        (
            &own.revocation_list(9, &[], now().minus(2 * hour), hour).unwrap(),
            "in force only from",
        ),
        (
            &own.revocation_list(2, &[], now().minus(hour), 2 * hour).unwrap(),
            "both have crlNumber 02",
        ),
    ];
    let survivor = Session::device(&site, "device-002");
    let mut told = 0;
    for (list, cause) in bad {
        write_list(&site, list);
        // The first two have the same words, and are told once.
        if list != "junk\n" {
            told += 1;
            wait_for(cause, || details(&site, "crl_rejected").len() == told);
            let last = details(&site, "crl_rejected").pop().unwrap();
            assert!(last.contains(cause), "{cause}: {last}");
        } else {
            a_few_looks();
        }
        wait_for_metric(&site, CRITICAL, 1.0);
        assert!(!is_let_in(&site, "device-001"), "{cause}");
        assert!(is_let_in(&site, "device-002"), "{cause}");
    }
    // None of them was told more than once, however often it was looked at.
    a_few_looks();
    assert_eq!(details(&site, "crl_rejected").len(), told);

    write_list(&site, &good);
    wait_for_metric(&site, CRITICAL, 0.0);
    assert!(!is_let_in(&site, "device-001"));
    survivor.goes_on(&site, "device-002", "still");
    assert_eq!(running.interrupt(), 0);

    // Nor does a restart make it forget what was in use.
    write_list(&site, &first);
    let running = site.start(&["up"]);
    assert!(!is_let_in(&site, "device-001"));
    assert!(is_let_in(&site, "device-002"));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn start_without_a_usable_list_is_refused_where_no_key_can_sign_one() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    fs::remove_file(site.path("secrets/ca-key.pem")).unwrap();
    let running = site.start(&["up"]);
    assert!(is_let_in(&site, "device-001"));
    assert_eq!(running.interrupt(), 0);
    for (list, cause) in [
        (Some(""), "holds no revocation list"),
        (None, "there is no revocation list"),
    ] {
        match list {
            Some(list) => write_list(&site, list),
            None => fs::remove_file(site.path("certs/crl.pem")).unwrap(),
        }
        let output = site.run(&["up"]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(cause), "{error}");
    }
}

#[test]
fn hangup_signs_lists_that_are_missing_and_takes_them() {
    let (site, running, lines) = up();
    fs::remove_file(site.path("certs/crl.pem")).unwrap();
    wait_for_metric(&site, CRITICAL, 1.0);
    let said = details(&site, "crl_rejected").pop().unwrap();
    assert!(said.contains("there is no revocation list"), "{said}");
    assert!(is_let_in(&site, "device-001"));
    running.signal("HUP");
    lines.wait_for("Signed revocation list 2, 0 revoked");
    lines.wait_for("Took revocation list 2");
    wait_for_metric(&site, CRITICAL, 0.0);
    // With nothing to take it says so.
    running.signal("HUP");
    lines.wait_for("Certificates, CAs and revocation lists are as they were");
    assert!(is_let_in(&site, "device-001"));
    assert_eq!(running.interrupt(), 0);
}

#[test]
fn list_that_ends_soon_alarms_on_the_page_and_in_the_journal() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    let own = own_authority(&site);
    // Two days are left of seven, and nobody here can sign a new one.
    let day = Duration::from_secs(86_400);
    let list = own
        .revocation_list(5, &[], now().minus(5 * day), 7 * day)
        .unwrap();
    write_list(&site, &list);
    fs::remove_file(site.path("secrets/ca-key.pem")).unwrap();
    let running = site.start(&["up"]);
    wait_for_metric(&site, super::WARNING, 1.0);
    wait_for("the event", || details(&site, "certificate_expiring").len() == 1);
    let said = details(&site, "certificate_expiring").pop().unwrap();
    assert!(
        said.contains("The revocation list of Tidegate CA") && said.contains("refresh-crl"),
        "{said}"
    );
    assert_eq!(running.interrupt(), 0);
}
