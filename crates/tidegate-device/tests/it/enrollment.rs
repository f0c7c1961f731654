//! Enrolment and renewal against the real service, and against servers that are not what they say.

use crate::gateway::{DAY, Gateway, now};
use crate::rig::device;
use crate::stranger::{PKCS7, answer, scripted};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tidegate_device::enrollment::{
    EnrollError, Enrolled, Enrollment, Fingerprint, IdentityFiles, Trust, enroll, renew,
};
use tidegate_enroll::limits::{Limits, Rate};
use tidegate_envelope::id::DeviceId;
use tidegate_pki::authority::{Authority, RevocationReason};
use tidegate_pki::est;
use tidegate_pki::inspect;
use tidegate_pki::ledger::How;
use tidegate_pki::profile::Profile;
use tokio::net::TcpListener;

/// Nothing of a device is in the folder.
fn is_empty(folder: &Path) -> bool {
    ["device-001.pem", "device-001-key.pem", "ca.pem"]
        .iter()
        .all(|name| !folder.join(name).exists())
}

#[track_caller]
fn says(refused: &EnrollError, words: &str) {
    let text = refused.to_string();
    assert!(text.contains(words), "`{text}` without `{words}`");
}

async fn enrolled(gateway: &Gateway) -> Enrolled {
    enroll(&gateway.enrollment(), now()).await.unwrap()
}

#[tokio::test]
async fn device_enrols_with_a_token_and_has_a_usable_pair_for_its_eyes_only() {
    let gateway = Gateway::start().await;
    let enrolled = enrolled(&gateway).await;
    assert_eq!(enrolled.certificate.identity, Some(device()));
    assert!(enrolled.authorities_changed);
    let files = enrolled.files;
    files.client_config().unwrap();
    assert_eq!(files.inspect().unwrap().der, enrolled.certificate.der);
    let mode = fs::metadata(files.key()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ledger = gateway.ledger.certificates().unwrap();
    assert_eq!(ledger[0].record.serial, enrolled.certificate.serial);
    assert_eq!(ledger[0].record.how, How::Enrolled);
}

#[tokio::test]
async fn used_token_is_refused_and_the_fix_named() {
    let gateway = Gateway::start().await;
    let enrollment = Enrollment {
        replace: true,
        ..gateway.enrollment()
    };
    enroll(&enrollment, now()).await.unwrap();
    let before = gateway.files().inspect().unwrap();
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::TokenRefused { .. }), "{refused}");
    says(&refused, "certs enroll-token");
    assert_eq!(gateway.files().inspect().unwrap(), before);
}

#[tokio::test]
async fn token_of_another_device_and_a_device_that_is_not_registered_are_told_apart() {
    let gateway = Gateway::start().await;
    let other = Enrollment {
        token: gateway.token("device-002"),
        ..gateway.enrollment()
    };
    let refused = enroll(&other, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::TokenRefused { .. }), "{refused}");
    let unknown = Enrollment {
        device: DeviceId::new("device-002").unwrap(),
        ..other
    };
    let refused = enroll(&unknown, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::NotRegistered { .. }), "{refused}");
    says(&refused, "register it there");
    assert!(is_empty(gateway.device_folder.path()));
}

#[tokio::test]
async fn first_contact_by_fingerprint_brings_the_ca() {
    let gateway = Gateway::start().await;
    let pin = Fingerprint::of(gateway.authority.der());
    let enrollment = Enrollment {
        trust: Trust::Fingerprint(pin),
        ..gateway.enrollment()
    };
    let enrolled = enroll(&enrollment, now()).await.unwrap();
    let bundle = inspect::bundle(&enrolled.files.ca()).unwrap();
    assert_eq!(bundle[0].der, *gateway.authority.der());
    enrolled.files.client_config().unwrap();
}

#[tokio::test]
async fn gateway_with_another_fingerprint_gets_no_token() {
    let (gateway, other) = (Gateway::start().await, Authority::generate(now()).unwrap());
    let pin = Fingerprint::of(other.der());
    let enrollment = Enrollment {
        trust: Trust::Fingerprint(pin),
        ..gateway.enrollment()
    };
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(
        matches!(refused, EnrollError::OtherFingerprint { .. }),
        "{refused}"
    );
    says(&refused, &Fingerprint::of(gateway.authority.der()).to_string());
    assert!(gateway.token_is_good() && is_empty(gateway.device_folder.path()));
}

#[tokio::test]
async fn stranger_that_offers_the_ca_of_the_gateway_gets_no_token() {
    // It has a certificate of its own CA, and repeats what the true gateway offers to everybody.
    let gateway = Gateway::start().await;
    let rogue = Authority::generate(now()).unwrap();
    let trusted = est::certs_only(&[gateway.authority.der().clone()]);
    let (server, heard) = scripted(
        &rogue,
        &Profile::server(&[""; 0]).unwrap(),
        vec![answer("200 OK", PKCS7, &trusted)],
    )
    .await;
    let pin = Fingerprint::of(gateway.authority.der());
    let enrollment = Enrollment {
        server,
        trust: Trust::Fingerprint(pin),
        ..gateway.enrollment()
    };
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(
        matches!(refused, EnrollError::UntrustedServer { .. }),
        "{refused}"
    );
    drop(enrollment);
    let heard = heard.await.unwrap();
    assert_eq!(heard.len(), 1);
    assert!(!heard[0].to_lowercase().contains("authorization"), "{heard:?}");
}

#[tokio::test]
async fn server_of_another_ca_gets_no_token() {
    let (gateway, other) = (Gateway::start().await, Authority::generate(now()).unwrap());
    let ca = gateway.path("other.pem");
    fs::write(&ca, other.certificate_pem()).unwrap();
    let enrollment = Enrollment {
        trust: Trust::Ca(ca),
        ..gateway.enrollment()
    };
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(
        matches!(refused, EnrollError::UntrustedServer { .. }),
        "{refused}"
    );
    says(&refused, "compare the CA's file");
    assert!(gateway.token_is_good() && is_empty(gateway.device_folder.path()));
}

#[tokio::test]
async fn certificate_that_is_there_is_not_overwritten_unasked() {
    let gateway = Gateway::start().await;
    gateway.issue_old();
    let before = gateway.files().inspect().unwrap();
    let mut enrollment = gateway.enrollment();
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::Exists { .. }), "{refused}");
    assert!(gateway.token_is_good());
    assert_eq!(gateway.files().inspect().unwrap(), before);
    enrollment.replace = true;
    enroll(&enrollment, now()).await.unwrap();
    assert_ne!(gateway.files().inspect().unwrap().der, before.der);
    gateway.files().client_config().unwrap();
}

#[tokio::test]
async fn folder_of_another_gateway_keeps_its_ca_and_the_token_stays_good() {
    let (gateway, other) = (Gateway::start().await, Authority::generate(now()).unwrap());
    fs::write(gateway.files().ca(), other.certificate_pem()).unwrap();
    let refused = enroll(&gateway.enrollment(), now()).await.unwrap_err();
    assert!(
        matches!(&refused, EnrollError::Exists { path } if path.ends_with("ca.pem")),
        "{refused}"
    );
    assert_eq!(
        fs::read_to_string(gateway.files().ca()).unwrap(),
        other.certificate_pem()
    );
    assert!(gateway.tokens.pending(now()).unwrap().len() == 1);
}

#[tokio::test]
async fn folder_that_cannot_be_written_is_found_before_the_token_is_spent() {
    let gateway = Gateway::start().await;
    let file = gateway.device_folder.path().join("file");
    fs::write(&file, "").unwrap();
    let enrollment = Enrollment {
        folder: file.join("certs"),
        ..gateway.enrollment()
    };
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::Folder { .. }), "{refused}");
    assert!(gateway.token_is_good());
}

#[tokio::test]
async fn device_whose_clock_is_wrong_learns_it_and_takes_nothing() {
    let gateway = Gateway::start().await;
    let refused = enroll(&gateway.enrollment(), now().plus(30 * DAY))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, EnrollError::CertificateClock { .. }),
        "{refused}"
    );
    says(&refused, "set the clock");
    assert!(is_empty(gateway.device_folder.path()));
}

#[tokio::test]
async fn server_whose_certificate_is_of_another_time_points_at_the_clock() {
    let gateway = Gateway::start().await;
    let future = Profile::server(&[""; 0])
        .unwrap()
        .between(now().plus(DAY), now().plus(2 * DAY));
    let past = Profile::server(&[""; 0])
        .unwrap()
        .between(now().minus(2 * DAY), now().minus(DAY));
    for profile in [future, past] {
        let (server, heard) = scripted(&gateway.authority, &profile, Vec::new()).await;
        let enrollment = Enrollment {
            server,
            ..gateway.enrollment()
        };
        let refused = enroll(&enrollment, now()).await.unwrap_err();
        assert!(matches!(refused, EnrollError::Clock { .. }), "{refused}");
        says(&refused, "set the clock");
        drop(heard);
    }
}

#[tokio::test]
async fn busy_gateway_says_when_to_come_back() {
    let limits = Limits {
        address_rate: Rate::new(1, 1),
        ..Limits::default()
    };
    let gateway = Gateway::with(limits).await;
    let refused = enroll(&gateway.enrollment(), now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::Busy { .. }), "{refused}");
    let wait = refused.retry_after().unwrap().as_secs();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(gateway.token_is_good() && is_empty(gateway.device_folder.path()));
}

#[tokio::test]
async fn nobody_at_the_port_is_a_plain_error() {
    let gateway = Gateway::start().await;
    let mut enrollment = gateway.enrollment();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    enrollment.server.port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = enroll(&enrollment, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::Connect { .. }), "{refused}");
    says(&refused, "is the gateway's enrolment service on");
}

#[tokio::test]
async fn renewal_brings_a_new_key_and_keeps_the_ca() {
    let gateway = Gateway::start().await;
    let first = enrolled(&gateway).await;
    let key = fs::read(first.files.key()).unwrap();
    let second = renew(&gateway.server, &first.files, now()).await.unwrap();
    assert_ne!(second.certificate.public_key, first.certificate.public_key);
    assert_ne!(fs::read(second.files.key()).unwrap(), key);
    assert!(!second.authorities_changed);
    second.files.client_config().unwrap();
    let ledger = gateway.ledger.certificates().unwrap();
    assert_eq!(ledger[1].record.how, How::Renewed);
}

#[tokio::test]
async fn certificate_that_was_issued_by_hand_is_renewed_too() {
    let gateway = Gateway::start().await;
    gateway.issue_old();
    let before = gateway.files().inspect().unwrap();
    renew(&gateway.server, &gateway.files(), now()).await.unwrap();
    let after = gateway.files().inspect().unwrap();
    assert!(after.not_after > before.not_after);
    gateway.files().client_config().unwrap();
}

#[tokio::test]
async fn revoked_certificate_is_not_renewed_and_the_old_files_stay() {
    let gateway = Gateway::start().await;
    let first = enrolled(&gateway).await;
    gateway
        .ledger
        .revoke(
            &first.certificate.serial,
            now(),
            Some(RevocationReason::KeyCompromise),
        )
        .unwrap();
    gateway.exchange(&[&gateway.authority]);
    let refused = renew(&gateway.server, &first.files, now()).await.unwrap_err();
    assert!(
        matches!(refused, EnrollError::CertificateRefused { .. }),
        "{refused}"
    );
    says(&refused, "enrol again");
    assert_eq!(first.files.inspect().unwrap().der, first.certificate.der);
}

#[tokio::test]
async fn expired_certificate_is_not_renewed_and_the_fix_is_named() {
    let gateway = Gateway::start().await;
    gateway.issue(&Profile::device(device()).between(now().minus(8 * DAY), now().minus(DAY)));
    let refused = renew(&gateway.server, &gateway.files(), now()).await.unwrap_err();
    assert!(
        matches!(refused, EnrollError::CertificateRefused { .. }),
        "{refused}"
    );
    says(&refused, "it has expired");
}

#[tokio::test]
async fn device_that_left_the_registry_is_sent_there() {
    let gateway = Gateway::start().await;
    let id = DeviceId::new("device-009").unwrap();
    let files = IdentityFiles::new(gateway.device_folder.path(), &id).unwrap();
    let issued = gateway.authority.issue(&Profile::device(id), now()).unwrap();
    issued
        .write(gateway.device_folder.path(), "device-009", false)
        .unwrap();
    fs::copy(gateway.path("ca.pem"), files.ca()).unwrap();
    let refused = renew(&gateway.server, &files, now()).await.unwrap_err();
    assert!(matches!(refused, EnrollError::RenewalRefused { .. }), "{refused}");
    says(&refused, "registry");
}

#[tokio::test]
async fn change_of_the_ca_reaches_the_device_at_its_renewals() {
    let gateway = Gateway::start().await;
    let first = enrolled(&gateway).await;
    let next = Authority::generate(now()).unwrap();
    // The new CA signs; both are trusted; the server still shows a certificate of the old one.
    gateway.exchange(&[&next, &gateway.authority]);
    let second = renew(&gateway.server, &first.files, now()).await.unwrap();
    assert!(second.authorities_changed);
    assert_eq!(inspect::bundle(&first.files.ca()).unwrap().len(), 2);
    // The server changes, then the old CA goes.
    gateway.issue_server(&next);
    gateway.exchange(&[&next]);
    let third = renew(&gateway.server, &first.files, now()).await.unwrap();
    assert!(third.authorities_changed);
    let bundle = inspect::bundle(&first.files.ca()).unwrap();
    assert_eq!((bundle.len(), &bundle[0].der), (1, next.der()));
}

#[tokio::test]
async fn answer_that_is_not_one_of_est_changes_nothing() {
    let gateway = Gateway::start().await;
    let profile = Profile::server(&[""; 0]).unwrap();
    let good = est::certs_only(&[gateway.authority.der().clone()]);
    let many = format!("{}\r\n", "A".repeat(64)).repeat(4_096);
    let other = Authority::generate(now()).unwrap();
    let foreign = est::certs_only(&[other.der().clone()]);
    for (script, expected) in [
        (vec![answer("200 OK", "text/html", &good)], "content type"),
        (vec![answer("200 OK", PKCS7, "MAA=")], "not one of EST"),
        (vec![answer("200 OK", PKCS7, &many)], "connection"),
        (
            vec![answer("404 Not Found", "text/plain", "no")],
            "no enrolment service",
        ),
        (vec![answer("500 Oh", "text/plain", "fire")], "status 500 (fire)"),
        (vec![answer("200 OK", PKCS7, &foreign)], "none of the CAs"),
        (vec!["HTTP/1.1 200".into()], "connection"),
        // A good beginning, and then the CA's certificate where the device's should be.
        (
            vec![answer("200 OK", PKCS7, &good), answer("200 OK", PKCS7, &good)],
            "for the key of this device",
        ),
        (
            vec![
                answer("200 OK", PKCS7, &good),
                answer("202 Accepted", "text/plain", "wait"),
            ],
            "try again in 60 s",
        ),
    ] {
        let (server, _heard) = scripted(&gateway.authority, &profile, script).await;
        let enrollment = Enrollment {
            server,
            ..gateway.enrollment()
        };
        let refused = enroll(&enrollment, now()).await.unwrap_err();
        says(&refused, expected);
        assert!(is_empty(gateway.device_folder.path()), "{refused}");
    }
}
