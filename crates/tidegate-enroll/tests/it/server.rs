//! A service with its CA, ledger, tokens and registry in a temporary folder.

use crate::client::Answer;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tidegate_enroll::event::{Event, Refusal, What};
use tidegate_enroll::limits::Limits;
use tidegate_enroll::service::{DEFAULT_LIFE, Material, Service, Standing};
use tidegate_enroll::tokens::{self, Tokens};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::crl::Accepted;
use tidegate_pki::ledger::{Entry, Ledger, Record};
use tidegate_pki::profile::Profile;
use tidegate_pki::revocation::write_lists;
use tidegate_pki::tls::{ClientAuth, ServerTls, load_enrollment_server};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since_1970.as_micros().try_into().unwrap())
}

/// The service, and everything that it was given.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) tokens: Tokens,
    pub(crate) ledger: Arc<Ledger>,
    authority: Authority,
    material: watch::Sender<Arc<Material>>,
    accepted: Mutex<Accepted>,
    registry: Arc<Mutex<HashMap<DeviceId, Standing>>>,
    /// How far the service's clock is ahead.
    ahead_us: Arc<AtomicI64>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    running: JoinHandle<io::Result<()>>,
    stop: DropGuard,
}

impl Server {
    /// `device-001` and `device-002` are registered, `device-003` is disabled.
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("ca.pem"), &path("ca-key.pem"), now()).unwrap();
        let names: &[&str] = &[];
        let server = authority.issue(&Profile::server(names).unwrap(), now()).unwrap();
        server.write(folder.path(), "server", false).unwrap();
        let ledger = Arc::new(Ledger::open(&path("certificates.jsonl")).unwrap());
        let tokens = Tokens::open(&path("enroll-tokens.json")).unwrap();
        let mut accepted = Accepted::new();
        let material = material(folder.path(), &[&authority], &ledger, &mut accepted);
        let (material, watched) = watch::channel(material);
        let registry = Arc::new(Mutex::new(HashMap::from([
            (device("device-001"), Standing::Enabled),
            (device("device-002"), Standing::Enabled),
            (device("device-003"), Standing::Disabled),
        ])));
        let (sender, events) = mpsc::unbounded_channel();
        let ahead_us = Arc::new(AtomicI64::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, ahead) = (Arc::clone(&registry), Arc::clone(&ahead_us));
        let service = Service {
            listener,
            material: watched,
            tokens: tokens.clone(),
            ledger: Arc::clone(&ledger),
            devices: Arc::new(move |id| {
                let registry = asked.lock().unwrap();
                registry.get(id).copied().unwrap_or(Standing::Unknown)
            }),
            life: DEFAULT_LIFE,
            limits,
            clock: Arc::new(move || {
                Timestamp::from_micros(now().as_micros() + ahead.load(Ordering::Relaxed))
            }),
            on_event: Arc::new(move |event| drop(sender.send(event))),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(service.run(stop.clone()));
        Self {
            folder,
            address,
            tokens,
            ledger,
            authority,
            material,
            accepted: Mutex::new(accepted),
            registry,
            ahead_us,
            events: events.into(),
            running,
            stop: stop.drop_guard(),
        }
    }

    /// Stops the service, and waits until it has ended.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        timeout(PATIENCE, self.running)
            .await
            .expect("the service ends")
            .unwrap()
            .unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn token(&self, id: &str) -> String {
        let token = self.tokens.create(&device(id), tokens::DEFAULT_LIFE, now());
        token.unwrap().to_string()
    }

    pub(crate) fn set_standing(&self, id: &str, standing: Standing) {
        self.registry.lock().unwrap().insert(device(id), standing);
    }

    pub(crate) fn set_ahead(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.ahead_us.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn set_behind(&self, by: Duration) {
        self.set_ahead(by);
        self.ahead_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |micros| Some(-micros))
            .unwrap();
    }

    /// Writes `NAME.pem` and `NAME-key.pem` without going through the service.
    pub(crate) fn issue(&self, name: &str, profile: &Profile) {
        let issued = self.authority.issue(profile, now()).unwrap();
        issued.write(self.folder.path(), name, false).unwrap();
    }

    /// Puts revocations into force, as the gateway does when its files have changed.
    pub(crate) fn reload(&self) {
        self.exchange(&[&self.authority]);
    }

    /// Makes the first CA the one that signs; all are trusted.
    pub(crate) fn exchange(&self, authorities: &[&Authority]) {
        let mut accepted = self.accepted.lock().unwrap();
        let material = material(self.folder.path(), authorities, &self.ledger, &mut accepted);
        self.material.send(material).unwrap();
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.ledger.certificates().unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.entries().into_iter().map(|entry| entry.record).collect()
    }

    /// The next event; fails when none comes.
    pub(crate) async fn event(&self) -> Event {
        let mut events = self.events.lock().await;
        timeout(PATIENCE, events.recv())
            .await
            .expect("an event comes")
            .unwrap()
    }

    /// The next event, which is a refusal of `id`.
    pub(crate) async fn refusal(&self, id: Option<&str>) -> Refusal {
        let event = self.event().await;
        assert_eq!(event.device, id.map(device), "{event:?}");
        match event.what {
            What::Refused(refusal) => refusal,
            other => panic!("no refusal: {other:?}"),
        }
    }

    /// Nothing has been told since the last event that was taken.
    pub(crate) fn assert_no_event(&self) {
        let event = self.events.try_lock().unwrap().try_recv();
        assert!(event.is_err(), "{event:?}");
    }

    /// Checks that an answer refuses in this way, that its text says why, that the event names the
    /// same reason, and that nothing was issued.
    #[track_caller]
    pub(crate) fn check<'a>(
        &'a self,
        answer: &'a Answer,
        status: u16,
        name: &'a str,
        id: Option<&'a str>,
    ) -> impl Future<Output = ()> + 'a {
        assert_eq!(answer.status, status, "{answer:?}");
        async move {
            let refusal = self.refusal(id).await;
            assert_eq!(refusal.name(), name, "{refusal:?}");
            assert!(
                answer.text().contains(&refusal.to_string()),
                "{answer:?} {refusal}"
            );
        }
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
    let tls = ServerTls {
        certificate: path("server.pem"),
        key: path("server-key.pem"),
        client_auth: Some(ClientAuth {
            ca: path("ca.pem"),
            crl: Some(path("crl.pem")),
        }),
    };
    let loaded = load_enrollment_server(&tls, accepted).unwrap();
    let trusted = opened.iter().map(|authority| authority.der().clone()).collect();
    Arc::new(Material {
        authority: Arc::new(opened.into_iter().next().unwrap()),
        tls: loaded.config,
        trusted,
    })
}
