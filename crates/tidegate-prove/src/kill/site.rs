//! A site: a folder with a configuration on ports of its own, set up and run by the real program.

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rustls::ClientConfig;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_envelope::id::{DeviceId, MessageDeviceId};
use tidegate_envelope::key::MacKey;
use tidegate_pki::tls::{ClientTls, client_config};

/// How long a process may take to start or to stop before the proof is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long an HTTP answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks at something that will soon be there.
pub(crate) const GLANCE: Duration = Duration::from_millis(2);
/// Below the ports that Linux gives to outgoing connections (32,768 and up): a client that tries a
/// closed port again and again would sooner or later be given that very port, connect to itself,
/// and keep the gateway from it.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Topics of the devices, as a first run configures them.
const TOPIC_PREFIX: &str = "hydroficient/grandmarina";

/// Which broker stands between devices and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    /// `tidegate up`, with the broker inside.
    Embedded,
    /// A stock Mosquitto with the written configuration, and `tidegate gateway` as its subscriber.
    Mosquitto,
}

/// A folder that the real program has set up.
#[derive(Debug)]
pub(crate) struct Site {
    folder: PathBuf,
    /// Deleted with the site, unless the folder is somebody else's.
    _own: Option<TempDir>,
    binary: PathBuf,
    broker: Broker,
    mqtts_port: u16,
    page_port: u16,
    pub(crate) devices: Vec<Device>,
    /// The identity that may read everything.
    pub(crate) operator: Arc<ClientConfig>,
}

/// A registered device: what a publisher needs, and what a thief of the device has.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) message_id: MessageDeviceId,
    pub(crate) topic: String,
    pub(crate) key: MacKey,
    pub(crate) tls: Arc<ClientConfig>,
}

/// The question whether messages are accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    page_port: u16,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Site {
    /// A folder of its own, at level `signed` with `devices` devices, made by the program's first run.
    pub(crate) fn new(binary: &Path, broker: Broker, devices: u32) -> Result<Self> {
        let folder = temporary_folder()?;
        let mut site = Self::at(folder.path(), binary, broker, devices)?;
        site._own = Some(folder);
        Ok(site)
    }

    /// The same in a folder that is there, and may have a file system mounted in it.
    pub(crate) fn at(folder: &Path, binary: &Path, broker: Broker, devices: u32) -> Result<Self> {
        let binary = binary.canonicalize().with_context(|| {
            format!(
                "there is no {}: `cargo build -p tidegate` makes target/debug/tidegate, `make build` target/release/tidegate",
                binary.display()
            )
        })?;
        let [mqtt_port, mqtts_port, page_port] = free_ports();
        let config = format!(
            "level = \"signed\"\n[listen]\nmqtt_port = {mqtt_port}\nmqtts_port = {mqtts_port}\npage_port = {page_port}\n\
             [verify]\nquota_per_s = 1000000\n"
        );
        std::fs::write(folder.join("tidegate.toml"), config)?;
        first_run(&binary, folder, page_port, devices)?;
        let certs = folder.join("certs");
        let identity = |name: &str| {
            let identity = (
                certs.join(format!("{name}.pem")),
                certs.join(format!("{name}-key.pem")),
            );
            client_config(&ClientTls {
                ca: certs.join("ca.pem"),
                identity: Some(identity),
            })
        };
        let mut site = Self {
            operator: identity("operator")?,
            folder: folder.to_owned(),
            _own: None,
            binary,
            broker,
            mqtts_port,
            page_port,
            devices: Vec::new(),
        };
        for number in 1..=devices {
            let id = format!("device-{number:03}");
            let key = site.path(&format!("{id}.key"));
            site.run(&["devices", "key", &id, "--out", &key.to_string_lossy()])?;
            site.devices.push(Device {
                message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}"))?,
                topic: format!("{TOPIC_PREFIX}/{id}/sensors"),
                key: MacKey::from_bytes(&std::fs::read(key)?),
                tls: identity(&id)?,
                id: DeviceId::new(&id)?,
            });
        }
        if broker == Broker::Mosquitto {
            site.run(&["configs", "write"])?;
        }
        Ok(site)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    pub(crate) fn broker(&self) -> Broker {
        self.broker
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("data/tidegate.db")
    }

    /// Bytes in the database's log, 0 after a clean end: what the next start has to recover.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.path("data/tidegate.db-wal")).map_or(0, |metadata| metadata.len())
    }

    /// Where devices connect.
    pub(crate) fn mqtts_port(&self) -> u16 {
        self.mqtts_port
    }

    /// Covers the topics of all devices.
    pub(crate) fn filter(&self) -> String {
        format!("{TOPIC_PREFIX}/#")
    }

    /// Starts the gateway, with its broker where it has one; does not wait for anything.
    pub(crate) fn start_gateway(&self) -> Result<Process> {
        let subcommand = match self.broker {
            Broker::Embedded => "up",
            Broker::Mosquitto => "gateway",
        };
        let mut command = Command::new(&self.binary);
        command.arg("--dir").arg(&self.folder).arg(subcommand);
        Process::start(command, &self.folder, "gateway")
    }

    /// Starts Mosquitto from the written configuration, and waits until it listens.
    pub(crate) fn start_mosquitto(&self) -> Result<Process> {
        let program = ["mosquitto", "/usr/sbin/mosquitto"]
            .into_iter()
            .find(|program| Command::new(program).arg("-h").output().is_ok())
            .context("Mosquitto is missing: `make setup` installs it")?;
        let mut command = Command::new(program);
        command
            .args(["-c", "configs/mosquitto_signed.conf"])
            .current_dir(&self.folder);
        let mut process = Process::start(command, &self.folder, "mosquitto")?;
        wait_until("Mosquitto to listen", || {
            process.refuse_ended()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.mqtts_port)).is_ok())
        })?;
        Ok(process)
    }

    /// What a supervisor asks.
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            page_port: self.page_port,
        }
    }

    /// Runs a command of the program to its end, which must be a good one.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .arg("--dir")
            .arg(&self.folder)
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!(
                "tidegate {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A folder that is deleted when dropped.
pub(crate) fn temporary_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("tidegate-prove-").tempdir()?)
}

fn first_run(binary: &Path, folder: &Path, page_port: u16, devices: u32) -> Result<()> {
    let mut command = Command::new(binary);
    command
        .arg("--dir")
        .arg(folder)
        .args(["up", "--devices", &devices.to_string()]);
    let mut process = Process::start(command, folder, "first-run")?;
    wait_until("the first run to be ready", || {
        process.refuse_ended()?;
        Ok(Readiness { page_port }.status() == Some(200))
    })?;
    // How it ends does not matter: everything has been made, and an interrupt that comes before the
    // program looks out for one simply ends it.
    process.interrupt()?;
    Ok(())
}

impl Process {
    /// Standard output and error go to `NAME.out` and `NAME.err` in `folder`, written anew.
    fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let (output, errors) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            // A Ctrl-C is for the proof, which then ends its processes itself.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            output,
            errors,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard output.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What it has logged on standard error.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Whether it is ready for messages: the broker listens, or the subscription stands.
    pub(crate) fn is_ready(&self) -> bool {
        let said = self.said();
        said.contains("Listening:") || said.contains("Subscribed to")
    }

    /// How it ended, where it ended by itself.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn refuse_ended(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", self.logged()),
        }
    }

    /// kill -9; waits until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ctrl-C, and how it ended; or how it had ended before.
    pub(crate) fn interrupt(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let sent = Command::new("kill")
            .args(["-INT", &self.id().to_string()])
            .status()?;
        if !sent.success() {
            bail!("cannot send SIGINT");
        }
        let mut ended = None;
        wait_until("the process to stop", || {
            ended = self.ended()?;
            Ok(ended.is_some())
        })?;
        ended.context("it has not stopped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Looks every few milliseconds until `condition` holds; an error after [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

impl Readiness {
    /// The HTTP status of `/readyz`; nothing when nobody answers in time. Blocks.
    pub(crate) fn status(self) -> Option<u16> {
        let port = self.page_port;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        answer.split(' ').nth(1)?.parse().ok()
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are held at once, so that they differ.
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        loop {
            let port = rand::rng().random_range(PORTS);
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                break listener;
            }
        }
    });
    listeners.map(|listener| listener.local_addr().map_or(0, |address| address.port()))
}
