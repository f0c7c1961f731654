//! Revocation lists: who is kept out, and which lists are refused.

use crate::support::{DAY, Site, handshake, id, now};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::sync::Arc;
use tidegate_envelope::reason::Reason;
use tidegate_pki::authority::{Authority, Revoked};
use tidegate_pki::crl::{self, CrlError};
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{classify, client_config, server_config};
use tidegate_pki::{identity, inspect};

fn site_with_device() -> (Site, Vec<u8>) {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")));
    let info = inspect::certificate(&site.path("device-001.pem")).unwrap();
    let leaf = identity::leaf(&info.der).unwrap();
    assert_eq!(leaf.not_after, info.not_after);
    (site, leaf.serial)
}

fn write_list(site: &Site, name: &str, number: u64, revoked: &[Vec<u8>]) {
    let revoked: Vec<_> = revoked
        .iter()
        .map(|serial| Revoked {
            serial: serial.clone(),
            since: now().minus(DAY),
            reason: None,
        })
        .collect();
    let list = site
        .authority
        .revocation_list(number, &revoked, now().minus(DAY), 2 * DAY)
        .unwrap();
    fs::write(site.path(name), list).unwrap();
}

#[test]
fn revoked_device_is_refused_and_the_next_one_is_not() {
    let (site, serial) = site_with_device();
    site.issue("device-002", &Profile::device(id("device-002")));
    write_list(&site, "crl.pem", 1, &[serial]);
    let server = server_config(&site.server_with_crl("crl.pem")).unwrap();
    let revoked = client_config(&site.client(Some(site.identity("device-001")))).unwrap();
    assert_eq!(
        classify(&handshake(&server, &revoked).0.err().unwrap()),
        Reason::TlsRevoked
    );
    let good = client_config(&site.client(Some(site.identity("device-002")))).unwrap();
    handshake(&server, &good).0.unwrap();
}

#[test]
fn revoked_device_cannot_resume_a_session_of_before_in_tls_1_2_or_1_3() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (site, serial) = site_with_device();
        write_list(&site, "crl.pem", 1, &[]);
        let client = client_of_version(&site, version);
        let before = server_config(&site.server_with_crl("crl.pem")).unwrap();
        assert_ne!(
            handshake(&before, &client).0.unwrap().kind,
            HandshakeKind::Resumed
        );
        assert_eq!(
            handshake(&before, &client).0.unwrap().kind,
            HandshakeKind::Resumed,
            "{version:?}"
        );
        write_list(&site, "crl.pem", 2, &[serial]);
        let after = server_config(&site.server_with_crl("crl.pem")).unwrap();
        let refused = handshake(&after, &client).0.err().unwrap();
        assert_eq!(classify(&refused), Reason::TlsRevoked, "{version:?}");
    }
}

fn client_of_version(site: &Site, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let (certificate, key) = site.identity("device-001");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(site.path("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

#[test]
fn list_that_is_empty_junk_foreign_expired_or_early_is_refused() {
    let (site, serial) = site_with_device();
    let ca = inspect::bundle(&site.path("ca.pem")).unwrap();
    let other = site.authority.impostor(now()).unwrap();
    let stranger = Authority::generate(now()).unwrap();
    let list = |ca: &Authority, from, life| ca.revocation_list(1, &[], from, life).unwrap();
    let cases = [
        (String::new(), "holds no revocation list"),
        ("junk\n".into(), "holds no revocation list"),
        (
            fs::read_to_string(site.path("ca.pem")).unwrap(),
            "holds no revocation list",
        ),
        (list(&other, now().minus(DAY), 2 * DAY), "did not sign"),
        (list(&stranger, now().minus(DAY), 2 * DAY), "did not sign"),
        (list(&site.authority, now().minus(2 * DAY), DAY), "in force only"),
        (list(&site.authority, now().plus(DAY), DAY), "in force only"),
    ];
    for (text, expected) in cases {
        fs::write(site.path("crl.pem"), &text).unwrap();
        let refused = crl::read(&site.path("crl.pem"), &ca, now())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(server_config(&site.server_with_crl("crl.pem")).is_err());
    }
    write_list(&site, "crl.pem", 1, &[serial]);
    assert!(server_config(&site.server_with_crl("crl.pem")).is_ok());
    fs::remove_file(site.path("crl.pem")).unwrap();
    assert!(matches!(
        crl::read(&site.path("crl.pem"), &ca, now()),
        Err(CrlError::Absent { .. })
    ));
}

#[test]
fn newest_list_of_a_file_counts_and_one_bad_list_spoils_it() {
    let (site, serial) = site_with_device();
    let ca = inspect::bundle(&site.path("ca.pem")).unwrap();
    write_list(&site, "old.pem", 255, &[]);
    write_list(&site, "new.pem", 256, std::slice::from_ref(&serial));
    let read = |name: &str| fs::read_to_string(site.path(name)).unwrap();
    for text in [
        read("old.pem") + &read("new.pem"),
        read("new.pem") + &read("old.pem"),
    ] {
        fs::write(site.path("crl.pem"), text).unwrap();
        let read = crl::read(&site.path("crl.pem"), &ca, now()).unwrap();
        let [newest] = &read[..] else { panic!("{read:?}") };
        assert!(newest.revokes(&serial));
        assert_eq!(newest.number, [1, 0]);
    }
    let other = site
        .authority
        .impostor(now())
        .unwrap()
        .revocation_list(300, &[], now().minus(DAY), 2 * DAY)
        .unwrap();
    fs::write(site.path("crl.pem"), read("new.pem") + &other).unwrap();
    assert!(matches!(
        crl::read(&site.path("crl.pem"), &ca, now()),
        Err(CrlError::Signature { .. })
    ));
}
