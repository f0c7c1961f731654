//! A stock Mosquitto, started from each written configuration unchanged, with the gateway behind it.

use crate::support::{Site, has_ended, mtls, wait_for};
use std::process::Stdio;

#[test]
fn gateway_works_through_mosquitto_at_every_level() {
    for (level, config) in [
        ("plain", "mosquitto_insecure.conf"),
        ("tls", "mosquitto_tls.conf"),
        ("mtls", "mosquitto_mtls.conf"),
        ("signed", "mosquitto_signed.conf"),
        ("dashboard", "mosquitto_dashboard.conf"),
        ("ai", "mosquitto_ai.conf"),
    ] {
        let site = Site::new(level, "");
        site.succeed(&["certs", "init"]);
        site.succeed(&["configs", "write"]);
        let port = if level == "plain" {
            site.ports.mqtt
        } else {
            site.ports.mqtts
        };
        let broker = site.mosquitto(config, port);
        let gateway = site.start_gateway();
        let mut options: Vec<String> = match level {
            "plain" => vec![],
            "tls" => vec!["--ca".into(), "certs/ca.pem".into()],
            _ => mtls("device-001"),
        };
        if !["plain", "tls", "mtls"].contains(&level) {
            options.extend([
                "--secret-file".into(),
                site.key("device-001").display().to_string(),
            ]);
        }
        for protocol in ["3.1.1", "5"] {
            let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
            all.extend(["--protocol", protocol, "--count", "3"]);
            let acknowledged = site.python_publish(port, 1, &all);
            assert_eq!(acknowledged.len(), 3, "{level}");
        }
        wait_for("all readings", || site.stored_readings().len() == 6);
        assert_eq!(gateway.interrupt(), 0, "{level}");
        drop(broker);
    }
}

#[test]
fn what_comes_while_the_gateway_is_away_is_delivered_when_it_returns() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    site.succeed(&["configs", "write"]);
    let _broker = site.mosquitto("mosquitto_mtls.conf", site.ports.mqtts);
    // The first run subscribes; the broker keeps the session.
    let gateway = site.start_gateway();
    let options = mtls("device-001");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    site.python_publish(site.ports.mqtts, 1, &options);
    wait_for("the first reading", || site.stored_readings().len() == 1);
    gateway.kill();
    site.python_publish(site.ports.mqtts, 1, &[options, vec!["--count", "5"]].concat());
    let gateway = site.start_gateway();
    wait_for("the readings in between", || site.stored_readings().len() == 6);
    assert_eq!(gateway.interrupt(), 0);
}

#[test]
fn stock_clients_work_with_our_certificates_and_only_on_their_topics() {
    let site = Site::new("signed", "");
    let running = site.start(&["up"]);
    let client = |program: &str, identity: &str| site.stock_client(program, identity);
    let mut reader = client("mosquitto_sub", "operator");
    let reader = reader
        .args([
            "-t",
            "hydroficient/grandmarina/#",
            "-C",
            "1",
            "-W",
            "20",
            "-F",
            "%t",
            "-d",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // An operator's command reaches its device.
    let commands = "hydroficient/grandmarina/device-001/commands";
    let mut device = client("mosquitto_sub", "device-001");
    let device = device
        .args(["-t", commands, "-C", "1", "-W", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Sent until both have it: either may be slower to subscribe.
    wait_for("the command to arrive", || {
        let sent = client("mosquitto_pub", "operator")
            .args(["-t", commands, "-m", "open"])
            .status();
        assert!(sent.unwrap().success());
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        has_ended(&device) && has_ended(&reader)
    });
    assert_eq!(device.wait_with_output().unwrap().stdout, b"open\n");
    assert!(reader.wait_with_output().unwrap().status.success());
    // A device may not read everything.
    let mut insider = client("mosquitto_sub", "device-001");
    let insider = insider.args(["-t", "#", "-W", "2", "-V", "5"]).output().unwrap();
    let said = String::from_utf8_lossy(&insider.stderr).to_lowercase();
    assert!(
        said.contains("not authorized") || said.contains("denied"),
        "{said}"
    );
    wait_for("the denial to be stored", || {
        site.stored_events()
            .iter()
            .any(|event| event["reason"] == "acl_denied" && event["topic"] == "#")
    });
    drop(running);
}
