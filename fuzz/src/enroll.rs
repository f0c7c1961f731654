//! What strangers may send to the enrolment service, and what it answers to devices: certificate
//! requests and EST bodies.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::sync::OnceLock;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::est;
use tidegate_pki::inspect::{self, Usage};
use tidegate_pki::profile::Profile;
use tidegate_pki::request::{MAX_REQUEST_BYTES, Request};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// Takes `bytes` for a body, for what a body carries, and for a certificate request.
///
/// # Panics
/// When a property does not hold.
pub fn check(bytes: &[u8]) {
    body(bytes);
    let text = est::encode(bytes);
    if !bytes.is_empty() && text.len() <= est::MAX_BODY_BYTES {
        let read = est::decode_request(text.as_bytes());
        assert_eq!(read.as_deref(), Ok(bytes), "what was encoded comes back");
    }
    body(text.as_bytes());
    request(bytes);
}

fn body(body: &[u8]) {
    match est::decode_request(body) {
        Ok(bytes) => {
            assert!(body.len() <= est::MAX_BODY_BYTES, "the bound holds");
            let again = est::decode_request(est::encode(&bytes).as_bytes());
            assert_eq!(again, Ok(bytes), "a body has one meaning");
        }
        Err(error) => is_plain(&error.to_string()),
    }
    match est::read_certs_only(body) {
        Ok(mut certificates) => {
            let bound = 1..=est::MAX_CERTIFICATES;
            assert!(bound.contains(&certificates.len()), "the bound holds");
            let mut again = est::read_certs_only(est::certs_only(&certificates).as_bytes())
                .expect("what was read can be written");
            certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other));
            again.sort_unstable_by(|one, other| one.as_ref().cmp(other));
            assert_eq!(certificates, again, "no certificate is lost or changed");
        }
        Err(error) => is_plain(&error.to_string()),
    }
}

/// Whatever a request asks for, its certificate says what the profile says, for the key of the
/// request.
fn request(bytes: &[u8]) {
    let request = match Request::parse_der(bytes) {
        Ok(request) => request,
        Err(error) => return is_plain(&error.to_string()),
    };
    assert!(bytes.len() <= MAX_REQUEST_BYTES, "the bound holds");
    let id = DeviceId::new("device-001").expect("a device's name");
    let pem = authority()
        .sign_request(&request, &Profile::device(id.clone()), NOW)
        .expect("a request that was read can be signed");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is PEM");
    let info = inspect::describe(certificate, Path::new("certificate")).expect("it is a certificate");
    assert_eq!(info.identity, Some(id), "the name is the registry's");
    assert_eq!(info.role, Some(Role::Device), "the role is a device's");
    assert_eq!(info.usage, Usage::Client, "it signs nothing and serves nothing");
    assert_eq!(
        info.sans,
        ["URI:urn:tidegate:device:device-001"],
        "it has no other name"
    );
    assert_eq!(
        info.public_key,
        request.public_key(),
        "it is for the key that was proven"
    );
}

/// Errors go into logs and terminals.
fn is_plain(error: &str) {
    assert!(error.len() <= 512, "an error is short");
    assert!(
        !error.contains(|letter: char| letter.is_control()),
        "an error is one line of text"
    );
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::generate(NOW).expect("a CA can be made"))
}
