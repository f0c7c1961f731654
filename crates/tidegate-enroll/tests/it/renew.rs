//! Renewal: `simplereenroll` with the certificate that the device has.

use crate::client::{Curl, P256, enroll, request, simple_request};
use crate::server::{Server, device, now};
use std::time::Duration;
use tidegate_enroll::event::What;
use tidegate_enroll::service::{DEFAULT_LIFE, SUPERSEDED_GRACE, Standing};
use tidegate_pki::ledger::How;
use tidegate_pki::profile::Profile;

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_renewed_for_a_new_key_under_the_same_name() {
    let server = Server::start().await;
    let first = enroll(&server, "device-001", "first").await;
    let body = request(&server, "second", P256, "/CN=device-002").await;
    let curl = Curl::new(&server, "simplereenroll", "second").identity(&server, "first");
    let second = curl.post(body.as_bytes()).await.certificate();
    assert_eq!(second.identity, Some(device("device-001")));
    assert_ne!(second.public_key, first.public_key);
    assert_ne!(second.serial, first.serial);
    let how: Vec<How> = server.records().iter().map(|record| record.how).collect();
    assert_eq!(how, [How::Enrolled, How::Renewed]);
    let event = server.event().await;
    assert_eq!(event.device, Some(device("device-001")));
    assert!(
        matches!(&event.what, What::Renewed(given) if given.serial == second.serial),
        "{event:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_without_a_certificate_is_refused_even_with_a_good_token() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    let curl = Curl::new(&server, "simplereenroll", "d").user("device-001", &token);
    let answer = curl.post(body.as_bytes()).await;
    server.check(&answer, 403, "no_certificate", None).await;
    let curl = Curl::new(&server, "simpleenroll", "d").user("device-001", &token);
    curl.post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_gives_no_first_certificate_without_a_token() {
    let server = Server::start().await;
    enroll(&server, "device-001", "first").await;
    let body = simple_request(&server, "second").await;
    let curl = Curl::new(&server, "simpleenroll", "second").identity(&server, "first");
    assert_eq!(curl.post(body.as_bytes()).await.status, 401);
    assert_eq!(server.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_gateways_operators_and_unregistered_devices_are_not_renewed() {
    let server = Server::start().await;
    let body = simple_request(&server, "new").await;
    for (name, profile, reason, told) in [
        (
            "gateway",
            Profile::gateway(device("device-001")),
            "not_a_device",
            false,
        ),
        (
            "operator",
            Profile::operator(device("device-001")),
            "not_a_device",
            false,
        ),
        (
            "device-004",
            Profile::device(device("device-004")),
            "unknown_device",
            true,
        ),
        (
            "device-003",
            Profile::device(device("device-003")),
            "device_disabled",
            true,
        ),
    ] {
        server.issue(name, &profile);
        let curl = Curl::new(&server, "simplereenroll", name).identity(&server, name);
        let answer = curl.post(body.as_bytes()).await;
        server.check(&answer, 403, reason, told.then_some(name)).await;
    }
    server.set_standing("device-003", Standing::Enabled);
    let curl = Curl::new(&server, "simplereenroll", "device-003").identity(&server, "device-003");
    curl.post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_certificate_is_refused_before_and_after_the_list_is_in_force() {
    let server = Server::start().await;
    let first = enroll(&server, "device-001", "first").await;
    enroll(&server, "device-002", "other").await;
    server.ledger.revoke(&first.serial, now(), None).unwrap();
    let body = simple_request(&server, "new").await;
    let renew =
        |name: &'static str, answer| Curl::new(&server, "simplereenroll", answer).identity(&server, name);
    let answer = renew("first", "a").post(body.as_bytes()).await;
    server
        .check(&answer, 403, "certificate_revoked", Some("device-001"))
        .await;

    server.reload();
    let refused = renew("first", "b").run().await.unwrap_err();
    assert!(refused.contains("certificate revoked"), "{refused}");
    let refusal = server.refusal(None).await;
    assert_eq!(refusal.reason().as_str(), "tls_revoked", "{refusal}");
    renew("other", "c").post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_foreign_certificates_do_not_get_through_the_handshake() {
    let server = Server::start().await;
    let (past, hour) = (
        now().minus(Duration::from_secs(7_200)),
        Duration::from_secs(3_600),
    );
    let expired = Profile::device(device("device-001")).between(past, past.plus(hour));
    server.issue("expired", &expired);
    let impostor = server.authority().impostor(now()).unwrap();
    let foreign = impostor
        .issue(&Profile::device(device("device-001")), now())
        .unwrap();
    foreign.write(server.folder.path(), "foreign", false).unwrap();
    let names: &[&str] = &[];
    server.issue("other-server", &Profile::server(names).unwrap());
    for (name, reason) in [
        ("expired", "tls_expired"),
        ("foreign", "tls_bad_certificate"),
        ("other-server", "tls_bad_certificate"),
    ] {
        let curl = Curl::new(&server, "simplereenroll", name).identity(&server, name);
        curl.run().await.unwrap_err();
        let refusal = server.refusal(None).await;
        assert_eq!(refusal.reason().as_str(), reason, "{name}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_ended_after_its_handshake_is_refused() {
    let server = Server::start().await;
    let first = enroll(&server, "device-001", "first").await;
    let body = simple_request(&server, "new").await;
    let renew = |answer| {
        Curl::new(&server, "simplereenroll", answer)
            .identity(&server, "first")
            .post(body.as_bytes())
    };
    // TLS reads the system's clock, the service this one.
    server.set_ahead(DEFAULT_LIFE + Duration::from_secs(1));
    let answer = renew("late").await;
    server
        .check(&answer, 403, "certificate_expired", Some("device-001"))
        .await;
    assert!(answer.text().contains(&first.not_after.to_string()), "{answer:?}");
    server.set_ahead(DEFAULT_LIFE - Duration::from_secs(60));
    renew("in-time").await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_certificate_renews_for_a_day_and_no_longer() {
    let server = Server::start().await;
    enroll(&server, "device-001", "first").await;
    let body = simple_request(&server, "new").await;
    let renew = |name: &'static str, answer| {
        Curl::new(&server, "simplereenroll", answer)
            .identity(&server, name)
            .post(body.as_bytes())
    };
    let newest = renew("first", "a").await.certificate();
    std::fs::write(server.path("newest.pem"), tidegate_pki::inspect::pem(&newest.der)).unwrap();
    std::fs::copy(server.path("new-key.pem"), server.path("newest-key.pem")).unwrap();
    server.event().await;
    server.set_ahead(SUPERSEDED_GRACE - Duration::from_secs(600));
    renew("first", "b").await.certificate();
    server.event().await;
    server.set_ahead(SUPERSEDED_GRACE + Duration::from_secs(600));
    let answer = renew("first", "c").await;
    server
        .check(&answer, 403, "certificate_superseded", Some("device-001"))
        .await;
    // The one of `b` is 20 minutes old by this clock, so the one before it is within its day.
    renew("newest", "d").await.certificate();
}
