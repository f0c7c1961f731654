//! Files of a deployment: reopened, listed, and refused with the fix.

use crate::support::{DAY, Site, id, now};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tidegate_envelope::principal::Role;
use tidegate_pki::authority::{Authority, AuthorityError};
use tidegate_pki::identity::{self, IdentityError};
use tidegate_pki::inspect::{self, Usage};
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{self, client_config, server_config};

#[test]
fn reopened_authority_issues_under_the_same_ca() {
    let site = Site::new();
    let reopened = Authority::open(&site.path("ca.pem"), &site.path("ca-key.pem")).unwrap();
    let issued = reopened.issue(&Profile::gateway(id("gateway")), now()).unwrap();
    issued.write(site.folder(), "gateway", false).unwrap();
    let server = server_config(&site.server(true)).unwrap();
    let client = client_config(&site.client(Some(site.identity("gateway")))).unwrap();
    crate::support::handshake(&server, &client).0.unwrap();
    assert!(matches!(
        Authority::create(&site.path("ca.pem"), &site.path("other-key.pem"), now()),
        Err(AuthorityError::File(_))
    ));
    assert!(!site.path("other-key.pem").exists());
}

#[test]
fn authority_with_foreign_key_exposed_key_or_leaf_certificate_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let refused = Authority::open(&site.path("ca.pem"), &other.path("ca-key.pem")).unwrap_err();
    assert!(matches!(refused, AuthorityError::KeyMismatch { .. }), "{refused}");
    let refused = Authority::open(&site.path("server.pem"), &site.path("server-key.pem")).unwrap_err();
    assert!(
        matches!(refused, AuthorityError::NotAuthority { .. }),
        "{refused}"
    );
    fs::set_permissions(site.path("ca-key.pem"), fs::Permissions::from_mode(0o604)).unwrap();
    let refused = Authority::open(&site.path("ca.pem"), &site.path("ca-key.pem"))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn certificate_that_would_outlive_its_ca_or_end_before_it_starts_is_refused() {
    let site = Site::new();
    let device = || Profile::device(id("device-001"));
    let refused = site
        .authority
        .issue(&device().lasting(4_000 * DAY), now())
        .unwrap_err();
    assert!(
        matches!(refused, AuthorityError::OutlivesAuthority { .. }),
        "{refused}"
    );
    let refused = site
        .authority
        .issue(&device().between(now(), now().minus(DAY)), now())
        .unwrap_err();
    assert!(matches!(refused, AuthorityError::Validity { .. }), "{refused}");
    assert!(
        site.authority
            .issue(&device().lasting(3_000 * DAY), now())
            .is_ok()
    );
}

#[test]
fn issued_pair_is_written_private_and_replaced_only_when_asked() {
    let site = Site::new();
    let profile = Profile::device(id("device-001")).lasting(7 * DAY);
    let first = site.issue("device-001", &profile);
    let mode = fs::metadata(site.path("device-001-key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = site.authority.issue(&profile, now()).unwrap();
    let refused = second
        .write(site.folder(), "device-001", false)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("exists already"), "{refused}");
    assert_eq!(
        fs::read_to_string(site.path("device-001.pem")).unwrap(),
        first.certificate_pem
    );
    second.write(site.folder(), "device-001", true).unwrap();
    assert_eq!(
        fs::read_to_string(site.path("device-001-key.pem")).unwrap(),
        *second.key_pem
    );
    assert!(!format!("{second:?}").contains("PRIVATE"));
}

#[test]
fn folder_is_listed_with_identities_dates_and_days_left() {
    let site = Site::new();
    site.issue("device-001", &Profile::device(id("device-001")).lasting(30 * DAY));
    fs::write(site.path("zzz.pem"), "nothing").unwrap();
    let listed = inspect::list(site.folder()).unwrap();
    assert_eq!(listed.len(), 4);
    let [ca, device, server, broken] = &listed[..] else {
        panic!("{listed:?}")
    };
    assert_eq!(ca.as_ref().unwrap().usage, Usage::Authority);
    let device = device.as_ref().unwrap();
    assert_eq!(
        (device.subject.as_str(), device.role),
        ("device-001", Some(Role::Device))
    );
    assert_eq!(device.identity, Some(id("device-001")));
    assert_eq!(device.sans, ["URI:urn:tidegate:device:device-001"]);
    let name = format!("O=Tidegate, CN=Tidegate CA {}", &site.authority.key_id()[..8]);
    assert_eq!(device.issuer, name);
    assert_eq!(device.serial.len(), 32);
    assert_eq!(device.days_left(now()), 29);
    assert_eq!(device.days_left(now().plus(31 * DAY)), -2);
    assert!(device.is_valid(now()) && !device.is_valid(now().plus(31 * DAY)));
    let server = server.as_ref().unwrap();
    assert_eq!(server.usage, Usage::Server);
    assert!(server.sans.contains(&"IP:::1".into()), "{:?}", server.sans);
    assert_eq!(identity::principal(&server.der), Err(IdentityError::Missing));
    assert!(
        broken
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("holds no certificate")
    );
}

#[test]
fn wrong_expired_and_mismatched_files_are_named_with_the_fix() {
    let site = Site::new();
    site.issue(
        "old",
        &Profile::server(&[""; 0])
            .unwrap()
            .between(now().minus(2 * DAY), now().minus(DAY)),
    );
    site.issue("device-001", &Profile::device(id("device-001")));
    let server = |certificate: &str, key: &str| {
        let mut tls = site.server(false);
        (tls.certificate, tls.key) = (site.path(certificate), site.path(key));
        server_config(&tls).unwrap_err().to_string()
    };
    let expired = server("old.pem", "old-key.pem");
    assert!(
        expired.contains("old.pem expired at") && expired.contains("tidegate certs issue old --force"),
        "{expired}"
    );
    assert!(server("server-key.pem", "server-key.pem").contains("holds no certificate, but a private key"));
    assert!(server("server.pem", "server.pem").contains("readable by others"));
    assert!(server("server.pem", "old-key.pem").contains("does not fit"));
    assert!(server("none.pem", "old-key.pem").contains("none.pem"));
    let mut client = site.client(None);
    client.ca = site.path("server.pem");
    assert!(
        client_config(&client)
            .unwrap_err()
            .to_string()
            .contains("is not the certificate of a CA")
    );
    let early = tls::check_validity(&site.path("server.pem"), now().minus(DAY))
        .unwrap_err()
        .to_string();
    assert!(early.contains("check this machine's clock"), "{early}");
    tls::check_validity(&site.path("server.pem"), now()).unwrap();
}
