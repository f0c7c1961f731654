//! A range of rows as the command line writes it: `A..B`, half-open, from 0.

use anyhow::{Context, Result, bail};
use std::ops::Range;
use std::str::FromStr;

/// Rows A to B of a file without its header; A is in it, B is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows(pub(crate) Range<usize>);

impl FromStr for Rows {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, end) = text
            .split_once("..")
            .with_context(|| format!("`{text}` is not a range of rows, as in 0..17280"))?;
        let number = |text: &str| {
            text.parse::<usize>()
                .with_context(|| format!("`{text}` is not a row number, as in 0..17280"))
        };
        let rows = number(first)?..number(end)?;
        if rows.is_empty() {
            bail!("rows {text} are none: the first must be below the end");
        }
        Ok(Self(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_ranges_are_read_and_empty_or_open_ones_are_refused() {
        assert_eq!("0..17280".parse::<Rows>().unwrap(), Rows(0..17_280));
        for wrong in ["5..5", "6..5", "0..", "..5", "0-5", "-1..5", "0..=5"] {
            assert!(wrong.parse::<Rows>().is_err(), "{wrong}");
        }
    }
}
