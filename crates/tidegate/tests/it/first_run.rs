//! The first run makes what is missing; mistakes give one clear error that names the fix.

use crate::support::Site;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.matches("error:").count(), 1, "one error: {text}");
    text
}

#[test]
fn first_run_makes_everything_and_second_run_reuses_it() {
    let site = Site::new("ai", "");
    std::fs::remove_file(site.path("tidegate.toml")).unwrap();
    site.succeed(&["certs", "init"]);
    for file in [
        "tidegate.toml",
        "devices.toml",
        "certs/ca.pem",
        "certs/server.pem",
        "certs/gateway.pem",
        "certs/device-012.pem",
    ] {
        assert!(site.path(file).exists(), "{file}");
    }
    for secret in [
        "secrets/root.key",
        "secrets/ca-key.pem",
        "certs/server-key.pem",
        "certs/device-001-key.pem",
    ] {
        assert_eq!(mode(&site.path(secret)), 0o600, "{secret}");
    }
    assert!(!site.path("certs/ca-key.pem").exists());
    let before = std::fs::read(site.path("certs/device-001.pem")).unwrap();
    let said = site.succeed(&["certs", "init"]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(std::fs::read(site.path("certs/device-001.pem")).unwrap(), before);
}

#[test]
fn wrong_configuration_key_is_named() {
    let site = Site::new("ai", "pag_port = 1");
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains("tidegate.toml") && error.contains("pag_port") && error.contains("page_port"),
        "{error}"
    );
}

#[test]
fn port_in_use_is_named_with_its_key() {
    let site = Site::new("ai", "");
    let _page = TcpListener::bind(("127.0.0.1", site.ports.page)).unwrap();
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains(&site.ports.page.to_string()) && error.contains("listen.page_port"),
        "{error}"
    );
    drop(_page);
    let _broker = TcpListener::bind(("127.0.0.1", site.ports.mqtts)).unwrap();
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains(&site.ports.mqtts.to_string()) && error.contains("listen.mqtts_port"),
        "{error}"
    );
}

#[test]
fn key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let site = Site::new("signed", "");
    site.succeed(&["certs", "init"]);
    for key in ["secrets/root.key", "certs/server-key.pem"] {
        let path = site.path(key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = error_of(&site.run(&["up"]));
        assert!(error.contains("chmod 600") && error.contains(key), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn expired_server_certificate_is_refused_with_the_command_that_renews_it() {
    let site = Site::new("tls", "");
    site.succeed(&["certs", "init"]);
    // A certificate that ended yesterday, issued by our CA through openssl.
    let script = "openssl req -new -key certs/server-key.pem -subj /CN=localhost -out server.csr && \
                  openssl x509 -req -in server.csr -CA certs/ca.pem -CAkey secrets/ca-key.pem -CAcreateserial \
                  -days -1 -out certs/server.pem";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains("expired") && error.contains("tidegate certs issue server --force"),
        "{error}"
    );
    site.succeed(&["certs", "issue", "server", "--force"]);
    assert_eq!(site.start(&["up"]).interrupt(), 0);
}

#[test]
fn anonymous_level_does_not_open_to_other_machines() {
    let site = Site::new("plain", "mqtt_address = \"0.0.0.0\"");
    let error = error_of(&site.run(&["up"]));
    assert!(
        error.contains("dangerous_anonymous_clients_from_other_machines"),
        "{error}"
    );
}

#[test]
fn check_says_what_is_wrong_and_ends_with_1() {
    let site = Site::new("ai", "");
    site.succeed(&["certs", "init"]);
    let said = site.succeed(&["check"]);
    assert!(said.contains("Nothing is wrong"), "{said}");
    std::fs::write(site.path("secrets/root.key"), b"short").unwrap();
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("5 bytes instead of 32"));
}

#[test]
fn completions_and_help_exist_for_every_command() {
    let site = Site::new("ai", "");
    assert!(site.succeed(&["completions", "bash"]).contains("tidegate"));
    for command in [
        "up", "broker", "gateway", "sensor", "certs", "devices", "keys", "configs", "check", "verify",
        "readings", "events", "detect", "bench",
    ] {
        assert!(site.succeed(&[command, "--help"]).contains("Usage"), "{command}");
    }
}
