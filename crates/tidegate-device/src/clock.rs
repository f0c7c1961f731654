//! The time for a device without a clock: asked for, signed, and carried on by a monotonic clock.
//!
//! ```text
//! device                                     gateway
//!   │  …/<device>/time      {"nonce": N}        │
//!   │──────────────────────────────────────────▶│
//!   │  …/<device>/commands  N, time T, MAC      │
//!   │◀──────────────────────────────────────────│
//! ```
//!
//! The nonce is new for each request, so an answer was made between the two ends of its round trip
//! and no old one passes; the MAC is the device's own key's, so nobody else made it. The time at
//! the arrival lies between T and T + round trip: the middle is taken, and half a round trip is the
//! bound of the error. Somebody who can delay messages can move the time by that bound, and by no
//! more than half of [`MAX_ROUND_TRIP`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_envelope::id::{DeviceId, KeyEpoch};
use tidegate_envelope::json::{Document, Member};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::time_echo::{self, Nonce};
use tokio::time::Instant;

/// An answer that took longer is refused: its error would come near to what verifiers allow, 5 s
/// into the future and 30 s into the past.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);
/// How old a time may be before the next request. A clock that is off by 200 parts in a million,
/// which is a bad one, has gone wrong by 0.7 s then.
pub const REFRESH_EVERY: Duration = Duration::from_secs(3_600);
/// Longest wait between two requests that are not answered; the first is [`MAX_ROUND_TRIP`].
pub const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// What a device knows of the time at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTime {
    /// The time.
    pub time: Timestamp,
    /// How far it may be off either way, the drift since the answer left out.
    pub error: Duration,
}

/// Why a message on the answer topic did not set the time. Nothing has changed then, but that an
/// answer which came late has used up its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerRefused {
    /// It is no answer at all, but some other command.
    #[error("the message is no answer to a question for the time")]
    NoAnswer,
    /// It is signed with another of the device's keys: while keys are rotated, each one answers.
    #[error("the answer is signed with the key of epoch {0}, which this device does not hold")]
    OtherKey(i64),
    /// No question is open: its answer came before, or there was none.
    #[error("no question for the time is open")]
    NotAsked,
    /// Its MAC or its nonce is wrong: it is forged, or was the answer to another question.
    #[error("the answer is forged, or belongs to another question")]
    NotGenuine,
    /// It is genuine and took too long.
    #[error("the answer came after {0:?}, later than {MAX_ROUND_TRIP:?}")]
    Late(Duration),
}

/// Asks for the time, and keeps it. Reads no clock: instants are arguments.
#[derive(Debug)]
pub struct EchoClock {
    device: DeviceId,
    epoch: KeyEpoch,
    key: MacKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one question that may be answered, and when it was asked.
    open: Option<(Nonce, Instant)>,
    /// Questions since the last good answer.
    unanswered: u32,
    /// The instant of an answer, and the time at it.
    known: Option<(Instant, KnownTime)>,
    /// When to ask next; `None` is at once.
    next: Option<Instant>,
}

impl EchoClock {
    /// A clock that knows no time yet. `key` is the device's, of `epoch`.
    #[must_use]
    pub fn new(device: DeviceId, key: MacKey, epoch: KeyEpoch) -> Self {
        Self {
            device,
            epoch,
            key,
            state: Mutex::default(),
        }
    }

    /// A question to publish at `now`. From here on only its answer is taken.
    ///
    /// `nonce` is 128 random bits, from a source that nobody can guess, and never used before: who
    /// knows it in advance has the answer made in advance.
    pub fn ask(&self, nonce: Nonce, now: Instant) -> Vec<u8> {
        let mut state = self.lock();
        let request = time_echo::request(&nonce);
        state.open = Some((nonce, now));
        let wait = MAX_ROUND_TRIP.saturating_mul(1 << state.unanswered.min(16));
        state.next = Some(now + wait.min(LONGEST_RETRY));
        state.unanswered = state.unanswered.saturating_add(1);
        request
    }

    /// Takes a message that arrived on the answer topic at `now`.
    pub fn take(&self, message: &[u8], now: Instant) -> Result<KnownTime, AnswerRefused> {
        self.for_us(message)?;
        let mut state = self.lock();
        let (nonce, asked) = state.open.as_ref().ok_or(AnswerRefused::NotAsked)?;
        let round_trip = now.saturating_duration_since(*asked);
        let time = time_echo::check_answer(message, nonce, &self.device, self.epoch, &self.key)
            .ok_or(AnswerRefused::NotGenuine)?;
        state.open = None;
        if round_trip > MAX_ROUND_TRIP {
            return Err(AnswerRefused::Late(round_trip));
        }
        let error = round_trip / 2;
        let known = KnownTime {
            time: time.plus(error),
            error,
        };
        state.known = Some((now, known));
        state.unanswered = 0;
        state.next = Some(now + REFRESH_EVERY);
        Ok(known)
    }

    /// The time at an instant, before or after the answer; `None` until there is one.
    pub fn at(&self, instant: Instant) -> Option<KnownTime> {
        let (answered, known) = self.lock().known?;
        let time = match instant.checked_duration_since(answered) {
            Some(later) => known.time.plus(later),
            None => known.time.minus(answered - instant),
        };
        Some(KnownTime { time, ..known })
    }

    /// When the next question is due: at once at first, [`REFRESH_EVERY`] after an answer, and
    /// sooner where there was none.
    pub fn next_request(&self, now: Instant) -> Instant {
        self.lock().next.unwrap_or(now)
    }

    /// Tells an answer from the other commands that operators send, and from those to other keys.
    fn for_us(&self, message: &[u8]) -> Result<(), AnswerRefused> {
        let document = Document::parse(message).map_err(|_| AnswerRefused::NoAnswer)?;
        let members = document.members();
        match (members.find("nonce"), members.find("kid")) {
            (None, _) => Err(AnswerRefused::NoAnswer),
            (_, Some(Member::Integer(epoch))) if epoch != i64::from(self.epoch.0) => {
                Err(AnswerRefused::OtherKey(epoch))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = Nonce([1; 16]);
    const TIME: Timestamp = Timestamp::from_micros(1_771_502_400_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        clock: EchoClock,
        start: Instant,
    }

    fn key() -> MacKey {
        MacKey::from_bytes(b"a key of this test")
    }

    fn device() -> DeviceId {
        DeviceId::new("device-001").unwrap()
    }

    fn answer(nonce: &Nonce) -> Vec<u8> {
        time_echo::answer(nonce, &device(), TIME, KeyEpoch(2), &key())
    }

    impl Rig {
        /// A clock that has asked.
        fn new() -> Self {
            let clock = EchoClock::new(device(), key(), KeyEpoch(2));
            let start = Instant::now();
            let question = clock.ask(NONCE, start);
            assert_eq!(time_echo::parse_request(&question), Some(NONCE));
            Self { clock, start }
        }
    }

    #[test]
    fn answer_counts_from_the_middle_of_its_round_trip_forwards_and_backwards() {
        let Rig { clock, start } = Rig::new();
        assert_eq!(clock.at(start), None);
        let known = clock.take(&answer(&NONCE), start + 2 * SECOND).unwrap();
        assert_eq!((known.time, known.error), (TIME.plus(SECOND), SECOND));
        let at = |instant| clock.at(instant).unwrap().time;
        assert_eq!(at(start + 2 * SECOND), TIME.plus(SECOND));
        assert_eq!(at(start + 12 * SECOND), TIME.plus(11 * SECOND));
        assert_eq!(at(start), TIME.minus(SECOND));
        assert_eq!(clock.next_request(start), start + 2 * SECOND + REFRESH_EVERY);
    }

    #[test]
    fn nonce_serves_one_answer() {
        let Rig { clock, start } = Rig::new();
        assert!(clock.take(&answer(&NONCE), start).is_ok());
        let again = clock.take(&answer(&NONCE), start + SECOND);
        assert_eq!(again, Err(AnswerRefused::NotAsked));
        assert_eq!(clock.at(start).unwrap().time, TIME);
    }

    #[test]
    fn forgery_does_not_use_up_the_nonce_and_a_late_answer_does() {
        let Rig { clock, start } = Rig::new();
        let stranger = MacKey::from_bytes(b"another key");
        let forged = time_echo::answer(&NONCE, &device(), TIME, KeyEpoch(2), &stranger);
        let other_epoch = time_echo::answer(&NONCE, &device(), TIME, KeyEpoch(1), &key());
        for wrong in [forged, answer(&Nonce([2; 16]))] {
            assert_eq!(clock.take(&wrong, start), Err(AnswerRefused::NotGenuine));
        }
        assert_eq!(clock.take(&other_epoch, start), Err(AnswerRefused::OtherKey(1)));
        assert_eq!(clock.take(b"{}", start), Err(AnswerRefused::NoAnswer));
        let late = MAX_ROUND_TRIP + Duration::from_nanos(1);
        let right = answer(&NONCE);
        assert_eq!(clock.take(&right, start + late), Err(AnswerRefused::Late(late)));
        assert_eq!(clock.take(&right, start), Err(AnswerRefused::NotAsked));
        assert_eq!(clock.at(start), None);
        clock.ask(NONCE, start);
        assert!(clock.take(&right, start + MAX_ROUND_TRIP).is_ok());
    }

    #[test]
    fn answer_to_an_earlier_question_is_refused_once_a_new_one_is_open() {
        let Rig { clock, start } = Rig::new();
        clock.ask(Nonce([2; 16]), start + SECOND);
        let late = clock.take(&answer(&NONCE), start + SECOND);
        assert_eq!(late, Err(AnswerRefused::NotGenuine));
        assert!(clock.take(&answer(&Nonce([2; 16])), start + SECOND).is_ok());
    }
}
