//! First certificates: `cacerts`, `csrattrs` and `simpleenroll`.

use crate::client::{Curl, P256, describe, request, run_well, simple_request};
use crate::server::{PATIENCE, Server, device, now};
use std::time::Duration;
use tidegate_enroll::event::What;
use tidegate_enroll::limits::{Limits, Rate};
use tidegate_enroll::service::{DEFAULT_LIFE, Standing};
use tidegate_pki::est;
use tidegate_pki::inspect::Usage;
use tidegate_pki::ledger::{CertificateRole, How};
use tidegate_pki::profile::Role;

#[tokio::test(flavor = "multi_thread")]
async fn token_gives_one_certificate_of_the_registrys_name_for_the_key_of_the_request() {
    let server = Server::start().await;
    let token = server.token("device-001");
    let body = request(&server, "d", P256, "/O=Evil/CN=device-002").await;
    let enroll = |name| {
        Curl::new(&server, "simpleenroll", name)
            .user("device-001", &token)
            .post(body.as_bytes())
    };
    let certificate = enroll("first").await.certificate();
    assert_eq!(certificate.identity, Some(device("device-001")));
    assert_eq!(certificate.role, Some(Role::Device));
    assert_eq!(certificate.usage, Usage::Client);
    assert_eq!(certificate.subject, "device-001");
    assert_eq!(certificate.sans, ["URI:urn:tidegate:device:device-001"]);
    let left = certificate.not_after.since(now());
    assert!(
        left <= DEFAULT_LIFE && left > DEFAULT_LIFE - Duration::from_secs(600),
        "{left:?}"
    );

    let records = server.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].serial, certificate.serial);
    assert_eq!(records[0].how, How::Enrolled);
    assert_eq!(records[0].role, CertificateRole::Device);
    assert_eq!(records[0].id, device("device-001"));
    assert_eq!(records[0].not_after, certificate.not_after);
    assert_eq!(records[0].authority, server.authority().key_id());

    let event = server.event().await;
    assert_eq!(event.device, Some(device("device-001")));
    assert!(
        matches!(&event.what, What::Enrolled(given) if given.serial == certificate.serial),
        "{event:?}"
    );

    let again = enroll("again").await;
    assert!(
        again
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    server.check(&again, 401, "token_used", Some("device-001")).await;
    assert_eq!(server.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_reads_the_answers_and_the_key_fits_the_certificate() {
    let server = Server::start().await;
    let path = |name: &str| server.path(name).display().to_string();
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    let answer = Curl::new(&server, "simpleenroll", "d")
        .user("device-001", &token)
        .post(body.as_bytes())
        .await;
    answer.certificate();
    let (base64, message, leaf) = (path("d.answer"), path("d.p7"), path("d.pem"));
    run_well(
        "openssl",
        &["base64", "-d", "-A", "-in", &base64, "-out", &message],
    )
    .await;
    let print = [
        "pkcs7",
        "-inform",
        "DER",
        "-in",
        &message,
        "-print_certs",
        "-out",
        &leaf,
    ];
    run_well("openssl", &print).await;
    run_well(
        "openssl",
        &[
            "verify",
            "-purpose",
            "sslclient",
            "-CAfile",
            &path("ca.pem"),
            &leaf,
        ],
    )
    .await;
    let of_certificate = run_well("openssl", &["x509", "-in", &leaf, "-noout", "-pubkey"]).await;
    let of_key = run_well("openssl", &["pkey", "-in", &path("d-key.pem"), "-pubout"]).await;
    assert_eq!(of_certificate, of_key);

    let authorities = Curl::new(&server, "cacerts", "ca").get().await;
    let [authority] = est::read_certs_only(&authorities.body)
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(describe(authority).der, *server.authority().der());
    let (base64, message) = (path("ca.answer"), path("ca.p7"));
    run_well(
        "openssl",
        &["base64", "-d", "-A", "-in", &base64, "-out", &message],
    )
    .await;
    let listed = run_well(
        "openssl",
        &["pkcs7", "-inform", "DER", "-in", &message, "-print_certs"],
    )
    .await;
    assert_eq!(listed.matches("BEGIN CERTIFICATE").count(), 1, "{listed}");

    let attributes = Curl::new(&server, "csrattrs", "attributes").get().await;
    assert_eq!(attributes.status, 200);
    assert_eq!(attributes.header("content-type"), Some("application/csrattrs"));
    let (base64, der) = (path("attributes.answer"), path("attributes.der"));
    run_well("openssl", &["base64", "-d", "-A", "-in", &base64, "-out", &der]).await;
    let parsed = run_well("openssl", &["asn1parse", "-inform", "DER", "-in", &der]).await;
    for name in ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"] {
        assert!(parsed.contains(name), "{parsed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p384_and_ed25519_keys_are_certified_and_rsa_and_p521_keys_are_not() {
    let server = Server::start().await;
    for (kind, key) in [
        ("p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"][..]),
        ("ed25519", &["ed25519"]),
    ] {
        let body = request(&server, kind, key, "/CN=d").await;
        let token = server.token("device-001");
        let curl = Curl::new(&server, "simpleenroll", kind).user("device-001", &token);
        curl.post(body.as_bytes()).await.certificate();
        server.event().await;
    }
    let token = server.token("device-001");
    for (kind, key) in [
        ("rsa", &["rsa:2048"][..]),
        ("p521", &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
    ] {
        let body = request(&server, kind, key, "/CN=d").await;
        let curl = Curl::new(&server, "simpleenroll", kind).user("device-001", &token);
        let answer = curl.post(body.as_bytes()).await;
        server
            .check(&answer, 400, "request_key_kind", Some("device-001"))
            .await;
    }
    assert_eq!(server.records().len(), 2);
    assert_eq!(
        server.tokens.pending(now()).unwrap().len(),
        1,
        "a bad request cost the token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn client_without_credentials_is_challenged_and_one_with_wrong_ones_is_reported() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    let answer = Curl::new(&server, "simpleenroll", "none")
        .post(body.as_bytes())
        .await;
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    server.assert_no_event();

    let token = server.token("device-001");
    for (name, id, secret, reason, told) in [
        (
            "a",
            "device-001",
            "0000000000000000000000000000000000000000",
            "token_unknown",
            true,
        ),
        ("b", "device-001", "", "token_unknown", true),
        ("c", "device-002", &token, "token_of_other_device", true),
        ("d", "device/001", &token, "credentials", false),
    ] {
        let curl = Curl::new(&server, "simpleenroll", name).user(id, secret);
        let answer = curl.post(body.as_bytes()).await;
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Basic realm=")
        );
        server.check(&answer, 401, reason, told.then_some(id)).await;
    }
    let bearer = format!("Authorization: Bearer {token}");
    let curl = Curl::new(&server, "simpleenroll", "e").arguments(&["--header", &bearer]);
    let answer = curl.post(body.as_bytes()).await;
    server.check(&answer, 401, "credentials", None).await;

    let curl = Curl::new(&server, "simpleenroll", "f").user("device-001", &token);
    curl.post(body.as_bytes()).await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_refused_after_its_time_and_while_the_clock_is_behind_and_taken_between() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    let enroll = |name| {
        Curl::new(&server, "simpleenroll", name)
            .user("device-001", &token)
            .post(body.as_bytes())
    };
    server.set_ahead(Duration::from_secs(15 * 60));
    server
        .check(&enroll("late").await, 401, "token_expired", Some("device-001"))
        .await;
    server.set_behind(Duration::from_secs(15 * 60));
    server
        .check(
            &enroll("early").await,
            401,
            "token_from_future",
            Some("device-001"),
        )
        .await;
    server.set_ahead(Duration::from_secs(14 * 60));
    enroll("now").await.certificate();
}

#[tokio::test(flavor = "multi_thread")]
async fn device_must_be_registered_and_enabled_and_its_token_waits_until_it_is() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    for (id, reason) in [
        ("device-003", "device_disabled"),
        ("device-004", "unknown_device"),
    ] {
        let token = server.token(id);
        let enroll = |name: &str| {
            Curl::new(&server, "simpleenroll", name)
                .user(id, &token)
                .post(body.as_bytes())
        };
        server.check(&enroll(id).await, 403, reason, Some(id)).await;
        server.set_standing(id, Standing::Enabled);
        enroll(id).await.certificate();
        server.event().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_with_one_token_at_one_time_exactly_one_gets_a_certificate() {
    // The refused ones must not be kept away by the rate limit.
    let server = Server::with(Limits {
        address_rate: Rate::new(10_000, 10_000),
        ..Limits::default()
    })
    .await;
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    let requests = (0..8).map(|number| {
        Curl::new(&server, "simpleenroll", &format!("race-{number}"))
            .user("device-001", &token)
            .post(body.as_bytes())
    });
    let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(requests));
    let mut statuses: Vec<u16> = answers
        .await
        .unwrap()
        .iter()
        .map(|answer| answer.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401, 401, 401]);
    assert_eq!(server.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_out_when_the_ledger_cannot_be_written() {
    let server = Server::start().await;
    let body = simple_request(&server, "d").await;
    let token = server.token("device-001");
    // A line that is cut off by nobody: the ledger is damaged, and who is revoked is not known.
    std::fs::write(server.ledger.path(), "junk\n").unwrap();
    let curl = Curl::new(&server, "simpleenroll", "d").user("device-001", &token);
    let answer = curl.post(body.as_bytes()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let refusal = server.refusal(Some("device-001")).await;
    assert_eq!(refusal.name(), "unavailable");
    assert!(refusal.to_string().contains("certificates.jsonl"), "{refusal}");
    assert!(!answer.text().contains("certificates.jsonl"), "{answer:?}");
}
