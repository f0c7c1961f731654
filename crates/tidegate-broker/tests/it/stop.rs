//! A broker that stops.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, DisconnectReasonCode, PublishAckReason};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, connect, publish, will};
use crate::serve::{PATIENCE, Server};

#[tokio::test]
async fn publishes_in_flight_finish_then_clients_are_sent_away_and_nothing_else_is_said() {
    let mut server = Server::open();
    let last_will = Some(will("wills", "w"));
    let (mut sender, _) = Client::with(
        server.address,
        Connect {
            last_will,
            ..connect("sender")
        },
    )
    .await;
    let mut reader = Client::open(server.address, "reader").await;
    reader.subscribe("#", QoS::AtLeastOnce).await;
    sender.send(publish("t", "hold", QoS::AtLeastOnce, 1)).await;
    server.admitted().await;
    server.stop.cancel();
    assert_eq!(
        reader.ended().await,
        Some(DisconnectReasonCode::ServerShuttingDown)
    );
    server.let_go(1);
    assert_eq!(sender.acknowledged().await.reason_code, PublishAckReason::Success);
    assert_eq!(
        sender.ended().await,
        Some(DisconnectReasonCode::ServerShuttingDown)
    );
    drop(sender);
    drop(reader);
    timeout(PATIENCE, server.task.take().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(server.pending_admitted().await.is_none(), "no will is published");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn mute_connections_do_not_keep_a_broker_from_stopping() {
    let mut server = Server::open();
    let _mute = TcpStream::connect(server.address).await.unwrap();
    let _silent = Client::open(server.address, "silent").await;
    server.stop.cancel();
    timeout(PATIENCE, server.task.take().unwrap())
        .await
        .unwrap()
        .unwrap();
}
