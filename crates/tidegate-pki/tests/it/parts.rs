//! Certificate, CAs and lists exchanged one by one.

use crate::support::{DAY, Site, handshake, id, now};
use std::fs;
use tidegate_envelope::reason::Reason;
use tidegate_pki::authority::Revoked;
use tidegate_pki::crl::{Accepted, CrlError};
use tidegate_pki::identity;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{Asked, ClientTrust, ServerIdentity, TlsError, assemble, classify, client_config};

fn write_list(site: &Site, number: u64, serials: &[Vec<u8>]) {
    let revoked: Vec<_> = serials
        .iter()
        .map(|serial| Revoked {
            serial: serial.clone(),
            since: now(),
            reason: None,
        })
        .collect();
    let list = site
        .authority
        .revocation_list(number, &revoked, now().minus(DAY), 2 * DAY)
        .unwrap();
    fs::write(site.path("crl.pem"), list).unwrap();
}

#[test]
fn lists_go_on_under_a_broken_bundle_and_a_broken_server_certificate() {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")));
    let certificate = tidegate_pki::files::read_certificates(&site.path("device-001.pem")).unwrap();
    let serial = identity::leaf(&certificate[0]).unwrap().serial;
    let client = client_config(&site.client(Some(site.identity("device-001")))).unwrap();
    write_list(&site, 1, &[]);

    let (certificate, key) = site.identity("server");
    let server = ServerIdentity::load(&certificate, &key).unwrap();
    let auth = site.server_with_crl("crl.pem").client_auth.unwrap();
    let mut accepted = Accepted::new();
    let trust = ClientTrust::load(&auth, &mut accepted).unwrap();
    assert!(!trust.revokes(&serial));
    let outcome = |trust: &ClientTrust, asked| {
        let config = assemble(&server, Some(trust), asked).unwrap();
        handshake(&config, &client).0.err().map(|error| classify(&error))
    };
    assert_eq!(outcome(&trust, Asked::Required), None);

    write_list(&site, 2, std::slice::from_ref(&serial));
    for broken in [&auth.ca, &certificate] {
        fs::write(broken, "junk").unwrap();
    }
    assert!(ServerIdentity::load(&certificate, &key).is_err());
    assert!(ClientTrust::load(&auth, &mut accepted).is_err());
    let lists = site.path("crl.pem");
    let newer = trust.with_lists(&lists, &mut accepted).unwrap();
    assert!(newer.revokes(&serial) && !trust.revokes(&serial));
    for asked in [Asked::Required, Asked::Optional] {
        assert_eq!(outcome(&newer, asked), Some(Reason::TlsRevoked), "{asked:?}");
    }

    write_list(&site, 1, &[]);
    let refused = newer.with_lists(&lists, &mut accepted).unwrap_err();
    assert!(
        matches!(refused, TlsError::Crl(CrlError::WentBack { .. })),
        "{refused}"
    );
}

#[test]
fn client_without_a_certificate_is_let_in_only_where_it_is_optional() {
    let site = Site::new();
    write_list(&site, 1, &[]);
    let (certificate, key) = site.identity("server");
    let server = ServerIdentity::load(&certificate, &key).unwrap();
    let auth = site.server_with_crl("crl.pem").client_auth.unwrap();
    let trust = ClientTrust::load(&auth, &mut Accepted::new()).unwrap();
    let client = client_config(&site.client(None)).unwrap();
    for (asked, expected) in [
        (Asked::Optional, None),
        (Asked::Required, Some(Reason::TlsNoCertificate)),
    ] {
        let config = assemble(&server, Some(&trust), asked).unwrap();
        let outcome = handshake(&config, &client).0.err().map(|error| classify(&error));
        assert_eq!(outcome, expected, "{asked:?}");
    }
}
