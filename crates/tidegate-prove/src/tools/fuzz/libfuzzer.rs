//! Running libFuzzer, and reading what it prints.

use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);
/// Lines that are kept, to show what came before a crash.
const KEPT_LINES: usize = 40;
/// What libFuzzer ends with after Ctrl-C.
const INTERRUPTED: i32 = 72;

/// One libFuzzer process.
pub(super) struct Instance {
    child: Child,
    lines: Receiver<String>,
    reader: JoinHandle<()>,
    said: Said,
}

/// What a target's processes did together.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) executions: u64,
    /// Of the process that covered most.
    pub(super) edges: u64,
    /// What was wrong, and the file of the input that shows it.
    pub(super) crashes: Vec<String>,
}

/// What one process has printed so far.
#[derive(Debug, Default)]
struct Said {
    executions: u64,
    edges: u64,
    /// The file of an input that broke something.
    input: Option<String>,
    last: VecDeque<String>,
    ended: bool,
}

impl Instance {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            // Inputs that libFuzzer prints need not be text.
            let mut bytes = Vec::new();
            let mut stderr = BufReader::new(stderr);
            while stderr
                .read_until(b'\n', &mut bytes)
                .is_ok_and(|length| length > 0)
            {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        Ok(Self {
            child,
            lines,
            reader,
            said: Said::default(),
        })
    }

    fn ended(&mut self) -> bool {
        self.said.ended
    }

    fn read(&mut self) {
        loop {
            match self.lines.recv_timeout(Duration::ZERO) {
                Ok(line) => self.said.take(line),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    self.said.ended = true;
                    return;
                }
            }
        }
    }
}

/// Waits until all have ended; `progress` hears the sum of executions and the most edges.
pub(super) fn watch(instances: &mut [Instance], mut progress: impl FnMut(u64, u64)) {
    while !instances.iter_mut().all(Instance::ended) {
        for instance in &mut *instances {
            instance.read();
        }
        let said = instances.iter().map(|instance| &instance.said);
        progress(
            said.clone().map(|said| said.executions).sum(),
            said.map(|said| said.edges).max().unwrap_or(0),
        );
        std::thread::park_timeout(PROGRESS);
    }
}

/// Adds up what ended instances found.
pub(super) fn end(instances: Vec<Instance>, interrupted: bool) -> Result<Found> {
    let mut found = Found::default();
    for mut instance in instances {
        let status = instance.child.wait().context("cannot wait for the fuzzer")?;
        instance.reader.join().expect("reading lines does not panic");
        let said = instance.said;
        found.executions += said.executions;
        found.edges = found.edges.max(said.edges);
        let asked_to = interrupted && (status.code() == Some(INTERRUPTED) || status.code().is_none());
        if !status.success() && !asked_to {
            let input = said.input.as_deref().unwrap_or("no input was kept");
            found
                .crashes
                .push(format!("{status}: {} ({input})", said.what_broke()));
        }
    }
    Ok(found)
}

impl Said {
    fn take(&mut self, line: String) {
        if let Some(executions) = after(&line, "stat::number_of_executed_units:") {
            self.executions = executions;
        } else if let Some(rest) = line.strip_prefix('#') {
            // `#1024 NEW cov: 309 ft: 512 …`
            self.executions = after(rest, "").unwrap_or(self.executions);
            self.edges = after(rest, " cov:").unwrap_or(self.edges);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(path.to_owned());
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The panic's message, or whatever else libFuzzer names.
    fn what_broke(&self) -> String {
        let mut lines = self.last.iter();
        if let Some(panicked) = lines.find(|line| line.contains("panicked at")) {
            let message = lines.next().map_or("", String::as_str);
            return format!("{panicked} {message}");
        }
        let named = self.last.iter().find(|line| line.contains("ERROR: libFuzzer"));
        named.or(self.last.back()).cloned().unwrap_or_default()
    }
}

/// The number that follows `what` in `line`.
fn after(line: &str, what: &str) -> Option<u64> {
    let (_, rest) = line.split_once(what)?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Said {
        let mut said = Said::default();
        for line in lines {
            said.take((*line).to_owned());
        }
        said
    }

    #[test]
    fn executions_and_edges_are_read_from_progress_and_from_the_end() {
        let mut said = said(&[
            "INFO: Seed: 1",
            "#1024\tNEW    cov: 309 ft: 512 corp: 9/81b lim: 4 exec/s: 0 rss: 27Mb L: 3/4",
            "#4096\tpulse  cov: 311 ft: 520 corp: 9/81b lim: 4 exec/s: 2048 rss: 27Mb",
        ]);
        assert_eq!((said.executions, said.edges), (4_096, 311));
        said.take("stat::number_of_executed_units: 5000".into());
        assert_eq!((said.executions, said.edges, said.input), (5_000, 311, None));
    }

    #[test]
    fn crash_is_told_with_its_message_and_its_input() {
        let said = said(&[
            "#2\tINITED cov: 3 ft: 3",
            "thread '<unnamed>' panicked at src/json_v1.rs:30:5:",
            "the canonical form is a fixed point",
            "==1== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='found/'; Test unit written to found/crash-0a",
        ]);
        assert_eq!(
            said.what_broke(),
            "thread '<unnamed>' panicked at src/json_v1.rs:30:5: the canonical form is a fixed point"
        );
        assert_eq!(said.input.as_deref(), Some("found/crash-0a"));
    }

    #[test]
    fn end_without_a_panic_is_told_by_what_libfuzzer_says() {
        let said = said(&[
            "#2\tINITED cov: 3 ft: 3",
            "==1== ERROR: libFuzzer: timeout after 10 seconds",
            "SUMMARY",
        ]);
        assert_eq!(
            said.what_broke(),
            "==1== ERROR: libFuzzer: timeout after 10 seconds"
        );
    }
}
