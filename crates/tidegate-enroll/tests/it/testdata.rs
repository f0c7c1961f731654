//! Requests and messages that OpenSSL made: see `testdata/README.md`.

use tidegate_pki::est::{EstError, encode, read_certs_only};
use tidegate_pki::request::{KeyKind, Request, RequestError};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../testdata/", $name))
    };
}

#[test]
fn requests_with_good_keys_are_taken_whatever_else_they_ask_for_and_others_are_not() {
    for (bytes, kind) in [
        (&file!("p256.der")[..], KeyKind::P256),
        (file!("p384.der"), KeyKind::P384),
        (file!("ed25519.der"), KeyKind::Ed25519),
        (file!("names.der"), KeyKind::P256),
    ] {
        assert_eq!(Request::parse_der(bytes).unwrap().key_kind(), kind);
    }
    for (bytes, kind) in [
        (&file!("p521.der")[..], "P-521"),
        (file!("explicit.der"), "elliptic curve with parameters of its own"),
        (file!("rsa.der"), "RSA"),
    ] {
        let kind = kind.to_owned();
        assert_eq!(
            Request::parse_der(bytes).unwrap_err(),
            RequestError::KeyKind { kind }
        );
    }
}

#[test]
fn messages_with_certificates_alone_are_read_and_others_are_not() {
    let read = |bytes: &[u8]| read_certs_only(encode(bytes).as_bytes()).map(|read| read.len());
    assert_eq!(read(file!("certificates.p7")), Ok(2));
    assert_eq!(read(file!("with-list.p7")), Ok(1));
    assert_eq!(read(file!("only-list.p7")), Err(EstError::NoCertificate));
    assert_eq!(read(file!("signed.p7")), Err(EstError::Message));
}
