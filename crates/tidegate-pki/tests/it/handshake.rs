//! Who gets through a handshake, and what the refusal is called at each end.

use crate::support::{DAY, Site, handshake, handshake_as, id, now};
use std::path::PathBuf;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{classify, classify_as_client, client_config, server_config};

#[track_caller]
fn check_refused(site: &Site, identity: Option<(PathBuf, PathBuf)>, at_server: Reason, at_client: Reason) {
    let server = server_config(&site.server(true)).unwrap();
    let client = client_config(&site.client(identity)).unwrap();
    let (served, met) = handshake(&server, &client);
    assert_eq!(classify(&served.err().unwrap()), at_server);
    assert_eq!(classify_as_client(&met.unwrap_err()), Some(at_client));
}

#[test]
fn device_of_our_ca_gets_through_with_its_identity_and_a_post_quantum_key_exchange() {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")));
    let server = server_config(&site.server(true)).unwrap();
    let client = client_config(&site.client(Some(site.identity("device-001")))).unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.7"] {
        let (served, met) = handshake_as(&server, &client, name);
        met.unwrap();
        let served = served.unwrap();
        let expected = Principal::Certificate {
            id: id("device-001"),
            role: Role::Device,
        };
        assert_eq!(served.principal, Some(expected), "{name}");
        assert_eq!(served.group.as_deref(), Some("X25519MLKEM768"), "{name}");
    }
}

#[test]
fn client_without_certificate_is_refused_where_one_is_asked_for_and_welcome_elsewhere() {
    let site = Site::new();
    check_refused(&site, None, Reason::TlsNoCertificate, Reason::TlsNoCertificate);
    let server = server_config(&site.server(false)).unwrap();
    let (served, met) = handshake(&server, &client_config(&site.client(None)).unwrap());
    met.unwrap();
    assert_eq!(served.unwrap().principal, None);
}

#[test]
fn certificate_of_another_ca_with_the_same_name_is_refused() {
    let site = Site::new();
    let other = site.authority.impostor(now()).unwrap();
    let forged = other.issue(&Profile::device(id("device-001")), now()).unwrap();
    forged.write(site.folder(), "forged", false).unwrap();
    let identity = site.identity("forged");
    check_refused(
        &site,
        Some(identity),
        Reason::TlsBadCertificate,
        Reason::TlsBadCertificate,
    );
}

#[test]
fn expired_certificate_is_presented_and_refused() {
    let site = Site::new();
    let profile = Profile::device(id("device-001")).between(now().minus(2 * DAY), now().minus(DAY));
    site.issue("device-001", &profile);
    let identity = site.identity("device-001");
    check_refused(&site, Some(identity), Reason::TlsExpired, Reason::TlsExpired);
}

#[test]
fn server_certificate_does_not_serve_as_client_certificate() {
    let site = Site::new();
    let server = site.identity("server");
    let server_config = server_config(&site.server(true)).unwrap();
    let (served, _) = handshake(
        &server_config,
        &client_config(&site.client(Some(server))).unwrap(),
    );
    assert_eq!(classify(&served.err().unwrap()), Reason::TlsBadCertificate);
}

#[test]
fn client_refuses_a_server_of_another_ca_or_name_and_the_server_hears_it() {
    let (site, rogue) = (Site::new(), Site::new());
    let client = client_config(&site.client(None)).unwrap();
    let rogue_server = server_config(&rogue.server(false)).unwrap();
    let (served, met) = handshake(&rogue_server, &client);
    assert_eq!(
        classify_as_client(&met.unwrap_err()),
        Some(Reason::TlsServerRejected)
    );
    assert_eq!(classify(&served.err().unwrap()), Reason::TlsServerRejected);
    let server = server_config(&site.server(false)).unwrap();
    let (_, met) = handshake_as(&server, &client, "other.example");
    assert_eq!(
        classify_as_client(&met.unwrap_err()),
        Some(Reason::TlsServerRejected)
    );
}

#[test]
fn bytes_that_are_not_tls_are_called_a_failed_handshake() {
    let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "tls handshake eof");
    assert_eq!(classify(&error), Reason::TlsHandshake);
    assert_eq!(classify_as_client(&error), None);
    let inner = rustls::Error::NoCertificatesPresented;
    assert_eq!(classify(&inner), Reason::TlsNoCertificate);
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, inner);
    assert_eq!(classify(&wrapped), Reason::TlsNoCertificate);
}
