//! Numbers: when a spelling is its own canonical form, its value, and Python's way of writing floats.

use super::{Number, NumberKind};
use core::fmt;

/// Decimals of at most this many digits map one-to-one to doubles (C's `DBL_DIG`).
const EXACT_DIGITS: usize = 15;
/// Powers of ten that a double holds exactly, as far as they are needed.
const POWERS: [f64; EXACT_DIGITS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Whether `integer.fraction`, without exponent, is what Python writes for its value.
///
/// A decimal of at most 15 digits is the only one of that length that reads back as its double.
/// So the shortest digits of that double are its own, less trailing zeros; and between 1e-4 and
/// 1e16 Python writes them without exponent. What is left to rule out is a trailing zero that is
/// not the only digit of the fraction, and values below 1e-4.
pub(super) fn is_own_canonical_form(integer: &[u8], fraction: &[u8]) -> bool {
    if integer.len() + fraction.len() > EXACT_DIGITS {
        return false;
    }
    if fraction.ends_with(b"0") {
        return fraction == b"0";
    }
    integer != b"0" || !fraction.starts_with(b"0000")
}

impl Number<'_> {
    /// The number as a double, correctly rounded; finite.
    pub(super) fn value(&self) -> f64 {
        if self.kind == NumberKind::ShortDecimal {
            return short_decimal(self.spelling.as_bytes());
        }
        self.spelling
            .parse()
            .expect("the parser lets only JSON numbers through")
    }
}

/// Exact: the digits are an integer below 2^53, the power of ten is exact, and IEEE division
/// rounds once (Clinger 1990).
fn short_decimal(spelling: &[u8]) -> f64 {
    let (negative, digits) = match spelling {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut mantissa = 0_u64;
    let mut decimals = 0;
    let mut in_fraction = false;
    for &byte in digits {
        if byte == b'.' {
            in_fraction = true;
            continue;
        }
        mantissa = mantissa * 10 + u64::from(byte - b'0');
        decimals += usize::from(in_fraction);
    }
    let value = mantissa as f64 / POWERS[decimals];
    if negative { -value } else { value }
}

/// Writes a finite double as Python's `repr` does: its shortest digits that read back as the same
/// double, `.0` where integral, and an exponent of at least two digits below 1e-4 and from 1e16 on.
///
/// The digits are ryu's; the standard library's differ from Python's for some doubles.
pub fn write_float(value: f64, out: &mut impl fmt::Write) -> fmt::Result {
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(value);
    let unsigned = shortest.strip_prefix('-').unwrap_or(shortest);
    if unsigned.len() < shortest.len() {
        out.write_char('-')?;
    }
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| fmt::Error)?;
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = if fraction == "0" { "" } else { fraction };

    // The significant digits, and where the decimal point stands behind the first of them.
    let mut digits = [0_u8; 32];
    let mut count = 0;
    for byte in integer.bytes().chain(fraction.bytes()) {
        if count > 0 || byte != b'0' {
            digits[count] = byte;
            count += 1;
        }
    }
    if count == 0 {
        return out.write_str("0.0");
    }
    let leading_zeros = (integer.len() + fraction.len() - count) as i32;
    let mut point = integer.len() as i32 + exponent - leading_zeros;
    if integer == "0" {
        point = exponent - (leading_zeros - 1);
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = core::str::from_utf8(&digits[..count]).map_err(|_| fmt::Error)?;
    lay_out(digits, point, out)
}

/// `digits` with the decimal point after the first `point` of them.
fn lay_out(digits: &str, point: i32, out: &mut impl fmt::Write) -> fmt::Result {
    let exponent = point - 1;
    if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        out.write_str(first)?;
        if !rest.is_empty() {
            write!(out, ".{rest}")?;
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
    let count = digits.len() as i32;
    if point <= 0 {
        out.write_str("0.")?;
        zeros(-point, out)?;
        out.write_str(digits)
    } else if point >= count {
        out.write_str(digits)?;
        zeros(point - count, out)?;
        out.write_str(".0")
    } else {
        let (integer, fraction) = digits.split_at(point as usize);
        write!(out, "{integer}.{fraction}")
    }
}

fn zeros(count: i32, out: &mut impl fmt::Write) -> fmt::Result {
    (0..count).try_for_each(|_| out.write_char('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn python(value: f64) -> String {
        let mut text = String::new();
        write_float(value, &mut text).unwrap();
        text
    }

    #[test]
    fn floats_are_laid_out_as_python_does() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (60.12, "60.12"),
            (100.0, "100.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (2.5e-7, "2.5e-07"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.001_234, "0.001234"),
            (-123_456.75, "-123456.75"),
        ] {
            assert_eq!(python(value), expected);
        }
    }

    #[test]
    fn short_decimals_equal_the_general_way_in_value_and_text() {
        // A linear congruential generator: fixed, and without a dependency.
        let mut state = 42_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let digits = (state >> 33) as usize % EXACT_DIGITS + 1;
            let mantissa = state % 10_u64.pow(digits as u32);
            let decimals = (state >> 40) as u32 % digits as u32 + 1;
            let (integer, fraction) = (mantissa / 10_u64.pow(decimals), mantissa % 10_u64.pow(decimals));
            let text = alloc::format!("{integer}.{fraction:0width$}", width = decimals as usize);
            let (integer, fraction) = text.split_once('.').unwrap();
            if is_own_canonical_form(integer.as_bytes(), fraction.as_bytes()) {
                let general: f64 = text.parse().unwrap();
                assert_eq!(
                    short_decimal(text.as_bytes()).to_bits(),
                    general.to_bits(),
                    "{text}"
                );
                assert_eq!(python(general), text);
            }
        }
    }
}
