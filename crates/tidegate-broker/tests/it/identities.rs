//! A CA with certificates in a temporary folder, and the access rules of the level `mtls`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tidegate_broker::{Access, Limits, TopicPattern, TopicRules, Transport};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::{Authority, Revoked};
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{ClientAuth, ClientTls, ServerTls, client_config, server_config};

use crate::serve::Server;

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since_1970.as_micros().try_into().unwrap())
}

/// A CA and what it issued.
pub(crate) struct Identities {
    authority: Authority,
    folder: TempDir,
}

impl Identities {
    /// A CA with a server, `device-001`, `device-002`, `device-009` (not registered), `gateway` and `operator`.
    pub(crate) fn new() -> Self {
        let authority = Authority::generate(now()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate_pem()).unwrap();
        let identities = Self { authority, folder };
        identities.issue("server", &Profile::server(&[] as &[&str]).unwrap());
        for id in ["device-001", "device-002", "device-009"] {
            identities.issue(id, &Profile::client(Role::Device, device(id)));
        }
        identities.issue("gateway", &Profile::client(Role::Gateway, device("gateway")));
        identities.issue("operator", &Profile::client(Role::Operator, device("operator")));
        identities.revoke(1, &[]);
        identities
    }

    pub(crate) fn issue(&self, name: &str, profile: &Profile) {
        self.authority
            .issue(profile, now())
            .unwrap()
            .write(self.folder.path(), name, true)
            .unwrap();
    }

    /// Writes revocation list `number`, good for an hour.
    pub(crate) fn revoke(&self, number: u64, names: &[&str]) {
        self.write_list(number, names, now(), HOUR);
    }

    /// Writes a revocation list that was made at `made` and is good for `life`.
    pub(crate) fn write_list(&self, number: u64, names: &[&str], made: Timestamp, life: Duration) {
        let revoked: Vec<Revoked> = names
            .iter()
            .map(|name| Revoked {
                serial: self.serial(name),
                since: made,
                reason: None,
            })
            .collect();
        let list = self
            .authority
            .revocation_list(number, &revoked, made, life)
            .unwrap();
        std::fs::write(self.path("crl.pem"), list).unwrap();
    }

    pub(crate) fn serial(&self, name: &str) -> Vec<u8> {
        let chain = tidegate_pki::files::read_certificates(&self.path(&format!("{name}.pem"))).unwrap();
        tidegate_pki::identity::leaf(&chain[0]).unwrap().serial
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The files of a server that asks for certificates.
    pub(crate) fn server_files(&self) -> ServerTls {
        ServerTls {
            certificate: self.path("server.pem"),
            key: self.path("server-key.pem"),
            client_auth: Some(ClientAuth {
                ca: self.path("ca.pem"),
                crl: Some(self.path("crl.pem")),
            }),
        }
    }

    /// A server that asks for certificates, or one that does not.
    pub(crate) fn server_tls(&self, client_certificates: bool) -> Arc<ServerConfig> {
        let mut files = self.server_files();
        files.client_auth = files.client_auth.filter(|_| client_certificates);
        server_config(&files).unwrap()
    }

    /// A CA with the same name and another key.
    pub(crate) fn impostor(&self) -> Authority {
        self.authority.impostor(now()).unwrap()
    }

    /// TLS of a client that trusts this CA, with the certificate of `name` if there is one.
    pub(crate) fn client_tls(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let files = |name| {
            (
                self.path(&format!("{name}.pem")),
                self.path(&format!("{name}-key.pem")),
            )
        };
        client_config(&ClientTls {
            ca: self.path("ca.pem"),
            identity: name.map(files),
        })
        .unwrap()
    }

    /// A broker of the level `mtls`.
    pub(crate) fn serve(&self) -> Server {
        Server::start(
            Transport::Tls,
            rules(),
            Some(self.server_tls(true)),
            Limits::default(),
        )
    }

    /// A broker of the level `tls`.
    pub(crate) fn serve_open(&self) -> Server {
        Server::start(
            Transport::Tls,
            Access::Open,
            Some(self.server_tls(false)),
            Limits::default(),
        )
    }
}

/// The registry knows `device-001` and `device-002`, whose segments are not their ids.
pub(crate) fn rules() -> Access {
    Access::Certificates(Arc::new(topic_rules(|id| match id.as_str() {
        "device-001" => Some("one".to_owned()),
        "device-002" => Some("two".to_owned()),
        _ => None,
    })))
}

/// The topics of a site whose registry is `segment`.
pub(crate) fn topic_rules(
    segment: impl Fn(&DeviceId) -> Option<String> + Send + Sync + 'static,
) -> TopicRules {
    TopicRules {
        telemetry: TopicPattern::new("site/{device}/sensors").unwrap(),
        time: TopicPattern::new("site/{device}/time").unwrap(),
        commands: TopicPattern::new("site/{device}/commands").unwrap(),
        readable: vec!["site/#".to_owned()],
        segment: Box::new(segment),
    }
}
