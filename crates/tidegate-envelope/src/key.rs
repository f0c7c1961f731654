//! Keys and MACs: HMAC-SHA256 (RFC 2104) with per-device keys from HKDF-SHA256 (RFC 5869).

use crate::id::{DeviceId, KeyEpoch};
use core::fmt;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

const SALT: &[u8] = b"tidegate/v1";
const KEY_BYTES: usize = 32;

/// The installation's secret, from which every device's keys are derived. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RootKey([u8; KEY_BYTES]);

impl RootKey {
    /// A root key of 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of one device's key in one epoch: HKDF-SHA256 with salt `tidegate/v1` and info
    /// `mac` ‖ 00 ‖ device ‖ 00 ‖ epoch (16 bits, big-endian).
    ///
    /// A name cannot hold the byte 00, so no two devices share an info.
    #[must_use]
    pub fn device_key(&self, device: &DeviceId, epoch: KeyEpoch) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        let info: [&[u8]; 5] = [
            b"mac",
            &[0],
            device.as_str().as_bytes(),
            &[0],
            &epoch.0.to_be_bytes(),
        ];
        Hkdf::<Sha256>::new(Some(SALT), &self.0)
            .expand_multi_info(&info, &mut key)
            .expect("32 bytes are far below HKDF's limit of 255 blocks");
        key
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(secret)")
    }
}

/// A signing key, as the two hash states that HMAC makes of it. Wiped when dropped.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// The key of `device` in `epoch`.
    #[must_use]
    pub fn derive(root: &RootKey, device: &DeviceId, epoch: KeyEpoch) -> Self {
        let mut bytes = root.device_key(device, epoch);
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        key
    }

    /// A key of any length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of every length"))
    }

    /// HMAC-SHA256 over a message's canonical form.
    #[must_use]
    pub fn mac(&self, canonical: &[u8]) -> Tag {
        let mut mac = self.start();
        mac.update(canonical);
        mac.finish()
    }

    /// Starts a MAC over a canonical form that comes in pieces.
    pub(crate) fn start(&self) -> RunningMac {
        RunningMac(self.0.clone())
    }

    /// The tag, if `hex` is this key's MAC over `canonical`: 64 lower-case hex digits.
    ///
    /// Takes the same time wherever the first difference lies. A false yes lets a forged message
    /// in; a false no loses a reading.
    #[must_use]
    pub fn verified(&self, canonical: &[u8], hex: &str) -> Option<Tag> {
        // What the sender claims is no secret, so reading it may take any time.
        let claimed = Tag::from_hex(hex)?;
        let expected = self.mac(canonical);
        bool::from(expected.ct_eq(&claimed)).then_some(expected)
    }

    /// Whether `hex` is this key's MAC over `canonical`; see [`Self::verified`].
    #[must_use]
    pub fn check(&self, canonical: &[u8], hex: &str) -> bool {
        self.verified(canonical, hex).is_some()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

/// A MAC over what has come so far.
pub(crate) struct RunningMac(Hmac<Sha256>);

impl RunningMac {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Tag {
        Tag(self.0.finalize().into_bytes().into())
    }
}

/// A message's MAC, 32 bytes. Shown in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; KEY_BYTES]);

impl Tag {
    /// Reads 64 lower-case hex digits, the only spelling of a MAC.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        from_lower_hex(hex).map(Self)
    }

    fn words(&self) -> [u64; KEY_BYTES / 8] {
        let mut words = [0; KEY_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        words
    }
}

/// In constant time. By words, because `subtle` puts a barrier after each item it compares.
impl ConstantTimeEq for Tag {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.words().ct_eq(&other.words())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; KEY_BYTES * 2];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads exactly `2 * N` lower-case hex digits.
pub(crate) fn from_lower_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    const UNFIT: u8 = 0xff;
    const NIBBLES: [u8; 256] = {
        let mut nibbles = [UNFIT; 256];
        let mut nibble = 0;
        while nibble < 16 {
            nibbles[b"0123456789abcdef"[nibble as usize] as usize] = nibble;
            nibble += 1;
        }
        nibbles
    };
    let pairs: &[[u8; 2]; N] = hex.as_bytes().as_chunks().0.try_into().ok()?;
    let mut seen = 0;
    let bytes = pairs.map(|[high, low]| {
        let (high, low) = (NIBBLES[usize::from(high)], NIBBLES[usize::from(low)]);
        seen |= high | low;
        high << 4 | low
    });
    (hex.len() == N * 2 && seen != UNFIT).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn derived_key_is_the_one_that_python_derives() {
        // testdata/README.md holds the program that computed it.
        let root = RootKey::from_bytes(core::array::from_fn(|i| i as u8));
        let key = root.device_key(&DeviceId::new("device-001").unwrap(), KeyEpoch(0));
        assert_eq!(
            format!("{}", Tag(key)),
            include_str!("../testdata/derived-key.hex").trim()
        );
        let other = root.device_key(&DeviceId::new("device-001").unwrap(), KeyEpoch(1));
        assert_ne!(key, other);
    }

    #[test]
    fn mac_in_upper_case_or_one_digit_off_is_refused() {
        // RFC 4231, test case 2.
        let key = MacKey::from_bytes(b"Jefe");
        let message = b"what do ya want for nothing?";
        let right = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(key.check(message, right));
        assert!(!key.check(message, &right.to_uppercase()));
        assert!(!key.check(message, &right.replace("3843", "3844")));
        assert!(!key.check(message, &right[..62]));
        assert!(!key.check(message, &format!("{right}0")));
        assert!(!key.check(message, &format!("{right}00")));
        assert!(!key.check(message, ""));
        for place in 0..64 {
            let mut digits = right.as_bytes().to_vec();
            digits[place] ^= 1;
            assert!(!key.check(message, core::str::from_utf8(&digits).unwrap()));
            for unfit in [b'g', b'A', b'/', b':', b'`', b' ', 0] {
                digits[place] = unfit;
                assert_eq!(Tag::from_hex(core::str::from_utf8(&digits).unwrap()), None);
            }
        }
    }

    #[test]
    fn hex_of_a_tag_leads_back_to_it() {
        let tag = Tag(core::array::from_fn(|i| (i * 37) as u8));
        assert_eq!(Tag::from_hex(&format!("{tag}")), Some(tag));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let root = RootKey::from_bytes([7; 32]);
        assert_eq!(
            format!("{root:?} {:?}", MacKey::from_bytes(&[7; 32])),
            "RootKey(secret) MacKey(secret)"
        );
    }
}
