//! The rig: a Tidegate of its own in a temporary folder, with devices to load it.

use super::load::{Connection, Device};
use crate::cli::Place;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::setup;
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_envelope::id::MessageDeviceId;
use tidegate_pki::tls::{ClientTls, client_config};
use tidegate_store::reader::Reader;
use tidegate_store::totals::Totals;

/// How long a part may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

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
             compatible_events = true\n[verify]\nquota_per_s = {quota_per_s}\n",
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

    /// Starts `tidegate` with these arguments, and waits until its broker listens, which comes last.
    pub(super) fn start_tidegate(&self, arguments: &[&str]) -> Result<Part> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("--dir").arg(&self.folder).args(arguments);
        Part::start(command, self.config.listen.mqtts_port)
    }

    /// Starts a stock Mosquitto from the written configuration of level `signed`.
    pub(super) fn start_mosquitto(&self) -> Result<Part> {
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
            .args(["-c", "configs/mosquitto_signed.conf"])
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
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Part {
    fn start(mut command: Command, port: u16) -> Result<Self> {
        let child = command
            .stdout(Stdio::null())
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
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
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
