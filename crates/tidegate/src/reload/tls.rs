//! The server's certificate, the CAs and their revocation lists, as they are in use. Each is taken
//! or refused by itself: a broken one does not keep the others from being exchanged.

use super::complaints::Subject;
use super::watch::Files;
use crate::clock;
use crate::config::Config;
use crate::setup::{self, Ca, CaPaths};
use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_pki::crl::{Accepted, CrlError};
use tidegate_pki::ledger::Ledger;
use tidegate_pki::tls::{Asked, ClientAuth, ClientTrust, ServerIdentity, TlsError, assemble};

/// What a server shows, and whom it lets in.
#[derive(Debug, Clone)]
pub(crate) struct InUse {
    paths: CaPaths,
    certificate: PathBuf,
    key: PathBuf,
    /// Whether the broker asks clients for certificates; the enrolment service always does.
    asks_clients: bool,
    identity: ServerIdentity,
    trust: Option<ClientTrust>,
    accepted: Accepted,
    /// Serial numbers of certificates whose CA was trusted and is no longer.
    abandoned: Arc<HashSet<Vec<u8>>>,
}

/// What became of one part when it was read again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as it was.
    Same,
    /// It is in use now; in words.
    Taken(String),
    /// The one before stays in use; why.
    Refused(String),
}

impl InUse {
    /// Reads everything for the first start; `None` at a level without TLS. `enrolls` says whether an
    /// enrolment service runs, which asks for certificates at any level.
    pub(crate) fn load(config: &Config, enrolls: bool) -> Result<Option<Self>> {
        if !config.level.has_tls() && !enrolls {
            return Ok(None);
        }
        let paths = CaPaths::of(config);
        let at = |file: &str| config.files.certs.join(format!("{}{file}", setup::SERVER));
        let (certificate, key) = (at(".pem"), at("-key.pem"));
        let identity =
            ServerIdentity::load(&certificate, &key).context("cannot use the server's certificate")?;
        let asks_clients = config.level.has_client_certificates();
        let mut accepted = Accepted::new();
        if paths.ledger.exists() {
            // So that an older list is not taken after a restart.
            for (authority, number) in Ledger::open(&paths.ledger)?.crl_numbers()? {
                accepted.remember(&authority, number);
            }
        }
        let trust = if asks_clients || enrolls {
            Some(first_trust(config, &paths, &mut accepted)?)
        } else {
            None
        };
        Ok(Some(Self {
            paths,
            certificate,
            key,
            asks_clients,
            identity,
            trust,
            accepted,
            abandoned: Arc::default(),
        }))
    }

    /// The files that this is read from, as they are now.
    pub(crate) fn files(config: &Config) -> Files {
        let paths = CaPaths::of(config);
        let at = |file: &str| config.files.certs.join(format!("{}{file}", setup::SERVER));
        Files::now(vec![
            at(".pem"),
            at("-key.pem"),
            paths.bundle,
            paths.lists,
            paths.key,
        ])
    }

    /// Reads everything again, and takes what is good.
    pub(crate) fn read_again(&mut self) -> Vec<(Subject, Outcome)> {
        let mut outcomes = vec![(Subject::ServerCertificate, self.read_identity())];
        if self.trust.is_some() {
            outcomes.extend(self.read_trust());
        }
        outcomes
    }

    /// For the broker: with its own session store at each call.
    pub(crate) fn broker_tls(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let trust = self.trust.as_ref().filter(|_| self.asks_clients);
        assemble(&self.identity, trust, Asked::Required)
    }

    /// For the enrolment service.
    pub(crate) fn enrollment_tls(&self) -> Result<Arc<ServerConfig>, TlsError> {
        assemble(&self.identity, self.trust.as_ref(), Asked::Optional)
    }

    /// The CAs whose clients are let in.
    pub(crate) fn trusted(&self) -> Arc<[CertificateDer<'static>]> {
        let authorities = self.trust.iter().flat_map(ClientTrust::authorities);
        authorities.map(|info| info.der.clone()).collect()
    }

    /// CAs and lists, where clients are asked for certificates.
    pub(crate) fn trust(&self) -> Option<&ClientTrust> {
        self.trust.as_ref()
    }

    /// Tells of a serial number whether its holder is to be shut out.
    pub(crate) fn is_revoked(&self) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static {
        let (trust, abandoned) = (self.trust.clone(), Arc::clone(&self.abandoned));
        move |serial| trust.as_ref().is_some_and(|trust| trust.revokes(serial)) || abandoned.contains(serial)
    }

    fn read_identity(&mut self) -> Outcome {
        match ServerIdentity::load(&self.certificate, &self.key) {
            Ok(identity) if identity.chain() == self.identity.chain() => Outcome::Same,
            Ok(identity) => {
                let until = identity.certificate().not_after;
                self.identity = identity;
                Outcome::Taken(format!("the server's certificate, valid until {until}"))
            }
            Err(error) => Outcome::Refused(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    fn read_trust(&mut self) -> Vec<(Subject, Outcome)> {
        let Some(before) = &self.trust else {
            return Vec::new();
        };
        let loaded = ClientTrust::load(&self.client_auth(), &mut self.accepted);
        let (authorities, now) = match loaded {
            Ok(now) => {
                let outcome = if now.authorities() == before.authorities() {
                    Outcome::Same
                } else {
                    Outcome::Taken(format!(
                        "the CA bundle, {}",
                        counted(now.authorities().len(), "CA")
                    ))
                };
                (outcome, now)
            }
            // Whatever is wrong with the bundle: who is revoked must be shut out all the same.
            Err(error) => match before.with_lists(&self.paths.lists, &mut self.accepted) {
                Ok(now) => (Outcome::Refused(in_words(error)), now),
                Err(with_old) => {
                    return self.refused_lists(error, with_old);
                }
            },
        };
        let lists = if now.lists() == before.lists() {
            Outcome::Same
        } else {
            Outcome::Taken(in_short(&now))
        };
        if matches!(authorities, Outcome::Taken(_)) {
            self.abandoned = Arc::new(self.abandoned_by(&now));
        }
        self.trust = Some(now);
        vec![
            (Subject::Authorities, authorities),
            (Subject::RevocationLists, lists),
        ]
    }

    /// Neither with the CAs of the file nor with those in use can the lists be taken.
    fn refused_lists(&self, with_new: TlsError, with_old: TlsError) -> Vec<(Subject, Outcome)> {
        let authorities = match &with_new {
            // The bundle is good as far as it was read; the lists are at fault.
            TlsError::Crl(_) => Outcome::Same,
            _ => Outcome::Refused(in_words(with_new)),
        };
        vec![
            (Subject::Authorities, authorities),
            (Subject::RevocationLists, Outcome::Refused(in_words(with_old))),
        ]
    }

    fn client_auth(&self) -> ClientAuth {
        client_auth(&self.paths)
    }

    /// Certificates of the ledger whose CA `trust` does not have: their holders cannot connect any
    /// more, and must not stay connected either. Without a ledger there is no telling.
    fn abandoned_by(&self, trust: &ClientTrust) -> HashSet<Vec<u8>> {
        let now = clock::now();
        let ledger = Ledger::open(&self.paths.ledger).and_then(|ledger| ledger.certificates());
        let entries = match ledger {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(error = %error, "sessions of CAs that are no longer trusted stay");
                return HashSet::new();
            }
        };
        let trusted: HashSet<String> = trust
            .authorities()
            .iter()
            .map(|info| hex::encode(&info.key_id))
            .collect();
        let abandoned = entries
            .into_iter()
            .map(|entry| entry.record)
            .filter(|record| record.not_after >= now && !trusted.contains(&record.authority));
        abandoned
            .filter_map(|record| hex::decode(record.serial).ok())
            .collect()
    }
}

/// CAs and lists for the first start. Where the ledger knows of a newer list than the file has, and
/// the CA's key is here, a new one is signed.
fn first_trust(config: &Config, paths: &CaPaths, accepted: &mut Accepted) -> Result<ClientTrust> {
    let auth = client_auth(paths);
    let refused = match ClientTrust::load(&auth, accepted) {
        Err(TlsError::Crl(CrlError::WentBack { .. })) if paths.has_key() => {
            let ca = Ca::open(config)?;
            ca.write_lists(&mut ca.ledger.lock()?, clock::now())?;
            anstream::println!(
                "Signed new revocation lists: those that were there were older than the ledger"
            );
            ClientTrust::load(&auth, accepted)
        }
        loaded => loaded,
    };
    refused.context("cannot check clients' certificates")
}

fn client_auth(paths: &CaPaths) -> ClientAuth {
    ClientAuth {
        ca: paths.bundle.clone(),
        crl: Some(paths.lists.clone()),
    }
}

fn in_words(error: TlsError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// `revocation list 5 with 2 revoked, due 2026-03-01T…`, for each.
fn in_short(trust: &ClientTrust) -> String {
    let list = |list: &tidegate_pki::crl::RevocationList| {
        format!(
            "revocation list {} with {} revoked, in force until {}",
            super::decimal(&list.number),
            list.serials.len(),
            list.next_update
        )
    };
    trust.lists().iter().map(list).collect::<Vec<_>>().join("; ")
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
