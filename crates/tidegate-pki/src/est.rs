//! What EST carries (RFC 7030): requests and certificates in DER, as base64 text.
//!
//! Certificates travel as a "certs-only" CMS message (RFC 5652 §5): signed data without content and
//! without a signer. It proves nothing by itself; TLS does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::ObjectIdentifier;
use der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, TagNumber};
use rustls_pki_types::CertificateDer;

/// Largest body that is looked at, in bytes of base64 text.
pub const MAX_BODY_BYTES: usize = 65_536;
/// Most certificates that are read out of one message.
pub const MAX_CERTIFICATES: usize = 16;

/// Most members of one structure; the largest that is read has six.
const MAX_MEMBERS: usize = 8;
/// RFC 5652 §5.1: version 1 is the one for X.509 certificates without attributes.
const VERSION: u8 = 1;
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ID_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ID_ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// Of both the content and the certificates.
const CONTEXT_0: Tag = context(0);
/// Of revocation lists, which may follow the certificates.
const CONTEXT_1: Tag = context(1);

/// A body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EstError {
    /// Nothing was sent.
    #[error("the body is empty")]
    Empty,
    /// Longer than [`MAX_BODY_BYTES`].
    #[error("the body has {bytes} bytes; {MAX_BODY_BYTES} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// PEM, where RFC 7030 wants what stands between its first and last line.
    #[error("the body is PEM; send its base64 without the lines of dashes")]
    Pem,
    /// DER, where RFC 7030 wants base64.
    #[error("the body is DER; send it as base64")]
    Der,
    /// Some other text or bytes.
    #[error("the body is not base64")]
    Base64,
    /// It is no CMS message without a signer, or cut off.
    #[error("the body is not a certs-only CMS message")]
    Message,
    /// A CMS message without certificates.
    #[error("the body holds no certificate")]
    NoCertificate,
    /// More than [`MAX_CERTIFICATES`].
    #[error("the body holds more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates,
}

/// The certificate request (DER) in the body of `simpleenroll` and `simplereenroll` (RFC 7030
/// §4.2). Line breaks and spaces are passed over.
///
/// Nothing is said about the request: see [`Request`](crate::request::Request).
pub fn decode_request(body: &[u8]) -> Result<Vec<u8>, EstError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(EstError::TooLarge { bytes: body.len() });
    }
    let text: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    // Named, because these are what people send who use curl by hand.
    if text.starts_with(b"-----BEGIN") {
        return Err(EstError::Pem);
    }
    match STANDARD.decode(&text) {
        Ok(bytes) if bytes.is_empty() => Err(EstError::Empty),
        Ok(bytes) => Ok(bytes),
        // The first byte of a DER sequence is also the digit 0; base64 of one starts with M.
        Err(_) if AnyRef::from_der(body).is_ok_and(|any| any.header().tag() == Tag::Sequence) => {
            Err(EstError::Der)
        }
        Err(_) => Err(EstError::Base64),
    }
}

/// A request or another structure (DER) as EST carries it: base64 (RFC 4648 §4, as RFC 8951
/// clarifies) in one line, because strongSwan reads no other; `openssl base64 -d -A` reads it too.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Certificates as EST carries them (RFC 7030 §4.1.3 and §4.2.3), in the order of DER sets: the
/// reader finds out which is which.
#[must_use]
pub fn certs_only(certificates: &[CertificateDer<'_>]) -> String {
    let mut sorted: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let version = write(Tag::Integer, &[VERSION]);
    let no_algorithms = write(Tag::Set, &[]);
    let no_content = write(Tag::Sequence, &oid(ID_DATA));
    let list = write(CONTEXT_0, &sorted.concat());
    let no_signers = write(Tag::Set, &[]);
    let signed_data = write(
        Tag::Sequence,
        &[version, no_algorithms, no_content, list, no_signers].concat(),
    );
    let content = write(CONTEXT_0, &signed_data);
    encode(&write(Tag::Sequence, &[oid(ID_SIGNED_DATA), content].concat()))
}

/// The certificates of a certs-only message, as base64 text. Nothing is said about them: not that
/// they are certificates, and not who signed them. Revocation lists in it are passed over.
pub fn read_certs_only(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, EstError> {
    let bytes = decode_request(body)?;
    let certificates = signed_data(&bytes).ok_or(EstError::Message)?.unwrap_or_default();
    let mut reader = SliceReader::new(certificates).map_err(|_| EstError::Message)?;
    let mut read = Vec::new();
    while !reader.is_finished() {
        if read.len() == MAX_CERTIFICATES {
            return Err(EstError::TooManyCertificates);
        }
        let raw = reader.tlv_bytes().map_err(|_| EstError::Message)?;
        // Other kinds than X.509 certificates (RFC 5652 §10.2.2) have tags of their own.
        if AnyRef::from_der(raw)
            .map_err(|_| EstError::Message)?
            .header()
            .tag()
            != Tag::Sequence
        {
            return Err(EstError::Message);
        }
        read.push(CertificateDer::from(raw.to_vec()));
    }
    if read.is_empty() {
        return Err(EstError::NoCertificate);
    }
    Ok(read)
}

/// What `csrattrs` answers (RFC 7030 §4.5.2): a P-256 key and a signature with SHA-256 are wished
/// for. P-384 and Ed25519 are taken as well; names need not be asked for, since the registry gives
/// them.
#[must_use]
pub fn request_attributes() -> String {
    let curve = write(Tag::Set, &oid(ID_P256));
    let key = write(Tag::Sequence, &[oid(ID_EC_PUBLIC_KEY), curve].concat());
    encode(&write(Tag::Sequence, &[key, oid(ID_ECDSA_SHA256)].concat()))
}

/// The bytes of the certificate set, `None` inside where there is no such set; `None` outside for
/// what is no certs-only message.
fn signed_data(bytes: &[u8]) -> Option<Option<&[u8]>> {
    let message = AnyRef::from_der(bytes).ok()?;
    let [kind, content] = members(message, Tag::Sequence)?.try_into().ok()?;
    let [inner] = members(content, CONTEXT_0)?.try_into().ok()?;
    let mut fields = members(inner, Tag::Sequence)?.into_iter();
    let [version, algorithms, encapsulated] = [fields.next()?, fields.next()?, fields.next()?];
    let mut rest: Vec<AnyRef<'_>> = fields.collect();
    let signers = rest.pop()?;
    let certificates = match rest.as_slice() {
        [] => None,
        [one] if one.header().tag() == CONTEXT_1 => None,
        [one] if one.header().tag() == CONTEXT_0 => Some(one.value()),
        [one, two] if one.header().tag() == CONTEXT_0 && two.header().tag() == CONTEXT_1 => Some(one.value()),
        _ => return None,
    };
    let [content_kind] = members(encapsulated, Tag::Sequence)?.try_into().ok()?;
    let sound = kind.decode_as::<ObjectIdentifier>().ok()? == ID_SIGNED_DATA
        && version.decode_as::<u8>().ok()? == VERSION
        && content_kind.decode_as::<ObjectIdentifier>().ok()? == ID_DATA
        && members(algorithms, Tag::Set)?.is_empty()
        && members(signers, Tag::Set)?.is_empty();
    sound.then_some(certificates)
}

/// What stands in a structure with this tag.
fn members(structure: AnyRef<'_>, tag: Tag) -> Option<Vec<AnyRef<'_>>> {
    if structure.header().tag() != tag {
        return None;
    }
    let mut reader = SliceReader::new(structure.value()).ok()?;
    let mut members = Vec::new();
    while !reader.is_finished() {
        if members.len() == MAX_MEMBERS {
            return None;
        }
        members.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(members)
}

fn write(tag: Tag, contents: &[u8]) -> Vec<u8> {
    AnyRef::new(tag, contents)
        .and_then(|any| any.to_der())
        .expect("certificates are far smaller than the 256 MiB that DER lengths are read to")
}

fn oid(identifier: ObjectIdentifier) -> Vec<u8> {
    identifier
        .to_der()
        .expect("an object identifier has one encoding")
}

const fn context(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(numbers: &[u8]) -> Vec<CertificateDer<'static>> {
        let one = |number: &u8| CertificateDer::from(write(Tag::Sequence, &[*number; 200]));
        numbers.iter().map(one).collect()
    }

    #[test]
    fn request_is_read_with_any_white_space_and_without_and_not_with_a_letter_more() {
        let text = encode(b"\x30\x03\x02\x01\x01");
        for body in [text.clone(), format!("{text}\r\n"), text.replace('D', "D\r\n \t")] {
            assert_eq!(
                decode_request(body.as_bytes()).unwrap(),
                b"\x30\x03\x02\x01\x01",
                "{body:?}"
            );
        }
        assert_eq!(
            decode_request(format!("{text}A").as_bytes()),
            Err(EstError::Base64)
        );
        assert_eq!(
            decode_request(&text.as_bytes()[..text.len() - 1]),
            Err(EstError::Base64)
        );
    }

    #[test]
    fn empty_oversize_pem_and_der_bodies_are_refused_by_name() {
        for empty in [&b""[..], b"\r\n", b"   "] {
            assert_eq!(decode_request(empty), Err(EstError::Empty));
        }
        assert!(decode_request(&vec![b'A'; MAX_BODY_BYTES]).is_ok());
        let bytes = MAX_BODY_BYTES + 1;
        assert_eq!(
            decode_request(&vec![b'A'; bytes]),
            Err(EstError::TooLarge { bytes })
        );
        assert_eq!(
            decode_request(b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n"),
            Err(EstError::Pem)
        );
        assert_eq!(decode_request(b"\x30\x03\x02\x01\x01"), Err(EstError::Der));
        assert_eq!(decode_request(b"\x30\x03\x02\x01"), Err(EstError::Base64));
        assert_eq!(
            decode_request(b"MIIB_-=="),
            Err(EstError::Base64),
            "another alphabet"
        );
    }

    #[test]
    fn certificates_come_back_whatever_their_order_was() {
        for numbers in [&[7][..], &[1, 2], &[2, 1], &[3, 3], &[0; MAX_CERTIFICATES]] {
            let mut read = read_certs_only(certs_only(&certificates(numbers)).as_bytes()).unwrap();
            let mut expected = certificates(numbers);
            read.sort_unstable_by(|one, other| one.as_ref().cmp(other));
            expected.sort_unstable_by(|one, other| one.as_ref().cmp(other));
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn message_without_or_with_too_many_certificates_is_refused() {
        let read = |numbers: &[u8]| read_certs_only(certs_only(&certificates(numbers)).as_bytes());
        assert_eq!(read(&[]), Err(EstError::NoCertificate));
        assert_eq!(
            read(&[0; MAX_CERTIFICATES + 1]),
            Err(EstError::TooManyCertificates)
        );
    }

    #[test]
    fn message_that_is_cut_or_changed_in_its_frame_is_refused() {
        let bytes = decode_request(certs_only(&certificates(&[1])).as_bytes()).unwrap();
        for end in 1..bytes.len() {
            let refused = read_certs_only(encode(&bytes[..end]).as_bytes());
            assert_eq!(refused, Err(EstError::Message), "cut at {end}");
        }
        let frame = bytes.len() - 2 - 200;
        for bit in (0..frame * 8).chain((bytes.len() - 2) * 8..bytes.len() * 8) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read_certs_only(encode(&changed).as_bytes()).is_err(), "bit {bit}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            read_certs_only(encode(&longer).as_bytes()),
            Err(EstError::Message)
        );
    }

    #[test]
    fn message_with_a_signer_or_content_is_not_certs_only() {
        let message = |content: &[u8], signers: &[u8]| {
            let fields = [
                write(Tag::Integer, &[VERSION]),
                write(Tag::Set, &[]),
                write(Tag::Sequence, &[oid(ID_DATA), content.to_vec()].concat()),
                write(CONTEXT_0, &certificates(&[1])[0]),
                write(CONTEXT_1, &write(Tag::Sequence, &[])),
                write(Tag::Set, signers),
            ];
            let signed_data = write(CONTEXT_0, &write(Tag::Sequence, &fields.concat()));
            encode(&write(
                Tag::Sequence,
                &[oid(ID_SIGNED_DATA), signed_data].concat(),
            ))
        };
        let read = |content: &[u8], signers: &[u8]| read_certs_only(message(content, signers).as_bytes());
        assert_eq!(
            read(&[], &[]),
            Ok(certificates(&[1])),
            "a revocation list is passed over"
        );
        assert_eq!(read(&write(CONTEXT_0, &[]), &[]), Err(EstError::Message));
        assert_eq!(read(&[], &write(Tag::Sequence, &[])), Err(EstError::Message));
    }
}
