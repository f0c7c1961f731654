//! A CA in a folder of its own, and one handshake over a loopback socket.

use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::{Authority, Issued};
use tidegate_pki::identity;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{ClientAuth, ClientTls, ServerTls};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap())
}

pub(crate) fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// `ca.pem`, `ca-key.pem`, `server.pem` and `server-key.pem`, as a deployment has them.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::create(&at("ca.pem"), &at("ca-key.pem"), now()).unwrap();
        let site = Self { authority, folder };
        site.issue(
            "server",
            &Profile::server(&["broker.example", "192.0.2.7"]).unwrap(),
        );
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn issue(&self, name: &str, profile: &Profile) -> Issued {
        let issued = self.authority.issue(profile, now()).unwrap();
        issued.write(self.folder(), name, false).unwrap();
        issued
    }

    pub(crate) fn identity(&self, name: &str) -> (PathBuf, PathBuf) {
        (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}-key.pem")),
        )
    }

    pub(crate) fn server(&self, mutual: bool) -> ServerTls {
        let (certificate, key) = self.identity("server");
        let client_auth = mutual.then(|| ClientAuth {
            ca: self.path("ca.pem"),
            crl: None,
        });
        ServerTls {
            certificate,
            key,
            client_auth,
        }
    }

    pub(crate) fn server_with_crl(&self, crl: &str) -> ServerTls {
        let client_auth = Some(ClientAuth {
            ca: self.path("ca.pem"),
            crl: Some(self.path(crl)),
        });
        ServerTls {
            client_auth,
            ..self.server(true)
        }
    }

    pub(crate) fn client(&self, identity: Option<(PathBuf, PathBuf)>) -> ClientTls {
        ClientTls {
            ca: self.path("ca.pem"),
            identity,
        }
    }
}

/// What both ends know after a handshake.
pub(crate) struct Met {
    pub(crate) principal: Option<Principal>,
    pub(crate) kind: HandshakeKind,
    pub(crate) group: Option<String>,
}

/// One connection to `name` over loopback; each end's outcome. Two bytes go to the client and
/// back, so that both have taken part in everything, session tickets included.
pub(crate) fn handshake_as(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> (io::Result<Met>, io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::clone(client);
    let peer = thread::spawn(move || {
        let mut tcp = TcpStream::connect(address)?;
        let name = ServerName::try_from(name).unwrap();
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let mut bytes = [0; 2];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
        stream.flush()
    });
    let served = serve(&listener, server);
    (served, peer.join().unwrap())
}

pub(crate) fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> (io::Result<Met>, io::Result<()>) {
    handshake_as(server, client, "localhost")
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<Met> {
    let (mut tcp, _) = listener.accept()?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    stream.write_all(b"ok")?;
    stream.flush()?;
    stream.read_exact(&mut [0; 2])?;
    let principal = tls
        .peer_certificates()
        .map(|chain| identity::principal(&chain[0]).unwrap());
    let group = tls
        .negotiated_key_exchange_group()
        .map(|group| format!("{:?}", group.name()));
    Ok(Met {
        principal,
        kind: tls.handshake_kind().unwrap(),
        group,
    })
}
