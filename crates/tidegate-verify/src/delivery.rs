//! A message as a broker handed it over, before any check.

use tidegate_envelope::principal::Principal;

/// One delivery, borrowed from the connection it came through.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The topic it was published to.
    pub topic: &'a str,
    /// The payload's bytes.
    pub payload: &'a [u8],
    /// Whether the broker kept it from earlier (MQTT retain flag).
    pub retained: bool,
    /// Who published it, as far as the connection proves.
    pub principal: &'a Principal,
    /// The connection it came through.
    pub session: SessionId,
    /// Whether that connection resumed an earlier session, so that what the session had not
    /// finished comes again however long ago it was.
    pub resumed: bool,
    /// The MQTT 5 user property with a detached signature, where the message carries one.
    pub detached: Option<&'a str>,
}

/// One client session at a broker. A redelivery is plausible within one session or after the
/// same client resumed it, and suspect from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);
