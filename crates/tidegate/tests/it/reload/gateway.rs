//! A gateway at another broker goes on with changed certificates.

use super::{WARNING, details, wait_for_metric};
use crate::support::{Site, wait_for};
use std::fs;

#[test]
fn gateway_subscribes_again_with_a_changed_certificate_and_keeps_the_old_one_when_it_is_broken() {
    let site = Site::new("mtls", "");
    site.succeed(&["certs", "init"]);
    site.succeed(&["configs", "write"]);
    let _broker = site.mosquitto("mosquitto_mtls.conf", site.ports.mqtts);
    let (running, lines) = site.start_and_listen(&["gateway"], &site.path("gateway.log"));
    lines.wait_for("Subscribed to");
    site.succeed(&["certs", "issue", "gateway", "--force"]);
    lines.wait_for("Took the changed certificates");
    lines.wait_for("Subscribed to");

    let whole = fs::read(site.path("certs/gateway.pem")).unwrap();
    fs::write(site.path("certs/gateway.pem"), "junk").unwrap();
    wait_for("the event", || details(&site, "certificate_rejected").len() == 1);
    wait_for_metric(&site, WARNING, 1.0);
    fs::write(site.path("certs/gateway.pem"), whole).unwrap();
    lines.wait_for("Subscribed to");
    wait_for_metric(&site, WARNING, 0.0);
    assert_eq!(running.interrupt(), 0);
}
