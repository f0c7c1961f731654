//! Two CAs at one time: bundles, their lists, and numbers that must not go back.

use crate::openssl::check;
use crate::support::{DAY, Site, handshake, id, now};
use std::fs;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::{Authority, RevocationReason};
use tidegate_pki::crl::{self, Accepted, CrlError};
use tidegate_pki::inspect;
use tidegate_pki::ledger::{How, Ledger, Record};
use tidegate_pki::profile::Profile;
use tidegate_pki::revocation::{self, CRL_LIFE, RevocationError, Written};
use tidegate_pki::tls::{TlsError, classify, client_config, load_server, server_config};

/// A site whose CA is being changed: `ca.pem` holds the new one and the old one, in this order.
struct Change {
    site: Site,
    authorities: Vec<Authority>,
    ledger: Ledger,
}

impl Change {
    fn new() -> Self {
        let site = Site::new();
        let new = Authority::generate(now()).unwrap();
        let bundle = format!("{}{}", new.certificate_pem(), site.authority.certificate_pem());
        let key = site.path("ca-key.pem");
        fs::write(site.path("ca.pem"), bundle).unwrap();
        let old = Authority::open(&site.path("ca.pem"), &key).unwrap();
        let ledger = Ledger::open(&site.path("certificates.jsonl")).unwrap();
        Self {
            site,
            authorities: vec![new, old],
            ledger,
        }
    }

    /// Issues with one of the CAs and records it; the serial number.
    fn issue(&self, authority: usize, name: &str) -> String {
        let issued = self.authorities[authority]
            .issue(&Profile::device(id(name)), now())
            .unwrap();
        issued.write(self.site.folder(), name, false).unwrap();
        let info = inspect::certificate(&self.site.path(&format!("{name}.pem"))).unwrap();
        let bundle = inspect::bundle(&self.site.path("ca.pem")).unwrap();
        let issuer = inspect::issuer_of(&info.der, &bundle).unwrap();
        assert_eq!(hex::encode(&issuer.key_id), self.authorities[authority].key_id());
        let record = Record::of(&info, &id(name), issuer, How::Issued, now()).unwrap();
        self.ledger.record(record).unwrap();
        info.serial
    }

    fn write_lists(&self, now: Timestamp) -> Vec<Written> {
        let mut ledger = self.ledger.lock().unwrap();
        revocation::write_lists(&mut ledger, &self.authorities, &self.site.path("crl.pem"), now).unwrap()
    }

    fn outcome(&self, name: &str) -> Option<Reason> {
        let server = server_config(&self.site.server_with_crl("crl.pem")).unwrap();
        let client = client_config(&self.site.client(Some(self.site.identity(name)))).unwrap();
        handshake(&server, &client).0.err().map(|error| classify(&error))
    }
}

#[test]
fn devices_of_both_cas_get_in_and_a_revoked_one_of_either_does_not() {
    let change = Change::new();
    let serials: Vec<_> = [(0, "new-1"), (0, "new-2"), (1, "old-1"), (1, "old-2")]
        .map(|(authority, name)| change.issue(authority, name))
        .into();
    change.write_lists(now());
    for name in ["new-1", "new-2", "old-1", "old-2"] {
        assert_eq!(change.outcome(name), None, "{name}");
    }
    for serial in [&serials[0], &serials[2]] {
        let reason = Some(RevocationReason::KeyCompromise);
        change.ledger.revoke(serial, now(), reason).unwrap();
    }
    let written = change.write_lists(now());
    let counts: Vec<_> = written.iter().map(|list| (list.number, list.revoked)).collect();
    assert_eq!(counts, [(2, 1), (2, 1)]);
    for (name, expected) in [
        ("new-1", Some(Reason::TlsRevoked)),
        ("new-2", None),
        ("old-1", Some(Reason::TlsRevoked)),
        ("old-2", None),
    ] {
        assert_eq!(change.outcome(name), expected, "{name}");
    }
    let at = |name: &str| change.site.path(name).to_str().unwrap().to_owned();
    let (ca, crl) = (at("ca.pem"), at("crl.pem"));
    let with_crl = ["verify", "-CAfile", &ca, "-crl_check", "-CRLfile", &crl];
    for (name, good) in [
        ("new-1", false),
        ("new-2", true),
        ("old-1", false),
        ("old-2", true),
    ] {
        let certificate = at(&format!("{name}.pem"));
        let expected: &[&str] = if good { &["OK"] } else { &["certificate revoked"] };
        check(&[&with_crl[..], &[&certificate]].concat(), good, expected);
    }
}

#[test]
fn bundle_in_which_one_ca_has_no_list_is_refused_and_a_list_of_a_ca_that_left_is_passed_over() {
    let change = Change::new();
    let path = change.site.path("crl.pem");
    change.write_lists(now());
    let both = fs::read_to_string(&path).unwrap();
    let bundle = inspect::bundle(&change.site.path("ca.pem")).unwrap();
    assert_eq!(crl::read(&path, &bundle, now()).unwrap().len(), 2);
    let end = both.find("-----END X509 CRL-----\n").unwrap() + "-----END X509 CRL-----\n".len();
    for half in [&both[..end], &both[end..]] {
        fs::write(&path, half).unwrap();
        let refused = crl::read(&path, &bundle, now()).unwrap_err();
        assert!(matches!(refused, CrlError::Missing { .. }), "{refused}");
        assert!(server_config(&change.site.server_with_crl("crl.pem")).is_err());
    }
    fs::write(&path, &both).unwrap();
    for one in bundle.chunks(1) {
        let read = crl::read(&path, one, now()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].authority, hex::encode(&one[0].key_id));
    }
}

#[test]
fn two_cas_of_one_name_are_refused_where_lists_are_read() {
    let site = Site::new();
    let impostor = site.authority.impostor(now()).unwrap();
    let bundle = format!(
        "{}{}",
        site.authority.certificate_pem(),
        impostor.certificate_pem()
    );
    fs::write(site.path("ca.pem"), bundle).unwrap();
    let list = site
        .authority
        .revocation_list(1, &[], now().minus(DAY), 2 * DAY)
        .unwrap();
    fs::write(site.path("crl.pem"), list).unwrap();
    let bundle = inspect::bundle(&site.path("ca.pem")).unwrap();
    let refused = crl::read(&site.path("crl.pem"), &bundle, now()).unwrap_err();
    assert!(matches!(refused, CrlError::Namesakes { .. }), "{refused}");
}

#[test]
fn bundle_with_a_certificate_that_is_no_ca_is_refused() {
    let site = Site::new();
    let server = fs::read_to_string(site.path("server.pem")).unwrap();
    fs::write(
        site.path("ca.pem"),
        format!("{}{server}", site.authority.certificate_pem()),
    )
    .unwrap();
    assert!(matches!(
        server_config(&site.server(true)),
        Err(TlsError::NotAuthority { .. })
    ));
}

#[test]
fn list_whose_number_goes_back_is_refused_and_the_accepted_state_stays() {
    let change = Change::new();
    let path = change.site.path("crl.pem");
    let tls = change.site.server_with_crl("crl.pem");
    let mut accepted = Accepted::new();
    change.write_lists(now());
    let first = fs::read(&path).unwrap();
    load_server(&tls, &mut accepted).unwrap();
    load_server(&tls, &mut accepted).expect("the same list again is no step back");
    change.write_lists(now());
    let second = fs::read(&path).unwrap();
    load_server(&tls, &mut accepted).unwrap();
    fs::write(&path, &first).unwrap();
    for _ in 0..2 {
        let refused = load_server(&tls, &mut accepted).unwrap_err();
        assert!(
            matches!(refused, TlsError::Crl(CrlError::WentBack { .. })),
            "{refused}"
        );
    }
    fs::write(&path, &second).unwrap();
    load_server(&tls, &mut accepted).unwrap();
    load_server(&tls, &mut Accepted::new()).unwrap();
    fs::write(&path, &first).unwrap();
    load_server(&tls, &mut Accepted::new()).expect("without memory any first list is taken");
}

#[test]
fn numbers_known_from_the_ledger_keep_an_older_list_out_after_a_restart() {
    let change = Change::new();
    let path = change.site.path("crl.pem");
    change.write_lists(now());
    let first = fs::read(&path).unwrap();
    change.write_lists(now());
    let restarted = || {
        let mut accepted = Accepted::new();
        for (authority, number) in change.ledger.crl_numbers().unwrap() {
            accepted.remember(&authority, number);
        }
        load_server(&change.site.server_with_crl("crl.pem"), &mut accepted)
    };
    restarted().unwrap();
    fs::write(&path, &first).unwrap();
    let refused = restarted().unwrap_err();
    assert!(
        matches!(refused, TlsError::Crl(CrlError::WentBack { .. })),
        "{refused}"
    );
}

#[test]
fn another_list_under_the_same_number_is_refused() {
    let site = Site::new();
    let tls = site.server_with_crl("crl.pem");
    let mut accepted = Accepted::new();
    for (start, taken) in [(DAY, true), (2 * DAY, false)] {
        let list = site
            .authority
            .revocation_list(300, &[], now().minus(start), 10 * DAY)
            .unwrap();
        fs::write(site.path("crl.pem"), list).unwrap();
        let outcome = load_server(&tls, &mut accepted);
        assert_eq!(outcome.is_ok(), taken, "{outcome:?}");
        assert!(taken || matches!(outcome, Err(TlsError::Crl(CrlError::SameNumber { .. }))));
    }
}

#[test]
fn lost_ledger_loses_no_revocation_and_no_number() {
    let change = Change::new();
    let serial = change.issue(0, "lost");
    let since = now().minus(DAY);
    change
        .ledger
        .revoke(&serial, since, Some(RevocationReason::KeyCompromise))
        .unwrap();
    change.write_lists(now());
    change.write_lists(now());
    fs::remove_file(change.site.path("certificates.jsonl")).unwrap();
    let written = change.write_lists(now());
    assert_eq!(written[0].number, 3);
    assert_eq!(written[0].revoked, 1);
    assert_eq!(change.outcome("lost"), Some(Reason::TlsRevoked));
    check(
        &[
            "crl",
            "-in",
            change.site.path("crl.pem").to_str().unwrap(),
            "-noout",
            "-text",
        ],
        true,
        &[&serial.to_uppercase(), "Key Compromise"],
    );
}

#[test]
fn present_list_that_is_damaged_or_forged_is_not_replaced() {
    let change = Change::new();
    let path = change.site.path("crl.pem");
    let forged = change.authorities[0]
        .impostor(now())
        .unwrap()
        .revocation_list(1, &[], now().minus(DAY), 2 * DAY)
        .unwrap();
    change.write_lists(now());
    let good = fs::read_to_string(&path).unwrap();
    // One character in the middle of the first list.
    let middle = good.find("END").unwrap() / 2;
    let changed = if &good[middle..=middle] == "A" { "B" } else { "A" };
    let mut damaged = good;
    damaged.replace_range(middle..=middle, changed);
    for bad in [forged, damaged] {
        fs::write(&path, &bad).unwrap();
        let mut ledger = change.ledger.lock().unwrap();
        let refused = revocation::write_lists(&mut ledger, &change.authorities, &path, now()).unwrap_err();
        assert!(matches!(refused, RevocationError::Present(_)), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn list_is_due_when_it_is_missing_a_day_old_expired_or_silent_about_a_revocation() {
    let change = Change::new();
    let serial = change.issue(1, "device-001");
    let due = |at: Timestamp| {
        let ledger = change.ledger.lock().unwrap();
        revocation::is_due(&ledger, &change.authorities, &change.site.path("crl.pem"), at).unwrap()
    };
    assert!(due(now()));
    change.write_lists(now());
    assert!(!due(now()));
    assert!(!due(now().plus(DAY / 2)));
    assert!(due(now().plus(DAY)));
    assert!(due(now().plus(CRL_LIFE + DAY)));
    change.ledger.revoke(&serial, now(), None).unwrap();
    assert!(due(now()));
    change.write_lists(now());
    assert!(!due(now()));
}

#[test]
fn revoked_certificate_leaves_the_list_one_week_after_its_end() {
    let change = Change::new();
    let serial = change.issue(0, "device-001");
    change.ledger.revoke(&serial, now(), None).unwrap();
    let revoked = |days: u32| change.write_lists(now().plus(days * DAY))[0].revoked;
    assert_eq!(revoked(0), 1);
    assert_eq!(revoked(96), 1);
    assert_eq!(revoked(98), 0);
}
