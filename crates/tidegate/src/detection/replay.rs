//! Gathered readings go through a detector again, as they went through the pipeline.

use super::measure::Judged;
use super::source::Gathered;
use std::sync::Arc;
use tidegate_detect::detector::Detector;
use tidegate_detect::model::Model;
use tidegate_detect::population::{DeviceReport, Population};
use tidegate_detect::scorer::Scorer;
use tidegate_detect::shadow::{self, Shadow};
use tidegate_detect::train::{Alarms, TrainOptions, TrainingData, fit};
use tidegate_envelope::id::{DeviceId, DeviceIndex};

/// What became of gathered readings.
pub(crate) struct Replayed {
    pub(crate) fleet: Vec<Judged>,
    /// How devices compare with what the model was trained on.
    pub(crate) population: Vec<DeviceReport>,
}

/// Judges every reading by `model`: rules, forest and debounce. Readings for training are
/// judged too, as a detector needs their past, but they are not counted as tested.
pub(crate) fn judge(model: &Arc<Model>, gathered: &Gathered, progress: &mut dyn FnMut(usize)) -> Replayed {
    let mut detector = Detector::new(Arc::clone(model), devices(gathered));
    let mut population = Population::new(Arc::clone(model), devices(gathered));
    let threshold = model.calibration().threshold;
    let mut fleet = Vec::with_capacity(gathered.series.len());
    for (index, series) in (0_u32..).zip(&gathered.series) {
        let index = DeviceIndex(index);
        let mut judged = Judged {
            device: series.device.to_string(),
            ..Judged::default()
        };
        for reading in &series.readings {
            let assessment = detector.assess(index, reading.at, &reading.channels);
            if reading.training != Some(true) && reading.event.is_none() {
                population.observe(index, &reading.channels, &assessment);
            }
            let before = judged.alarm.last().copied().unwrap_or(false);
            let reason = assessment.reason.filter(|_| !before);
            if let Some(reason) = reason {
                judged.reasons.insert(judged.times.len(), reason.sentence);
            }
            judged.push(
                reading.at,
                // A device that was not in training has a threshold of its own; what is kept is how
                // far a score is from it. A broken rule, and what is beyond, counts as 1.
                (threshold - assessment.score).min(1.0),
                assessment.score < 0.0,
                assessment.flagged,
                reading.event.as_ref().map(ToString::to_string),
            );
        }
        for (row, reading) in series.readings.iter().enumerate() {
            judged.tested[row] = reading.training != Some(true);
        }
        progress(series.readings.len());
        fleet.push(judged);
    }
    Replayed {
        fleet,
        population: population.report(),
    }
}

/// Has a candidate judge beside `model`, and says where they differ.
pub(crate) fn compare(
    model: &Arc<Model>,
    candidate: &Arc<Model>,
    gathered: &Gathered,
    progress: &mut dyn FnMut(usize),
) -> shadow::Report {
    let detector = |model: &Arc<Model>| Detector::new(Arc::clone(model), devices(gathered));
    let mut shadow = Shadow::new(detector(model), detector(candidate));
    for (index, series) in (0_u32..).zip(&gathered.series) {
        for reading in &series.readings {
            shadow.assess(DeviceIndex(index), reading.at, &reading.channels);
        }
        progress(series.readings.len());
    }
    shadow.report().clone()
}

/// Scores all readings by a model of the older half of each device's training readings; the newer
/// half then shows what each threshold lets through, as neither has seen the other. There is
/// nothing to show where half of the readings are too few.
pub(crate) fn halved(gathered: &Gathered, options: &TrainOptions) -> Vec<Judged> {
    let mut older = TrainingData::new(&gathered.description);
    let mut fleet = Vec::new();
    for series in &gathered.series {
        let ordinary = |row: &usize| {
            let reading = &series.readings[*row];
            reading.training == Some(true) && reading.event.is_none() && reading.alarm.is_none()
        };
        let training: Vec<usize> = (0..series.readings.len()).filter(ordinary).collect();
        let (fitted, calibrated) = training.split_at(training.len() / 2);
        let rows = fitted.iter().map(|row| &series.readings[*row]);
        older.add(
            series.device.clone(),
            rows.map(|reading| (reading.at, reading.channels.clone()))
                .collect(),
        );
        let mut judged = Judged {
            calibrated: vec![false; series.readings.len()],
            ..Judged::default()
        };
        calibrated.iter().for_each(|row| judged.calibrated[*row] = true);
        fleet.push(judged);
    }
    // Known alarms are not among them; what no sensor can mean is left out whatever was asked for.
    let options = TrainOptions {
        alarms: Alarms::LeaveOut,
        ..*options
    };
    let Ok(model) = fit(&older, &options, &mut |_| ()) else {
        return Vec::new();
    };
    let model = Arc::new(model);
    for (judged, series) in fleet.iter_mut().zip(&gathered.series) {
        let Ok(mut scorer) = Scorer::new(Arc::clone(&model), &series.device) else {
            return Vec::new();
        };
        for reading in &series.readings {
            let score = scorer.score(reading.at, &reading.channels).unwrap_or(f32::MAX);
            judged.scores.push(score);
            judged
                .events
                .push(reading.event.as_ref().map(ToString::to_string));
            judged.tested.push(reading.training != Some(true));
        }
    }
    fleet
}

fn devices(gathered: &Gathered) -> impl Iterator<Item = &DeviceId> {
    gathered.series.iter().map(|series| &series.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::source::{Reading, Series};
    use tidegate_detect::train::train;
    use tidegate_envelope::reading::Channels;
    use tidegate_envelope::time::Timestamp;

    #[test]
    fn training_readings_are_judged_and_not_tested() {
        let readings: Vec<Reading> = (0..2_400_i64)
            .map(|number| {
                let value = (number * 37 % 101) as f64 / 10.0;
                let channels = Channels::new(vec![("level".into(), value)]).unwrap();
                Reading {
                    training: Some(number < 2_000),
                    ..Reading::new(Timestamp::from_micros(number * 5_000_000), channels)
                }
            })
            .collect();
        let device = DeviceId::new("tank").unwrap();
        let mut data = TrainingData::new("a test");
        let rows = readings[..2_000].iter();
        data.add(
            device.clone(),
            rows.map(|reading| (reading.at, reading.channels.clone()))
                .collect(),
        );
        let options = TrainOptions::new(1, Timestamp::from_micros(0));
        let model = train(&data, &options, &mut |_| ()).unwrap();
        let gathered = Gathered {
            description: String::new(),
            series: vec![Series { device, readings }],
        };
        let mut judged_readings = 0;
        let model = Arc::new(model);
        let fleet = judge(&model, &gathered, &mut |count| judged_readings += count).fleet;
        let count = |marks: &[bool]| marks.iter().filter(|mark| **mark).count();
        assert_eq!((judged_readings, count(&fleet[0].tested)), (2_400, 400));
        assert!(fleet[0].scores[2_399] > 0.0);
        let halves = halved(&gathered, &options);
        assert_eq!(
            (count(&halves[0].calibrated), count(&halves[0].tested)),
            (1_000, 400)
        );
        let same = compare(&model, &model, &gathered, &mut |_| ());
        assert_eq!(
            (same.readings, same.only_active, same.only_candidate),
            (2_400, 0, 0)
        );
    }
}
