//! Certificates, CAs, revocation lists, the enrolment service, and what TLS agrees on.

use super::Findings;
use super::handshake;
use crate::clock;
use crate::config::Config;
use crate::enrollment::Wanted;
use crate::overview::is_soon;
use crate::reload::decimal;
use crate::setup::ca::name_of;
use crate::setup::{self, CaPaths};
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::{self, CertificateInfo, Usage};
use tidegate_pki::tls::{ClientAuth, ClientTls, ServerTls, client_config, server_config};
use tidegate_pki::{crl, files};

/// The key exchange that stays closed to quantum computers.
const POST_QUANTUM: &str = "X25519MLKEM768";

/// Everything about identities.
pub(super) fn check(config: &Config, findings: &mut Findings) {
    let now = clock::now();
    let bundle = authorities(config, now, findings);
    let revoked = lists(config, &bundle, now, findings);
    certificates(config, now, &revoked, findings);
    enrollment(config, findings);
    if config.level.has_tls() {
        tls(config, findings);
    }
}

fn authorities(config: &Config, now: Timestamp, findings: &mut Findings) -> Vec<CertificateInfo> {
    let path = CaPaths::of(config).bundle;
    let bundle = match inspect::bundle(&path) {
        Ok(bundle) => bundle,
        Err(error) => {
            findings.wrong("CA bundle", &format!("{error}; run `tidegate certs init`"));
            return Vec::new();
        }
    };
    for info in &bundle {
        let said = format!("{}: {}", path.display(), term(&info.subject, info));
        match info.is_valid(now) {
            true if is_soon(info.not_before, info.not_after, now) => findings.note(
                "CA bundle",
                &format!("{said}; `tidegate certs rotate-ca --begin` starts the change to a new one"),
            ),
            true => findings.right("CA bundle", &said),
            false => findings.wrong("CA bundle", &format!("{said}; it is not valid now")),
        }
    }
    if bundle.len() > 1 {
        findings.note(
            "CA bundle",
            "the CA is being changed; `tidegate certs rotate-ca` says how far it is",
        );
    }
    bundle
}

/// What is in force, for [`certificates`]; no list where they are not used.
fn lists(
    config: &Config,
    bundle: &[CertificateInfo],
    now: Timestamp,
    findings: &mut Findings,
) -> Vec<crl::RevocationList> {
    if bundle.is_empty() {
        return Vec::new();
    }
    let lists = match crl::read(&CaPaths::of(config).lists, bundle, now) {
        Ok(lists) => lists,
        Err(error) => {
            let said = format!("{:#}", anyhow::Error::from(error));
            if config.level.has_client_certificates() {
                findings.wrong("revocation", &said);
            } else {
                findings.note("revocation", &said);
            }
            return Vec::new();
        }
    };
    for (list, authority) in lists.iter().zip(bundle) {
        let said = format!(
            "list {} of {}: {} revoked, next update {}",
            decimal(&list.number),
            authority.subject,
            list.serials.len(),
            day(list.next_update)
        );
        if now.since(list.this_update) > list.next_update.since(list.this_update) / 2 {
            findings.note(
                "revocation",
                &format!("{said}; `tidegate certs refresh-crl` signs a new one"),
            );
        } else {
            findings.right("revocation", &said);
        }
    }
    lists
}

fn certificates(config: &Config, now: Timestamp, lists: &[crl::RevocationList], findings: &mut Findings) {
    let certs = &config.files.certs;
    let list = match inspect::list(certs) {
        Ok(list) => list,
        Err(error) => return findings.wrong("certificates", &format!("{error}; run `tidegate certs init`")),
    };
    let (mut valid, mut first_to_end) = (0, None::<Timestamp>);
    for found in list {
        let info = match found {
            Ok(info) if info.usage == Usage::Authority => continue,
            Ok(info) => info,
            Err(error) => {
                findings.wrong("certificates", &error.to_string());
                continue;
            }
        };
        let name = name_of(&info.path);
        let said = term(&name, &info);
        let serial = hex::decode(&info.serial).unwrap_or_default();
        if lists.iter().any(|list| list.revokes(&serial)) {
            findings.note("certificates", &format!("{name} is revoked"));
        } else if !info.is_valid(now) {
            findings.wrong(
                "certificates",
                &format!("{said}: expired or not valid yet; run `tidegate certs issue {name} --force`"),
            );
        } else if is_soon(info.not_before, info.not_after, now) {
            findings.note(
                "certificates",
                &format!("{said}; `tidegate certs renew {name}` replaces it"),
            );
        } else if [setup::SERVER, setup::GATEWAY, setup::OPERATOR].contains(&&*name) {
            findings.right("certificates", &said);
        } else {
            valid += 1;
            first_to_end = Some(first_to_end.map_or(info.not_after, |first| first.min(info.not_after)));
        }
        key_file(&certs.join(format!("{name}-key.pem")), findings);
    }
    for needed in [setup::SERVER, setup::GATEWAY] {
        let path = certs.join(format!("{needed}.pem"));
        if !path.exists() {
            findings.wrong(
                "certificates",
                &format!("{} is missing; run `tidegate certs init`", path.display()),
            );
        }
    }
    if let Some(first) = first_to_end {
        let said = format!(
            "{valid} of devices in {}, the first ends {first}",
            certs.display()
        );
        findings.right("certificates", &said);
    }
}

fn key_file(path: &Path, findings: &mut Findings) {
    if path.exists()
        && let Err(error) = files::read_key(path)
    {
        findings.wrong("keys", &error.to_string());
    }
}

fn enrollment(config: &Config, findings: &mut Findings) {
    if !Wanted::of(config, true).is_wanted() {
        return findings.note("enrolment", "off (enroll.enabled in tidegate.toml)");
    }
    let paths = CaPaths::of(config);
    if !paths.has_key() {
        let said = format!("the CA's key {} is not on this machine", paths.key.display());
        return findings.wrong("enrolment", &said);
    }
    let address = SocketAddr::new(config.listen.mqtt_address, config.enroll.port);
    super::port("enrolment", address, findings);
}

/// With the server that runs, or else with one that is made of the same files.
fn tls(config: &Config, findings: &mut Findings) {
    let address = config.mqtt_listener();
    let runs = TcpListener::bind(address).is_err();
    let agreed = client(config).and_then(|client| {
        if runs {
            return handshake::with_running(address, client)
                .with_context(|| format!("no handshake with what listens on {address}"));
        }
        handshake::with_itself(server(config)?, client)
    });
    let with = if runs {
        format!("with the broker on {address}")
    } else {
        "with the server's files, over loopback".to_owned()
    };
    match agreed {
        Ok(agreed) if agreed.key_exchange == POST_QUANTUM => {
            findings.right("TLS", &format!("{agreed}; {with}"));
        }
        Ok(agreed) => findings.note(
            "TLS",
            &format!("{agreed}; {with}, which does not know {POST_QUANTUM}: recordings can be opened later"),
        ),
        Err(error) => findings.wrong("TLS", &format!("{error:#}")),
    }
}

/// The server as it would start.
fn server(config: &Config) -> Result<Arc<rustls::ServerConfig>> {
    let (paths, certs) = (CaPaths::of(config), &config.files.certs);
    let asks = config.level.has_client_certificates();
    let files = ServerTls {
        certificate: certs.join(format!("{}.pem", setup::SERVER)),
        key: certs.join(format!("{}-key.pem", setup::SERVER)),
        client_auth: asks.then_some(ClientAuth {
            ca: paths.bundle,
            crl: Some(paths.lists),
        }),
    };
    server_config(&files).context("cannot use the server's certificate")
}

/// A client with the gateway's certificate.
fn client(config: &Config) -> Result<Arc<rustls::ClientConfig>> {
    let at = |file: &str| config.files.certs.join(format!("{}{file}", setup::GATEWAY));
    let identity = config
        .level
        .has_client_certificates()
        .then(|| (at(".pem"), at("-key.pem")));
    let ca = CaPaths::of(config).bundle;
    client_config(&ClientTls { ca, identity }).context("cannot use the gateway's certificate")
}

fn term(name: &str, info: &CertificateInfo) -> String {
    format!("{name} until {}", day(info.not_after))
}

fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}
