//! `tidegate readings`: query and export accepted readings.

use super::Format;
use super::table::{self, Span};
use crate::cli::Place;
use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::{Order, Reader, ReadingQuery, ReadingRow};

/// Query and export accepted readings
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate readings --last 20
  tidegate readings --device device-001 --since 1h
  tidegate readings --format csv > readings.csv")]
pub(crate) struct Readings {
    /// Of one device only
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    span: Span,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Channels of the water pipeline, in the order of their columns.
const CHANNELS: [&str; 5] = [
    "pressure_upstream",
    "pressure_downstream",
    "flow_rate",
    "gate_a_position",
    "gate_b_position",
];

impl Readings {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let path = place.load()?.files.database();
        let mut reader = Reader::open(&path).with_context(|| table::no_database(&path))?;
        let limit = self.span.limit(self.format);
        let query = ReadingQuery {
            device: self.device.as_deref().map(DeviceId::new).transpose()?,
            from: self.span.from(),
            limit,
            order: if limit.is_some() {
                Order::NewestFirst
            } else {
                Order::OldestFirst
            },
            ..ReadingQuery::default()
        };
        // The newest few are turned around in memory; an export streams.
        if limit.is_some() {
            let mut rows = Vec::new();
            reader.readings(&query, |row| {
                rows.push(row);
                ControlFlow::Continue(())
            })?;
            rows.reverse();
            self.print(rows)?;
        } else {
            self.stream(&mut reader, &query)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, rows: Vec<ReadingRow>) -> Result<()> {
        match self.format {
            Format::Table => {
                let mut table = table::new(&header());
                for row in &rows {
                    table.add_row(cells(row));
                }
                anstream::println!("{table}");
            }
            Format::Json | Format::Csv => {
                let mut writer = Writer::new(self.format)?;
                rows.iter().try_for_each(|row| writer.write(row))?;
                writer.finish()?;
            }
        }
        Ok(())
    }

    fn stream(&self, reader: &mut Reader, query: &ReadingQuery) -> Result<()> {
        let mut writer = Writer::new(self.format)?;
        let mut failed = None;
        reader.readings(query, |row| match writer.write(&row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or_else(|| writer.finish(), Err)
    }
}

/// Writes rows as they come.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
enum Writer {
    Json(std::io::BufWriter<std::io::Stdout>),
    Csv(csv::Writer<std::io::Stdout>),
}

impl Writer {
    fn new(format: Format) -> Result<Self> {
        if format == Format::Json {
            return Ok(Self::Json(std::io::BufWriter::new(std::io::stdout())));
        }
        let mut writer = csv::Writer::from_writer(std::io::stdout());
        writer.write_record(header())?;
        Ok(Self::Csv(writer))
    }

    fn write(&mut self, row: &ReadingRow) -> Result<()> {
        match self {
            Self::Json(writer) => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")?;
            }
            Self::Csv(writer) => writer.write_record(cells(row))?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Json(mut writer) => writer.flush()?,
            Self::Csv(mut writer) => writer.flush()?,
        }
        Ok(())
    }
}

fn header() -> Vec<&'static str> {
    [
        &[
            "received",
            "device",
            "timestamp",
            "sequence",
            "status",
            "protected",
        ][..],
        &CHANNELS,
    ]
    .concat()
}

fn cells(row: &ReadingRow) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_default();
    let mut cells = vec![
        row.received.to_string(),
        text(row.device.as_ref().map(ToString::to_string)),
        text(row.timestamp.map(|time: Timestamp| time.to_string())),
        text(row.sequence.map(|sequence| sequence.to_string())),
        row.status.to_string(),
        row.protected.to_string(),
    ];
    cells.extend(CHANNELS.map(|name| text(row.channels.get(name).map(|value| value.to_string()))));
    cells
}
