//! How many may ask at one time, how long they may take, and how often they may come back.

use std::time::Duration;

/// Longest body of a request. A certificate request has about 500 bytes of base64.
pub const MAX_BODY_BYTES: usize = 16 * 1_024;

/// What a failed attempt costs, in requests: guessing tokens is slow long before it is hopeless.
pub const FAILURE_COST: u32 = 10;

/// Bounds of the service.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Connections at one time from one address (IPv6: from one /64).
    pub connections_per_address: usize,
    /// New connections from one address.
    pub connection_rate: Rate,
    /// Requests without a certificate from one address; a failed one counts [`FAILURE_COST`] times.
    pub address_rate: Rate,
    /// Requests without a certificate, all together.
    pub stranger_rate: Rate,
    /// Requests of one device with its certificate.
    pub device_rate: Rate,
    /// Requests with a certificate, all together: strangers do not use them up.
    pub devices_rate: Rate,
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake_within: Duration,
    /// A request's head.
    pub head_within: Duration,
    /// A request's body.
    pub body_within: Duration,
    /// A connection's whole life, however busy it is.
    pub connection_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_address: 32,
            connection_rate: Rate::new(100, 300),
            address_rate: Rate::new(60, 60),
            stranger_rate: Rate::new(300, 1_200),
            device_rate: Rate::new(30, 30),
            devices_rate: Rate::new(1_000, 3_000),
            handshake_within: Duration::from_secs(5),
            head_within: Duration::from_secs(5),
            body_within: Duration::from_secs(5),
            connection_life: Duration::from_secs(60),
        }
    }
}

/// So many at once, and so many a minute after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    burst: u32,
    per_minute: u32,
}

impl Rate {
    /// Zero of either counts as one: nobody could ever ask.
    #[must_use]
    pub const fn new(burst: u32, per_minute: u32) -> Self {
        const fn one_at_least(number: u32) -> u32 {
            if number == 0 { 1 } else { number }
        }
        Self {
            burst: one_at_least(burst),
            per_minute: one_at_least(per_minute),
        }
    }

    /// How many at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How many a minute after that.
    #[must_use]
    pub const fn per_minute(self) -> u32 {
        self.per_minute
    }
}
