//! Certificates that are none, or not ours, or not now: each is refused for a reason of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use tidegate_envelope::principal::Role;
use tidegate_envelope::reason::Reason;
use tidegate_pki::authority::Issued;
use tidegate_pki::files::{read_certificates, read_key};
use tidegate_pki::profile::Profile;

use crate::access::is_let_in;
use crate::identities::{Identities, device, now};

/// Shows a certificate whatever it is, and signs with a key whether it fits or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn shows(
    identities: &Identities,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Arc<ClientConfig> {
    let mut config = (*identities.client_tls(None)).clone();
    let key = config
        .crypto_provider()
        .key_provider
        .load_private_key(key)
        .unwrap();
    config.client_auth_cert_resolver = Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key))));
    Arc::new(config)
}

fn chain(identities: &Identities, name: &str) -> Vec<CertificateDer<'static>> {
    read_certificates(&identities.path(&format!("{name}.pem"))).unwrap()
}

fn key(identities: &Identities, name: &str) -> PrivateKeyDer<'static> {
    read_key(&identities.path(&format!("{name}-key.pem"))).unwrap()
}

fn keep(identities: &Identities, name: &str, issued: &Issued) {
    issued.write(&identities.path(""), name, true).unwrap();
}

#[tokio::test]
async fn every_bad_certificate_is_refused_with_a_reason_and_words_of_its_own() {
    let (ours, theirs) = (Identities::new(), Identities::new());
    let (hour, profile) = (
        Duration::from_secs(3_600),
        Profile::client(Role::Device, device("device-001")),
    );
    ours.issue(
        "old",
        &profile.clone().between(now().minus(hour * 2), now().minus(hour)),
    );
    ours.issue(
        "early",
        &profile.clone().between(now().plus(hour), now().plus(hour * 2)),
    );
    keep(
        &ours,
        "impostor",
        &ours.impostor().issue(&profile, now()).unwrap(),
    );
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&own_key).unwrap();
    let own_key = PrivateKeyDer::try_from(own_key.serialize_der()).unwrap();
    ours.revoke(2, &["device-002"]);
    let server = ours.serve();

    let good = chain(&ours, "device-001");
    let from = |name: &str| shows(&ours, chain(&ours, name), key(&ours, name));
    let instead = |chain: Vec<CertificateDer<'static>>| shows(&ours, chain, key(&ours, "device-001"));
    let cut = CertificateDer::from(good[0][..good[0].len() - 7].to_vec());
    let flipped = {
        let mut bytes = good[0].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        CertificateDer::from(bytes)
    };
    let bad = Reason::TlsBadCertificate;
    let refused = [
        (
            "none",
            ours.client_tls(None),
            Reason::TlsNoCertificate,
            "no certificate",
        ),
        (
            "junk",
            instead(vec![vec![0x42; 300].into()]),
            bad,
            "cannot be read",
        ),
        (
            "huge",
            instead(vec![vec![0x30; 70_000].into()]),
            Reason::TlsHandshake,
            "too large",
        ),
        ("expired", from("old"), Reason::TlsExpired, "expired 3"),
        (
            "not yet valid",
            from("early"),
            Reason::TlsExpired,
            "becomes valid in 3",
        ),
        ("revoked", from("device-002"), Reason::TlsRevoked, "is revoked"),
        ("for servers", from("server"), bad, "not for clients"),
        (
            "another CA's",
            shows(&ours, chain(&theirs, "device-001"), key(&theirs, "device-001")),
            bad,
            "another CA has signed it",
        ),
        ("an impostor CA's", from("impostor"), bad, "not its key"),
        (
            "self-signed",
            shows(&ours, vec![own.der().clone()], own_key),
            bad,
            "signed by its own key",
        ),
        (
            "stolen, without its key",
            shows(&ours, good.clone(), key(&ours, "device-002")),
            bad,
            "does not hold its key",
        ),
    ];
    let mut words = HashSet::new();
    for (what, config, reason, expected) in refused {
        assert!(!is_let_in(&server, config).await, "{what}");
        let event = server.event().await;
        assert_eq!(event.reason, reason, "{what}: {}", event.detail);
        assert!(event.detail.contains(expected), "{what}: {}", event.detail);
        assert!(words.insert(event.detail), "{what}");
    }
    // The same words as a neighbour above: nobody can tell where it was broken.
    let large = CertificateDer::from(vec![0x30; 60_000]);
    for (what, certificate) in [
        ("truncated", cut),
        ("one bit flipped", flipped),
        ("large junk", large),
    ] {
        assert!(!is_let_in(&server, instead(vec![certificate])).await, "{what}");
        assert_eq!(server.event().await.reason, bad, "{what}");
    }
    assert!(is_let_in(&server, from("device-001")).await);
}
