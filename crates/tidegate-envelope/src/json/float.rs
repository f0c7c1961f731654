//! Python's way of writing a float.

use core::fmt;

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
    let point = integer.len() as i32 + exponent - leading_zeros;
    let digits = core::str::from_utf8(&digits[..count]).map_err(|_| fmt::Error)?;
    lay_out(digits, point, out)
}

/// `digits` with the decimal point after the first `point` of them. With an exponent they end in no
/// zero: ryu writes none.
fn lay_out(digits: &str, point: i32, out: &mut impl fmt::Write) -> fmt::Result {
    let exponent = point - 1;
    if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        out.write_str(first)?;
        if !rest.is_empty() {
            out.write_char('.')?;
            out.write_str(rest)?;
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
        out.write_str(integer)?;
        out.write_char('.')?;
        out.write_str(fraction)
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
}
