//! Numbers: their values, and when a spelling is its own canonical form.

use super::parse::Malformed;
use super::tape::Kind;

/// Decimals of at most this many digits map one-to-one to doubles (C's `DBL_DIG`).
const EXACT_DIGITS: u32 = 15;
/// Every integer of at most this many digits fits into 64 bits with a sign.
const FITTING_DIGITS: usize = 18;
/// Powers of ten that a double holds exactly, as far as they are needed.
const POWERS: [f64; FITTING_DIGITS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
];

/// A number as it was spelled.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) kind: Kind,
    /// Where its spelling ends.
    pub(super) end: usize,
    /// See [`Entry::bits`](super::tape::Entry::bits).
    pub(super) bits: u64,
}

/// Reads the number (RFC 8259 §6) that starts at `start`.
#[inline(always)]
pub(super) fn scan(text: &str, start: usize) -> Result<Scanned, Malformed> {
    let bytes = text.as_bytes();
    let negative = bytes.get(start) == Some(&b'-');
    let mut mantissa = 0;
    let first = start + usize::from(negative);
    let point = digits(bytes, first, &mut mantissa)?;
    if point - first > 1 && bytes[first] == b'0' {
        return Err(Malformed::Unexpected(first + 1));
    }
    let mut end = point;
    if bytes.get(end) == Some(&b'.') {
        end = digits(bytes, end + 1, &mut mantissa)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        end += 1;
        end += usize::from(matches!(bytes.get(end), Some(b'+' | b'-')));
        end = digits(bytes, end, &mut 0)?;
        return long_float(text, start, end);
    }
    if end == point {
        if end - first > FITTING_DIGITS {
            return Ok(long_integer(text, start, end));
        }
        let value = if negative {
            mantissa.wrapping_neg()
        } else {
            mantissa
        };
        return Ok(Scanned {
            kind: Kind::Integer,
            end,
            bits: value,
        });
    }
    if end - first - 1 > FITTING_DIGITS || mantissa >= 10_u64.pow(EXACT_DIGITS) {
        return long_float(text, start, end);
    }
    let decimals = end - point - 1;
    let (value, canonical) = short_decimal(negative, mantissa, decimals, bytes[end - 1]);
    Ok(Scanned {
        kind: if canonical {
            Kind::CanonicalFloat
        } else {
            Kind::OtherFloat
        },
        end,
        bits: value.to_bits(),
    })
}

#[cold]
fn long_integer(text: &str, start: usize, end: usize) -> Scanned {
    let value: Option<i64> = text[start..end].parse().ok();
    Scanned {
        kind: value.map_or(Kind::LargeInteger, |_| Kind::Integer),
        end,
        bits: value.map_or(0, i64::cast_unsigned),
    }
}

#[cold]
fn long_float(text: &str, start: usize, end: usize) -> Result<Scanned, Malformed> {
    let value = value(&text[start..end]);
    if !value.is_finite() {
        return Err(Malformed::NumberOverflow(start));
    }
    Ok(Scanned {
        kind: Kind::OtherFloat,
        end,
        bits: value.to_bits(),
    })
}

/// At least one digit from `at` on, appended to `mantissa`, which means nothing once it overflows.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mantissa: &mut u64) -> Result<usize, Malformed> {
    let start = at;
    while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        at += 1;
    }
    match bytes.get(at) {
        _ if at > start => Ok(at),
        Some(_) => Err(Malformed::Unexpected(at)),
        None => Err(Malformed::CutOff(at)),
    }
}

/// The value of a decimal without exponent, of at most 15 digits from its first non-zero digit
/// on, and whether Python writes it as it is spelled.
///
/// The value is exact: the mantissa is an integer below 2^53, the power of ten is exact, and IEEE
/// division rounds once (Clinger 1990).
///
/// A decimal of at most 15 digits is the only one of that length that reads back as its double.
/// So the shortest digits of that double are its own, less trailing zeros; and between 1e-4 and
/// 1e16 Python writes them without exponent. What is left to rule out is a trailing zero that is
/// not the only digit of the fraction, and values below 1e-4.
#[inline(always)]
fn short_decimal(negative: bool, mantissa: u64, decimals: usize, last_digit: u8) -> (f64, bool) {
    let value = mantissa as f64 / POWERS[decimals];
    let shortest = last_digit != b'0' || decimals == 1;
    let fixed = mantissa == 0 || value >= 1e-4;
    (if negative { -value } else { value }, shortest && fixed)
}

/// The double nearest to a JSON number; infinite beyond their range.
pub(super) fn value(spelling: &str) -> f64 {
    spelling.parse().expect("every JSON number is one of Rust's")
}

#[cfg(test)]
mod tests {
    use super::super::write_float;
    use super::*;
    use alloc::string::String;

    fn python(value: f64) -> String {
        let mut text = String::new();
        write_float(value, &mut text).unwrap();
        text
    }

    #[test]
    fn short_decimals_equal_the_general_way_in_value_and_text() {
        // A linear congruential generator: fixed, and without a dependency.
        let mut state = 42_u64;
        let mut canonical_ones = 0;
        for _ in 0..300_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mantissa = (state >> 4) % 10_u64.pow((state >> 33) as u32 % 18 + 1);
            let decimals = (state >> 40) as u32 % 19 + 1;
            let (whole, fraction) = (mantissa.checked_div(10_u64.pow(decimals)), mantissa);
            let text = alloc::format!(
                "{}{}.{:0width$}",
                if state & 1 == 0 { "-" } else { "" },
                whole.unwrap_or(0),
                fraction % 10_u64.pow(decimals),
                width = decimals as usize
            );
            let general: f64 = text.parse().unwrap();
            let scanned = scan(&text, 0).unwrap();
            let canonical = scanned.kind == Kind::CanonicalFloat;
            assert!(canonical || scanned.kind == Kind::OtherFloat, "{text}");
            assert_eq!(scanned.bits, general.to_bits(), "{text}");
            // Short spellings must never be taken for canonical when they are not; and where they
            // are, that must be noticed, or the fast way would not be one.
            let digits = mantissa.checked_ilog10().map_or(1, |log| log + 1);
            if digits <= EXACT_DIGITS && text.trim_start_matches('-').len() - 1 <= FITTING_DIGITS {
                assert_eq!(canonical, python(general) == text, "{text}");
            } else {
                assert!(!canonical, "{text}");
            }
            canonical_ones += u32::from(canonical);
        }
        assert!(canonical_ones > 50_000, "{canonical_ones}");
    }
}
