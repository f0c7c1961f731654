//! The OpenSSL command line reads and verifies what we issue, and connects with it.

use crate::support::{DAY, Site, id, now};
use rustls::ServerConnection;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use tidegate_pki::authority::{RevocationReason, Revoked};
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::server_config;
use tidegate_pki::{identity, inspect};

/// Standard output and error of `openssl`, and whether it succeeded.
pub(crate) fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("these tests need the `openssl` command");
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), text)
}

#[track_caller]
pub(crate) fn check(arguments: &[&str], success: bool, expected: &[&str]) {
    let (succeeded, text) = openssl(arguments);
    assert_eq!(succeeded, success, "openssl {arguments:?}: {text}");
    for part in expected {
        assert!(
            text.contains(part),
            "`{part}` is missing from openssl {arguments:?}: {text}"
        );
    }
}

#[test]
fn openssl_reads_keys_and_certificates_and_verifies_the_chain() {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")));
    let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
    for key in ["ca-key.pem", "server-key.pem", "device-001-key.pem"] {
        check(
            &["pkey", "-in", &at(key), "-noout", "-text"],
            true,
            &["NIST CURVE: P-256"],
        );
        assert!(
            fs::read_to_string(site.path(key))
                .unwrap()
                .starts_with("-----BEGIN PRIVATE KEY-----")
        );
        // PKCS#8 v1: the version is 0.
        check(&["asn1parse", "-in", &at(key)], true, &["INTEGER           :00"]);
    }
    check(
        &["x509", "-in", &at("ca.pem"), "-noout", "-text"],
        true,
        &[
            "CA:TRUE, pathlen:0",
            "Certificate Sign, CRL Sign",
            "CN = Tidegate CA",
            "Subject Key Identifier",
        ],
    );
    let (_, ca) = openssl(&["x509", "-in", &at("ca.pem"), "-noout", "-text"]);
    assert!(!ca.contains("Subject Alternative Name"), "{ca}");
    check(
        &["x509", "-in", &at("device-001.pem"), "-noout", "-text"],
        true,
        &[
            "CA:FALSE",
            "URI:urn:tidegate:device:device-001",
            "CN = device-001",
            "TLS Web Client Authentication",
            "Digital Signature",
            "Authority Key Identifier",
            "Subject Key Identifier",
        ],
    );
    check(
        &["x509", "-in", &at("server.pem"), "-noout", "-text"],
        true,
        &[
            "DNS:localhost, DNS:broker.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.7",
            "TLS Web Server Authentication",
        ],
    );
    let ca = at("ca.pem");
    let verify = |purpose, name: &str, success| {
        check(
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                &ca,
                "-purpose",
                purpose,
                &at(name),
            ],
            success,
            &[],
        );
    };
    verify("sslserver", "server.pem", true);
    verify("sslclient", "device-001.pem", true);
    verify("sslserver", "device-001.pem", false);
}

#[test]
fn openssl_refuses_an_expired_a_revoked_and_a_foreign_certificate() {
    let site = Site::new();
    let foreign = Site::new();
    site.issue(
        "old",
        &Profile::device(id("old")).between(now().minus(2 * DAY), now().minus(DAY)),
    );
    site.issue("lost", &Profile::device(id("lost")));
    let serial = identity::leaf(&inspect::certificate(&site.path("lost.pem")).unwrap().der)
        .unwrap()
        .serial;
    let revoked = Revoked {
        serial,
        since: now(),
        reason: Some(RevocationReason::KeyCompromise),
    };
    let list = site
        .authority
        .revocation_list(1, &[revoked], now().minus(DAY), 2 * DAY)
        .unwrap();
    fs::write(site.path("crl.pem"), list).unwrap();
    let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let (ca, crl) = (at("ca.pem"), at("crl.pem"));
    check(
        &["crl", "-in", &crl, "-CAfile", &ca, "-noout", "-text"],
        true,
        &["verify OK", "Key Compromise", "X509v3 Authority Key Identifier"],
    );
    check(
        &["verify", "-CAfile", &ca, &at("old.pem")],
        false,
        &["certificate has expired"],
    );
    check(&["verify", "-CAfile", &ca, &at("lost.pem")], true, &[]);
    let with_crl = ["verify", "-CAfile", &ca, "-crl_check", "-CRLfile", &crl];
    check(
        &[&with_crl[..], &[&at("lost.pem")]].concat(),
        false,
        &["certificate revoked"],
    );
    check(&[&with_crl[..], &[&at("server.pem")]].concat(), true, &[]);
    check(
        &[
            "verify",
            "-CAfile",
            foreign.path("ca.pem").to_str().unwrap(),
            &at("server.pem"),
        ],
        false,
        &[],
    );
}

#[test]
fn openssl_client_connects_with_its_certificate_in_tls_1_2_and_1_3() {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")));
    let config = server_config(&site.server(true)).unwrap();
    let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (at("ca.pem"), at("device-001.pem"), at("device-001-key.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = Arc::clone(&config);
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(config).unwrap();
            rustls::Stream::new(&mut tls, &mut tcp)
                .write_all(b"hello")
                .unwrap();
            tls.send_close_notify();
            tls.complete_io(&mut tcp).unwrap();
            identity::principal(&tls.peer_certificates().unwrap()[0]).unwrap()
        });
        let fixed = [
            "s_client",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-ign_eof",
        ];
        let own = [
            "-connect",
            &address,
            version,
            "-CAfile",
            &ca,
            "-cert",
            &certificate,
            "-key",
            &key,
        ];
        check(
            &[&fixed[..], &own[..]].concat(),
            true,
            &["hello", "Verify return code: 0"],
        );
        assert!(format!("{:?}", server.join().unwrap()).contains("device-001"));
    }
}
