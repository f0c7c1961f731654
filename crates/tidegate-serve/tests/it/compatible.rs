//! The compatible events, byte for byte, and clients that misbehave.

use crate::support::{Client, Running, accepted, blocked, flagged, get, start};
use std::sync::Arc;
use tidegate_envelope::id::ZoneId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};
use tokio_tungstenite::tungstenite::Message;

/// A client that has its statistics.
async fn client(server: &Running) -> Client {
    let mut client = Client::connect(server.compatible, "/", &[]).await.unwrap();
    assert!(
        client
            .text()
            .await
            .unwrap()
            .starts_with(r#"{"type":"stats_update""#)
    );
    client
}

/// Publishes an event, and expects this text.
async fn check(event: Event, expected: &str) {
    let server = start().await;
    let mut client = client(&server).await;
    server.hub.publish(Arc::new(event));
    assert_eq!(client.text().await.unwrap(), expected);
}

#[tokio::test]
async fn statistics_come_first_and_again_when_they_change() {
    let server = start().await;
    let mut client = Client::connect(server.compatible, "/any/path?at=all", &[])
        .await
        .unwrap();
    let first = r#"{"type":"stats_update","data":{"total":13,"valid":11,"rejected":2,"ai_anomalies":1}}"#;
    assert_eq!(client.text().await.unwrap(), first);
    server.hub.publish(Arc::new(flagged(1)));
    server.hub.publish(Arc::new(blocked(2, Reason::Replay)));
    let again = client
        .json_where(|message| message["type"] == "stats_update")
        .await;
    assert_eq!(
        again["data"],
        serde_json::json!({"total":15,"valid":12,"rejected":3,"ai_anomalies":2})
    );
}

#[tokio::test]
async fn accepted_reading_is_a_valid_message() {
    check(
        accepted(),
        r#"{"type":"valid_message","data":{"device_id":"HYDROLOGIC-Device-002","topic":"hydroficient/grandmarina/device-002/sensors","timestamp":"08:00:00","pressure_psi":60.1,"flow_rate_lpm":12.5,"flow_rate_gpm":12.5,"valve_position":40.0,"zone":"pool_spa"}}"#,
    )
    .await;
}

#[tokio::test]
async fn other_channel_names_are_understood_and_missing_channels_are_zero() {
    let mut event = accepted();
    event.device = None;
    event.zone = Some(ZoneId::new("elsewhere").unwrap());
    let channels = vec![("pressure_psi".into(), 61.0), ("flow_rate_gpm".into(), 3.25)];
    event.channels = Channels::new(channels).unwrap();
    check(
        event,
        r#"{"type":"valid_message","data":{"device_id":"unknown","topic":"hydroficient/grandmarina/device-002/sensors","timestamp":"08:00:00","pressure_psi":61.0,"flow_rate_lpm":3.25,"flow_rate_gpm":3.25,"valve_position":0.0,"zone":"main_building"}}"#,
    )
    .await;
}

#[tokio::test]
async fn flagged_reading_is_an_ai_anomaly_with_three_decimals() {
    check(
        flagged(1),
        r#"{"type":"ai_anomaly","data":{"device_id":"HYDROLOGIC-Device-002","topic":"hydroficient/grandmarina/device-002/sensors","timestamp":"08:00:00","pressure_psi":60.1,"flow_rate_lpm":12.5,"flow_rate_gpm":12.5,"valve_position":40.0,"zone":"pool_spa","ai_score":-0.123,"anomaly_description":"The reading does not fit the device’s normal behaviour: flow_rate is far above normal"}}"#,
    )
    .await;
}

#[tokio::test]
async fn blocked_message_is_an_attack_with_every_failing_check() {
    let mut event = blocked(1, Reason::Replay);
    event.also = vec![Reason::Stale];
    event.detail = "sequence 7, last 9".into();
    check(
        event,
        r#"{"type":"attack","data":{"attack_type":"Replay Attack","source":"HYDROLOGIC-Device-002","topic":"hydroficient/grandmarina/device-002/sensors","reasons":["The message was accepted before","The message is older than the time window"],"timestamp":"08:00:00","description":"The message was accepted before: sequence 7, last 9"}}"#,
    )
    .await;
}

#[tokio::test]
async fn blocked_connection_is_an_attack_by_its_source() {
    let mut event = blocked(1, Reason::TlsNoCertificate);
    event.device = None;
    event.topic = String::new();
    check(
        event,
        r#"{"type":"attack","data":{"attack_type":"Security Violation","source":"mallory at 127.0.0.1:50001","topic":"","reasons":["The client presented no certificate"],"timestamp":"08:00:00","description":"The client presented no certificate"}}"#,
    )
    .await;
}

#[tokio::test]
async fn hostile_text_arrives_without_markup_and_control_characters() {
    let hostile = "<img src=x onerror='alert(1)'>\u{0}\u{1b}[31m\u{202e}&\"`\r\n";
    let mut event = blocked(1, Reason::BadSchema);
    event.device = None;
    event.zone = None;
    event.topic = hostile.into();
    event.source = hostile.into();
    event.detail = hostile.into();
    event.status = hostile.into();
    check(
        event,
        "{\"type\":\"attack\",\"data\":{\"attack_type\":\"Missing Fields\",\"source\":\"‹img src=x onerror=’alert(1)’›  [31m ＆”’  \",\"topic\":\"‹img src=x onerror=’alert(1)’›  [31m ＆”’  \",\"reasons\":[\"A member is missing or has the wrong type\"],\"timestamp\":\"08:00:00\",\"description\":\"A member is missing or has the wrong type: ‹img src=x onerror=’alert(1)’›  [31m ＆”’  \"}}",
    )
    .await;
}

#[tokio::test]
async fn text_of_any_length_makes_a_bounded_event() {
    let server = start().await;
    let mut client = client(&server).await;
    let mut event = blocked(1, Reason::Malformed);
    event.device = None;
    for text in [&mut event.topic, &mut event.source, &mut event.detail] {
        *text = "<\u{1f30a}>".repeat(50_000);
    }
    server.hub.publish(Arc::new(event));
    assert!(client.text().await.unwrap().len() < 4_096);
}

#[tokio::test]
async fn notices_are_not_sent_because_the_contract_has_no_type_for_them() {
    let server = start().await;
    let mut client = client(&server).await;
    let mut notice = accepted();
    notice.id = 1;
    notice.outcome = Outcome::Notice;
    notice.reason = Some(Reason::Gap);
    server.hub.publish(Arc::new(notice));
    server.hub.publish(Arc::new(accepted()));
    assert_eq!(client.json().await["type"], "valid_message");
}

#[tokio::test]
async fn ping_is_answered_and_everything_else_is_ignored() {
    let server = start().await;
    let mut client = client(&server).await;
    client.send(Message::binary(vec![0xff, 0x00, 0xfe])).await;
    for text in [
        "",
        "not json",
        "[1,2]",
        "{}",
        r#"{"type":"subscribe"}"#,
        r#"{"type":["ping"]}"#,
    ] {
        client.say(text).await;
    }
    client.say(r#"{"type":"ping"}"#).await;
    assert_eq!(client.text().await.unwrap(), r#"{"type":"pong"}"#);
    server.hub.publish(Arc::new(accepted()));
    assert_eq!(client.json().await["type"], "valid_message");
}

#[tokio::test]
async fn oversize_message_ends_its_own_connection_and_no_other() {
    let server = start().await;
    let mut loud = client(&server).await;
    let mut quiet = client(&server).await;
    loud.say(&" ".repeat(5_000)).await;
    assert_eq!(loud.text().await, None);
    quiet.say(r#"{"type":"ping"}"#).await;
    assert_eq!(quiet.text().await.unwrap(), r#"{"type":"pong"}"#);
}

#[tokio::test]
async fn page_is_on_this_port_too() {
    let server = start().await;
    for path in ["/", "/dashboard"] {
        let answer = get(server.compatible, path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    }
    let mut page = Client::connect(server.compatible, "/api/v1/stream", &[])
        .await
        .unwrap();
    assert_eq!(page.json().await["type"], "hello");
}

#[tokio::test]
async fn one_client_too_many_is_refused_until_another_leaves() {
    let server = start().await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(client(&server).await);
    }
    assert_eq!(
        Client::connect(server.compatible, "/", &[]).await.err(),
        Some(503)
    );
    // The page's readers have places of their own.
    assert!(
        Client::connect(server.compatible, "/api/v1/stream", &[])
            .await
            .is_ok()
    );
    let mut leaving = clients.pop().unwrap();
    leaving.say(&" ".repeat(5_000)).await;
    assert_eq!(leaving.text().await, None);
    client(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_does_not_read_is_dropped_and_others_get_everything() {
    const EVENTS: u64 = 40_000;
    let server = start().await;
    let mut stalled = client(&server).await;
    let mut reading = client(&server).await;
    let hub = server.hub.clone();
    // Large events, so that the stalled client's socket buffers fill up; in groups as large as the
    // reading client has shown that it keeps up with.
    let mut event = accepted();
    event.topic = "x".repeat(160);
    let event = Arc::new(event);
    let mut received = 0;
    while received < EVENTS {
        for _ in 0..500 {
            hub.publish(Arc::clone(&event));
        }
        let target = received + 500;
        while received < target {
            let message = reading.text().await.expect("the reading client is never dropped");
            received += u64::from(message.starts_with(r#"{"type":"valid_message""#));
        }
    }
    let mut behind = 0;
    while let Some(message) = stalled.text().await {
        behind += u64::from(message.starts_with(r#"{"type":"valid_message""#));
    }
    assert!(
        behind < EVENTS,
        "the stalled client was dropped after {behind} events"
    );
}
