//! `openssl s_client` as an MQTT client that keeps and offers TLS sessions.
//!
//! It must be installed (Debian: `openssl`); without it these tests fail.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::identities::Identities;
use crate::serve::PATIENCE;

/// A client that has sent its CONNECT. It is still there until it is dropped.
pub(crate) struct Dialled {
    _child: Child,
    /// The return code of its CONNACK (MQTT 3.1.1); `None` when the connection ended without.
    pub(crate) answer: Option<u8>,
}

impl Dialled {
    pub(crate) fn is_in(&self) -> bool {
        self.answer == Some(0)
    }
}

/// Connects with the certificate of `name`, and offers the session in the file `session` if there
/// is one. The session that the server gives is written there.
pub(crate) async fn dial(
    address: SocketAddr,
    identities: &Identities,
    name: &str,
    version: &str,
    session: &Path,
) -> Dialled {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-quiet",
            "-nocommands",
            "-verify_return_error",
            version,
        ])
        .args(["-connect", &address.to_string(), "-servername", "localhost"])
        .arg("-CAfile")
        .arg(identities.path("ca.pem"))
        .arg("-cert")
        .arg(identities.path(&format!("{name}.pem")))
        .arg("-key")
        .arg(identities.path(&format!("{name}-key.pem")))
        .arg("-sess_out")
        .arg(session);
    if session.exists() {
        command.arg("-sess_in").arg(session);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    // It may have ended already, when the server refused it.
    let _ = child.stdin.as_mut().unwrap().write_all(&hello(name)).await;
    let mut connack = [0; 4];
    let read = child.stdout.as_mut().unwrap().read_exact(&mut connack);
    let read = timeout(PATIENCE, read).await.expect("an answer in time");
    Dialled {
        answer: read.is_ok().then_some(connack[3]),
        _child: child,
    }
}

/// A CONNECT of MQTT 3.1.1 with this client id.
fn hello(client_id: &str) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    let mut packet = vec![0x10, 12 + length];
    packet.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x3c\x00");
    packet.push(length);
    packet.extend_from_slice(client_id.as_bytes());
    packet
}
