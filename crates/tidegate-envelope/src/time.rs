//! Points in time as messages and checks compare them.

use core::fmt;
use core::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// Microseconds because Python publishers write them, and the publisher-restart rule compares
/// two messages of one device that may lie less than a millisecond apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A time from microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This time and `span` later; the end of representable time at most.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// This time and `span` earlier; the start of representable time at most.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl Timestamp {
    /// Reads RFC 3339 text (§5.6) with `Z` or an offset. Digits below a microsecond are cut off.
    ///
    /// `None` for anything else, a missing offset included. A leap second (`:60`) is refused:
    /// devices that smear it never send it, and it has no place in Unix time.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
        let (hour, minute, second) = (
            digits(bytes, 11, 2)?,
            digits(bytes, 14, 2)?,
            digits(bytes, 17, 2)?,
        );
        let separators = [bytes[4], bytes[7], bytes[13], bytes[16]] == *b"--::";
        let lengths = [
            31,
            if is_leap(year) { 29 } else { 28 },
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let month_length = *lengths.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
        let in_range = (1..=month_length).contains(&day) && hour < 24 && minute < 60 && second < 60;
        if !separators || !matches!(bytes[10], b'T' | b't') || !in_range {
            return None;
        }
        let (micros, rest) = fraction(&bytes[19..])?;
        let offset_s = offset(rest)?;
        let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s;
        Some(Self(seconds * 1_000_000 + micros))
    }
}

/// RFC 3339 in UTC with microseconds: `2026-02-19T03:35:05.551904Z`. Years outside 0 to 9999,
/// which RFC 3339 cannot write, are shown as they are.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000);
        let micros = self.0.rem_euclid(1_000_000);
        let (year, month, day) = date_of(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

fn digits(bytes: &[u8], start: usize, count: usize) -> Option<i64> {
    let field = bytes.get(start..start + count)?;
    field.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Microseconds of `.123456…`, and what follows.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let micros = (0..6).fold(0, |number, i| {
        number * 10
            + rest
                .get(i)
                .filter(|_| i < count)
                .map_or(0, |byte| i64::from(byte - b'0'))
    });
    Some((micros, &rest[count..]))
}

/// Seconds east of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(bytes, 1, 2)?, digits(bytes, 4, 2)?);
    let sound = bytes.len() == 6 && bytes[3] == b':' && hours < 24 && minutes < 60;
    sound.then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level
/// date algorithms": eras of 400 years that start in March).
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_before`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn rfc3339_text_is_read_and_written_back() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-02-19T03:35:05.551904Z", 1_771_472_105_551_904),
            ("2026-02-19T04:35:05.551904+01:00", 1_771_472_105_551_904),
            ("2026-02-19t03:35:05.5519049z", 1_771_472_105_551_904),
            ("1969-12-31T23:59:59.5Z", -500_000),
            ("2000-02-29T12:00:00-00:30", 951_827_400_000_000),
        ] {
            let time = Timestamp::parse_rfc3339(text).unwrap();
            assert_eq!(time.as_micros(), micros, "{text}");
            assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn text_without_offset_or_out_of_range_is_refused() {
        for text in [
            "",
            "2026-02-19T03:35:05",
            "2026-02-19",
            "2026-02-19 03:35:05Z",
            "2026-02-19T03:35Z",
            "2026-02-30T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+01",
            "2026-01-01T00:00:00Zx",
            "2026/01/01T00:00:00Z",
            "-026-01-01T00:00:00Z",
            "2026-01-01T00:00:00é",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_keeps_its_date() {
        for days in days_before(1900, 1, 1)..days_before(2300, 1, 1) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_before(year, month, day), days);
        }
    }

    #[test]
    fn times_outside_the_calendar_are_shown_without_panic() {
        for micros in [i64::MIN, i64::MAX] {
            assert!(Timestamp::from_micros(micros).to_string().ends_with('Z'));
        }
    }
}
