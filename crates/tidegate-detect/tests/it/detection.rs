//! Each kind of fault is flagged, says why, and ordinary readings are left alone.

use crate::plant::{Readings, Water, device, model, ordinary, readings, second};
use tidegate_detect::detector::{Assessment, Detector, RULE_SCORE, WARM_UP_READINGS};
use tidegate_detect::rules::Rule;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reading::Channels;

/// The first reading of the test period, long after training.
const FIRST: usize = 20_000;
/// Ordinary readings before a fault.
const BEFORE: usize = 1_000;

fn assess(detector: &mut Detector, readings: &Readings) -> Vec<Assessment> {
    readings
        .iter()
        .map(|(at, channels)| detector.assess(DeviceIndex(0), *at, channels))
        .collect()
}

fn detector() -> Detector {
    Detector::new(model(), [&device(0)])
}

/// Shows 1,000 ordinary readings and then 200 that `fault` changes; answers after how many of
/// those the first flag came, and the sentence that half of the flags or more contain.
fn check(mut fault: impl FnMut(usize, &mut Water), flagged_within: usize, words: &str) {
    let shown = readings(0, FIRST, BEFORE + 200, |index, water| {
        if let Some(since) = index.checked_sub(BEFORE) {
            fault(since, water);
        }
    });
    let answers = assess(&mut detector(), &shown);
    let early = answers[..BEFORE].iter().filter(|answer| answer.flagged).count();
    assert!(early <= 5, "{early} of {BEFORE} ordinary readings were flagged");
    let flagged: Vec<_> = answers[BEFORE..]
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.flagged)
        .collect();
    let delay = flagged.first().map(|(index, _)| *index);
    assert!(
        delay.is_some_and(|delay| delay <= flagged_within),
        "first flag after {delay:?} readings"
    );
    let sentences: Vec<_> = flagged
        .iter()
        .filter_map(|(_, answer)| answer.reason.as_ref())
        .collect();
    assert_eq!(sentences.len(), flagged.len(), "every flag has a reason");
    let told = sentences.iter().any(|reason| reason.sentence.contains(words));
    assert!(
        told,
        "`{words}` is in none of: {:#?}",
        sentences.iter().map(|r| &r.sentence).collect::<Vec<_>>()
    );
}

#[test]
fn a_stuck_channel_is_flagged() {
    check(
        |_, water| water.upstream = 64.5,
        15,
        "upstream pressure stuck at 64.50 PSI for",
    );
}

#[test]
fn a_frozen_sensor_is_flagged() {
    let mut frozen = None;
    check(
        |_, water| *water = *frozen.get_or_insert(*water),
        15,
        "unchanged for",
    );
}

#[test]
fn a_slow_drift_is_flagged_long_before_its_values_are_unusual() {
    check(
        |since, water| water.downstream += 0.02 * since as f64,
        60,
        "head loss",
    );
}

#[test]
fn a_broken_correlation_is_flagged_though_each_value_is_ordinary() {
    // The flow runs against the plant: 35 ± 12 L/min, as always.
    check(
        |_, water| water.flow = 70.0 - water.flow,
        30,
        "what this flow explains",
    );
}

#[test]
fn a_surge_is_flagged() {
    check(|_, water| water.flow += 25.0, 6, "flow");
}

#[test]
fn more_noise_than_usual_is_flagged() {
    let mut sign = 1.0;
    check(
        |_, water| {
            sign = -sign;
            water.upstream += 0.6 * sign;
        },
        15,
        "scatters",
    );
}

#[test]
fn one_gross_value_is_flagged_at_once_and_what_follows_is_not() {
    let shown = readings(0, FIRST, BEFORE + 50, |index, water| {
        if index == BEFORE {
            water.upstream = 250.0;
        }
    });
    let answers = assess(&mut detector(), &shown);
    let reason = answers[BEFORE].reason.as_ref().unwrap();
    assert_eq!(reason.rule, Some(Rule::Range));
    assert_eq!(
        reason.sentence,
        "upstream pressure 250.0 PSI is above the limit of 150 PSI"
    );
    assert_eq!(answers[BEFORE].score, RULE_SCORE);
    assert!(answers[BEFORE + 1..].iter().all(|answer| !answer.flagged));
}

#[test]
fn a_channel_left_out_is_flagged_at_once() {
    let (at, channels) = &ordinary(0, FIRST, 1)[0];
    let without = channels.iter().filter(|(name, _)| *name != "flow_rate");
    let without = Channels::new(without.map(|(name, value)| (name.into(), value)).collect()).unwrap();
    let answer = detector().assess(DeviceIndex(0), *at, &without);
    let reason = answer.reason.unwrap();
    assert_eq!((reason.rule, reason.seen), (Some(Rule::Missing), None));
    assert_eq!(reason.sentence, "flow is missing from the reading");
}

#[test]
fn a_channel_more_than_trained_changes_nothing() {
    let shown = ordinary(0, FIRST, 50);
    let more: Readings = shown
        .iter()
        .map(|(at, channels)| {
            let values = channels.iter().map(|(name, value)| (name.into(), value));
            (
                *at,
                Channels::new(values.chain([("humidity".into(), 40.0)]).collect()).unwrap(),
            )
        })
        .collect();
    assert_eq!(assess(&mut detector(), &shown), assess(&mut detector(), &more));
}

#[test]
fn ordinary_readings_are_flagged_no_more_often_than_set() {
    let (mut over, mut flagged) = (0, 0);
    for number in 0..3 {
        let mut detector = Detector::new(model(), [&device(number)]);
        let answers = assess(&mut detector, &ordinary(number, FIRST, 20_000));
        over += answers.iter().filter(|answer| answer.score < 0.0).count();
        flagged += answers.iter().filter(|answer| answer.flagged).count();
    }
    // Set to 1 in 1,000, which is 60; half as many more leave room for readings being alike in a row.
    assert!(over <= 90, "{over} of 60,000 over the threshold");
    assert!(flagged <= 60, "{flagged} of 60,000 flagged");
}

#[test]
fn nothing_is_flagged_by_the_forest_while_it_warms_up() {
    let wild = readings(0, FIRST, WARM_UP_READINGS as usize + 5, |_, water| {
        water.flow += 25.0;
    });
    let answers = assess(&mut detector(), &wild);
    let warm_up = WARM_UP_READINGS as usize;
    assert!(
        answers[..warm_up]
            .iter()
            .all(|answer| !answer.flagged && answer.score == 0.0)
    );
    assert!(answers[warm_up + 4].flagged);
}

#[test]
fn the_shares_of_the_features_are_sorted_and_sum_to_one() {
    let wild = readings(0, FIRST, 100, |_, water| water.flow += 25.0);
    let answers = assess(&mut detector(), &wild);
    let reason = answers[60].reason.as_ref().unwrap();
    assert!(reason.shares.is_sorted_by(|a, b| a.share >= b.share));
    let total: f32 = reason.shares.iter().map(|share| share.share).sum();
    assert!((total - 1.0).abs() < 1e-4, "{:?}", reason.shares);
}

#[test]
fn numbers_at_the_end_of_representation_are_judged_and_leave_no_trace() {
    let mut shown = ordinary(0, FIRST, 200);
    for (index, value) in [(100, f64::MAX), (101, f64::MIN), (102, f64::MIN_POSITIVE)] {
        let water = Water {
            upstream: value,
            downstream: -value,
            flow: value,
            gate_a: value,
            gate_b: value,
        };
        shown[index].1 = water.channels();
    }
    let answers = assess(&mut detector(), &shown);
    assert!(answers.iter().all(|answer| answer.score.is_finite()));
    assert!(answers[100].flagged && answers[101].flagged);
    assert!(!answers[199].flagged);
}

#[test]
fn devices_do_not_touch_each_other() {
    let (first, second) = (
        ordinary(0, FIRST, 100),
        readings(1, FIRST, 100, |_, water| water.flow += 25.0),
    );
    let alone = assess(&mut detector(), &first);
    let mut both = Detector::new(model(), [&device(0), &device(1)]);
    let beside: Vec<_> = first
        .iter()
        .zip(&second)
        .map(|(calm, wild)| {
            both.assess(DeviceIndex(1), wild.0, &wild.1);
            both.assess(DeviceIndex(0), calm.0, &calm.1)
        })
        .collect();
    assert_eq!(alone, beside);
}

#[test]
fn appended_device_is_judged_as_one_that_was_there_from_the_start() {
    let surge = readings(0, FIRST, 100, |_, water| water.flow += 25.0);
    let from_the_start = assess(&mut detector(), &surge);
    assert!(from_the_start.iter().any(|answer| answer.flagged));
    let mut grown = Detector::new(model(), []);
    grown.append([&device(0)]);
    assert_eq!(grown.devices(), 1);
    assert_eq!(assess(&mut grown, &surge), from_the_start);
}

#[test]
fn without_a_model_the_rules_still_hold() {
    let mut detector = Detector::rules_only(1);
    let water = Water {
        upstream: 64.0,
        downstream: 62.0,
        flow: 30.0,
        gate_a: 45.0,
        gate_b: 45.0,
    };
    let calm = detector.assess(DeviceIndex(0), second(0), &water.channels());
    assert_eq!(
        calm,
        Assessment {
            score: 0.0,
            flagged: false,
            reason: None
        }
    );
    let burst = Water { flow: 400.0, ..water };
    let answer = detector.assess(DeviceIndex(0), second(5), &burst.channels());
    assert_eq!(answer.reason.unwrap().rule, Some(Rule::Rate));
}

#[test]
fn a_device_that_was_not_in_training_is_judged_by_the_fleet() {
    let mut detector = Detector::new(model(), [&device(77)]);
    let shown = readings(1, FIRST, 300, |index, water| {
        if index >= 100 {
            water.upstream = 64.5;
        }
    });
    let answers = assess(&mut detector, &shown);
    assert!(answers[120..].iter().any(|answer| answer.flagged));
}

#[test]
fn state_stays_within_a_kilobyte() {
    assert!(detector().state_bytes(DeviceIndex(0)) <= 1_024);
}
