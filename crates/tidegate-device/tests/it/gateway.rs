//! A gateway with the real enrolment service, and the embedded broker behind mutual TLS.

use crate::rig::device;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tidegate_broker::{
    Access, Broker, BrokerConfig, Disposition, Gate, Handle, Incoming, Limits, Listener, SecurityEvent,
    Transport,
};
use tidegate_device::enrollment::{Enrollment, IdentityFiles, Server, Token, Trust};
use tidegate_enroll::limits;
use tidegate_enroll::service::{DEFAULT_LIFE, Material, Service, Standing};
use tidegate_enroll::tokens::{self, Tokens};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::crl::Accepted;
use tidegate_pki::ledger::Ledger;
use tidegate_pki::profile::Profile;
use tidegate_pki::revocation::write_lists;
use tidegate_pki::tls::{ClientAuth, ServerTls, load_enrollment_server, server_config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since_1970.as_micros().try_into().unwrap())
}

/// Takes every reading, and remembers them in their order.
#[derive(Debug, Default)]
pub(crate) struct Readings(Mutex<Vec<Incoming>>);

impl Readings {
    pub(crate) fn sequences(&self) -> Vec<u64> {
        let readings = self.0.lock().unwrap();
        readings
            .iter()
            .map(|reading| crate::rig::sequence(&reading.payload))
            .collect()
    }
}

impl Gate for Readings {
    async fn admit(&self, publish: Incoming) -> Disposition {
        self.0.lock().unwrap().push(publish);
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

/// The service, and everything that it was given.
pub(crate) struct Gateway {
    folder: TempDir,
    /// The device's own folder.
    pub(crate) device_folder: TempDir,
    pub(crate) server: Server,
    pub(crate) tokens: Tokens,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) authority: Authority,
    material: watch::Sender<Arc<Material>>,
    accepted: Mutex<Accepted>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Gateway {
    /// `device-001` is registered.
    pub(crate) async fn start() -> Self {
        Self::with(limits::Limits::default()).await
    }

    pub(crate) async fn with(limits: limits::Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::generate(now()).unwrap();
        let profile = Profile::server(&[""; 0]).unwrap();
        let server = authority.issue(&profile, now()).unwrap();
        server.write(folder.path(), "server", false).unwrap();
        let ledger = Arc::new(Ledger::open(&path("certificates.jsonl")).unwrap());
        let tokens = Tokens::open(&path("enroll-tokens.json")).unwrap();
        let mut accepted = Accepted::new();
        let material = material(folder.path(), &[&authority], &ledger, &mut accepted);
        let (material, watched) = watch::channel(material);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
        };
        let service = Service {
            listener,
            material: watched,
            tokens: tokens.clone(),
            ledger: Arc::clone(&ledger),
            devices: Arc::new(|id| match id.as_str() {
                "device-001" => Standing::Enabled,
                _ => Standing::Unknown,
            }),
            life: DEFAULT_LIFE,
            limits,
            clock: Arc::new(now),
            on_event: Arc::new(drop),
        };
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self {
            folder,
            device_folder: tempfile::tempdir().unwrap(),
            server,
            tokens,
            ledger,
            authority,
            material,
            accepted: Mutex::new(accepted),
            stop: stop.clone(),
            _stop: stop.drop_guard(),
        }
    }

    /// The broker behind this gateway's CA.
    pub(crate) fn broker(&self) -> (Handle, Arc<Readings>, u16) {
        let listener = Listener {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            transport: Transport::Tls,
            access: Access::Open,
        };
        let config = BrokerConfig {
            listeners: vec![listener],
            tls: Some(server_config(&self.tls()).unwrap()),
            limits: Limits::default(),
        };
        let gate = Arc::new(Readings::default());
        let broker = Broker::bind(config, Arc::clone(&gate)).unwrap();
        let (handle, port) = (broker.handle(), broker.local_addresses()[0].port());
        tokio::spawn(broker.run(self.stop.clone()));
        (handle, gate, port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tls(&self) -> ServerTls {
        server_tls(self.folder.path())
    }

    pub(crate) fn token(&self, id: &str) -> Token {
        let id = DeviceId::new(id).unwrap();
        let token = self.tokens.create(&id, tokens::DEFAULT_LIFE, now()).unwrap();
        token.to_string().parse().unwrap()
    }

    pub(crate) fn files(&self) -> IdentityFiles {
        IdentityFiles::new(self.device_folder.path(), &device()).unwrap()
    }

    /// A first enrolment of `device-001` with a good token and the CA's file.
    pub(crate) fn enrollment(&self) -> Enrollment {
        Enrollment {
            server: self.server.clone(),
            trust: Trust::Ca(self.path("ca.pem")),
            device: device(),
            token: self.token("device-001"),
            folder: self.device_folder.path().into(),
            replace: false,
        }
    }

    /// Whether the one token that was made can still be used.
    pub(crate) fn token_is_good(&self) -> bool {
        self.tokens.pending(now()).unwrap().len() == 1
    }

    /// Gives the device a certificate by hand, of the profile given.
    pub(crate) fn issue(&self, profile: &Profile) {
        let issued = self.authority.issue(profile, now()).unwrap();
        issued
            .write(self.device_folder.path(), "device-001", true)
            .unwrap();
        std::fs::copy(self.path("ca.pem"), self.files().ca()).unwrap();
    }

    /// A certificate of which more than two thirds are over.
    pub(crate) fn issue_old(&self) {
        self.issue(&Profile::device(device()).between(now().minus(20 * DAY), now().plus(DAY)));
    }

    /// Makes the first CA the one that signs; all are trusted.
    pub(crate) fn exchange(&self, authorities: &[&Authority]) {
        let mut accepted = self.accepted.lock().unwrap();
        let material = material(self.folder.path(), authorities, &self.ledger, &mut accepted);
        self.material.send(material).unwrap();
    }

    /// Gives the server a certificate of another CA.
    pub(crate) fn issue_server(&self, authority: &Authority) {
        let profile = Profile::server(&[""; 0]).unwrap();
        let server = authority.issue(&profile, now()).unwrap();
        server.write(self.folder.path(), "server", true).unwrap();
    }
}

fn server_tls(folder: &Path) -> ServerTls {
    let path = |name: &str| folder.join(name);
    ServerTls {
        certificate: path("server.pem"),
        key: path("server-key.pem"),
        client_auth: Some(ClientAuth {
            ca: path("ca.pem"),
            crl: Some(path("crl.pem")),
        }),
    }
}

fn material(
    folder: &Path,
    authorities: &[&Authority],
    ledger: &Ledger,
    accepted: &mut Accepted,
) -> Arc<Material> {
    let path = |name: &str| folder.join(name);
    let bundle: String = authorities
        .iter()
        .map(|authority| authority.certificate_pem())
        .collect();
    std::fs::write(path("ca.pem"), bundle).unwrap();
    let opened: Vec<Authority> = authorities
        .iter()
        .enumerate()
        .map(|(number, authority)| {
            let key = path(&format!("ca-{number}-key.pem"));
            drop(std::fs::remove_file(&key));
            authority.write_key(&key).unwrap();
            Authority::open(&path("ca.pem"), &key).unwrap()
        })
        .collect();
    write_lists(&mut ledger.lock().unwrap(), &opened, &path("crl.pem"), now()).unwrap();
    let loaded = load_enrollment_server(&server_tls(folder), accepted).unwrap();
    let trusted = opened.iter().map(|authority| authority.der().clone()).collect();
    Arc::new(Material {
        authority: Arc::new(opened.into_iter().next().unwrap()),
        tls: loaded.config,
        trusted,
    })
}
