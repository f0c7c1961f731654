//! The same listeners and rules for a stock Mosquitto (2.0.11 and later): its configuration and
//! its access control list.
//!
//! Not everything can be said to Mosquitto. It has no roles: a certificate's common name is a user
//! name, so the gateway's must be [`GATEWAY`] and the operator's [`OPERATOR`]. It answers every
//! subscription with success and withholds the messages instead, takes retained readings, keeps
//! live sessions of revoked certificates, and takes an empty revocation list.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tidegate_envelope::id::DeviceId;

use crate::acl::TopicRules;

/// The user name of gateways: the id in their certificates.
pub const GATEWAY: &str = "gateway";
/// The user name of operators.
pub const OPERATOR: &str = "operator";

/// What a Mosquitto is to do at one level of defence.
#[derive(Debug, Clone, Copy)]
pub struct Mosquitto<'a> {
    /// Name of the level, for the heading.
    pub level: &'a str,
    /// Where it listens.
    pub listener: SocketAddr,
    /// The folder with `ca.pem`, `crl.pem`, `server.pem` and `server-key.pem`; `None` without TLS.
    pub certificates: Option<&'a str>,
    /// The access control list's file, where clients prove themselves by certificates.
    pub access_control_list: Option<&'a str>,
}

impl Mosquitto<'_> {
    /// The configuration file.
    #[must_use]
    pub fn configuration(&self) -> String {
        let mut text = format!(
            "# Mosquitto at level {}. Written by `tidegate configs write`.\n\
             # Start it from the folder that holds certs/ and configs/.\n\n",
            self.level
        );
        let _ = writeln!(text, "listener {} {}", self.listener.port(), self.listener.ip());
        if let Some(folder) = self.certificates {
            let _ = writeln!(text, "cafile {folder}/ca.pem");
            let _ = writeln!(text, "certfile {folder}/server.pem");
            let _ = writeln!(text, "keyfile {folder}/server-key.pem");
            text.push_str("tls_version tlsv1.2\n");
        }
        match (self.certificates, self.access_control_list) {
            (Some(folder), Some(list)) => {
                text.push_str(CLIENT_CERTIFICATES);
                let _ = writeln!(text, "acl_file {list}");
                text.push_str(REVOCATION);
                let _ = writeln!(text, "crlfile {folder}/crl.pem");
            }
            _ => text.push_str(ANYBODY),
        }
        text.push_str(ALWAYS);
        text
    }
}

const CLIENT_CERTIFICATES: &str = "
# Clients prove themselves, and the certificate's name is the user name.
require_certificate true
use_identity_as_username true
allow_anonymous false
";

const REVOCATION: &str = "
# Certificates that are revoked. Mosquitto reads this list, the CA and the access control list again
# when it gets SIGHUP (`kill -HUP`, `systemctl reload`); a signal that comes while it reads is lost.
# What remains after that:
# - Connected clients stay, also revoked ones. Only a restart of Mosquitto ends them. The embedded
#   broker (`tidegate up`) closes them within a second.
# - An empty list lets revoked clients back in. Never empty or shorten the file in place: write a
#   new one beside it and rename it, as `tidegate certs` does.
# - When the list's time is over, Mosquitto refuses every client: renew it in time, and send SIGHUP.
";

const ANYBODY: &str = "
# Nobody proves who they are: this level shows why that is not enough.
allow_anonymous true
";

const ALWAYS: &str = "
# At Mosquitto's default of 1,000 a slow subscriber loses acknowledged messages.
max_queued_messages 0
message_size_limit 65536
# Without this, small packets wait for the acknowledgement of earlier ones, for 40 ms and more.
set_tcp_nodelay true
persistence false
log_dest stderr

# Started as root, Mosquitto would become the user mosquitto, who may not read keys of mode 0600.
# Started as anyone else this line does nothing.
user root
";

/// A device whose certificate Mosquitto would take for a gateway's or an operator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device is called `{0}`, which Mosquitto would take for the {0} itself: give the device another id"
)]
pub struct ReservedName(pub DeviceId);

/// The access control list: what [`TopicRules`] let each role do, for the devices with these ids.
///
/// # Errors
/// When a device has the name of a role.
pub fn access_control_list(
    rules: &TopicRules,
    devices: impl IntoIterator<Item = DeviceId>,
) -> Result<String, ReservedName> {
    let mut text = String::from(
        "# Who may use which topic. Written by `tidegate configs write`.\n\
         # A device writes its own readings, asks for the time, and reads its own commands.\n\
         # Only gateway and operator read everything; the gateway answers with commands.\n",
    );
    let mut own_lines = String::new();
    // `%u` ties a topic to the identity of the same name. Where the registry ties them otherwise,
    // each device needs lines of its own, and the pattern would let one speak for another.
    let mut by_name = true;
    for id in devices {
        if [GATEWAY, OPERATOR].contains(&id.as_str()) {
            return Err(ReservedName(id));
        }
        if let Some(segment) = (rules.segment)(&id) {
            by_name &= segment == id.as_str();
            let _ = writeln!(own_lines, "user {id}\n{}", device_lines(rules, &segment, "topic"));
        }
    }
    if by_name {
        text.push_str(&device_lines(rules, "%u", "pattern"));
        text.push('\n');
    } else {
        text.push_str(&own_lines);
    }
    for role in [GATEWAY, OPERATOR] {
        let _ = writeln!(text, "user {role}");
        for filter in &rules.readable {
            let _ = writeln!(text, "topic read {filter}");
        }
        let _ = writeln!(text, "topic write {}\n", rules.commands.filter());
    }
    text.truncate(text.trim_end().len() + 1);
    Ok(text)
}

fn device_lines(rules: &TopicRules, segment: &str, kind: &str) -> String {
    format!(
        "{kind} write {}\n{kind} write {}\n{kind} read {}\n",
        rules.telemetry.topic(segment),
        rules.time.topic(segment),
        rules.commands.topic(segment)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::TopicPattern;

    fn rules(segment: impl Fn(&DeviceId) -> Option<String> + Send + Sync + 'static) -> TopicRules {
        TopicRules {
            telemetry: TopicPattern::new("site/{device}/sensors").unwrap(),
            commands: TopicPattern::new("site/{device}/commands").unwrap(),
            time: TopicPattern::new("site/{device}/time").unwrap(),
            readable: vec!["site/#".to_owned()],
            segment: Box::new(segment),
        }
    }

    fn ids(names: &[&str]) -> Vec<DeviceId> {
        names.iter().map(|name| DeviceId::new(name).unwrap()).collect()
    }

    #[test]
    fn devices_whose_topics_are_their_ids_share_a_pattern_that_follows_the_name() {
        let rules = rules(|id| Some(id.to_string()));
        let list = access_control_list(&rules, ids(&["device-001", "device-002"])).unwrap();
        let expected = "pattern write site/%u/sensors\npattern write site/%u/time\npattern read site/%u/commands\n\n\
                        user gateway\ntopic read site/#\ntopic write site/+/commands\n\n\
                        user operator\ntopic read site/#\ntopic write site/+/commands\n";
        assert!(list.ends_with(expected), "{list}");
    }

    #[test]
    fn device_whose_topic_differs_from_its_id_gets_lines_of_its_own_instead_of_the_pattern() {
        let rules = rules(|id| match id.as_str() {
            "device-001" => Some("boiler".to_owned()),
            "stranger" => None,
            other => Some(other.to_owned()),
        });
        let list = access_control_list(&rules, ids(&["device-001", "device-002", "stranger"])).unwrap();
        assert!(!list.contains("%u") && !list.contains("stranger"), "{list}");
        let own = "user device-001\ntopic write site/boiler/sensors\ntopic write site/boiler/time\n\
                   topic read site/boiler/commands\n";
        assert!(list.contains(own), "{list}");
        assert!(
            list.contains("user device-002\ntopic write site/device-002/sensors\n"),
            "{list}"
        );
    }

    #[test]
    fn device_with_the_name_of_a_role_is_refused() {
        let rules = rules(|id| Some(id.to_string()));
        for name in [GATEWAY, OPERATOR] {
            let refused = access_control_list(&rules, ids(&["device-001", name])).unwrap_err();
            assert_eq!(refused.0.as_str(), name);
        }
        assert!(access_control_list(&rules, ids(&["gateways", "Operator"])).is_ok());
    }

    #[test]
    fn only_levels_with_client_certificates_ask_for_them_and_for_the_revocation_list() {
        let level = |certificates, access_control_list| {
            Mosquitto {
                level: "x",
                listener: ([127, 0, 0, 1], 8883).into(),
                certificates,
                access_control_list,
            }
            .configuration()
        };
        let mutual = level(Some("certs"), Some("configs/list"));
        for line in [
            "listener 8883 127.0.0.1\n",
            "require_certificate true\n",
            "acl_file configs/list\n",
            "crlfile certs/crl.pem\n",
            "set_tcp_nodelay true\n",
        ] {
            assert!(mutual.contains(line), "{line} in {mutual}");
        }
        let server_only = level(Some("certs"), None);
        assert!(
            server_only.contains("cafile certs/ca.pem\n") && server_only.contains("allow_anonymous true\n")
        );
        assert!(!server_only.contains("crlfile") && !server_only.contains("require_certificate"));
        assert!(!level(None, None).contains("cafile"));
    }
}
