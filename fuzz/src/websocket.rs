//! What a client of the compatible event stream may send: frames by bytes, in any pieces.

use std::io::{self, Read, Write};
use tidegate_envelope::json::{Document, Member};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

#[path = "../../crates/tidegate-serve/src/compatible/inbound.rs"]
mod inbound;

/// The server's bound on messages and frames.
const MAX_INBOUND_BYTES: usize = 4_096;

/// Takes `bytes` for what a client sends after its handshake; the first one says in which pieces.
///
/// # Panics
/// When a property does not hold.
pub fn check(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let messages = received(bytes, usize::MAX);
    assert_eq!(
        received(bytes, usize::from(*piece).max(1)),
        messages,
        "what arrives in pieces is what was sent"
    );
    for message in messages {
        assert!(message.len() <= MAX_INBOUND_BYTES, "the server's bound holds");
        if let Message::Text(text) = message {
            text_is_understood(&text);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        text_is_understood(text);
    }
}

/// Where the strict reader of devices' messages understands a text, it finds the same.
fn text_is_understood(text: &str) {
    let is_ping = inbound::is_ping(text);
    if let Ok(document) = Document::parse(text.as_bytes()) {
        let named = matches!(document.members().find("type"), Some(Member::Text("ping")));
        assert_eq!(is_ping, named, "a ping is an object of that type");
    }
}

/// The messages up to the first that ends the connection.
fn received(bytes: &[u8], piece: usize) -> Vec<Message> {
    // A smaller buffer than the server's: clearing that one would take most of the time.
    let config = WebSocketConfig::default()
        .read_buffer_size(512)
        .max_message_size(Some(MAX_INBOUND_BYTES))
        .max_frame_size(Some(MAX_INBOUND_BYTES));
    let mut socket = WebSocket::from_raw_socket(Client { bytes, piece }, Role::Server, Some(config));
    let mut messages = Vec::new();
    while let Ok(message) = socket.read() {
        messages.push(message);
    }
    messages
}

/// A client that has sent all it will, and takes whatever the server answers.
struct Client<'b> {
    bytes: &'b [u8],
    piece: usize,
}

impl Read for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.piece);
        self.bytes.read(&mut buffer[..length])
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
