//! Takes changed files while the program runs: registry, server certificate, CAs, revocation lists.
//! What is refused leaves the old one in use, and an alarm.
//!
//! - `watch`: when to read
//! - `registry`, `tls`: what is read, and taken or refused
//! - `identity`: who gets it
//! - `complaints`: who hears of what was refused

pub(crate) mod complaints;
pub(crate) mod identity;
pub(crate) mod registry;
pub(crate) mod tls;
pub(crate) mod watch;

/// Without the drawing of the wrong line that TOML's errors have, which only a terminal can show.
fn one_line(error: &str) -> String {
    let words = error.lines().map(str::trim).filter(|line| !line.contains('|'));
    words.collect::<Vec<_>>().join(": ")
}

/// A big-endian number in decimal digits, however long it is.
pub(crate) fn decimal(number: &[u8]) -> String {
    let mut rest = number.to_vec();
    let mut digits = Vec::new();
    while rest.iter().any(|byte| *byte != 0) {
        let mut carry = 0_u16;
        for byte in &mut rest {
            let value = carry * 256 + u16::from(*byte);
            *byte = (value / 10) as u8;
            carry = value % 10;
        }
        digits.push(char::from(b'0' + carry as u8));
    }
    if digits.is_empty() {
        digits.push('0');
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_become_decimal() {
        for (number, expected) in [
            (&[][..], "0"),
            (&[0], "0"),
            (&[9], "9"),
            (&[1, 0], "256"),
            (&[0, 0, 10], "10"),
            (&[255; 20], "1461501637330902918203684832716283019655932542975"),
        ] {
            assert_eq!(decimal(number), expected);
        }
    }

    #[test]
    fn drawing_of_a_wrong_line_is_left_out() {
        let error = "bad registry: TOML parse error at line 3\n  |\n3 | [[device\n  |  ^\nunclosed table";
        assert_eq!(
            one_line(error),
            "bad registry: TOML parse error at line 3: unclosed table"
        );
    }
}
