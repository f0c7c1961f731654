//! `tidegate events`: what was blocked or flagged, and why.

use super::Format;
use super::table::{self, Span};
use crate::cli::Place;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, Color};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::reader::{EventQuery, Order, Reader};

/// Query and export what was blocked, flagged or noticed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate events --last 20
  tidegate events --reason bad_mac --since 1d
  tidegate events --outcome blocked --format json > blocked.jsonl")]
pub(crate) struct Events {
    /// With this outcome only
    #[arg(long, value_enum)]
    outcome: Option<OutcomeName>,
    /// With this reason only, such as replay or bad_mac
    #[arg(long)]
    reason: Option<String>,
    /// Of one device only
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    span: Span,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutcomeName {
    Flagged,
    Blocked,
    Notice,
}

/// An event as it is exported.
#[derive(Serialize)]
struct Row {
    id: i64,
    at: String,
    outcome: &'static str,
    reason: Option<&'static str>,
    also: Vec<&'static str>,
    device: Option<String>,
    zone: Option<String>,
    topic: String,
    source: String,
    sequence: Option<u64>,
    score: Option<f32>,
    detail: String,
    channels: BTreeMap<String, f64>,
}

impl Events {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let path = place.load()?.files.database();
        let mut reader = Reader::open(&path).with_context(|| table::no_database(&path))?;
        let limit = self.span.limit(self.format);
        let query = EventQuery {
            outcome: self.outcome.map(|outcome| match outcome {
                OutcomeName::Flagged => Outcome::Flagged,
                OutcomeName::Blocked => Outcome::Blocked,
                OutcomeName::Notice => Outcome::Notice,
            }),
            reason: self.reason.as_deref().map(reason).transpose()?,
            device: self.device.as_deref().map(DeviceId::new).transpose()?,
            from: self.span.from(),
            limit,
            order: if limit.is_some() {
                Order::NewestFirst
            } else {
                Order::OldestFirst
            },
            ..EventQuery::default()
        };
        let mut rows = Vec::new();
        let mut take = |event: Event| {
            rows.push(row(event));
            ControlFlow::Continue(())
        };
        // Rows of events are limited per second when they are written, so they fit in memory.
        reader.events(&query, &mut take)?;
        if limit.is_some() {
            rows.reverse();
        }
        self.print(rows)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, rows: Vec<Row>) -> Result<()> {
        match self.format {
            Format::Json => {
                for row in rows {
                    anstream::println!("{}", serde_json::to_string(&row)?);
                }
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
                writer.write_record([
                    "id", "at", "outcome", "reason", "device", "zone", "topic", "source", "detail",
                ])?;
                for row in rows {
                    let (device, zone) = (row.device.unwrap_or_default(), row.zone.unwrap_or_default());
                    let reason = row.reason.unwrap_or_default();
                    let id = row.id.to_string();
                    let cells = [
                        &id,
                        &row.at,
                        row.outcome,
                        reason,
                        &device,
                        &zone,
                        &row.topic,
                        &row.source,
                        &row.detail,
                    ];
                    writer.write_record(cells)?;
                }
                writer.flush()?;
            }
            Format::Table => {
                let mut table = table::new(&["at", "outcome", "reason", "device", "detail"]);
                for row in rows {
                    let outcome = match row.outcome {
                        "blocked" => Cell::new(row.outcome).fg(Color::Red),
                        "flagged" => Cell::new(row.outcome).fg(Color::Yellow),
                        other => Cell::new(other),
                    };
                    let device = row.device.unwrap_or_default();
                    let reason = row.reason.unwrap_or_default();
                    table.add_row([
                        row.at.into(),
                        outcome,
                        reason.into(),
                        device.into(),
                        Cell::new(row.detail),
                    ]);
                }
                anstream::println!("{table}");
            }
        }
        Ok(())
    }
}

fn reason(name: &str) -> Result<Reason> {
    match Reason::from_name(name) {
        Some(reason) => Ok(reason),
        None => {
            let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            bail!("there is no reason `{name}`; reasons are {}", names.join(", "))
        }
    }
}

fn row(event: Event) -> Row {
    Row {
        id: event.id,
        at: event.at.to_string(),
        outcome: event.outcome.as_str(),
        reason: event.reason.map(Reason::as_str),
        also: event.also.iter().map(|reason| reason.as_str()).collect(),
        device: event.device.map(|device| device.to_string()),
        zone: event.zone.map(|zone| zone.to_string()),
        topic: event.topic,
        source: event.source,
        sequence: event.sequence,
        score: event.score,
        detail: event.detail,
        channels: event
            .channels
            .iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}
