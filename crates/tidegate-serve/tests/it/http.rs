//! The page, its headers, its API, and requests that are out of bounds.

use crate::support::{accepted, ask, blocked, flagged, get, start, start_with};
use std::sync::Arc;
use tidegate_envelope::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn page_is_served_at_each_of_its_paths() {
    let server = start().await;
    for path in [
        "/",
        "/dashboard",
        "/certificates",
        "/certificates?state=expiring",
        "/index.html",
    ] {
        let answer = get(server.page, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert!(
            String::from_utf8(answer.body)
                .unwrap()
                .to_lowercase()
                .starts_with("<!doctype html>")
        );
    }
}

#[tokio::test]
async fn unchanged_page_is_not_sent_again() {
    let server = start().await;
    let tag = get(server.page, "/").await.header("etag").unwrap().to_owned();
    let request = |tag: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n",
            server.page
        )
    };
    let unchanged = ask(server.page, &request(&tag)).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(ask(server.page, &request("\"other\"")).await.status, 200);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = start().await;
    let foreign = ask(
        server.page,
        "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(foreign.status, 403);
    let mut answers = vec![foreign];
    for path in [
        "/",
        "/api/v1/summary",
        "/api/v1/events?limit=x",
        "/nowhere",
        "/healthz",
    ] {
        answers.push(get(server.page, path).await);
        answers.push(get(server.compatible, path).await);
    }
    for answer in answers {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        assert!(
            policy.contains("frame-ancestors 'none'")
                && policy.contains("require-trusted-types-for 'script'")
        );
        assert!(!policy.contains("unsafe"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert!(answer.header("access-control-allow-origin").is_none());
        assert!(answer.header("cache-control").is_some());
    }
}

#[tokio::test]
async fn paths_that_climb_find_nothing() {
    let server = start().await;
    for path in [
        "/../Cargo.toml",
        "/../../Cargo.toml",
        "/assets/../../Cargo.toml",
        "/%2e%2e/%2e%2e/Cargo.toml",
        "/..%2f..%2fCargo.toml",
        "//etc/passwd",
        "/assets/",
        "/nowhere.html",
        "/certificates/",
        "/certificates/x",
    ] {
        assert_eq!(get(server.page, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn only_reading_is_possible() {
    let server = start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/", "/api/v1/events", "/api/v1/stream", "/assets/x.js"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                server.page
            );
            assert_eq!(ask(server.page, &request).await.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn heads_beyond_the_bounds_are_refused() {
    let server = start().await;
    let with = |headers: &str| {
        format!(
            "GET /healthz HTTP/1.1\r\nHost: {}\r\n{headers}Connection: close\r\n\r\n",
            server.page
        )
    };
    assert_eq!(ask(server.page, &with("X: y\r\n")).await.status, 200);
    assert_eq!(ask(server.page, &with(&"X: y\r\n".repeat(100))).await.status, 431);
    assert_eq!(
        ask(server.page, &with(&format!("X: {}\r\n", "y".repeat(20_000))))
            .await
            .status,
        431
    );
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n",
        "y".repeat(20_000),
        server.page
    );
    assert!(matches!(ask(server.page, &long).await.status, 414 | 431));
}

#[tokio::test]
async fn body_is_never_read() {
    let server = start().await;
    let mut socket = TcpStream::connect(server.page).await.unwrap();
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000000\r\n\r\n",
        server.page
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    socket.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn summary_tells_the_state_in_one_object() {
    let server = start().await;
    server.hub.publish(Arc::new(accepted()));
    server.hub.publish(Arc::new(blocked(1, Reason::BadMac)));
    let summary = get(server.page, "/api/v1/summary").await.json();
    assert_eq!(summary["site"], "Grand Marina");
    assert_eq!(
        summary["totals"],
        serde_json::json!({"accepted": 11, "flagged": 1, "blocked": 3, "got_in": 0})
    );
    assert_eq!(summary["zones"][1]["status"], "attack");
    assert_eq!(summary["zones"][0]["status"], "waiting");
    let layer = |id: &str| {
        summary["layers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|layer| layer["id"] == id)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (&layer("signature")["on"], &layer("signature")["stopped"]),
        (&true.into(), &1.into())
    );
    assert_eq!(
        (&layer("sequence")["on"], &layer("sequence")["stopped"]),
        (&false.into(), &0.into())
    );
}

#[tokio::test]
async fn events_come_newest_first_in_pages_and_by_filter() {
    let kept = (1..=250).map(|id| {
        if id % 10 == 0 {
            flagged(id)
        } else {
            blocked(id, Reason::Replay)
        }
    });
    let server = start_with(kept.collect(), 0).await;
    let ids = |path: String| async move {
        let page = get(server.page, &path).await.json();
        let ids: Vec<i64> = page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_i64().unwrap())
            .collect();
        (ids, page["next_before"].as_i64())
    };
    let (first, next) = ids("/api/v1/events?limit=200".into()).await;
    assert_eq!((first[0], first.len(), next), (250, 200, Some(51)));
    let (rest, next) = ids("/api/v1/events?limit=200&before=51".into()).await;
    assert_eq!((rest[0], rest.len(), next), (50, 50, None));
    let (flagged, _) = ids("/api/v1/events?outcome=flagged&after=200".into()).await;
    assert_eq!(flagged, [250, 240, 230, 220, 210]);
    let (all, _) = ids("/api/v1/events?limit=4000000000".into()).await;
    assert_eq!(all.len(), 250);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused_with_a_reason() {
    let server = start().await;
    for query in [
        "limit=x",
        "limit=-1",
        "outcome=accepted",
        "reason=nothing",
        "device=a/b",
        "zone=kitchen",
        "unknown=1",
    ] {
        let answer = get(server.page, &format!("/api/v1/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(
            answer.json()["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty())
        );
    }
}

#[tokio::test]
async fn devices_are_listed_in_pages_whether_they_spoke_or_not() {
    let server = start().await;
    server.hub.publish(Arc::new(accepted()));
    let page = get(server.page, "/api/v1/devices?limit=2&offset=1").await.json();
    assert_eq!(
        (&page["total"], &page["next_offset"]),
        (&3.into(), &serde_json::Value::Null)
    );
    assert_eq!(page["devices"][0]["id"], "device-004");
    assert_eq!(page["devices"][0]["last_seen_ms"], serde_json::Value::Null);
    let spoke = &page["devices"][1];
    assert_eq!(
        (&spoke["id"], &spoke["zone"], &spoke["accepted"]),
        (&"device-002".into(), &"pool_spa".into(), &1.into())
    );
    assert_eq!(
        spoke["channels"]["flow_rate"],
        serde_json::json!({"value": 12.5, "unit": "L/min"})
    );
    assert_eq!(
        get(server.page, "/api/v1/devices?limit=1").await.json()["next_offset"],
        1
    );
}

#[tokio::test]
async fn health_and_readiness_answer() {
    let server = start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.page, path).await.status, 200);
    }
}

#[tokio::test]
async fn database_that_cannot_be_written_is_not_ready_and_still_healthy() {
    let server = start().await;
    server.hub.storage_available(false);
    assert_eq!(get(server.page, "/readyz").await.status, 503);
    assert_eq!(get(server.page, "/healthz").await.status, 200);
    server.hub.storage_available(true);
    assert_eq!(get(server.page, "/readyz").await.status, 200);
}
