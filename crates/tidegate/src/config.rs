//! The configuration file, checked before any port opens.
//!
//! [`File`] is what TOML says, with unknown keys refused; [`Config`] is what the program may rely
//! on. Defaults are loopback, client certificates and signatures.

use crate::level::Level;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_detect::rules::Rules;
use tidegate_detect::rules::config::RulesTable;

/// The commented configuration that a first run writes.
pub(crate) const TEMPLATE: &str = include_str!("tidegate.toml");
/// Its name in the working folder.
pub(crate) const FILE_NAME: &str = "tidegate.toml";

/// The checked configuration. Paths are absolute or relative to the process's folder.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Name of the place, shown on the page.
    pub(crate) site: String,
    /// How much protection is on.
    pub(crate) level: Level,
    /// Address and ports of every listener.
    pub(crate) listen: Listen,
    /// Topic of a device's readings, with `{device}` for its segment.
    pub(crate) telemetry_topic: String,
    /// Where everything lies.
    pub(crate) files: Files,
    /// Limits of the checks.
    pub(crate) verify: VerifyLimits,
    /// How long readings and events are kept.
    pub(crate) retention: Retention,
    /// The enrolment service.
    pub(crate) enroll: Enroll,
    /// The false-alarm rate that the forest's threshold is set to, per reading.
    pub(crate) false_alarm_rate: f64,
    /// What is implausible whatever the forest says.
    pub(crate) rules: Rules,
    /// File of the one secret that all devices of an older deployment share.
    pub(crate) legacy_shared_secret: Option<PathBuf>,
}

/// Where each part listens.
#[derive(Debug, Clone)]
pub(crate) struct Listen {
    /// Address of the MQTT listeners.
    pub(crate) mqtt_address: IpAddr,
    /// Plain MQTT, used at level `plain`.
    pub(crate) mqtt_port: u16,
    /// MQTT over TLS, used from level `tls` on.
    pub(crate) mqtts_port: u16,
    /// Address of the page and the event stream.
    pub(crate) page_address: IpAddr,
    /// The page.
    pub(crate) page_port: u16,
    /// The compatible event stream, where it is turned on.
    pub(crate) events_port: Option<u16>,
    /// Host names besides localhost by which browsers may ask for the page.
    pub(crate) page_hosts: Vec<String>,
    /// Names and addresses besides localhost that go into the server certificate.
    pub(crate) server_names: Vec<String>,
    /// Lets clients without a certificate connect from other machines.
    pub(crate) dangerous_anonymous: bool,
}

/// Where everything lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Certificates and keys of server and clients.
    pub(crate) certs: PathBuf,
    /// The CA's key and the root key.
    pub(crate) secrets: PathBuf,
    /// The registry of devices.
    pub(crate) registry: PathBuf,
    /// Database, model and the publishers' counters.
    pub(crate) data: PathBuf,
    /// Mosquitto's configurations.
    pub(crate) configs: PathBuf,
}

impl Files {
    /// The key from which all device keys are derived: 32 bytes, mode 0600.
    pub(crate) fn root_key(&self) -> PathBuf {
        self.secrets.join("root.key")
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("tidegate.db")
    }

    /// The trained model.
    pub(crate) fn model(&self) -> PathBuf {
        self.data.join("model.tgm")
    }

    /// What detection remembers of each device.
    pub(crate) fn detection_memory(&self) -> PathBuf {
        self.data.join("detection.memory")
    }

    /// The sequence counters of publishers that run here.
    pub(crate) fn publishers(&self) -> PathBuf {
        self.data.join("publishers")
    }
}

/// Limits of the checks.
#[derive(Debug, Clone)]
pub(crate) struct VerifyLimits {
    /// Oldest accepted timestamp.
    pub(crate) window: Duration,
    /// How far ahead a device's clock may be.
    pub(crate) skew: Duration,
    /// Largest payload.
    pub(crate) max_payload_bytes: usize,
    /// Messages per second of one device.
    pub(crate) quota_per_s: u32,
}

/// The service from which devices fetch certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enroll {
    /// Whether it runs; where nothing is said, the command decides.
    pub(crate) enabled: Option<bool>,
    /// Its port, on the address of the MQTT listeners.
    pub(crate) port: u16,
    /// Life of the certificates that it gives out.
    pub(crate) life: Duration,
}

/// How long things are kept.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// Readings and events older than this are deleted.
    pub(crate) max_age: Duration,
    /// The database is kept below this size.
    pub(crate) max_bytes: u64,
}

impl Config {
    /// Reads `path`; a file that does not exist gives the defaults.
    ///
    /// Relative paths in the file are relative to the file's own folder.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    /// Reads and checks the text of a configuration file in `folder`.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Self> {
        let file: File =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        file.check(folder)
    }

    /// Refuses to open a level without client certificates to other machines, unless told to by name.
    ///
    /// Checked after the command line has had its say about the level.
    pub(crate) fn refuse_open_door(&self) -> Result<()> {
        let open = !self.listen.mqtt_address.is_loopback();
        if open && !self.level.has_client_certificates() && !self.listen.dangerous_anonymous {
            bail!(
                "level {} lets anyone publish, and listen.mqtt_address {} is open to other machines; use level mtls \
                 or above, or 127.0.0.1, or set listen.dangerous_anonymous_clients_from_other_machines = true",
                self.level,
                self.listen.mqtt_address
            );
        }
        Ok(())
    }

    /// Where MQTT clients connect at this level.
    pub(crate) fn mqtt_listener(&self) -> SocketAddr {
        let port = if self.level.has_tls() {
            self.listen.mqtts_port
        } else {
            self.listen.mqtt_port
        };
        SocketAddr::new(self.listen.mqtt_address, port)
    }

    /// Where the page is served.
    pub(crate) fn page_listener(&self) -> SocketAddr {
        SocketAddr::new(self.listen.page_address, self.listen.page_port)
    }

    /// Where the compatible events are served.
    pub(crate) fn events_listener(&self) -> Option<SocketAddr> {
        self.listen
            .events_port
            .map(|port| SocketAddr::new(self.listen.page_address, port))
    }
}

/// The file as TOML says it. Every key has a default; unknown keys are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    site: String,
    level: Level,
    listen: ListenTable,
    topics: TopicsTable,
    files: FilesTable,
    enroll: EnrollTable,
    verify: VerifyTable,
    store: StoreTable,
    detect: DetectTable,
    keys: KeysTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenTable {
    mqtt_address: IpAddr,
    mqtt_port: u16,
    mqtts_port: u16,
    page_address: IpAddr,
    page_port: u16,
    compatible_events: bool,
    events_port: u16,
    page_hosts: Vec<String>,
    server_names: Vec<String>,
    dangerous_anonymous_clients_from_other_machines: bool,
    dangerous_page_for_other_machines_without_sign_in: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TopicsTable {
    telemetry: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilesTable {
    certs: PathBuf,
    secrets: PathBuf,
    registry: PathBuf,
    data: PathBuf,
    configs: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EnrollTable {
    enabled: Option<bool>,
    port: u16,
    life_days: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VerifyTable {
    window_s: u64,
    skew_s: u64,
    max_payload_bytes: usize,
    quota_per_s: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreTable {
    keep_days: u32,
    max_size_mb: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DetectTable {
    false_alarm_rate: f64,
    rules: RulesTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeysTable {
    legacy_shared_secret: Option<PathBuf>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            site: "Grand Marina".into(),
            level: Level::default(),
            listen: ListenTable::default(),
            topics: TopicsTable::default(),
            files: FilesTable::default(),
            enroll: EnrollTable::default(),
            verify: VerifyTable::default(),
            store: StoreTable::default(),
            detect: DetectTable::default(),
            keys: KeysTable::default(),
        }
    }
}

impl Default for ListenTable {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            mqtt_address: loopback,
            mqtt_port: 1883,
            mqtts_port: 8883,
            page_address: loopback,
            page_port: 8000,
            compatible_events: false,
            events_port: 8765,
            page_hosts: Vec::new(),
            server_names: Vec::new(),
            dangerous_anonymous_clients_from_other_machines: false,
            dangerous_page_for_other_machines_without_sign_in: false,
        }
    }
}

impl Default for TopicsTable {
    fn default() -> Self {
        Self {
            telemetry: "hydroficient/grandmarina/{device}/sensors".into(),
        }
    }
}

impl Default for FilesTable {
    fn default() -> Self {
        Self {
            certs: "certs".into(),
            secrets: "secrets".into(),
            registry: "devices.toml".into(),
            data: "data".into(),
            configs: "configs".into(),
        }
    }
}

impl Default for EnrollTable {
    fn default() -> Self {
        Self {
            enabled: None,
            port: 8443,
            life_days: 7,
        }
    }
}

impl Default for VerifyTable {
    fn default() -> Self {
        Self {
            window_s: 30,
            skew_s: 5,
            max_payload_bytes: 65_536,
            quota_per_s: 1_000,
        }
    }
}

impl Default for StoreTable {
    fn default() -> Self {
        Self {
            keep_days: 90,
            max_size_mb: 4_096,
        }
    }
}

impl Default for DetectTable {
    fn default() -> Self {
        Self {
            false_alarm_rate: 1e-4,
            rules: RulesTable::default(),
        }
    }
}

impl File {
    fn check(self, folder: &Path) -> Result<Config> {
        let listen = self.listen;
        if !listen.page_address.is_loopback() && !listen.dangerous_page_for_other_machines_without_sign_in {
            bail!(
                "listen.page_address {} is open to other machines, and the page has no sign-in; use 127.0.0.1, \
                 or set listen.dangerous_page_for_other_machines_without_sign_in = true",
                listen.page_address
            );
        }
        let verify = self.verify;
        within("verify.window_s", verify.window_s, 1, 3_600)?;
        within("verify.skew_s", verify.skew_s, 0, 600)?;
        within(
            "verify.max_payload_bytes",
            verify.max_payload_bytes as u64,
            256,
            65_536,
        )?;
        within("verify.quota_per_s", u64::from(verify.quota_per_s), 1, 1_000_000)?;
        within("store.keep_days", u64::from(self.store.keep_days), 1, 36_500)?;
        within("store.max_size_mb", self.store.max_size_mb, 8, 16_000_000)?;
        within("enroll.life_days", u64::from(self.enroll.life_days), 1, 825)?;
        let rate = self.detect.false_alarm_rate;
        if !(1e-6..=0.1).contains(&rate) {
            bail!("detect.false_alarm_rate {rate} is outside 0.000001 to 0.1");
        }
        if self.site.is_empty() || self.site.chars().count() > 80 {
            bail!("site must be 1 to 80 characters long");
        }
        let at = |path: PathBuf| folder.join(path);
        Ok(Config {
            site: self.site,
            level: self.level,
            telemetry_topic: self.topics.telemetry,
            files: Files {
                certs: at(self.files.certs),
                secrets: at(self.files.secrets),
                registry: at(self.files.registry),
                data: at(self.files.data),
                configs: at(self.files.configs),
            },
            enroll: Enroll {
                enabled: self.enroll.enabled,
                port: self.enroll.port,
                life: days(self.enroll.life_days),
            },
            verify: VerifyLimits {
                window: Duration::from_secs(verify.window_s),
                skew: Duration::from_secs(verify.skew_s),
                max_payload_bytes: verify.max_payload_bytes,
                quota_per_s: verify.quota_per_s,
            },
            retention: Retention {
                max_age: days(self.store.keep_days),
                max_bytes: self.store.max_size_mb * 1_048_576,
            },
            false_alarm_rate: rate,
            rules: self.detect.rules.rules().context("detect.rules")?,
            legacy_shared_secret: self.keys.legacy_shared_secret.map(at),
            listen: Listen {
                mqtt_address: listen.mqtt_address,
                mqtt_port: listen.mqtt_port,
                mqtts_port: listen.mqtts_port,
                page_address: listen.page_address,
                page_port: listen.page_port,
                events_port: listen.compatible_events.then_some(listen.events_port),
                page_hosts: listen.page_hosts,
                server_names: listen.server_names,
                dangerous_anonymous: listen.dangerous_anonymous_clients_from_other_machines,
            },
        })
    }
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86_400)
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    bail!("{key} = {value} is outside {least} to {most}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config> {
        let file: File = toml::from_str(text)?;
        file.check(Path::new("/srv"))
    }

    #[test]
    fn template_is_the_defaults_with_the_compatible_stream_turned_on() {
        let config = check(TEMPLATE).unwrap();
        let defaults = check("[listen]\ncompatible_events = true").unwrap();
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn unknown_key_is_refused_by_name() {
        let error = check("[verify]\nwindow = 3").unwrap_err().to_string();
        assert!(
            error.contains("unknown field `window`") && error.contains("window_s"),
            "{error}"
        );
    }

    #[test]
    fn page_open_to_other_machines_needs_the_dangerous_key() {
        assert!(check("[listen]\npage_address = \"0.0.0.0\"").is_err());
        let allowed = "[listen]\npage_address = \"0.0.0.0\"\n\
                       dangerous_page_for_other_machines_without_sign_in = true";
        assert!(check(allowed).is_ok());
    }

    #[test]
    fn anonymous_level_open_to_other_machines_needs_the_dangerous_key() {
        for (level, allowed) in [("plain", false), ("tls", false), ("mtls", true), ("ai", true)] {
            let config = check(&format!(
                "level = \"{level}\"\n[listen]\nmqtt_address = \"0.0.0.0\""
            ))
            .unwrap();
            assert_eq!(config.refuse_open_door().is_ok(), allowed, "{level}");
        }
        let dangerous = "level = \"plain\"\n[listen]\nmqtt_address = \"0.0.0.0\"\n\
                         dangerous_anonymous_clients_from_other_machines = true";
        assert!(check(dangerous).unwrap().refuse_open_door().is_ok());
    }

    #[test]
    fn enrolment_is_left_to_the_command_unless_it_is_turned_on_or_off() {
        assert_eq!(check("").unwrap().enroll.enabled, None);
        let config = check("[enroll]\nenabled = false\nport = 0\nlife_days = 1").unwrap();
        assert_eq!((config.enroll.enabled, config.enroll.port), (Some(false), 0));
        assert_eq!(config.enroll.life, Duration::from_secs(86_400));
        assert!(check("[enroll]\nlife_days = 0").is_err());
        assert!(check("[enroll]\nlife_days = 826").is_err());
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        assert_eq!(
            check("[verify]\nwindow_s = 0").unwrap_err().to_string(),
            "verify.window_s = 0 is outside 1 to 3600"
        );
        assert!(check("[detect]\nfalse_alarm_rate = 0.5").is_err());
        let rules = "[detect.rules.channels.pressure_upstream]\nleast = 0\ngreatest = 0";
        assert!(
            format!("{:#}", check(rules).unwrap_err())
                .starts_with("detect.rules: channels.pressure_upstream")
        );
    }
}
