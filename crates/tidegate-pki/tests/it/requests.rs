//! Certificate requests as OpenSSL and attackers write them.

use crate::openssl::{check, openssl};
use crate::support::{DAY, Site, id, now};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use tidegate_envelope::principal::Role;
use tidegate_pki::inspect;
use tidegate_pki::profile::Profile;
use tidegate_pki::request::{self, KeyKind, Request, RequestError};

/// A request that `openssl req` made with a new key.
fn openssl_request(site: &Site, new_key: &[&str], more: &[&str]) -> Vec<u8> {
    let (key, csr) = (site.path("asked-key.pem"), site.path("asked.csr"));
    let (key, csr) = (key.to_str().unwrap(), csr.to_str().unwrap());
    check(&[&["genpkey", "-out", key], new_key].concat(), true, &[]);
    check(
        &[&["req", "-new", "-key", key, "-out", csr], more].concat(),
        true,
        &[],
    );
    CertificateSigningRequestDer::from_pem_file(csr).unwrap().to_vec()
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const NAMED: &[&str] = &["-subj", "/CN=device-001"];

#[test]
fn requests_of_openssl_with_p256_p384_and_ed25519_keys_become_certificates_of_the_profile() {
    let site = Site::new();
    let cases: [(&[&str], &[&str], KeyKind); 4] = [
        (P256, &[], KeyKind::P256),
        (P256, &["-sha384"], KeyKind::P256),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            &[],
            KeyKind::P384,
        ),
        (&["-algorithm", "ED25519"], &[], KeyKind::Ed25519),
    ];
    for (new_key, more, kind) in cases {
        let der = openssl_request(&site, new_key, &[NAMED, more].concat());
        let request = Request::parse_der(&der).unwrap();
        assert_eq!(request.key_kind(), kind);
        let profile = Profile::device(id("device-001")).lasting(7 * DAY);
        let pem = site.authority.sign_request(&request, &profile, now()).unwrap();
        fs::write(site.path("asked.pem"), &pem).unwrap();
        let info = inspect::certificate(&site.path("asked.pem")).unwrap();
        assert_eq!(info.public_key, request.public_key());
        assert_eq!(
            (info.role, info.identity),
            (Some(Role::Device), Some(id("device-001")))
        );
        let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
        let (_, from_key) = openssl(&["pkey", "-in", &at("asked-key.pem"), "-pubout"]);
        check(
            &["x509", "-in", &at("asked.pem"), "-noout", "-pubkey"],
            true,
            &[&from_key],
        );
        check(
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                &at("ca.pem"),
                "-purpose",
                "sslclient",
                &at("asked.pem"),
            ],
            true,
            &[],
        );
    }
}

#[test]
fn names_extensions_and_usages_that_a_request_asks_for_are_ignored() {
    let site = Site::new();
    let wishes = [
        "-subj",
        "/O=Tidegate/CN=operator",
        "-addext",
        "subjectAltName=URI:urn:tidegate:operator:operator,DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "extendedKeyUsage=serverAuth",
        "-addext",
        "1.2.3.4=critical,ASN1:UTF8String:anything",
    ];
    let der = openssl_request(&site, P256, &wishes);
    let request = Request::parse_der(&der).unwrap();
    let pem = site
        .authority
        .sign_request(&request, &Profile::device(id("device-001")), now())
        .unwrap();
    fs::write(site.path("asked.pem"), pem).unwrap();
    let info = inspect::certificate(&site.path("asked.pem")).unwrap();
    assert_eq!(info.sans, ["URI:urn:tidegate:device:device-001"]);
    assert_eq!(
        (info.subject.as_str(), info.usage),
        ("device-001", inspect::Usage::Client)
    );
    let (_, text) = openssl(&[
        "x509",
        "-in",
        site.path("asked.pem").to_str().unwrap(),
        "-noout",
        "-text",
    ]);
    for wish in ["operator", "CA:TRUE", "TLS Web Server", "1.2.3.4"] {
        assert!(!text.contains(wish), "{wish}: {text}");
    }
}

#[test]
fn request_of_our_own_is_one_that_openssl_verifies() {
    let site = Site::new();
    let made = request::make(&id("device-001")).unwrap();
    fs::write(site.path("own.csr"), &made.der).unwrap();
    let csr = site.path("own.csr");
    check(
        &[
            "req",
            "-inform",
            "DER",
            "-in",
            csr.to_str().unwrap(),
            "-noout",
            "-verify",
            "-text",
        ],
        true,
        &["verify OK", "CN = device-001", "NIST CURVE: P-256"],
    );
    assert!(made.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let site = Site::new();
    let cases: [(&[&str], &str); 6] = [
        (
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "kind RSA ",
        ),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
            "kind P-521 ",
        ),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
            "elliptic curve 1.3.132.0.10 ",
        ),
        (
            &[
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-pkeyopt",
                "ec_param_enc:explicit",
            ],
            "parameters of its own",
        ),
        (&["-algorithm", "ED448"], "kind 1.3.101.113 "),
        (
            &["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
            "kind 1.2.840.113549.1.1.10 ",
        ),
    ];
    for (new_key, expected) in cases {
        let refused = Request::parse_der(&openssl_request(&site, new_key, NAMED)).unwrap_err();
        assert!(matches!(refused, RequestError::KeyKind { .. }), "{refused}");
        let refused = refused.to_string();
        assert!(
            refused.contains(expected) && refused.contains("make a P-256"),
            "{refused}"
        );
    }
}

#[test]
fn signature_with_another_hash_is_refused_by_its_identifier() {
    let site = Site::new();
    for (hash, expected) in [("-sha512", "1.2.840.10045.4.3.4"), ("-sha1", "1.2.840.10045.4.1")] {
        let der = openssl_request(&site, P256, &[NAMED, &[hash]].concat());
        let refused = Request::parse_der(&der).unwrap_err();
        assert_eq!(
            refused,
            RequestError::SignatureKind {
                kind: expected.into()
            }
        );
    }
}

#[test]
fn request_for_somebody_elses_key_is_refused() {
    let made = request::make(&id("device-001")).unwrap();
    let other = request::make(&id("device-001")).unwrap();
    let (ours, theirs) = (
        Request::parse_der(&made.der).unwrap().public_key(),
        Request::parse_der(&other.der).unwrap().public_key(),
    );
    let start = made
        .der
        .windows(ours.len())
        .position(|window| window == ours)
        .unwrap();
    let mut forged = made.der;
    forged[start..start + theirs.len()].copy_from_slice(&theirs);
    assert_eq!(Request::parse_der(&forged).unwrap_err(), RequestError::Signature);
}

#[test]
fn compressed_point_and_point_off_the_curve_are_refused() {
    let site = Site::new();
    let compressed = Request::parse_der(&compressed_request(&site)).unwrap_err();
    assert_eq!(compressed, RequestError::Key);
    let made = request::make(&id("device-001")).unwrap();
    let public = Request::parse_der(&made.der).unwrap().public_key();
    let start = made
        .der
        .windows(public.len())
        .position(|window| window == public)
        .unwrap();
    let mut off = made.der;
    off[start + public.len() - 1] ^= 1;
    assert_eq!(Request::parse_der(&off).unwrap_err(), RequestError::Signature);
}

/// `openssl genpkey` keeps no point form; `openssl ec` converts the key.
fn compressed_request(site: &Site) -> Vec<u8> {
    let at = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let (key, short, csr) = (at("full-key.pem"), at("short-key.pem"), at("short.csr"));
    check(&[&["genpkey", "-out", &key], P256].concat(), true, &[]);
    check(
        &["ec", "-in", &key, "-conv_form", "compressed", "-out", &short],
        true,
        &[],
    );
    check(
        &[&["req", "-new", "-key", &short, "-out", &csr], NAMED].concat(),
        true,
        &[],
    );
    CertificateSigningRequestDer::from_pem_file(csr).unwrap().to_vec()
}

#[test]
fn certificate_that_is_sent_as_request_is_refused() {
    let site = Site::new();
    let certificate = inspect::certificate(&site.path("server.pem")).unwrap().der;
    assert_eq!(
        Request::parse_der(&certificate).unwrap_err(),
        RequestError::Damaged
    );
}
