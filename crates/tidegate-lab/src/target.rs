//! The system under attack, as an attacker sees it.

use std::path::{Path, PathBuf};

/// Where to connect, and which stolen files to use.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host of the broker.
    pub host: String,
    /// Port of the broker.
    pub port: u16,
    /// Whether the broker speaks TLS.
    pub tls: bool,
    /// Folder with the stolen certificates: `ca.pem`, `<name>.pem`, `<name>-key.pem`.
    pub certs: PathBuf,
    /// Telemetry topic with `{device}` for the device's segment.
    pub telemetry_topic: String,
}

impl Target {
    /// The telemetry topic of `segment`.
    #[must_use]
    pub fn topic(&self, segment: &str) -> String {
        self.telemetry_topic.replace("{device}", segment)
    }

    /// The filter that covers all telemetry.
    #[must_use]
    pub fn filter(&self) -> String {
        let prefix = self.telemetry_topic.split("{device}").next().unwrap_or_default();
        format!("{prefix}#")
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.certs.join("ca.pem")
    }

    /// Certificate and key of `name`.
    #[must_use]
    pub fn identity(&self, name: &str) -> (PathBuf, PathBuf) {
        let at = |file: String| Path::new(&self.certs).join(file);
        (at(format!("{name}.pem")), at(format!("{name}-key.pem")))
    }
}
