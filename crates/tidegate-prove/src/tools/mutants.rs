//! `tidegate-prove mutants`: every small change to the checks is noticed by a test.
//!
//! `cargo mutants` makes the changes and runs the tests; what it changes is said in
//! `.cargo/mutants.toml`. A change that no test can notice, because the program does the same
//! after it, is listed with its reason in `mutants-explained.toml`.

mod explained;
mod outcomes;

use crate::progress::stop_on_interrupt;
use crate::report::Running;
use anyhow::{Context, Result, ensure};
use clap::Args;
use explained::Explained;
use indicatif::{ProgressBar, ProgressStyle};
use outcomes::{Mutant, Outcomes, Summary};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLAIM: &str = "Every small change to the checks, the replay guard, the canonical form and the MACs makes a \
     test fail, or is listed with the reason why it changes nothing.";
/// Where `cargo mutants` puts its folder `mutants.out`.
const OUTPUT: &str = "target/mutants";
const CONFIGURATION: &str = ".cargo/mutants.toml";
const EXPLAINED: &str = "crates/tidegate-prove/mutants-explained.toml";
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(1);
/// What `cargo mutants` ends with where it ran: all caught, some missed, some timed out.
const RAN: [i32; 3] = [0, 2, 3];

/// Change the checks in small ways, and see whether a test notices
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate-prove mutants                                every mutant; takes hours
  tidegate-prove mutants --file crates/tidegate-verify/src/quota.rs
  tidegate-prove mutants --runs 20 --seed 3             20 of them, spread over all files")]
pub(crate) struct Mutants {
    /// Only so many, spread over all files
    #[arg(long, conflicts_with = "shard", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Which ones, with --runs
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Only a part, such as 0/4
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Only the mutants of these files; may be given several times
    #[arg(long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// Builds and tests at one time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Only see whether each explained mutant is still there
    #[arg(long)]
    list: bool,
    /// Where the sources are
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    sources: PathBuf,
}

impl Mutants {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut running = Running::start("mutants", CLAIM, self.runs.map(|_| u64::from(self.seed)));
        let explained = Explained::read(&self.sources, EXPLAINED)?;
        let listed = self.listed()?;
        if self.files.is_empty() {
            for stale in explained.without_mutant(&listed) {
                running.violation(format!(
                    "{EXPLAINED} explains a mutant that does not exist: {stale}"
                ));
            }
        }
        running.count("mutants", listed.len() as u64);
        running.count(
            "explained",
            listed
                .iter()
                .filter(|mutant| explained.reason(mutant).is_some())
                .count() as u64,
        );
        if !self.list {
            self.test(listed.len(), &explained, &mut running)?;
        }
        running.finish()
    }

    fn test(&self, all: usize, explained: &Explained, running: &mut Running) -> Result<()> {
        let stop = stop_on_interrupt()?;
        let folder = self.sources.join(OUTPUT);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let outcomes = folder.join("mutants.out/outcomes.json");
        // What an earlier run has left would be taken for this one's.
        if outcomes.exists() {
            std::fs::remove_file(&outcomes)
                .with_context(|| format!("cannot remove {}", outcomes.display()))?;
        }
        let mut child = self
            .command(all, &folder)?
            .spawn()
            .context("cannot run cargo mutants")?;
        let ended = watch(&mut child, &outcomes, all, &stop)?;
        let outcomes = Outcomes::read(&outcomes)?;
        ensure!(
            outcomes.baseline_passed(),
            "the tests fail without any change; see {}",
            folder.join("mutants.out/log/baseline.log").display()
        );
        let interrupted = stop.load(Ordering::Relaxed);
        ensure!(
            interrupted || ended.is_some_and(|code| RAN.contains(&code)),
            "cargo mutants failed"
        );
        judge(&outcomes, explained, running);
        if interrupted {
            running.interrupted();
        }
        let whole = self.runs.is_none() && self.shard.is_none() && !interrupted;
        if whole && outcomes.tested() != all as u64 {
            running.violation(format!("only {} of {all} mutants were tested", outcomes.tested()));
        }
        Ok(())
    }

    fn command(&self, all: usize, output: &Path) -> Result<Command> {
        let mut command = self.cargo_mutants()?;
        command
            .args([
                "--jobs",
                &self.jobs.to_string(),
                "--no-shuffle",
                "--colors",
                "never",
            ])
            .arg("--output")
            .arg(output)
            .stdout(Stdio::null());
        if let Some(shard) = &self.shard {
            command.args(["--shard", shard]);
        } else if let Some(runs) = self.runs {
            let parts = all.div_ceil(runs as usize).max(1);
            command.args([
                "--shard",
                &format!("{}/{parts}", self.seed as usize % parts),
                "--sharding",
                "round-robin",
            ]);
        }
        Ok(command)
    }

    /// Every mutant of the chosen files.
    fn listed(&self) -> Result<Vec<Mutant>> {
        let output = self
            .cargo_mutants()?
            .args(["--list", "--json"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo mutants")?;
        ensure!(
            output.status.success(),
            "cannot list mutants; `cargo install cargo-mutants --locked` brings the tool"
        );
        serde_json::from_slice(&output.stdout)
            .context("cargo mutants lists them in another form than expected")
    }

    fn cargo_mutants(&self) -> Result<Command> {
        let mut command = Command::new("cargo");
        command.arg("mutants").arg("--dir").arg(&self.sources);
        if !self.files.is_empty() {
            command.arg("--config").arg(self.configured_for_files()?);
        }
        Ok(command)
    }

    /// The committed configuration with other files. The tool's own `--file` adds to those that the
    /// configuration names.
    fn configured_for_files(&self) -> Result<PathBuf> {
        let committed = self.sources.join(CONFIGURATION);
        let text = std::fs::read_to_string(&committed)
            .with_context(|| format!("cannot read {}", committed.display()))?;
        let mut table: toml::Table =
            toml::from_str(&text).with_context(|| format!("{} is no TOML", committed.display()))?;
        table.insert("examine_globs".into(), self.files.clone().into());
        let folder = self.sources.join(OUTPUT);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join("files.toml");
        std::fs::write(&path, table.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Shows progress until the tool ends; gives its exit code.
fn watch(child: &mut Child, outcomes: &Path, all: usize, stop: &AtomicBool) -> Result<Option<i32>> {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")?;
    let bar = ProgressBar::no_length().with_style(style);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for cargo mutants")? {
            bar.finish_and_clear();
            return Ok(status.code());
        }
        // The file is written anew after each mutant, and may be read in between.
        if let Ok(outcomes) = Outcomes::read(outcomes) {
            let [caught, missed] =
                [Summary::CaughtMutant, Summary::MissedMutant].map(|kind| outcomes.count(kind));
            bar.set_message(format!(
                "{} of {all}: {caught} caught, {missed} missed",
                outcomes.tested()
            ));
        }
        bar.tick();
        if stop.load(Ordering::Relaxed) {
            // Ctrl-C has reached it too; it ends after cleaning up.
            bar.set_message("ending");
        }
        std::thread::park_timeout(PROGRESS);
    }
}

fn judge(outcomes: &Outcomes, explained: &Explained, running: &mut Running) {
    running.count("tested", outcomes.tested());
    running.count("caught by a failing test", outcomes.count(Summary::CaughtMutant));
    running.count(
        "caught because the tests no longer end",
        outcomes.count(Summary::Timeout),
    );
    running.count(
        "not viable: they do not compile",
        outcomes.count(Summary::Unviable),
    );
    let mut equivalent = 0;
    for mutant in outcomes.missed() {
        match explained.reason(mutant) {
            Some(reason) => {
                equivalent += 1;
                running.note(&format!("{}: {reason}", mutant.name));
            }
            None => running.violation(format!("missed: {}", mutant.name)),
        }
    }
    running.count("missed, and explained", equivalent);
}
