//! `tidegate configs`: configurations for a stock Mosquitto, one per level.

use crate::cli::Place;
use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use crate::level::Level;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use tidegate_broker::mosquitto::{self, Mosquitto};
use tidegate_broker::{TopicPattern, TopicRules};
use tidegate_envelope::id::DeviceId;
use tidegate_verify::registry::TopicShape;

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
        for (name, text) in files(&config, &place.dir, &devices)? {
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

fn files(config: &Config, home: &Path, devices: &[DeviceEntry]) -> Result<Vec<(&'static str, String)>> {
    let mut files: Vec<_> = Level::ALL
        .into_iter()
        .map(|level| (file_name(level), configuration(config, home, level)))
        .collect();
    files.push((ACL_FILE, access_control_list(config, devices)?));
    Ok(files)
}

fn configuration(config: &Config, home: &Path, level: Level) -> String {
    let relative = |path: &Path| path.strip_prefix(home).unwrap_or(path).display().to_string();
    let certs = relative(&config.files.certs);
    let list = relative(&config.files.configs.join(ACL_FILE));
    let port = if level.has_tls() {
        config.listen.mqtts_port
    } else {
        config.listen.mqtt_port
    };
    Mosquitto {
        level: &level.to_string(),
        listener: SocketAddr::new(config.listen.mqtt_address, port),
        certificates: level.has_tls().then_some(&certs),
        access_control_list: level.has_client_certificates().then_some(&list),
    }
    .configuration()
}

/// The rules of the embedded broker, in Mosquitto's words.
fn access_control_list(config: &Config, devices: &[DeviceEntry]) -> Result<String> {
    let topics = TopicShape::new(&config.telemetry_topic).context("topics.telemetry")?;
    let segments: HashMap<String, String> = devices
        .iter()
        .map(|device| (device.id.clone(), device.topic.clone()))
        .collect();
    let rules = TopicRules {
        telemetry: TopicPattern::new(&config.telemetry_topic)?,
        time: TopicPattern::new(&topics.time("{device}"))?,
        commands: TopicPattern::new(&topics.command("{device}"))?,
        readable: vec![topics.filter()],
        segment: Box::new(move |id| segments.get(id.as_str()).cloned()),
    };
    let ids = devices
        .iter()
        .map(|device| DeviceId::new(&device.id))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(mosquitto::access_control_list(&rules, ids)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_names_the_files_of_this_folder_and_the_list_its_devices() {
        let config = Config::load(Path::new("no such file")).unwrap();
        let mut devices = vec![
            DeviceEntry::new("device-001", "kitchen"),
            DeviceEntry::new("device-002", "kitchen"),
        ];
        let home = config.files.certs.parent().unwrap().to_owned();
        let written: HashMap<_, _> = files(&config, &home, &devices).unwrap().into_iter().collect();
        assert_eq!(written.len(), Level::ALL.len() + 1);
        let mutual = &written["mosquitto_mtls.conf"];
        for line in [
            "cafile certs/ca.pem\n",
            "crlfile certs/crl.pem\n",
            "acl_file configs/mosquitto.acl\n",
        ] {
            assert!(mutual.contains(line), "{line} in {mutual}");
        }
        assert!(!written["mosquitto_insecure.conf"].contains("certs/ca.pem"));
        let pattern = "pattern write hydroficient/grandmarina/%u/sensors\n";
        assert!(written[ACL_FILE].contains(pattern), "{}", written[ACL_FILE]);
        devices[0].topic = "boiler".into();
        let list = access_control_list(&config, &devices).unwrap();
        let own = "user device-001\ntopic write hydroficient/grandmarina/boiler/sensors\n";
        assert!(list.contains(own) && !list.contains(pattern), "{list}");
    }

    #[test]
    fn device_with_the_name_of_a_role_gets_no_list() {
        let config = Config::load(Path::new("no such file")).unwrap();
        let refused = access_control_list(&config, &[DeviceEntry::new("gateway", "kitchen")]).unwrap_err();
        assert!(refused.to_string().contains("`gateway`"), "{refused}");
    }
}
