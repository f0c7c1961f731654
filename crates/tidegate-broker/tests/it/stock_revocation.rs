//! Revocation on a stock Mosquitto with the written configuration: what SIGHUP does, and what it
//! leaves.

use std::time::Duration;

use rmqtt_codec::v5::PublishAckReason::{NoMatchingSubscribers, NotAuthorized};
use tidegate_broker::mosquitto::access_control_list;

use crate::client::{Client, connect, tls};
use crate::identities::{Identities, device, now, topic_rules};
use crate::openssl::dial;
use crate::stock::Stock;

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Whether a full handshake and a CONNECT get through.
async fn gets_in(stock: &Stock, identities: &Identities, name: &str, version: &str) -> bool {
    let session = identities.path("none.session");
    let dialled = dial(stock.address, identities, name, version, &session).await;
    std::fs::remove_file(session).unwrap_or_default();
    dialled.is_in()
}

async fn start(identities: &Identities) -> Stock {
    let rules = topic_rules(|id| Some(id.to_string()));
    let list = access_control_list(&rules, [device("device-001"), device("device-002")]).unwrap();
    Stock::start(identities, &list).await
}

#[tokio::test]
async fn revoked_device_is_refused_after_sighup_while_its_live_session_stays() {
    let identities = Identities::new();
    let mut stock = start(&identities).await;
    let mut live = Vec::new();
    for (name, client_id) in [("device-001", "live-1"), ("device-002", "live-2")] {
        let socket = tls(stock.address, identities.client_tls(Some(name)))
            .await
            .unwrap();
        live.push(Client::over(socket, connect(client_id)).await.0);
        for version in VERSIONS {
            assert!(
                gets_in(&stock, &identities, name, version).await,
                "{name} {version}"
            );
        }
    }
    identities.revoke(2, &["device-001"]);
    assert!(
        gets_in(&stock, &identities, "device-001", "-tls1_3").await,
        "the new list is not looked at before SIGHUP"
    );

    stock.reload().await;

    for version in VERSIONS {
        assert!(
            !gets_in(&stock, &identities, "device-001", version).await,
            "{version}"
        );
        assert!(
            gets_in(&stock, &identities, "device-002", version).await,
            "{version}"
        );
    }
    for client in &mut live {
        assert!(
            client.answers().await,
            "what remains: live sessions stay, revoked or not"
        );
    }
}

#[tokio::test]
async fn revoked_device_does_not_resume_after_sighup() {
    for version in VERSIONS {
        let identities = Identities::new();
        let mut stock = start(&identities).await;
        let sessions = ["device-001", "device-002"].map(|name| identities.path(&format!("{name}.session")));
        for (name, session) in ["device-001", "device-002"].iter().zip(&sessions) {
            assert!(
                dial(stock.address, &identities, name, version, session)
                    .await
                    .is_in()
            );
        }
        identities.revoke(2, &["device-001"]);
        stock.reload().await;
        let revoked = dial(stock.address, &identities, "device-001", version, &sessions[0]).await;
        assert!(!revoked.is_in(), "{version}");
        let other = dial(stock.address, &identities, "device-002", version, &sessions[1]).await;
        assert!(other.is_in(), "{version}");
    }
}

#[tokio::test]
async fn access_control_list_is_read_again_at_sighup_and_holds_for_live_sessions() {
    let identities = Identities::new();
    let mut stock = start(&identities).await;
    let (own, other) = ("site/device-001/sensors", "site/boiler/sensors");
    // MQTT 5 clients are closed by this Mosquitto after a denied publish, so each asks but once.
    let mut clients = Vec::new();
    for client_id in ["before", "after", "former"] {
        let socket = tls(stock.address, identities.client_tls(Some("device-001")))
            .await
            .unwrap();
        clients.push(Client::over(socket, connect(client_id)).await.0);
    }
    assert_eq!(clients[0].publish(own, "m").await, NoMatchingSubscribers);
    assert_eq!(clients[0].publish(other, "m").await, NotAuthorized);
    let rules = topic_rules(|_| Some("boiler".to_owned()));
    let list = access_control_list(&rules, [device("device-001")]).unwrap();
    std::fs::write(identities.path("list"), list).unwrap();

    stock.reload().await;

    assert_eq!(clients[1].publish(other, "m").await, NoMatchingSubscribers);
    assert_eq!(clients[2].publish(own, "m").await, NotAuthorized);
}

#[tokio::test]
async fn second_list_of_the_same_second_is_taken() {
    let identities = Identities::new();
    let mut stock = start(&identities).await;
    let (made, hour) = (now(), Duration::from_secs(3_600));
    for (number, revoked) in [(2, &[] as &[&str]), (3, &["device-001"])] {
        identities.write_list(number, revoked, made, hour);
        stock.reload().await;
        // A signal that comes while it still reloads would be lost; this is answered after it.
        assert!(gets_in(&stock, &identities, "device-002", "-tls1_3").await);
        let in_again = gets_in(&stock, &identities, "device-001", "-tls1_3").await;
        assert_eq!(in_again, revoked.is_empty());
    }
}

/// What the configuration warns of. The embedded broker keeps its last good list instead.
#[tokio::test]
async fn emptied_list_lets_a_revoked_device_back_in_at_sighup() {
    let identities = Identities::new();
    identities.revoke(2, &["device-001"]);
    let mut stock = start(&identities).await;
    assert!(!gets_in(&stock, &identities, "device-001", "-tls1_3").await);
    std::fs::write(identities.path("crl.pem"), "").unwrap();
    stock.reload().await;
    assert!(gets_in(&stock, &identities, "device-002", "-tls1_3").await);
    assert!(gets_in(&stock, &identities, "device-001", "-tls1_3").await);
}
