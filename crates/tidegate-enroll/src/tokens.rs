//! Single-use tokens: each lets one device fetch one certificate, within minutes.
//!
//! A file holds their SHA-256 hashes; the secrets themselves are shown once and kept nowhere.
//! Several processes may use the file: the command that makes a token, and the service that
//! redeems it.

mod file;

use file::{HASH_BYTES, Stored};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::files::FileError;
use zeroize::Zeroizing;

/// Life of a token where nothing else is asked for.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(15 * 60);
/// Longest life of a token: what is valid for longer gets copied into notes and scripts.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Most tokens in a file, spent ones included.
pub const MAX_TOKENS: usize = 4_096;
/// How long a used or expired token is remembered, so that whoever presents it is told why it is
/// refused. After that it is unknown.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest text that is taken for a token.
pub const MAX_TOKEN_BYTES: usize = 256;
/// How far the clock may have been set back since a token was made.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// 160 bits: too many to guess, and few enough to type.
const SECRET_BYTES: usize = 20;

/// A token's secret. Whoever has it can become its device, once; it is wiped when dropped.
///
/// `Display` gives the secret, 40 characters of `0-9 a-f`; `Debug` does not.
pub struct Token {
    secret: Zeroizing<String>,
    expires: Timestamp,
}

impl Token {
    /// From when on it is refused.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A token that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The device that it was made for.
    pub id: DeviceId,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
}

/// Why a token is refused.
///
/// A false accept makes a stranger a device; a false reject makes an operator create another token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// It was never made here, or is forgotten; a mistyped one too.
    #[error("the token is unknown: create one with `tidegate certs enroll-token`")]
    Unknown,
    /// It has given its certificate.
    #[error("the token was used at {at}: each gives one certificate")]
    Used {
        /// When.
        at: Timestamp,
    },
    /// Its time is over.
    #[error("the token expired at {at}: create another with `tidegate certs enroll-token`")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It is good, but for another device.
    #[error("the token was made for another device than `{asked}`")]
    OtherDevice {
        /// Who asked with it.
        asked: DeviceId,
    },
    /// It is from the future, so the clock was set back; the token's end cannot be judged.
    #[error("the token was made at {created}, but this machine's clock says {now}: check the clock")]
    NotYet {
        /// When it was made.
        created: Timestamp,
        /// The clock.
        now: Timestamp,
    },
}

/// The file of tokens could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It could not be read or written, or others may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its lock could not be taken.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is damaged, or of a later version.
    #[error("{} is not a file of tokens: delete it, and create the tokens again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// All places are taken by tokens that can still be used.
    #[error("there are {MAX_TOKENS} unused tokens already: wait until some expire")]
    Full,
    /// A life of nothing, or above [`MAX_LIFE`].
    #[error("a token cannot live for {} s: 1 to {} s are allowed", life.as_secs(), MAX_LIFE.as_secs())]
    Life {
        /// What was asked for.
        life: Duration,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[from] getrandom::Error),
}

/// A token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The token is at fault.
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// The file is, so nothing can be said about the token.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// The tokens of one file.
#[derive(Debug, Clone)]
pub struct Tokens {
    path: PathBuf,
}

impl Tokens {
    /// Opens the file, and refuses one that others may read. A file that does not exist has no
    /// tokens; it is made with the first one, for its owner only.
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let tokens = Self { path: path.into() };
        let _lock = tokens.lock()?;
        tokens.read()?;
        Ok(tokens)
    }

    /// Makes a token for `id` that is good for `life` from `now` on. It is on disk when this
    /// returns.
    pub fn create(&self, id: &DeviceId, life: Duration, now: Timestamp) -> Result<Token, TokensError> {
        if life.as_secs() == 0 || life > MAX_LIFE {
            return Err(TokensError::Life { life });
        }
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *bytes)?;
        let secret = Zeroizing::new(hex::encode(*bytes));
        let expires = now.plus(life);
        let _lock = self.lock()?;
        let mut stored = self.read()?;
        stored.retain(|entry| !entry.is_forgotten(now));
        if stored.len() >= MAX_TOKENS {
            // Memories make room for what is of use.
            stored.retain(|entry| entry.is_pending(now));
        }
        if stored.len() >= MAX_TOKENS {
            return Err(TokensError::Full);
        }
        stored.push(Stored {
            hash: hash(&secret),
            id: id.clone(),
            created: now,
            expires,
            used: None,
        });
        self.write(&stored)?;
        Ok(Token { secret, expires })
    }

    /// Whether [`Tokens::redeem`] would take the token; it stays good.
    pub fn check(&self, secret: &str, id: &DeviceId, now: Timestamp) -> Result<(), RedeemError> {
        let _lock = self.lock()?;
        find(&self.read()?, secret, id, now)?;
        Ok(())
    }

    /// Uses the token of `id` up. That it is used is on disk when this returns, so of any number
    /// of callers in any number of processes one succeeds.
    ///
    /// A token that is refused here stays as it was: a mistyped device id does not cost it.
    pub fn redeem(&self, secret: &str, id: &DeviceId, now: Timestamp) -> Result<(), RedeemError> {
        let _lock = self.lock()?;
        let mut stored = self.read()?;
        let position = find(&stored, secret, id, now)?;
        stored[position].used = Some(now);
        self.write(&stored)?;
        Ok(())
    }

    /// The tokens that can be redeemed, oldest first.
    pub fn pending(&self, now: Timestamp) -> Result<Vec<Pending>, TokensError> {
        let _lock = self.lock()?;
        let stored = self.read()?;
        let pending = stored.into_iter().filter(|entry| entry.is_pending(now));
        Ok(pending
            .map(|entry| Pending {
                id: entry.id,
                created: entry.created,
                expires: entry.expires,
            })
            .collect())
    }
}

/// Where the token is. Its hash is compared with every stored one in constant time: how long a
/// refusal takes says nothing about what is stored.
fn find(stored: &[Stored], secret: &str, id: &DeviceId, now: Timestamp) -> Result<usize, TokenRefused> {
    if secret.len() > MAX_TOKEN_BYTES {
        return Err(TokenRefused::Unknown);
    }
    let presented = hash(secret);
    let mut found = None;
    for (position, entry) in stored.iter().enumerate() {
        if bool::from(entry.hash.ct_eq(&presented)) {
            found = Some((position, entry));
        }
    }
    let (position, entry) = found.ok_or(TokenRefused::Unknown)?;
    if entry.id != *id {
        return Err(TokenRefused::OtherDevice { asked: id.clone() });
    }
    if let Some(at) = entry.used {
        return Err(TokenRefused::Used { at });
    }
    if now >= entry.expires {
        return Err(TokenRefused::Expired { at: entry.expires });
    }
    if now < entry.created.minus(CLOCK_TOLERANCE) {
        let created = entry.created;
        return Err(TokenRefused::NotYet { created, now });
    }
    Ok(position)
}

/// A plain hash is enough: nobody can try all secrets of 160 bits.
fn hash(secret: &str) -> [u8; HASH_BYTES] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;
    use tempfile::TempDir;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn device(id: &str) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    fn opened() -> (TempDir, Tokens) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&folder.path().join("enroll-tokens.json")).unwrap();
        (folder, tokens)
    }

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[track_caller]
    fn refusal(result: Result<(), RedeemError>) -> TokenRefused {
        match result.unwrap_err() {
            RedeemError::Refused(refused) => refused,
            RedeemError::Tokens(error) => panic!("{error}"),
        }
    }

    #[test]
    fn token_is_redeemed_once_by_its_device_and_by_no_other() {
        let (_folder, tokens) = opened();
        let token = tokens
            .create(&device("a"), DEFAULT_LIFE, START)
            .unwrap()
            .to_string();
        let asked = device("b");
        assert_eq!(
            refusal(tokens.redeem(&token, &asked, START)),
            TokenRefused::OtherDevice { asked }
        );
        tokens.check(&token, &device("a"), after(1)).unwrap();
        tokens.redeem(&token, &device("a"), after(2)).unwrap();
        let used = TokenRefused::Used { at: after(2) };
        assert_eq!(refusal(tokens.check(&token, &device("a"), after(3))), used);
        assert_eq!(refusal(tokens.redeem(&token, &device("a"), after(3))), used);
    }

    #[test]
    fn token_is_good_to_the_last_microsecond_of_its_life() {
        let (_folder, tokens) = opened();
        let token = tokens.create(&device("a"), DEFAULT_LIFE, START).unwrap();
        assert_eq!(token.expires(), after(900));
        let (secret, micro) = (token.to_string(), Duration::from_micros(1));
        let expired = TokenRefused::Expired { at: after(900) };
        assert_eq!(refusal(tokens.redeem(&secret, &device("a"), after(900))), expired);
        tokens
            .redeem(&secret, &device("a"), after(900).minus(micro))
            .unwrap();
    }

    #[test]
    fn token_from_the_future_is_refused_beyond_a_small_step_of_the_clock() {
        let (_folder, tokens) = opened();
        let secret = tokens
            .create(&device("a"), DEFAULT_LIFE, START)
            .unwrap()
            .to_string();
        let set_back = START.minus(CLOCK_TOLERANCE);
        let now = set_back.minus(Duration::from_micros(1));
        let created = START;
        assert_eq!(
            refusal(tokens.check(&secret, &device("a"), now)),
            TokenRefused::NotYet { created, now }
        );
        tokens.check(&secret, &device("a"), set_back).unwrap();
    }

    #[test]
    fn secret_with_any_character_changed_is_unknown() {
        let (_folder, tokens) = opened();
        let secret = tokens
            .create(&device("a"), DEFAULT_LIFE, START)
            .unwrap()
            .to_string();
        assert_eq!(secret.len(), 2 * SECRET_BYTES);
        for position in 0..secret.len() {
            let mut changed = secret.clone().into_bytes();
            changed[position] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                refusal(tokens.check(&changed, &device("a"), START)),
                TokenRefused::Unknown
            );
        }
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        for other in [
            "",
            &secret[1..],
            &secret.to_uppercase(),
            &format!("{secret} "),
            &long,
        ] {
            let refused = refusal(tokens.check(other, &device("a"), START));
            assert_eq!(refused, TokenRefused::Unknown, "{other}");
        }
        tokens.check(&secret, &device("a"), START).unwrap();
    }

    #[test]
    fn neither_the_file_nor_debug_output_holds_the_secret() {
        let (folder, tokens) = opened();
        let token = tokens.create(&device("a"), DEFAULT_LIFE, START).unwrap();
        let secret = token.to_string();
        let path = folder.path().join("enroll-tokens.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&hex::encode(hash(&secret))) && !text.contains(&secret));
        assert!(!format!("{token:?} {tokens:?}").contains(&secret));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn of_two_threads_with_one_token_one_redeems_it() {
        let (folder, tokens) = opened();
        let path = folder.path().join("enroll-tokens.json");
        for round in 0..50 {
            let secret = tokens
                .create(&device("a"), DEFAULT_LIFE, START)
                .unwrap()
                .to_string();
            // Each with a handle of its own, as two processes have: the lock is between open files.
            let redeemed = thread::scope(|scope| {
                let redeem = || {
                    Tokens::open(&path)
                        .unwrap()
                        .redeem(&secret, &device("a"), START)
                        .is_ok()
                };
                let (first, second) = (scope.spawn(redeem), scope.spawn(redeem));
                [first.join().unwrap(), second.join().unwrap()]
            });
            assert!(
                redeemed == [true, false] || redeemed == [false, true],
                "round {round}: {redeemed:?}"
            );
        }
    }

    #[test]
    fn tokens_made_at_one_time_by_several_threads_are_all_kept() {
        let (folder, tokens) = opened();
        let path = folder.path().join("enroll-tokens.json");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let tokens = Tokens::open(&path).unwrap();
                    for _ in 0..10 {
                        tokens.create(&device("a"), DEFAULT_LIFE, START).unwrap();
                    }
                });
            }
        });
        assert_eq!(tokens.pending(START).unwrap().len(), 40);
    }

    #[test]
    fn spent_tokens_are_forgotten_after_a_day_or_when_room_is_needed_and_unused_ones_never() {
        let (_folder, tokens) = opened();
        let make = |now| tokens.create(&device("a"), DEFAULT_LIFE, now);
        let (used, expired) = (make(START).unwrap().to_string(), make(START).unwrap().to_string());
        tokens.redeem(&used, &device("a"), START).unwrap();
        make(after(86_399)).unwrap();
        assert!(matches!(
            refusal(tokens.check(&used, &device("a"), after(86_399))),
            TokenRefused::Used { .. }
        ));
        make(after(86_400)).unwrap();
        let at = after(86_400);
        assert_eq!(
            refusal(tokens.check(&used, &device("a"), at)),
            TokenRefused::Unknown
        );
        assert!(matches!(
            refusal(tokens.check(&expired, &device("a"), at)),
            TokenRefused::Expired { .. }
        ));

        // As many as there is room for, written at once: making them singly takes long.
        let mut stored = tokens.read().unwrap();
        let pending = stored.pop().unwrap();
        stored.resize(MAX_TOKENS, pending);
        tokens.write(&stored).unwrap();
        make(at).unwrap();
        assert_eq!(
            refusal(tokens.check(&expired, &device("a"), at)),
            TokenRefused::Unknown
        );
        stored = tokens.read().unwrap();
        stored.resize(MAX_TOKENS, stored[0].clone());
        tokens.write(&stored).unwrap();
        let full = tokens.create(&device("a"), DEFAULT_LIFE, at).unwrap_err();
        assert!(matches!(full, TokensError::Full), "{full}");
    }

    #[test]
    fn life_of_a_token_is_bounded_at_both_ends() {
        let (_folder, tokens) = opened();
        let second = Duration::from_secs(1);
        for life in [Duration::ZERO, Duration::from_millis(999), MAX_LIFE + second] {
            let refused = tokens.create(&device("a"), life, START).unwrap_err();
            assert!(matches!(refused, TokensError::Life { .. }), "{refused}");
        }
        for life in [second, MAX_LIFE] {
            tokens.create(&device("a"), life, START).unwrap();
        }
    }

    #[test]
    fn file_that_is_damaged_or_readable_by_others_is_refused_and_left_as_it_is() {
        let (folder, tokens) = opened();
        tokens.create(&device("a"), DEFAULT_LIFE, START).unwrap();
        let path = folder.path().join("enroll-tokens.json");
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            "[]".into(),
            good[..good.len() - 1].into(),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("\"device\": \"a\"", "\"device\": \"#\""),
            good.replace("\"sha256\": \"", "\"sha256\": \"0"),
            good.replace("\"used_us\"", "\"other\""),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            let refused = Tokens::open(&path).unwrap_err();
            assert!(matches!(refused, TokensError::Damaged { .. }), "{bad}: {refused}");
            assert!(tokens.create(&device("a"), DEFAULT_LIFE, START).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::write(&path, good).unwrap();
        Tokens::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Tokens::open(&path).unwrap_err(),
            TokensError::File(FileError::KeyExposed { .. })
        ));
    }
}
