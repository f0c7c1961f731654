//! The time for a device without a clock, asked over the embedded broker; time is paused.

use crate::broker::{Broker, Packet};
use crate::embedded::{ANSWERS, Answer, Embedded, REQUESTS};
use crate::rig::{Rig, TIME, next, verified};
use bytes::Bytes;
use std::time::Duration;
use tidegate_device::clock::{AnswerRefused, LONGEST_RETRY, MAX_ROUND_TRIP, REFRESH_EVERY};
use tidegate_device::publisher::{Event, PublishError, Publisher, PublisherConfig, TimeSource};
use tidegate_envelope::id::Sequence;
use tidegate_envelope::time_echo::parse_request;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

/// Longer than any wait of these tests.
const LONG: Duration = Duration::from_secs(2 * 3_600);

fn start(rig: &Rig, broker: &Embedded) -> (Publisher, Receiver<Event>) {
    rig.start(PublisherConfig {
        connector: Some(broker.connector()),
        time: TimeSource::Echo(Embedded::topics()),
        ..rig.config(1883)
    })
}

/// The next event that is about the time.
async fn next_of_time(events: &mut Receiver<Event>) -> Event {
    loop {
        let event = timeout(LONG, events.recv()).await.unwrap().unwrap();
        if matches!(event, Event::TimeSet { .. } | Event::TimeRefused { .. }) {
            return event;
        }
    }
}

/// A device that knows the time.
async fn started(rig: &Rig, broker: &Embedded) -> (Publisher, Receiver<Event>) {
    let (publisher, mut events) = start(rig, broker);
    let event = next_of_time(&mut events).await;
    assert!(matches!(event, Event::TimeSet { .. }), "{event:?}");
    (publisher, events)
}

#[tokio::test(start_paused = true)]
async fn reading_is_refused_until_the_time_is_known_and_then_has_the_time_of_its_measurement() {
    let (rig, mut broker) = (Rig::new(), Embedded::start());
    broker.gate.then(Answer::After(Duration::from_secs(4)));
    let (mut publisher, mut events) = start(&rig, &broker);
    let (measured, measured_at) = (Instant::now(), broker.gate.now());
    let refused = publisher.publish(measured, "operational", &rig.readings);
    assert!(matches!(refused, Err(PublishError::NoTime)), "{refused:?}");
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    let Event::TimeSet { error } = next(&mut events).await else {
        panic!("no time")
    };
    assert_eq!(error, Duration::from_secs(2));
    let number = publisher.publish(measured, "operational", &rig.readings).unwrap();
    assert_eq!(
        number,
        Sequence::new(1).unwrap(),
        "the refused reading used no number"
    );
    let sent = broker.readings.recv().await.unwrap();
    let timestamp = verified(&sent.payload).timestamp.unwrap();
    // The answer was made at once and was under way for all of its 4 s: the worst case.
    assert_eq!(timestamp.plus(error), measured_at);
}

#[tokio::test(start_paused = true)]
async fn time_at_once_is_exact_and_is_asked_for_again_after_an_hour() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let (publisher, mut events) = started(&rig, &broker).await;
    let known = publisher.clock().unwrap().at(Instant::now()).unwrap();
    assert_eq!((known.time, known.error), (broker.gate.now(), Duration::ZERO));
    let before = Instant::now();
    let event = next_of_time(&mut events).await;
    assert!(matches!(event, Event::TimeSet { .. }), "{event:?}");
    assert_eq!(before.elapsed(), REFRESH_EVERY);
    assert_eq!(publisher.counts().time_set, 2);
}

#[tokio::test(start_paused = true)]
async fn new_connection_asks_again_at_once() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let (_publisher, mut events) = started(&rig, &broker).await;
    let before = Instant::now();
    broker.cut();
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    let event = next_of_time(&mut events).await;
    assert!(matches!(event, Event::TimeSet { .. }), "{event:?}");
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn nothing_is_asked_before_the_answer_could_arrive() {
    let (rig, broker) = (Rig::new(), Broker::plain().await);
    let (mut publisher, _events) = rig.start(PublisherConfig {
        time: TimeSource::Echo(Embedded::topics()),
        ..rig.config(broker.port())
    });
    let mut connection = broker.accept(false).await.unwrap();
    let Packet::Subscribe { filter, id } = connection.next().await else {
        panic!("no SUBSCRIBE")
    };
    assert_eq!(filter, ANSWERS);
    rig.publish(&mut publisher);
    connection.published().await;
    connection.subscribed(id).await;
    let Packet::Question { topic, payload } = connection.next().await else {
        panic!("no question")
    };
    assert_eq!(topic, REQUESTS);
    assert!(parse_request(&payload).is_some());
}

#[tokio::test(start_paused = true)]
async fn answers_to_other_keys_of_the_device_are_passed_over() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    broker.gate.then(Answer::Rotating);
    let (publisher, mut events) = started(&rig, &broker).await;
    // The next event about the time is the next answer, an hour later.
    let event = next_of_time(&mut events).await;
    assert!(matches!(event, Event::TimeSet { .. }), "{event:?}");
    assert_eq!(publisher.counts().time_refused, 0);
}

/// The first answer is good, the second is not: it is refused for `expected`, and the time stays.
async fn refused(second: impl FnOnce(&Embedded) -> Answer, expected: AnswerRefused) {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let (publisher, mut events) = started(&rig, &broker).await;
    let clock = publisher.clock().unwrap();
    let probe = Instant::now();
    let before = clock.at(probe).unwrap();
    broker.gate.then(second(&broker));
    assert_eq!(
        next_of_time(&mut events).await,
        Event::TimeRefused { why: expected }
    );
    assert_eq!(clock.at(probe), Some(before), "the time is what it was");
    // The device asks again, and takes the good answer.
    let event = next_of_time(&mut events).await;
    assert!(matches!(event, Event::TimeSet { .. }), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn forged_answer_is_refused() {
    refused(|_| Answer::Forged, AnswerRefused::NotGenuine).await;
}

#[tokio::test(start_paused = true)]
async fn genuine_answer_to_another_nonce_is_refused() {
    refused(|_| Answer::OtherNonce, AnswerRefused::NotGenuine).await;
}

#[tokio::test(start_paused = true)]
async fn replayed_answer_to_the_first_question_is_refused() {
    refused(
        |broker| Answer::Old(broker.gate.last_answer()),
        AnswerRefused::NotGenuine,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn answer_one_millisecond_too_late_is_refused_and_one_in_time_is_taken() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    broker
        .gate
        .then(Answer::After(MAX_ROUND_TRIP - Duration::from_millis(1)));
    let (publisher, mut events) = started(&rig, &broker).await;
    let clock = publisher.clock().unwrap();
    let probe = Instant::now();
    let before = clock.at(probe);
    // Nothing is answered until the waits are longer than what is still taken.
    broker.gate.then(Answer::None);
    let late = MAX_ROUND_TRIP + Duration::from_millis(1);
    broker.gate.then(Answer::After(late));
    let why = AnswerRefused::Late(late);
    assert_eq!(next_of_time(&mut events).await, Event::TimeRefused { why });
    assert_eq!(clock.at(probe), before);
}

#[tokio::test(start_paused = true)]
async fn answer_that_comes_twice_and_a_command_change_nothing() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let (publisher, mut events) = started(&rig, &broker).await;
    let probe = Instant::now();
    let before = publisher.clock().unwrap().at(probe);
    let again = broker.gate.last_answer();
    let command = Bytes::from_static(b"{\"open\": \"gate_a\"}");
    for message in [command, again] {
        assert_eq!(broker.handle.publish(ANSWERS, message).unwrap(), 1);
    }
    let why = AnswerRefused::NotAsked;
    assert_eq!(next_of_time(&mut events).await, Event::TimeRefused { why });
    assert_eq!(publisher.counts().time_refused, 1, "the command was no answer");
    assert_eq!(publisher.clock().unwrap().at(probe), before);
}

#[tokio::test(start_paused = true)]
async fn questions_without_an_answer_are_asked_ever_less_often() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    for _ in 0..10 {
        broker.gate.then(Answer::None);
    }
    let (publisher, _events) = start(&rig, &broker);
    let mut waits = Vec::new();
    broker.gate.asked.notified().await;
    for _ in 0..9 {
        let before = Instant::now();
        broker.gate.asked.notified().await;
        waits.push(before.elapsed().as_secs());
    }
    let longest = LONGEST_RETRY.as_secs();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, longest, longest, longest]);
    assert_eq!(publisher.clock().unwrap().at(Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn instant_without_a_source_of_time_and_a_source_without_a_key_are_refused() {
    let (rig, broker) = (Rig::new(), Embedded::start());
    let config = PublisherConfig {
        connector: Some(broker.connector()),
        ..rig.config(1883)
    };
    let (mut publisher, _events) = rig.start(config.clone());
    let refused = publisher.publish(Instant::now(), "operational", &rig.readings);
    assert!(matches!(refused, Err(PublishError::NoTimeSource)), "{refused:?}");
    assert!(publisher.publish(TIME, "operational", &rig.readings).is_ok());
    drop(publisher);
    let refused = rig.refused(PublisherConfig {
        time: TimeSource::Echo(Embedded::topics()),
        signing: None,
        ..config
    });
    assert!(matches!(refused, PublishError::NoKey(_)), "{refused}");
}
