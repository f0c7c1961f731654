//! How a publisher waits for a broker that is not there, and what waits with it; time is paused.

use crate::embedded::Embedded;
use crate::rig::{Rig, TIME, next};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_device::publisher::{
    Connector, Dropped, Event, FIRST_WAIT, LONGEST_WAIT, Overflow, PublishError, PublisherConfig,
    STABLE_AFTER,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

/// No broker anywhere.
fn nowhere() -> Connector {
    Connector::new(|_| async { Err::<TcpStream, _>(io::ErrorKind::ConnectionRefused.into()) })
}

/// How long the publisher waits until the next attempt.
async fn next_wait(events: &mut Receiver<Event>) -> Duration {
    match events.recv().await.unwrap() {
        Event::Disconnected { retry_in, .. } => retry_in,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn waits_double_to_the_longest_and_differ_between_devices() {
    let mut series = Vec::new();
    for _ in 0..2 {
        let rig = Rig::new();
        let (_publisher, mut events) = rig.start(PublisherConfig {
            connector: Some(nowhere()),
            ..rig.config(1883)
        });
        let mut waits = Vec::new();
        let mut longest = FIRST_WAIT;
        for _ in 0..10 {
            let before = Instant::now();
            let wait = next_wait(&mut events).await;
            // Timers have whole milliseconds.
            let late = before
                .elapsed()
                .saturating_sub(waits.last().copied().unwrap_or_default());
            assert!(late <= Duration::from_millis(1), "{late:?} later than it said");
            assert!((longest / 2..=longest).contains(&wait), "{wait:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST_WAIT);
            waits.push(wait);
        }
        series.push(waits);
    }
    assert_ne!(
        series[0], series[1],
        "devices that lost one broker do not come back together"
    );
}

/// The wait after a connection that lasted so long, where some attempts had failed before.
async fn wait_after(lasted: Duration) -> Duration {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let is_up = Arc::new(AtomicBool::new(false));
    let (up, there) = (Arc::clone(&is_up), broker.connector());
    let connector = Connector::new(move |address| {
        let (up, there) = (up.load(Ordering::Relaxed), there.clone());
        async move {
            if up {
                there.connect(address).await
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
    });
    let (_publisher, mut events) = rig.start(PublisherConfig {
        connector: Some(connector),
        ..rig.config(1883)
    });
    for _ in 0..5 {
        next_wait(&mut events).await;
    }
    is_up.store(true, Ordering::Relaxed);
    assert!(matches!(events.recv().await, Some(Event::Connected { .. })));
    tokio::time::advance(lasted).await;
    broker.cut();
    next_wait(&mut events).await
}

#[tokio::test(start_paused = true)]
async fn stable_connection_ends_the_series_and_a_short_one_does_not() {
    assert!(wait_after(STABLE_AFTER).await <= FIRST_WAIT);
    let short = STABLE_AFTER - Duration::from_millis(100);
    assert!(wait_after(short).await >= FIRST_WAIT * 16);
}

/// A publisher with a queue of three, four readings given, and no broker.
fn full(rig: &Rig, overflow: Overflow, connector: Connector) -> PublisherConfig {
    PublisherConfig {
        connector: Some(connector),
        queue_capacity: 3,
        overflow,
        ..rig.config(1883)
    }
}

#[tokio::test(start_paused = true)]
async fn full_queue_drops_by_its_policy_and_reports_each_drop() {
    for (overflow, dropped) in [(Overflow::DropOldest, 1), (Overflow::DropNewest, 4)] {
        let rig = Rig::new();
        let (mut publisher, mut events) = rig.start(full(&rig, overflow, nowhere()));
        for number in 1..=4 {
            assert_eq!(rig.publish(&mut publisher).get(), number);
        }
        assert_eq!(publisher.queued(), 3);
        let event = loop {
            match next(&mut events).await {
                Event::Disconnected { .. } => {}
                other => break other,
            }
        };
        assert!(
            matches!(event, Event::Dropped { sequence, why: Dropped::QueueFull } if sequence.get() == dropped),
            "{event:?}"
        );
        assert_eq!(publisher.counts().dropped, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_reading_uses_no_number_and_nothing_that_was_taken_is_lost() {
    let (rig, mut broker) = (Rig::new(), Embedded::start());
    let (mut publisher, mut events) = rig.start(full(&rig, Overflow::Refuse, broker.connector()));
    // The publisher's task has not run yet: nothing can have left the queue.
    for number in 1..=3 {
        assert_eq!(rig.publish(&mut publisher).get(), number);
    }
    let refused = publisher.publish(TIME, "operational", &rig.readings);
    assert!(matches!(refused, Err(PublishError::QueueFull(3))), "{refused:?}");
    while publisher.counts().acknowledged < 3 {
        next(&mut events).await;
    }
    assert_eq!(rig.publish(&mut publisher).get(), 4);
    assert_eq!(publisher.close(Duration::from_secs(10)).await, 0);
    for _ in 1..=4 {
        broker.readings.recv().await.unwrap();
    }
}
