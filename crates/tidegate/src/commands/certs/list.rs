//! `tidegate certs list`: who has a certificate, and how it stands.

use super::{day, short};
use crate::clock;
use crate::commands::{Format, table};
use crate::config::Config;
use crate::setup::CaPaths;
use crate::setup::ca::name_of;
use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, Color};
use owo_colors::OwoColorize;
use serde::Serialize;
use std::collections::HashMap;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::{self, CertificateInfo};
use tidegate_pki::ledger::{Entry, Ledger, State};

/// A certificate that ends sooner than this is pointed out.
const SOON_DAYS: i64 = 30;
/// One with a short life is pointed out in its last third instead, when it should have been renewed.
const SOON_PART: u32 = 3;
/// The role of a CA.
const AUTHORITY: &str = "authority";
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// List certificates with their expiry, role and state
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs list
  tidegate certs list device-007 --all
  tidegate certs list --format json

Without --all, certificates that a newer one has replaced are left out.")]
pub(super) struct List {
    /// These holders only
    names: Vec<String>,
    /// Also those that a newer one has replaced
    #[arg(long)]
    all: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    name: String,
    role: String,
    state: &'static str,
    expires: String,
    days_left: i64,
    serial: String,
    /// The start of the key id of the CA that signed it.
    authority: String,
    how: String,
    /// Where it lies in certs/; empty when its holder alone has it.
    file: String,
    revoked: Option<String>,
}

impl List {
    /// What is listed when nothing else is said.
    pub(super) const fn table() -> Self {
        Self {
            names: Vec::new(),
            all: false,
            format: Format::Table,
        }
    }

    pub(super) fn run(self, config: &Config) -> Result<()> {
        let now = clock::now();
        let mut rows = rows(config, now, self.all)?;
        if !self.names.is_empty() {
            rows.retain(|row| self.names.contains(&row.name));
        }
        match self.format {
            Format::Json => {
                for row in &rows {
                    anstream::println!("{}", serde_json::to_string(row)?);
                }
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
                rows.iter().try_for_each(|row| writer.serialize(row))?;
                writer.flush()?;
            }
            Format::Table => print(rows),
        }
        Ok(())
    }
}

fn print(rows: Vec<Row>) {
    // Of interest only while the CA is changed.
    let several = rows.iter().filter(|row| row.role == AUTHORITY).count() > 1;
    let mut header = vec!["name", "role", "state", "expires", "days left", "serial", "file"];
    if several {
        header.push("CA");
    }
    let mut table = table::new(&header);
    for row in rows {
        let state = Cell::new(row.state);
        let state = match row.state {
            "valid" | "superseded" => state,
            "expires soon" => state.fg(Color::Yellow),
            _ => state.fg(Color::Red),
        };
        let expires: String = row.expires.chars().take(10).collect();
        let mut cells = vec![
            Cell::new(row.name),
            Cell::new(row.role),
            state,
            Cell::new(expires),
        ];
        cells.extend([
            Cell::new(row.days_left),
            Cell::new(row.serial),
            Cell::new(row.file),
        ]);
        if several {
            cells.push(Cell::new(row.authority));
        }
        table.add_row(cells);
    }
    anstream::println!("{table}");
}

/// The CAs first, then what the ledger has in order of names, then files that it does not have.
fn rows(config: &Config, now: Timestamp, all: bool) -> Result<Vec<Row>> {
    let paths = CaPaths::of(config);
    let bundle = if paths.bundle.exists() {
        inspect::bundle(&paths.bundle)?
    } else {
        Vec::new()
    };
    let mut rows: Vec<_> = bundle.iter().map(|info| of_authority(info, now)).collect();
    let mut files = HashMap::new();
    for found in inspect::list(&config.files.certs)? {
        match found {
            Ok(info) if info.path == paths.bundle => {}
            Ok(info) => drop(files.insert(info.serial.clone(), info)),
            Err(error) => anstream::eprintln!("{} {error}", "skipped:".yellow().bold()),
        }
    }
    let entries = if paths.ledger.exists() {
        Ledger::open(&paths.ledger)?.certificates()?
    } else {
        Vec::new()
    };
    let mut holders = Vec::new();
    for entry in &entries {
        let file = files.remove(&entry.record.serial);
        if all || shown(entry, now, file.is_some()) {
            holders.push(of_entry(entry, file.as_ref(), now));
        }
    }
    for info in files.into_values() {
        holders.push(of_file(&info, &bundle, entries.is_empty(), now));
    }
    holders.sort_by(|a, b| (&a.name, &a.role, &a.expires).cmp(&(&b.name, &b.role, &b.expires)));
    rows.extend(holders);
    Ok(rows)
}

/// What is worth a line when nobody asked for all: what is in use, and what was revoked and would
/// otherwise still be.
fn shown(entry: &Entry, now: Timestamp, has_file: bool) -> bool {
    match entry.state(now) {
        State::Valid => true,
        State::Superseded => false,
        State::Expired => has_file || !entry.superseded,
        State::Revoked { .. } => entry.record.not_after > now,
    }
}

fn of_authority(info: &CertificateInfo, now: Timestamp) -> Row {
    Row {
        name: info.subject.clone(),
        role: AUTHORITY.into(),
        state: standing(info.not_before, info.not_after, now),
        how: String::new(),
        revoked: None,
        ..common(info, now, &hex::encode(&info.key_id))
    }
}

fn of_entry(entry: &Entry, file: Option<&CertificateInfo>, now: Timestamp) -> Row {
    let record = &entry.record;
    let state = match entry.state(now) {
        State::Valid => standing(record.not_before, record.not_after, now),
        State::Expired => "expired",
        State::Superseded => "superseded",
        State::Revoked { .. } => "revoked",
    };
    Row {
        name: record.id.to_string(),
        role: record.role.to_string(),
        state,
        expires: record.not_after.to_string(),
        days_left: days_left(record.not_after, now),
        serial: record.serial.clone(),
        authority: short(&record.authority).to_owned(),
        how: format!("{:?}", record.how).to_lowercase(),
        file: file.map(file_name).unwrap_or_default(),
        revoked: entry.revoked.map(|revocation| day(revocation.at)),
    }
}

/// A file that the ledger does not have. Where there is no ledger, that is as it should be: the CA is
/// on another machine.
fn of_file(info: &CertificateInfo, bundle: &[CertificateInfo], no_ledger: bool, now: Timestamp) -> Row {
    let signer = inspect::issuer_of(&info.der, bundle).map(|ca| hex::encode(&ca.key_id));
    let role = info.role.map_or_else(
        || format!("{:?}", info.usage).to_lowercase(),
        |role| format!("{role:?}").to_lowercase(),
    );
    let state = match &signer {
        None => "foreign",
        Some(_) if !no_ledger => "unrecorded",
        Some(_) => standing(info.not_before, info.not_after, now),
    };
    Row {
        name: info
            .identity
            .as_ref()
            .map_or_else(|| name_of(&info.path), ToString::to_string),
        role,
        state,
        how: String::new(),
        revoked: None,
        ..common(info, now, &signer.unwrap_or_default())
    }
}

fn common(info: &CertificateInfo, now: Timestamp, authority: &str) -> Row {
    Row {
        name: String::new(),
        role: String::new(),
        state: "",
        expires: info.not_after.to_string(),
        days_left: days_left(info.not_after, now),
        serial: info.serial.clone(),
        authority: short(authority).to_owned(),
        how: String::new(),
        file: file_name(info),
        revoked: None,
    }
}

fn standing(not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> &'static str {
    let life = not_after.since(not_before);
    let left = not_after.since(now);
    if now > not_after {
        "expired"
    } else if now < not_before {
        "not yet valid"
    } else if days_left(not_after, now) < SOON_DAYS && left < life / SOON_PART {
        "expires soon"
    } else {
        "valid"
    }
}

/// Whole days, rounded down; negative once it has expired.
fn days_left(not_after: Timestamp, now: Timestamp) -> i64 {
    not_after
        .as_micros()
        .saturating_sub(now.as_micros())
        .div_euclid(MICROS_PER_DAY)
}

fn file_name(info: &CertificateInfo) -> String {
    info.path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
