//! A model's life: memory over a restart, classes, a candidate in the shadow, drift of the population.

use crate::plant::{Readings, data, device, model, options, ordinary, readings, second};
use std::sync::Arc;
use std::time::Duration;
use tidegate_detect::channel::MAX_TRACKED;
use tidegate_detect::classes::ClassModels;
use tidegate_detect::detector::{Assessment, Detector, MAX_STATE_BYTES, StateError};
use tidegate_detect::forest::Kind;
use tidegate_detect::model::Model;
use tidegate_detect::population::Population;
use tidegate_detect::rules::{Rule, Rules};
use tidegate_detect::scorer::{ScoreError, Scorer};
use tidegate_detect::shadow::Shadow;
use tidegate_detect::train::{FeatureSet, TrainOptions, TrainingData, fit, train};
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reading::Channels;

const DEVICE: DeviceIndex = DeviceIndex(0);
const FIRST: usize = 20_000;

fn detector() -> Detector {
    Detector::new(model(), [&device(0)])
}

fn assess(detector: &mut Detector, readings: &Readings) -> Vec<Assessment> {
    readings
        .iter()
        .map(|(at, channels)| detector.assess(DEVICE, *at, channels))
        .collect()
}

/// Another model of the same plant.
fn candidate() -> Arc<Model> {
    let options = TrainOptions {
        forest: Kind::Plain,
        ..options()
    };
    Arc::new(train(&data(2), &options, &mut |_| ()).unwrap())
}

#[test]
fn a_restart_in_the_middle_of_a_drift_changes_nothing() {
    let shown = readings(0, FIRST, 400, |index, water| {
        water.downstream += 0.02 * index.saturating_sub(300) as f64;
    });
    let mut whole = detector();
    let expected = assess(&mut whole, &shown);
    assert!(expected.iter().any(|answer| answer.flagged));

    let mut before = detector();
    let mut got = assess(&mut before, &shown[..330].to_vec());
    let state = before.save_state(DEVICE);
    assert!(state.len() <= MAX_STATE_BYTES, "{} bytes", state.len());
    let mut after = detector();
    after.restore_state(DEVICE, &state).unwrap();
    got.extend(assess(&mut after, &shown[330..].to_vec()));
    assert_eq!(got, expected);
}

#[test]
fn memory_that_is_not_this_devices_is_refused_and_changes_nothing() {
    let mut used = detector();
    assess(&mut used, &ordinary(0, FIRST, 100));
    let state = used.save_state(DEVICE);
    let check = |bytes: &[u8]| {
        let mut fresh = detector();
        let refused = fresh.restore_state(DEVICE, bytes);
        assert!(fresh.save_state(DEVICE).is_empty(), "nothing is changed");
        refused
    };
    let changed = |at: usize, byte: u8| {
        let mut bytes = state.clone();
        bytes[at] = byte;
        check(&bytes)
    };
    assert_eq!(check(&[]), Ok(()), "a device without a past");
    assert_eq!(changed(0, 2), Err(StateError::Version { found: 2 }));
    assert_eq!(changed(1, state[1] ^ 1), Err(StateError::OtherModel));
    assert_eq!(changed(9, 0x20), Err(StateError::Malformed), "debounce");
    assert_eq!(changed(10, 3), Err(StateError::Malformed), "residuals");
    assert_eq!(check(&state[..state.len() - 1]), Err(StateError::Malformed));
    let longer = [&state[..], &[0]].concat();
    assert_eq!(check(&longer), Err(StateError::Malformed));

    let mut other = Detector::new(candidate(), [&device(0)]);
    assert_eq!(other.restore_state(DEVICE, &state), Err(StateError::OtherModel));
    assert_eq!(
        Detector::rules_only(1).restore_state(DEVICE, &state),
        Err(StateError::OtherModel)
    );
}

#[test]
fn the_memory_of_the_most_channels_is_within_a_kilobyte() {
    let row = |index: usize| {
        let value = |channel: usize| ((index * (channel + 3)) % 101) as f64;
        let values = (0..MAX_TRACKED).map(|channel| (format!("channel_{channel:02}").into(), value(channel)));
        (second(5 * index), Channels::new(values.collect()).unwrap())
    };
    let mut data = TrainingData::new("");
    data.add(device(0), (0..2_000).map(row).collect());
    let model = train(&data, &options(), &mut |_| ()).unwrap();
    let mut detector = Detector::new(model.into(), [&device(0)]);
    let (at, channels) = row(2_000);
    detector.assess(DEVICE, at, &channels);
    assert!(
        detector.state_bytes(DEVICE) <= MAX_STATE_BYTES,
        "{}",
        detector.state_bytes(DEVICE)
    );
    assert!(detector.save_state(DEVICE).len() <= MAX_STATE_BYTES);
}

#[test]
fn each_class_is_judged_by_its_model_and_others_by_the_fallback() {
    let models = ClassModels {
        by_class: [("water-inlet".to_owned(), candidate())].into(),
        fallback: Some(model()),
    };
    let id = device(0);
    let shown = ordinary(0, FIRST, 200);
    let by = |model| assess(&mut Detector::new(model, [&id]), &shown);
    let with = |class| {
        assess(
            &mut Detector::with_classes(models.clone(), [(&id, class)]),
            &shown,
        )
    };
    assert_eq!(with("water-inlet"), by(candidate()));
    assert_eq!(with("other"), by(model()));
    let none = ClassModels {
        fallback: None,
        ..models
    };
    let answers = assess(&mut Detector::with_classes(none, [(&id, "other")]), &shown);
    assert!(answers.iter().all(|answer| answer.score == 0.0), "rules only");
}

#[test]
fn a_stranger_is_calm_on_an_ordinary_day() {
    // Devices 0 to 2 are in training; the plant's losses grow with the number.
    let mut detector = Detector::new(model(), [&device(77)]);
    let answers = assess(&mut detector, &ordinary(1, FIRST, 5_000));
    let flagged = answers.iter().filter(|answer| answer.flagged).count();
    assert!(flagged <= 25, "{flagged} of 5,000");
}

#[test]
fn silence_is_found_by_asking_and_ends_with_a_reading() {
    let mut rules = Rules::default();
    rules.silence = Some(Duration::from_secs(60));
    let mut detector = Detector::rules_only(2).with_rules(rules);
    let shown = ordinary(0, 0, 2);
    detector.assess(DEVICE, shown[0].0, &shown[0].1);
    assert_eq!(detector.silent(second(60)).count(), 0);
    let silent: Vec<_> = detector.silent(second(61)).collect();
    assert_eq!(silent.len(), 1, "a device that was never heard is not silent");
    assert_eq!((silent[0].0, silent[0].1.rule), (DEVICE, Some(Rule::Silence)));
    detector.assess(DEVICE, second(61), &shown[1].1);
    assert_eq!(detector.silent(second(62)).count(), 0);
}

#[test]
fn a_status_that_is_not_well_is_flagged() {
    let mut rules = Rules::default();
    rules.statuses.push("operational".to_owned());
    let mut detector = detector().with_rules(rules);
    let shown = ordinary(0, FIRST, 2);
    let mut rule = |row: usize, status| {
        let answer = detector.assess_with_status(DEVICE, shown[row].0, &shown[row].1, status);
        answer.reason.and_then(|reason| reason.rule)
    };
    assert_eq!(rule(0, "operational"), None);
    assert_eq!(rule(1, "fault"), Some(Rule::Status));
}

#[test]
fn a_shadow_answers_as_the_active_model_and_counts_both() {
    let id = device(0);
    let shown = readings(0, FIRST, 300, |index, water| {
        if index >= 200 {
            water.flow += 25.0;
        }
    });
    let mut shadow = Shadow::new(detector(), Detector::new(candidate(), [&id]));
    let answers: Vec<_> = shown
        .iter()
        .map(|(at, channels)| shadow.assess(DEVICE, *at, channels))
        .collect();
    assert_eq!(answers, assess(&mut detector(), &shown));
    let report = shadow.report();
    assert_eq!(report.readings, 300);
    assert!(report.both > 0, "{report:?}");
    let flagged = answers.iter().filter(|answer| answer.flagged).count() as u64;
    assert_eq!(report.both + report.only_active, flagged);
}

#[test]
fn a_population_that_moved_is_reported_and_one_that_did_not_is_not() {
    let check = |change: f64| {
        let id = device(0);
        let mut population = Population::new(model(), [&id]);
        let mut detector = detector();
        for (at, channels) in readings(0, FIRST, 6_000, |_, water| {
            water.upstream += change;
            water.downstream += change;
        }) {
            let answer = detector.assess(DEVICE, at, &channels);
            population.observe(DEVICE, &channels, &answer);
        }
        population.report().remove(0)
    };
    let same = check(0.0);
    assert!(same.reasons.is_empty(), "{:?}", same.reasons);
    let moved = check(8.0);
    let said = moved
        .reasons
        .iter()
        .any(|reason| reason.starts_with("upstream pressure is"));
    assert!(said, "{:?}", moved.reasons);
}

#[test]
fn too_few_readings_say_nothing_about_a_population() {
    let id = device(0);
    let mut population = Population::new(model(), [&id]);
    let mut detector = detector();
    for (at, channels) in ordinary(0, FIRST, 900) {
        let answer = detector.assess(DEVICE, at, &channels);
        population.observe(DEVICE, &channels, &answer);
    }
    assert!(population.report().is_empty());
}

#[test]
fn a_scorer_gives_what_a_detector_judges_by() {
    let shown = ordinary(0, FIRST, 100);
    let mut scorer = Scorer::new(model(), &device(0)).unwrap();
    assert_eq!(scorer.explain(), None);
    let answers = assess(&mut detector(), &shown);
    let threshold = model().calibration().threshold;
    for (row, ((at, channels), answer)) in shown.iter().zip(answers).enumerate() {
        let score = scorer.score(*at, channels).unwrap();
        if row >= 12 {
            assert_eq!(threshold - score, answer.score, "row {row}");
        }
    }
    assert!(scorer.explain().is_some());
    let none = Channels::default();
    assert!(matches!(
        scorer.score(second(0), &none),
        Err(ScoreError::MissingChannel { .. })
    ));
}

#[test]
fn raw_values_are_explained_by_the_channel_farthest_from_its_mean() {
    let options = TrainOptions {
        features: FeatureSet::Raw,
        forest: Kind::Plain,
        ..options()
    };
    let model: Arc<Model> = fit(&data(1), &options, &mut |_| ()).unwrap().into();
    let restored = Model::from_bytes(&model.to_bytes()).unwrap();
    assert_eq!(restored, *model);
    let mut scorer = Scorer::new(model, &device(0)).unwrap();
    let (at, channels) = readings(0, FIRST, 1, |_, water| water.flow = 90.0).remove(0);
    scorer.score(at, &channels).unwrap();
    let sentence = scorer.explain().unwrap().sentence;
    assert!(
        sentence.starts_with("flow ") && sentence.ends_with("is unusual beside the other channels"),
        "{sentence}"
    );
    assert_eq!(scorer.features().len(), 5);
}
