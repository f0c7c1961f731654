//! The page's stream: hello, frames, resuming, floods and the end.

use crate::support::{Client, accepted, blocked, flagged, start, start_with};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_envelope::reason::Reason;

fn ids(message: &Value) -> Vec<i64> {
    let events = message["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_i64().unwrap())
        .filter(|id| *id > 0)
        .collect()
}

fn has_events(message: &Value) -> bool {
    message["events"]
        .as_array()
        .is_some_and(|events| !events.is_empty())
}

#[tokio::test]
async fn hello_holds_the_whole_state() {
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    let hello = page.json().await;
    assert_eq!(hello["type"], "hello");
    assert_eq!(
        (&hello["version"], &hello["level"], &hello["demo"]),
        (&2.into(), &"ai".into(), &true.into())
    );
    assert_eq!(
        hello["totals"],
        json!({"accepted": 10, "flagged": 1, "blocked": 2, "got_in": 0})
    );
    assert_eq!(hello["seconds"].as_array().unwrap().len(), 120);
    assert_eq!(hello["seconds"][119]["t"], 1_800_000_000);
    assert_eq!(hello["layers"].as_array().unwrap().len(), 10);
    assert_eq!(hello["zones"][0]["sentence"], "Waiting for the first reading");
    assert_eq!(
        (&hello["device_count"], &hello["unprotected"]),
        (&3.into(), &false.into())
    );
    assert_eq!(hello["notes"], json!(["a shared secret is in use"]));
}

#[tokio::test]
async fn frame_holds_what_changed() {
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    page.json().await;
    let mut hostile = blocked(1, Reason::BadMac);
    hostile.raw = Some(b"\x00<img onerror=x>\xff".to_vec());
    server.hub.publish(Arc::new(accepted()));
    server.hub.publish(Arc::new(hostile));
    let frame = page.json_where(has_events).await;
    assert_eq!(
        frame["totals"],
        json!({"accepted": 11, "flagged": 1, "blocked": 3, "got_in": 0})
    );
    assert_eq!(
        frame["seconds"],
        json!([{"t": 1_800_000_000, "accepted": 1, "flagged": 0, "blocked": 1, "got_in": 0}])
    );
    assert_eq!(frame["layers"], json!([{"id": "signature", "stopped": 1}]));
    assert_eq!(
        frame["zones"]
            .as_array()
            .unwrap()
            .iter()
            .find(|zone| zone["id"] == "pool_spa")
            .unwrap()["status"],
        "attack"
    );
    let event = frame["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["id"] == 1)
        .unwrap();
    assert_eq!(event["outcome"], "blocked");
    assert_eq!(event["reason"], "bad_mac");
    assert_eq!(event["layer"], "signature");
    assert_eq!(
        event["raw"], " <img onerror=x>\u{fffd}",
        "the page shows text as text, so markup stays readable"
    );
}

#[tokio::test]
async fn attack_that_was_accepted_got_in() {
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    page.json().await;
    let mut event = accepted();
    event.reason = Some(Reason::Replay);
    server.hub.publish(Arc::new(event));
    let frame = page.json_where(has_events).await;
    assert_eq!(
        frame["totals"],
        json!({"accepted": 11, "flagged": 1, "blocked": 2, "got_in": 1})
    );
    assert_eq!(frame["events"][0]["got_in"], true);
}

#[tokio::test]
async fn page_that_comes_back_misses_nothing_and_gets_nothing_twice() {
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    page.json().await;
    let mut seen = Vec::new();
    let mut published = 0;
    for _ in 0..5 {
        for _ in 0..7 {
            published += 1;
            server.hub.publish(Arc::new(flagged(published)));
        }
        // Some of these are in a frame by now, some are not, and some come while nobody is there.
        while seen.last() < Some(&(published - 3)) {
            seen.extend(ids(&page.json().await));
        }
        drop(page);
        published += 1;
        server.hub.publish(Arc::new(blocked(published, Reason::Replay)));
        let path = format!("/api/v1/stream?after={}", seen.last().unwrap());
        page = Client::connect(server.page, &path, &[]).await.unwrap();
        let hello = page.json().await;
        assert_eq!(hello["missed"], 0);
        seen.extend(ids(&hello));
    }
    while seen.last() < Some(&published) {
        seen.extend(ids(&page.json().await));
    }
    assert_eq!(seen, (1..=published).collect::<Vec<_>>());
}

#[tokio::test]
async fn page_that_comes_back_late_gets_the_rest_from_the_database() {
    let kept = (1..=1_000).map(|id| blocked(id, Reason::Stale)).collect();
    let server = start_with(kept, 50).await;
    let hello = |after: i64| {
        let page = server.page;
        async move {
            let path = format!("/api/v1/stream?after={after}");
            Client::connect(page, &path, &[]).await.unwrap().json().await
        }
    };
    let recent = hello(960).await;
    assert_eq!(
        (ids(&recent), &recent["missed"]),
        ((961..=1_000).collect(), &0.into())
    );
    let older = hello(600).await;
    assert_eq!(
        (ids(&older), &older["missed"]),
        ((601..=1_000).collect(), &0.into())
    );
    let oldest = hello(100).await;
    assert_eq!(
        (ids(&oldest), &oldest["missed"]),
        ((501..=1_000).collect(), &400.into())
    );
    let other_database = hello(5_000).await;
    assert_eq!(
        (ids(&other_database), &other_database["missed"]),
        ((951..=1_000).collect(), &0.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_exact_and_frames_bounded_at_20_000_events_a_second() {
    // As fast as it can, which is faster than that rate.
    const EVENTS: u64 = 40_000;
    const FLAGGED: u64 = EVENTS / 100;
    const BLOCKED: u64 = EVENTS - FLAGGED;
    let server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    page.json().await;
    let hub = server.hub.clone();
    let publishing = tokio::task::spawn_blocking(move || {
        for number in 1..=EVENTS {
            let id = number as i64;
            let event = if number % 100 == 0 {
                flagged(id)
            } else {
                blocked(id, Reason::RateLimited)
            };
            hub.publish(Arc::new(event));
        }
    });
    let (mut shown, mut dropped, mut last_id, mut second, mut hellos) = (0, 0, 0, json!(null), 0);
    loop {
        let message = page.json().await;
        if let Some(newest) = message["seconds"].as_array().unwrap().last() {
            second = newest.clone();
        }
        if message["type"] == "hello" {
            // The machine was too busy for this reader: it starts anew, from the newest state.
            hellos += 1;
            last_id = message["resume_from"].as_i64().unwrap();
        } else {
            assert!(message["events"].as_array().unwrap().len() <= 420);
            for id in ids(&message) {
                assert!(id > last_id, "ids ascend");
                last_id = id;
                shown += 1;
            }
            dropped += message["dropped"].as_u64().unwrap();
        }
        let totals = &message["totals"];
        if totals["blocked"] == 2 + BLOCKED && (hellos > 0 || shown + dropped == EVENTS) {
            assert_eq!(totals["flagged"], 1 + FLAGGED);
            break;
        }
    }
    publishing.await.unwrap();
    assert_eq!(
        (&second["flagged"], &second["blocked"]),
        (&FLAGGED.into(), &BLOCKED.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_page_gets_the_newest_state_and_no_queue() {
    let server = start().await;
    let mut slow = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    let mut quick = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    assert_eq!(slow.json().await["type"], "hello");
    quick.json().await;
    // Frames of about 2 MB fill the socket's buffers soon.
    let mut large = blocked(0, Reason::Malformed);
    large.detail = "\u{1f30a}".repeat(500);
    large.raw = Some("\u{1f30a}".repeat(500).into_bytes());
    let mut id = 0;
    for _ in 0..24 {
        for _ in 0..200 {
            id += 1;
            large.id = id;
            server.hub.publish(Arc::new(large.clone()));
        }
        quick.json().await;
    }
    let mut frames = 0;
    let hello = loop {
        let message = slow.json().await;
        if message["type"] == "hello" {
            break message;
        }
        frames += 1;
    };
    assert!(frames < 24, "{frames} frames were queued");
    let mut shown = hello;
    while shown["totals"]["blocked"] != 2 + id {
        shown = slow.json().await;
    }
}

#[tokio::test]
async fn server_says_goodbye_and_ends() {
    let mut server = start().await;
    let mut page = Client::connect(server.page, "/api/v1/stream", &[]).await.unwrap();
    let mut compatible = Client::connect(server.compatible, "/", &[]).await.unwrap();
    page.json().await;
    compatible.json().await;
    server.cancelled.cancel();
    (&mut server.task).await.unwrap().unwrap();
    while page.text().await.is_some() {}
    assert_eq!(compatible.text().await, None);
}
