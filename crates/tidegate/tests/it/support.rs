//! A Tidegate of its own for each test: temporary folder, free ports, the real binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything in a test may take before it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a configuration on free ports.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) ports: Ports,
}

/// Free ports of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) mqtt: u16,
    pub(crate) mqtts: u16,
    pub(crate) page: u16,
    pub(crate) events: u16,
    pub(crate) enroll: u16,
}

/// A running process, killed when the test ends.
pub(crate) struct Running {
    child: Child,
}

impl Site {
    /// A new folder at `level`, with `extra` lines for the configuration.
    pub(crate) fn new(level: &str, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [mqtt, mqtts, page, events, enroll] = free_ports();
        let config = format!(
            "level = \"{level}\"\n[enroll]\nport = {enroll}\n[listen]\nmqtt_port = {mqtt}\nmqtts_port = {mqtts}\npage_port = {page}\n\
             compatible_events = true\nevents_port = {events}\n{extra}\n"
        );
        std::fs::write(folder.path().join("tidegate.toml"), config).unwrap();
        Self {
            folder,
            ports: Ports {
                mqtt,
                mqtts,
                page,
                events,
                enroll,
            },
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A command of the binary in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .arg("--dir")
            .arg(self.folder.path())
            .args(arguments)
            .current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and gives its standard output.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a command and waits until its page says that it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let running = self.spawn(arguments);
        self.wait_ready();
        running
    }

    /// Starts the gateway and waits until it has subscribed at its broker.
    pub(crate) fn start_gateway(&self) -> Running {
        let mut child = self.command(&["gateway"]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child };
        // A thread of its own reads on, or a later line would stop the gateway.
        let (subscribed, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.starts_with("Subscribed") {
                    let _ = subscribed.send(());
                }
            }
        });
        assert!(
            heard.recv_timeout(PATIENCE).is_ok(),
            "the gateway does not subscribe"
        );
        self.wait_ready();
        assert!(running.is_alive());
        running
    }

    /// Starts a command, waits until its page says that it is ready, and gives its output line by
    /// line from then on. Both its outputs go to `log` as well.
    pub(crate) fn start_and_listen(&self, arguments: &[&str], log: &Path) -> (Running, Lines) {
        let mut log = std::fs::File::create(log).unwrap();
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let running = Running { child };
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                let _ = sender.send(line);
            }
        });
        self.wait_ready();
        (running, Lines(lines))
    }

    fn spawn(&self, arguments: &[&str]) -> Running {
        let child = self
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Running { child }
    }

    pub(crate) fn wait_ready(&self) {
        let page = self.ports.page;
        wait_for("the page to be ready", || {
            http_get(page, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// Writes the signing key of `device` to a file.
    pub(crate) fn key(&self, device: &str) -> PathBuf {
        let file = self.path(&format!("{device}.key"));
        self.succeed(&["devices", "key", device, "--out", file.to_str().unwrap()]);
        file
    }

    /// Starts Mosquitto from one of the written configurations, unchanged.
    pub(crate) fn mosquitto(&self, config: &str, port: u16) -> Running {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(format!("configs/{config}"))
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed by `make setup`");
        let mut running = Running { child };
        wait_for("mosquitto to listen", || {
            assert!(
                running.child.try_wait().unwrap().is_none(),
                "mosquitto does not start from {config}"
            );
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        running
    }

    /// A stock MQTT client over mTLS with a certificate from here, at QoS 1.
    pub(crate) fn stock_client(&self, program: &str, identity: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "localhost", "-p", &self.ports.mqtts.to_string(), "-q", "1"])
            .args([
                "--cafile",
                "certs/ca.pem",
                "--cert",
                &format!("certs/{identity}.pem"),
            ])
            .args(["--key", &format!("certs/{identity}-key.pem")])
            .current_dir(self.folder.path());
        command
    }

    /// What `tidegate events` has in store, as JSON lines.
    pub(crate) fn stored_events(&self) -> Vec<serde_json::Value> {
        json_lines(&self.succeed(&["events", "--format", "json", "--last", "1000"]))
    }

    /// What `tidegate readings` has in store, as JSON lines.
    pub(crate) fn stored_readings(&self) -> Vec<serde_json::Value> {
        json_lines(&self.succeed(&["readings", "--format", "json", "--last", "100000"]))
    }

    /// Publishes with paho-mqtt, and gives the reason code of each acknowledgement.
    pub(crate) fn python_publish(&self, port: u16, device: u32, options: &[&str]) -> Vec<u64> {
        let lines = json_lines(&succeed(self.python_publisher(port, device, options)));
        lines
            .iter()
            .map(|line| line["reason"].as_u64().unwrap())
            .collect()
    }

    /// A paho-mqtt publisher for one device.
    pub(crate) fn python_publisher(&self, port: u16, device: u32, options: &[&str]) -> Command {
        let id = format!("device-{device:03}");
        let mut command = python();
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/testing/publisher.py"))
            .args(["--port", &port.to_string()])
            .args(["--topic", &format!("hydroficient/grandmarina/{id}/sensors")])
            .args(["--device-id", &format!("HYDROLOGIC-Device-{device:03}")])
            .args(options)
            .current_dir(self.folder.path());
        command
    }
}

/// What a running process prints.
pub(crate) struct Lines(std::sync::mpsc::Receiver<String>);

impl Lines {
    /// Waits for a line that begins so.
    pub(crate) fn wait_for(&self, beginning: &str) -> String {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let line = self.0.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("waited in vain for the line {beginning}"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }
}

/// The arguments that give a Python publisher this device's certificate.
pub(crate) fn mtls(device: &str) -> Vec<String> {
    vec![
        "--ca".into(),
        "certs/ca.pem".into(),
        "--cert".into(),
        format!("certs/{device}.pem"),
        "--key".into(),
        format!("certs/{device}-key.pem"),
    ]
}

impl Running {
    /// A process that somebody else started.
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Ctrl-C, and the exit code.
    pub(crate) fn interrupt(mut self) -> i32 {
        self.signal("INT");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "does not stop");
            std::thread::yield_now();
        }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Python with paho-mqtt, as `make setup` installs it.
pub(crate) fn python() -> Command {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/bin/python");
    let path = std::env::var_os("TIDEGATE_TEST_PYTHON").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    Command::new(path)
}

pub(crate) fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `command` with `input` on standard input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

/// Whether a child has ended and only waits to be asked (Linux: `/proc/<pid>/stat`).
pub(crate) fn has_ended(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Polls until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A whole HTTP answer, or nothing when nobody listens.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are held at once, so that they differ.
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    std::array::from_fn(|i| listeners[i].local_addr().unwrap().port())
}
