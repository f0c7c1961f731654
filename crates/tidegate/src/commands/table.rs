//! What lists have in common: spans of time, tables, and the error when there is no database.

use super::Format;
use crate::clock;
use anyhow::Result;
use clap::Args;
use comfy_table::{LineStyle, Table, presets};
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// Rows of a table when nothing else is said.
const DEFAULT_ROWS: u64 = 50;

/// Which part of history.
#[derive(Debug, Args)]
pub(crate) struct Span {
    /// Only the newest so many [default: 50 in a table, all otherwise]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    last: Option<u64>,
    /// Only those since, as in 10m, 2h or 7d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

impl Span {
    pub(super) fn from(&self) -> Option<Timestamp> {
        self.since.map(|since| clock::now().minus(since))
    }

    pub(super) fn limit(&self, format: Format) -> Option<u64> {
        self.last.or((format == Format::Table).then_some(DEFAULT_ROWS))
    }
}

/// A table in the house's style: a line below the header, and nothing else.
pub(super) fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    let line = LineStyle::new('─', '─', '─', '─');
    table.load_style(presets::NOTHING.header_separator(line));
    table.set_header(header.iter().copied());
    table
}

/// Prints rows as comma-separated values for [`Format::Csv`], else as a table.
pub(super) fn print<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    format: Format,
) -> Result<()> {
    if format == Format::Csv {
        let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
        writer.write_record(header)?;
        for row in rows {
            writer.write_record(row)?;
        }
        writer.flush()?;
    } else {
        let mut table = new(&header);
        table.add_rows(rows);
        anstream::println!("{table}");
    }
    Ok(())
}

pub(super) fn no_database(path: &Path) -> String {
    format!(
        "cannot read the database {}; `tidegate up` makes it",
        path.display()
    )
}
