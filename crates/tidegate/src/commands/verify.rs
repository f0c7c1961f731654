//! `tidegate verify`: for people who write publishers in other languages and ask why their MAC
//! is refused.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reason::Reason;
use zeroize::Zeroizing;

/// Longest line of --json-lines: a payload of 64 KiB in base64, and room for more.
const LONGEST_LINE_BYTES: u64 = 1 << 20;

/// Check a payload's signature, and show what was signed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate verify --secret-file device.key message.json
  my-publisher --dry-run | tidegate verify --secret-file device.key
  tidegate verify --secret-file device.key --json-lines < messages.jsonl

The verdict is authentic, bad_mac, missing_mac or malformed. Exit code 0 means authentic.
`tidegate devices key NAME --out FILE` writes a device's key.")]
pub(crate) struct Verify {
    /// The message; standard input when left out
    payload: Option<PathBuf>,
    /// File whose bytes are the key
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Read one `{"payload": BASE64}` a line from standard input, and answer each with one line
    #[arg(long, conflicts_with = "payload")]
    json_lines: bool,
}

/// What the check found; null where a thing does not exist.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: &'static str,
    reason: Option<String>,
    canonical: Option<String>,
    hmac: Option<String>,
    /// What a gateway would say although the signature holds; for people only.
    #[serde(skip)]
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    payload: String,
}

impl Verify {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let shown = self.secret_file.display();
        let secret = std::fs::read(&self.secret_file).with_context(|| format!("cannot read {shown}"))?;
        let secret = Zeroizing::new(secret);
        if secret.is_empty() {
            bail!("the key file {shown} is empty");
        }
        if self.json_lines {
            answer_lines(&secret)
        } else {
            self.answer_one(&secret)
        }
    }

    fn answer_one(&self, secret: &[u8]) -> Result<ExitCode> {
        let payload = match &self.payload {
            Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => {
                let mut payload = Vec::new();
                std::io::stdin()
                    .lock()
                    .read_to_end(&mut payload)
                    .context("cannot read standard input")?;
                payload
            }
        };
        let finding = check(&payload, secret);
        let mut out = anstream::stdout().lock();
        writeln!(out, "verdict    {}", finding.verdict)?;
        if let Some(reason) = &finding.reason {
            writeln!(out, "reason     {reason}")?;
        }
        if let Some(note) = &finding.note {
            writeln!(out, "note       {note}")?;
        }
        if let Some(canonical) = &finding.canonical {
            writeln!(out, "canonical  {canonical}")?;
        }
        if let Some(hmac) = &finding.hmac {
            writeln!(out, "hmac       {hmac}")?;
        }
        let authentic = finding.verdict == "authentic";
        Ok(if authentic {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

fn answer_lines(secret: &[u8]) -> Result<ExitCode> {
    let mut input = std::io::stdin().lock();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = input
            .by_ref()
            .take(LONGEST_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?;
        if length == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Line { payload } = serde_json::from_slice(&line)
            .with_context(|| format!("line {number} is not {{\"payload\": \"<base64>\"}}"))?;
        let payload = STANDARD
            .decode(&payload)
            .with_context(|| format!("line {number}: payload is not base64"))?;
        serde_json::to_writer(&mut output, &check(&payload, secret))?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn check(payload: &[u8], secret: &[u8]) -> Finding {
    let malformed = |reason: String| Finding {
        verdict: "malformed",
        reason: Some(reason),
        canonical: None,
        hmac: None,
        note: None,
    };
    let document = match Document::parse(payload) {
        Ok(document) => document,
        Err(error) => return malformed(error.to_string()),
    };
    let schema = json_v1::reading(&document).err();
    if let Some(error) = schema
        .as_ref()
        .filter(|error| error.reason() == Reason::Malformed)
    {
        return malformed(error.to_string());
    }
    let key = MacKey::from_bytes(secret);
    let mut canonical = Vec::new();
    document.canonical(&mut canonical);
    let expected = key.mac(&canonical).to_string();
    let (verdict, reason) = match document.hmac() {
        None => ("missing_mac", Some("the message has no member `hmac`".to_owned())),
        Some(given) if key.check(&canonical, given) => ("authentic", None),
        Some(given) => ("bad_mac", Some(why_bad(given, &expected, &canonical, secret))),
    };
    let note = schema.filter(|_| verdict == "authentic");
    let note = note.map(|error| {
        format!("the signature holds, but a gateway refuses the message as bad_schema: {error}")
    });
    let canonical = String::from_utf8(canonical).expect("the canonical form is ASCII");
    Finding {
        verdict,
        reason,
        canonical: Some(canonical),
        hmac: Some(expected),
        note,
    }
}

/// The usual mistakes, told apart.
fn why_bad(given: &str, expected: &str, canonical: &[u8], secret: &[u8]) -> String {
    if given.eq_ignore_ascii_case(expected) {
        return "the MAC is right but not in lower-case hex".into();
    }
    if given.len() != expected.len() {
        return format!(
            "the MAC has {} characters instead of {}",
            given.len(),
            expected.len()
        );
    }
    let trimmed = secret.trim_ascii_end();
    if trimmed.len() < secret.len()
        && !trimmed.is_empty()
        && MacKey::from_bytes(trimmed).check(canonical, given)
    {
        return "the MAC was made with the key without the line break at the end of the key file; \
                every byte of the file is the key"
            .into();
    }
    "the MAC was made with another key or over other bytes; compare your bytes with the canonical form".into()
}
