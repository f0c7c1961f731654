//! An EST client of others: `pki --est` of strongSwan.
//!
//! It must be installed (Debian: `strongswan-pki`, `libstrongswan-standard-plugins`); without it
//! these tests fail.

use crate::client::{describe, run, run_well};
use crate::server::{Server, device};
use tidegate_pki::inspect;

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_fetches_the_ca_enrols_and_renews() {
    let server = Server::start().await;
    let path = |name: &str| server.path(name).display().to_string();
    let url = format!("https://localhost:{}", server.address.port());
    let ca = path("ca.pem");
    for name in ["first", "second"] {
        let (key, request) = (path(&format!("{name}-key.pem")), path(&format!("{name}.der")));
        let generate = [
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            &key,
        ];
        run_well("openssl", &generate).await;
        let make = [
            "req", "-new", "-key", &key, "-subj", "/CN=d", "-outform", "DER", "-out", &request,
        ];
        run_well("openssl", &make).await;
    }
    let fetched = path("fetched.pem");
    let authorities = [
        "--estca",
        "--url",
        &url,
        "--cacert",
        &ca,
        "--caout",
        &fetched,
        "--outform",
        "pem",
    ];
    let output = run("pki", &authorities).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let fetched = inspect::certificate(&server.path("fetched.pem")).unwrap();
    assert_eq!(fetched.der, *server.authority().der());

    let user = format!("device-001:{}", server.token("device-001"));
    let request = path("first.der");
    let enroll = [
        "--est",
        "--url",
        &url,
        "--in",
        &request,
        "--cacert",
        &ca,
        "--userpass",
        &user,
    ];
    let output = run("pki", &enroll).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let first = describe(output.stdout.into());
    assert_eq!(first.identity, Some(device("device-001")));
    std::fs::write(path("first.pem"), inspect::pem(&first.der)).unwrap();

    let (certificate, key, request) = (path("first.pem"), path("first-key.pem"), path("second.der"));
    let renew = [
        "--est",
        "--url",
        &url,
        "--in",
        &request,
        "--cacert",
        &ca,
        "--cert",
        &certificate,
        "--key",
        &key,
    ];
    let output = run("pki", &renew).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let second = describe(output.stdout.into());
    assert_eq!(second.identity, Some(device("device-001")));
    assert_ne!(second.public_key, first.public_key);
    assert_eq!(server.records().len(), 2);

    let again = run("pki", &enroll).await;
    assert!(!again.status.success());
    assert_eq!(server.records().len(), 2);
}
