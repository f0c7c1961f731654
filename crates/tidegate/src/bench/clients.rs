//! The devices of a rig as TLS clients, and what they offer in a handshake.

use super::rig::Rig;
use anyhow::Result;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tidegate_pki::{files, inspect};

/// Sessions that a client may take up again: of one server, some of which TLS 1.3 uses up.
const REMEMBERED: usize = 8;

/// One device, or somebody without a certificate.
#[derive(Clone)]
pub(super) struct Client {
    /// The device's id, which serves as client id too.
    pub(super) id: String,
    pub(super) tls: Arc<ClientConfig>,
}

/// What a client offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// TLS 1.3, or 1.2.
    pub(super) tls13: bool,
    /// Whether the client shows its certificate.
    pub(super) certificate: bool,
    /// Whether it takes up earlier sessions.
    pub(super) resumption: bool,
    /// X25519MLKEM768 first, or nothing but X25519.
    pub(super) post_quantum: bool,
}

impl Offer {
    /// What a device offers that never resumes.
    pub(super) const MUTUAL: Self = Self {
        tls13: true,
        certificate: true,
        resumption: false,
        post_quantum: true,
    };
}

/// The first `count` devices of a rig, each with a memory for sessions of its own.
pub(super) fn clients(rig: &Rig, count: usize, offer: Offer) -> Result<Vec<Client>> {
    let certs = &rig.config.files.certs;
    let mut roots = RootCertStore::empty();
    for authority in inspect::bundle(&certs.join("ca.pem"))? {
        roots.add(authority.der)?;
    }
    let roots = Arc::new(roots);
    let mut provider = aws_lc_rs::default_provider();
    if !offer.post_quantum {
        provider.kx_groups = vec![kx_group::X25519];
    }
    let provider = Arc::new(provider);
    let versions = if offer.tls13 { [&TLS13] } else { [&TLS12] };
    let mut clients = Vec::with_capacity(count);
    for id in rig.device_ids().take(count) {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_root_certificates(Arc::clone(&roots));
        let mut tls = if offer.certificate {
            let chain = files::read_certificates(&certs.join(format!("{id}.pem")))?;
            let key = files::read_key(&certs.join(format!("{id}-key.pem")))?;
            builder.with_client_auth_cert(chain, key)?
        } else {
            builder.with_no_client_auth()
        };
        tls.resumption = if offer.resumption {
            Resumption::in_memory_sessions(REMEMBERED)
        } else {
            Resumption::disabled()
        };
        clients.push(Client {
            id: id.to_owned(),
            tls: Arc::new(tls),
        });
    }
    Ok(clients)
}
