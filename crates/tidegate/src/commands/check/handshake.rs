//! A real TLS handshake: with the server that runs, or with one that is made of the same files.

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, ServerConfig, ServerConnection};
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What two sides agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    version: &'static str,
    cipher: String,
    /// Such as `X25519MLKEM768`.
    pub(super) key_exchange: String,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.version, self.cipher, self.key_exchange)
    }
}

/// Connects to whoever listens on `address`, which must prove to be `localhost`.
pub(super) fn with_running(address: SocketAddr, client: Arc<ClientConfig>) -> Result<Agreed> {
    let address = SocketAddr::new(reachable(address.ip()), address.port());
    let socket = TcpStream::connect_timeout(&address, PATIENCE).context("nobody answers")?;
    shake_hands(socket, client)
}

/// Plays both sides over loopback.
pub(super) fn with_itself(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<Agreed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    let socket = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut accepted, _) = listener.accept()?;
    limit(&accepted)?;
    let serving = std::thread::spawn(move || -> Result<()> {
        let mut connection = ServerConnection::new(server)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut accepted)?;
        }
        connection.send_close_notify();
        connection.complete_io(&mut accepted)?;
        Ok(())
    });
    let agreed = shake_hands(socket, client);
    // The server knows best what it did not like.
    match serving.join() {
        Ok(served) => served.context("the server refused its own client")?,
        Err(_) => bail!("the server's side of the handshake failed"),
    }
    agreed
}

fn shake_hands(mut socket: TcpStream, client: Arc<ClientConfig>) -> Result<Agreed> {
    limit(&socket)?;
    let name = ServerName::try_from("localhost").context("`localhost` is a name")?;
    let mut connection = ClientConnection::new(client, name)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    // In TLS 1.3 the client is done before the server has looked at its certificate; what the server
    // sends next says whether it took it.
    match connection.read_tls(&mut socket) {
        Ok(_) => {
            connection.process_new_packets()?;
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => return Err(error.into()),
    }
    let agreed = agreed(&connection);
    connection.send_close_notify();
    // A courtesy: the other side may be gone already.
    drop(connection.complete_io(&mut socket));
    agreed
}

fn agreed(connection: &ClientConnection) -> Result<Agreed> {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        other => bail!("an unexpected protocol version: {other:?}"),
    };
    let suite = connection.negotiated_cipher_suite().context("no cipher suite")?;
    let group = connection
        .negotiated_key_exchange_group()
        .context("no key exchange")?;
    Ok(Agreed {
        version,
        cipher: format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"),
        key_exchange: format!("{:?}", group.name()),
    })
}

fn limit(socket: &TcpStream) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

/// Where somebody who listens everywhere can be reached from here.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}
