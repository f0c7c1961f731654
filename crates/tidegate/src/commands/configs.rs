//! `tidegate configs`: configurations for a stock Mosquitto, one per level.

use crate::cli::Place;
use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use crate::level::Level;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Write configurations for a stock Mosquitto
#[derive(Debug, Args)]
pub(crate) struct Configs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write one file per level, and the access control list, into configs/
    #[command(after_help = "Example:
  tidegate configs write && mosquitto -c configs/mosquitto_mtls.conf
  tidegate gateway --level mtls

Run Mosquitto from the folder that holds certs/ and configs/.")]
    Write,
}

impl Configs {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let Action::Write = self.action;
        let config = place.load()?;
        let registry = &config.files.registry;
        let devices = if registry.exists() {
            DevicesFile::load(registry)?.devices
        } else {
            Vec::new()
        };
        let folder = &config.files.configs;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (name, text) in files(&config, &place.dir, &devices) {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            anstream::println!("{}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// File name of a level's configuration. The first three names are a contract with older guides.
pub(crate) fn file_name(level: Level) -> &'static str {
    match level {
        Level::Plain => "mosquitto_insecure.conf",
        Level::Tls => "mosquitto_tls.conf",
        Level::Mtls => "mosquitto_mtls.conf",
        Level::Signed => "mosquitto_signed.conf",
        Level::Dashboard => "mosquitto_dashboard.conf",
        Level::Ai => "mosquitto_ai.conf",
    }
}

/// The access control list's file name.
const ACL_FILE: &str = "mosquitto.acl";

fn files(config: &Config, home: &Path, devices: &[DeviceEntry]) -> Vec<(&'static str, String)> {
    let mut files: Vec<_> = Level::ALL
        .into_iter()
        .map(|level| (file_name(level), configuration(config, home, level)))
        .collect();
    files.push((ACL_FILE, access_control_list(config, devices)));
    files
}

fn configuration(config: &Config, home: &Path, level: Level) -> String {
    let relative = |path: &Path| path.strip_prefix(home).unwrap_or(path).display().to_string();
    let certs = relative(&config.files.certs);
    let mut text = format!("# Mosquitto at level {level}. Written by `tidegate configs write`.\n");
    text.push_str("# Start it from the folder that holds certs/ and configs/.\n\n");
    let port = if level.has_tls() {
        config.listen.mqtts_port
    } else {
        config.listen.mqtt_port
    };
    let _ = writeln!(text, "listener {port} {}", config.listen.mqtt_address);
    if level.has_tls() {
        let _ = writeln!(text, "cafile {certs}/ca.pem");
        let _ = writeln!(text, "certfile {certs}/server.pem");
        let _ = writeln!(text, "keyfile {certs}/server-key.pem");
        text.push_str("tls_version tlsv1.2\n");
    }
    if level.has_client_certificates() {
        text.push_str("\n# Clients prove themselves, and the certificate's name is the user name.\n");
        text.push_str("require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n");
        let _ = writeln!(text, "acl_file {}/{ACL_FILE}", relative(&config.files.configs));
    } else {
        text.push_str("\n# Nobody proves who they are: this level shows why that is not enough.\n");
        text.push_str("allow_anonymous true\n");
    }
    text.push_str(
        "\n# At Mosquitto's default of 1,000 a slow subscriber loses acknowledged messages.\n\
         max_queued_messages 0\n\
         message_size_limit 65536\n\
         persistence false\n\
         log_dest stderr\n\
         \n# Started as root, Mosquitto would become the user mosquitto, who may not read keys of mode 0600.\n\
         # Started as anyone else this line does nothing.\n\
         user root\n",
    );
    text
}

fn access_control_list(config: &Config, devices: &[DeviceEntry]) -> String {
    let prefix = config
        .telemetry_topic
        .split("{device}")
        .next()
        .unwrap_or_default();
    let rules = |segment: &str, write: &str, read: &str| {
        let telemetry = config.telemetry_topic.replace("{device}", segment);
        format!("{write} {telemetry}\n{write} {prefix}{segment}/time\n{read} {prefix}{segment}/commands\n")
    };
    // `%u` ties a topic to the identity of the same name. Where the registry ties them otherwise,
    // each device needs lines of its own, and the pattern would let one speak for another.
    let devices = if devices.iter().all(|device| device.topic == device.id) {
        rules("%u", "pattern write", "pattern read")
    } else {
        let own = |device: &DeviceEntry| {
            format!(
                "user {}\n{}\n",
                device.id,
                rules(&device.topic, "topic write", "topic read")
            )
        };
        devices.iter().map(own).collect()
    };
    format!(
        "# Who may use which topic. Written by `tidegate configs write`.\n\
         # A device writes its own readings, asks for the time, and reads its own commands.\n\
         # Only gateway and operator read everything; the gateway answers with commands.\n\
         {devices}\n\
         user gateway\n\
         topic read {prefix}#\n\
         topic write {prefix}+/commands\n\
         \n\
         user operator\n\
         topic read {prefix}#\n\
         topic write {prefix}+/commands\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_whose_topic_differs_from_its_id_gets_lines_of_its_own_instead_of_the_pattern() {
        let config = Config::load(Path::new("no such file")).unwrap();
        let mut devices = vec![
            DeviceEntry::new("device-001", "kitchen"),
            DeviceEntry::new("device-002", "kitchen"),
        ];
        let list = access_control_list(&config, &devices);
        assert!(
            list.contains("pattern write hydroficient/grandmarina/%u/sensors\n"),
            "{list}"
        );
        for line in [
            "pattern write hydroficient/grandmarina/%u/time\n",
            "user gateway\ntopic read hydroficient/grandmarina/#\ntopic write hydroficient/grandmarina/+/commands\n",
        ] {
            assert!(list.contains(line), "{list}");
        }
        devices[0].topic = "boiler".into();
        let list = access_control_list(&config, &devices);
        assert!(!list.contains("%u"), "{list}");
        let own = "user device-001\ntopic write hydroficient/grandmarina/boiler/sensors\n\
                   topic write hydroficient/grandmarina/boiler/time\n\
                   topic read hydroficient/grandmarina/boiler/commands\n";
        assert!(list.contains(own), "{list}");
    }
}
