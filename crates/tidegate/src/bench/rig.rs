//! The rig: a Tidegate of its own in a temporary folder, with devices to load it.

use super::load::{Connection, Device};
use crate::cli::Place;
use crate::commands::configs;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::level::Level;
use crate::setup;
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_envelope::id::MessageDeviceId;
use tidegate_pki::tls::{ClientTls, client_config};
use tidegate_store::reader::Reader;
use tidegate_store::totals::Totals;

/// How long a part may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Devices that are set up in one step: few enough for the step to be over within a second or so.
const GROWTH: u32 = 40;

/// How often it is tried to remove the folder.
const REMOVALS: u32 = 20;

/// A folder with certificates, keys and a registry.
pub(super) struct Rig {
    folder: PathBuf,
    pub(super) config: Config,
    registry: DevicesFile,
}

/// A running part; killed when dropped.
pub(super) struct Part {
    child: Child,
}

impl Rig {
    /// Sets up `devices` devices on free ports.
    pub(super) fn new(devices: u32, quota_per_s: u32) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let ports = free_ports()?;
        let text = format!(
            "[listen]\nmqtt_port = {}\nmqtts_port = {}\npage_port = {}\nevents_port = {}\n\
             compatible_events = true\n[verify]\nquota_per_s = {quota_per_s}\n\
             [enroll]\nenabled = false\n",
            ports[0], ports[1], ports[2], ports[3]
        );
        std::fs::write(folder.join("tidegate.toml"), text)?;
        let place = Place {
            dir: folder.clone(),
            config: None,
        };
        let (config, _) = setup::prepare(&place, Some(devices))?;
        let registry = DevicesFile::load(&config.files.registry)?;
        Ok(Self {
            folder,
            config,
            registry,
        })
    }

    /// Sets up more devices, until there are `devices`, with a certificate each; says after each step
    /// how many there are.
    pub(super) async fn grow_to(&mut self, devices: u32, mut grown: impl FnMut(u32)) -> Result<()> {
        while (self.registry.devices.len() as u64) < u64::from(devices) {
            let place = Place {
                dir: self.folder.clone(),
                config: None,
            };
            let there = u32::try_from(self.registry.devices.len())?;
            let wanted = devices.min(there.saturating_add(GROWTH));
            setup::prepare(&place, Some(wanted))?;
            // Between two steps this can be given up, but not within one: nothing may write on into a
            // folder that is being removed.
            tokio::task::yield_now().await;
            self.registry = DevicesFile::load(&self.config.files.registry)?;
            grown(wanted);
        }
        Ok(())
    }

    /// The devices, in the registry's order.
    pub(super) fn device_ids(&self) -> impl Iterator<Item = &str> {
        self.registry.devices.iter().map(|device| device.id.as_str())
    }

    /// Runs a command of `tidegate` to its end, which must be a good one.
    pub(super) async fn run_tidegate(&self, arguments: &[&str]) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--dir").arg(&self.folder).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`tidegate {}` fails: {}", arguments.join(" "), said.trim());
        }
        Ok(())
    }

    /// Starts `tidegate` with these arguments, and waits until its broker listens, which comes last.
    pub(super) fn start_tidegate(&self, arguments: &[&str]) -> Result<Part> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--dir").arg(&self.folder).args(arguments);
        // Thousands of refused sockets are what some benchmarks are about; an error still is one.
        command.env("TIDEGATE_LOG", "error");
        Part::start(command, self.config.listen.mqtts_port)
    }

    /// Starts a stock Mosquitto from the written configuration of level `signed`.
    pub(super) fn start_mosquitto(&self) -> Result<Part> {
        self.start_mosquitto_at(Level::Signed)
    }

    /// Starts a stock Mosquitto from the written configuration of `level`.
    pub(super) fn start_mosquitto_at(&self, level: Level) -> Result<Part> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let written = Command::new(program)
            .arg("--dir")
            .arg(&self.folder)
            .args(["configs", "write"])
            .stdout(Stdio::null())
            .status()?;
        if !written.success() {
            bail!("cannot write Mosquitto's configurations");
        }
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(format!("configs/{}", configs::file_name(level)))
            .current_dir(&self.folder)
            .stderr(Stdio::null());
        Part::start(command, self.config.listen.mqtts_port)
            .context("cannot start Mosquitto; install it with `apt-get install mosquitto mosquitto-clients`")
    }

    /// `mosquitto_sub` with the gateway's certificate, ending after `messages`.
    pub(super) fn start_mosquitto_sub(&self, messages: u64) -> Result<Child> {
        let port = self.config.listen.mqtts_port.to_string();
        Command::new("mosquitto_sub")
            .args([
                "-h",
                "localhost",
                "-p",
                &port,
                "-q",
                "1",
                "-t",
                "hydroficient/grandmarina/#",
            ])
            .args([
                "--cafile",
                "certs/ca.pem",
                "--cert",
                "certs/gateway.pem",
                "--key",
                "certs/gateway-key.pem",
            ])
            .args(["-C", &messages.to_string(), "-W", "300"])
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start mosquitto_sub; install it with `apt-get install mosquitto-clients`")
    }

    /// Waits until the broker has `mosquitto_sub`'s subscription.
    pub(super) async fn wait_for_subscriber(&self) -> Result<()> {
        // Mosquitto has no way to ask; a TLS handshake and a SUBSCRIBE take a few milliseconds.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// What became of all messages, as far as it is in the database.
    pub(super) fn totals(&self) -> Result<Totals> {
        Ok(Reader::open(&self.config.files.database())?.totals()?)
    }

    /// Removes the database, so that the next round starts from nothing.
    pub(super) fn forget_data(&self) -> Result<()> {
        for suffix in ["", "-wal", "-shm", "-commits"] {
            let path = self.config.files.data.join(format!("tidegate.db{suffix}"));
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Opens a connection for every device.
    pub(super) async fn connect(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        for entry in &self.registry.devices {
            let at = |file: String| self.config.files.certs.join(file);
            let identity = Some((
                at(format!("{}.pem", entry.id)),
                at(format!("{}-key.pem", entry.id)),
            ));
            let tls = client_config(&ClientTls {
                ca: at("ca.pem".into()),
                identity,
            })?;
            let device = Device {
                id: entry.id.clone(),
                topic: self.config.telemetry_topic.replace("{device}", &entry.topic),
                message_id: MessageDeviceId::new(&entry.message_id)?,
                key: entry.signing_key(&self.config)?,
                tls,
            };
            connections.push(Connection::open(self.config.listen.mqtts_port, device).await?);
        }
        Ok(connections)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A command that was given up may still write for a moment.
        for _ in 0..REMOVALS {
            if std::fs::remove_dir_all(&self.folder).is_ok() || !self.folder.exists() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Part {
    fn start(mut command: Command, port: u16) -> Result<Self> {
        let child = command
            .stdout(Stdio::null())
            // Ctrl-C in the terminal is for the benchmark alone, which ends this part when it is dropped.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut part = Self { child };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = part.child.try_wait()? {
                bail!("{command:?} ended: {status}");
            }
            if start.elapsed() > START_WITHIN {
                bail!("{command:?} does not listen on port {port}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(part)
    }

    /// The process's number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time used so far, seconds (Linux: `/proc/<pid>/stat`, fields 14 and 15).
    pub(super) fn processor_s(&self) -> Result<f64> {
        processor_s(&format!("/proc/{}/stat", self.id()))
    }

    /// Memory in use now, bytes (Linux: `VmRSS`).
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
        Ok(kilobytes * 1_024)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Processor time in a `stat` file of a process or thread, seconds (fields 14 and 15).
pub(super) fn processor_s(path: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(path)?;
    let after_name = stat.rsplit(')').next().context("no process state")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // 100 ticks a second on every Linux that Rust supports.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn free_ports() -> Result<[u16; 4]> {
    let listeners: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
