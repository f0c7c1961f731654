//! Identity: the CA, certificate profiles and TLS configurations.
//!
//! - [`authority`]: makes the CA, issues certificates and revocation lists
//! - [`request`]: certificate requests, of which only the proven key is taken
//! - [`ledger`]: what the CA has issued and revoked
//! - [`revocation`]: writes revocation lists from the ledger
//! - [`est`]: certificate requests and certificates as EST carries them
//! - [`profile`]: what a certificate is for, and how long it is valid
//! - [`identity`]: who a certificate says its holder is
//! - [`tls`]: configurations of servers and clients, and the names of failed handshakes
//! - [`crl`]: reads revocation lists, and refuses any that our CA did not sign
//! - [`inspect`]: what stands in a certificate file, for people
//! - [`files`]: private keys and certificates on disk
//!
//! **Invariant**: a private key is never written readable by others, and never read from a file
//! that others can read. An identity comes from the SAN URI alone, never from the CN.

pub mod authority;
pub mod crl;
pub mod est;
pub mod files;
pub mod identity;
pub mod inspect;
pub mod ledger;
pub mod profile;
pub mod request;
pub mod revocation;
pub mod tls;
