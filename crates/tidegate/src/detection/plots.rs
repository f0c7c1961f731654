//! The pictures of a report, as SVG that takes its colours from the page around it.
//!
//! The drawing library knows fixed colours only, so each tone is drawn in a colour that stands for
//! it and is then replaced by a CSS variable: one picture serves light and dark.

use super::measure::{Judged, conformal};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Display;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 340;
const TIMELINE: (u32, u32) = (1_300, 190);

/// Bars of a distribution.
const BINS: usize = 60;
/// Steps of a timeline: each shows its largest score.
const STEPS: usize = 1_200;
/// Points of a curve at most.
const CURVE_POINTS: usize = 600;
/// Lowest rate that a picture shows.
const LEAST_RATE: f64 = 1e-5;

const INK: RGBColor = RGBColor(1, 1, 1);
const FAINT: RGBColor = RGBColor(1, 1, 2);
const ORDINARY: RGBColor = RGBColor(1, 1, 3);
const EVENT: RGBColor = RGBColor(1, 1, 4);
const FOUND: RGBColor = RGBColor(1, 1, 5);
const MISSED: RGBColor = RGBColor(1, 1, 6);
const THRESHOLD: RGBColor = RGBColor(1, 1, 7);

/// Each stand-in and the variable that takes its place.
const TONES: [(&str, &str); 7] = [
    ("#010101", "var(--ink)"),
    ("#010102", "var(--faint)"),
    ("#010103", "var(--ordinary)"),
    ("#010104", "var(--event)"),
    ("#010105", "var(--found)"),
    ("#010106", "var(--missed)"),
    ("#010107", "var(--threshold)"),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How often each score came, of ordinary readings and of those in events.
pub(crate) fn distribution(ordinary: &[f32], events: &[f32], threshold: f32) -> Result<String> {
    let all = || ordinary.iter().chain(events).map(|score| f64::from(*score));
    let low = all().fold(f64::from(threshold), f64::min);
    let high = all().fold(f64::from(threshold), f64::max) + 1e-3;
    let shares = |scores: &[f32]| {
        let mut shares = [0.0; BINS];
        for score in scores {
            let bin = (f64::from(*score) - low) / (high - low) * BINS as f64;
            shares[(bin as usize).min(BINS - 1)] += 1.0 / scores.len() as f64;
        }
        shares
    };
    picture((WIDTH, HEIGHT), |area| {
        let mut chart = builder(area, "score", 60)
            .build_cartesian_2d(low..high, (LEAST_RATE..1.0).log_scale())
            .map_err(drawing)?;
        axes(&mut chart, "anomaly score", "share of readings", &fixed, &power)?;
        let width = (high - low) / BINS as f64;
        for (scores, tone) in [(ordinary, ORDINARY), (events, EVENT)] {
            let bars = shares(scores)
                .into_iter()
                .enumerate()
                .filter(|(_, share)| *share > 0.0);
            let bars = bars.map(|(bin, share)| {
                let left = low + bin as f64 * width;
                Rectangle::new(
                    [(left, LEAST_RATE), (left + width, share)],
                    tone.mix(0.55).filled(),
                )
            });
            chart.draw_series(bars).map_err(drawing)?;
        }
        let at = f64::from(threshold);
        let line = [(at, LEAST_RATE), (at, 1.0)];
        chart
            .draw_series(LineSeries::new(line, THRESHOLD.stroke_width(2)))
            .map_err(drawing)?;
        legend(
            area,
            &[
                ("ordinary", ORDINARY),
                ("in events", EVENT),
                ("threshold", THRESHOLD),
            ],
        )
    })
}

/// Share of event readings over each threshold against the share of ordinary ones.
pub(crate) fn roc(ordinary: &[f32], events: &[f32], threshold: f32) -> Result<String> {
    let curve = exceedances(ordinary, events);
    picture((WIDTH, HEIGHT), |area| {
        let mut chart = builder(area, "roc", 60)
            .build_cartesian_2d((LEAST_RATE..1.0).log_scale(), 0.0..1.0)
            .map_err(drawing)?;
        axes(
            &mut chart,
            "ordinary readings over the threshold",
            "event readings over it",
            &power,
            &fixed,
        )?;
        let points = curve.iter().map(|(far, recall)| (far.max(LEAST_RATE), *recall));
        chart
            .draw_series(LineSeries::new(points, ORDINARY.stroke_width(2)))
            .map_err(drawing)?;
        let chance = (0..=100).map(|step| 10_f64.powf(-5.0 + f64::from(step) / 20.0));
        chart
            .draw_series(LineSeries::new(
                chance.map(|rate| (rate, rate)),
                FAINT.stroke_width(1),
            ))
            .map_err(drawing)?;
        let here = (
            above(ordinary, threshold).max(LEAST_RATE),
            above(events, threshold),
        );
        chart
            .draw_series([Circle::new(here, 5, THRESHOLD.filled())])
            .map_err(drawing)?;
        legend(
            area,
            &[
                ("detector", ORDINARY),
                ("chance", FAINT),
                ("its threshold", THRESHOLD),
            ],
        )
    })
}

/// Share of readings over each threshold that are in events, against the share of events' readings.
pub(crate) fn precision_recall(ordinary: &[f32], events: &[f32], threshold: f32) -> Result<String> {
    let precision = |far: f64, recall: f64| {
        let (right, wrong) = (recall * events.len() as f64, far * ordinary.len() as f64);
        if right + wrong > 0.0 {
            right / (right + wrong)
        } else {
            1.0
        }
    };
    let curve = exceedances(ordinary, events);
    picture((WIDTH, HEIGHT), |area| {
        let mut chart = builder(area, "precision", 60)
            .build_cartesian_2d(0.0..1.0, 0.0..1.02)
            .map_err(drawing)?;
        axes(&mut chart, "recall", "precision", &fixed, &fixed)?;
        let points = curve
            .iter()
            .map(|(far, recall)| (*recall, precision(*far, *recall)));
        chart
            .draw_series(LineSeries::new(points, ORDINARY.stroke_width(2)))
            .map_err(drawing)?;
        let recall = above(events, threshold);
        let here = (recall, precision(above(ordinary, threshold), recall));
        chart
            .draw_series([Circle::new(here, 5, THRESHOLD.filled())])
            .map_err(drawing)?;
        legend(area, &[("detector", ORDINARY), ("its threshold", THRESHOLD)])
    })
}

/// The rate obtained on ordinary readings for each rate set: of `halved`, whose calibrated readings
/// set each threshold, and of each device of `fleet` at the model's own threshold.
pub(crate) fn calibration(halved: &[Judged], fleet: &[Judged], set: f64) -> Result<String> {
    let unseen = halved.iter().flat_map(|judged| judged.split_scores().0);
    let ordinary: Vec<f32> = unseen.collect();
    let mut calibrated: Vec<f32> = halved
        .iter()
        .flat_map(|judged| judged.scores.iter().zip(&judged.calibrated))
        .filter_map(|(score, calibrated)| calibrated.then_some(*score))
        .collect();
    calibrated.sort_unstable_by(f32::total_cmp);
    let rates = (0..=60).map(|step| 10_f64.powf(-4.0 + f64::from(step) / 20.0));
    let curve: Vec<(f64, f64)> = rates
        .clone()
        .filter(|rate| *rate >= 1.0 / (calibrated.len() as f64 + 1.0))
        .filter_map(|rate| Some((rate, above(&ordinary, conformal(&calibrated, rate)?))))
        .map(|(rate, obtained)| (rate, obtained.max(LEAST_RATE)))
        .collect();
    let devices = fleet.iter().filter_map(|judged| {
        let kept = judged.ordinary();
        let count = kept.iter().filter(|kept| **kept).count();
        let over = kept.iter().zip(&judged.over).filter(|(a, b)| **a && **b).count();
        (count > 0).then(|| (over as f64 / count as f64).max(LEAST_RATE))
    });
    picture((WIDTH, HEIGHT), |area| {
        let mut chart = builder(area, "calibration", 60)
            .build_cartesian_2d((1e-4..0.1).log_scale(), (LEAST_RATE..0.3).log_scale())
            .map_err(drawing)?;
        axes(
            &mut chart,
            "false-alarm rate set",
            "obtained on unseen readings",
            &power,
            &power,
        )?;
        for (factor, stroke) in [(1.0, 2), (1.5, 1)] {
            let line = rates.clone().map(|rate| (rate, (rate * factor).min(0.3)));
            chart
                .draw_series(LineSeries::new(line, FAINT.stroke_width(stroke)))
                .map_err(drawing)?;
        }
        chart
            .draw_series(LineSeries::new(curve, ORDINARY.stroke_width(2)))
            .map_err(drawing)?;
        let points = devices.map(|obtained| Circle::new((set.clamp(1e-4, 0.1), obtained), 4, EVENT.filled()));
        chart.draw_series(points).map_err(drawing)?;
        legend(
            area,
            &[
                ("obtained", ORDINARY),
                ("each device", EVENT),
                ("as set, and 1.5 times", FAINT),
            ],
        )
    })
}

/// One device's largest scores over time, its events, and the alarms.
pub(crate) fn timeline(judged: &Judged, threshold: f32) -> Result<String> {
    let first = judged.tested.iter().position(|tested| *tested).unwrap_or(0);
    let begin = judged.times.get(first).copied();
    let hour = |row: usize| {
        let at = judged.times.get(row.min(judged.times.len().saturating_sub(1)));
        let since = at.zip(begin).map(|(at, begin)| at.since(begin).as_secs_f64());
        since.unwrap_or(0.0) / 3_600.0
    };
    let rows = judged.scores.len() - first;
    let step = rows.div_ceil(STEPS).max(1);
    let end = hour(judged.scores.len()).max(1e-3);
    let highest = judged.scores[first..].iter().copied().fold(threshold, f32::max);
    let lowest = judged.scores[first..].iter().copied().fold(threshold, f32::min);
    let (low, high) = (f64::from(lowest), f64::from(highest).min(1.2) + 0.04);
    picture(TIMELINE, |area| {
        let mut chart = builder(area, "timeline", 50)
            .build_cartesian_2d(0.0..end, low..high)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_y_mesh()
            .axis_style(FAINT)
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_labels(13)
            .y_labels(4)
            .x_label_formatter(&|hour| format!("{hour:.0} h"))
            .y_label_formatter(&|score| format!("{score:.1}"))
            .draw()
            .map_err(drawing)?;
        let events = judged.found().into_iter().map(|event| {
            let tone = if event.found.is_some() { FOUND } else { MISSED };
            let corners = [(hour(event.rows.start), low), (hour(event.rows.end), high)];
            Rectangle::new(corners, tone.mix(0.28).filled())
        });
        chart.draw_series(events).map_err(drawing)?;
        let scores = (first..judged.scores.len()).step_by(step).map(|row| {
            let end = (row + step).min(judged.scores.len());
            let largest = judged.scores[row..end].iter().copied().fold(0.0, f32::max);
            (hour(row), f64::from(largest).min(high))
        });
        chart
            .draw_series(LineSeries::new(scores, ORDINARY.stroke_width(1)))
            .map_err(drawing)?;
        let at = f64::from(threshold);
        chart
            .draw_series(LineSeries::new([(0.0, at), (end, at)], THRESHOLD.stroke_width(1)))
            .map_err(drawing)?;
        let alarms = (first..judged.alarm.len())
            .step_by(step)
            .filter(|row| judged.alarm[*row..(row + step).min(judged.alarm.len())].contains(&true));
        let marks = alarms.map(|row| {
            let corners = [(hour(row), high - 0.03), (hour(row + step), high)];
            Rectangle::new(corners, EVENT.filled())
        });
        chart.draw_series(marks).map_err(drawing)?;
        Ok(())
    })
}

/// For falling thresholds, the shares of ordinary and of event readings over it.
fn exceedances(ordinary: &[f32], events: &[f32]) -> Vec<(f64, f64)> {
    let mut thresholds: Vec<f32> = ordinary.iter().chain(events).copied().collect();
    thresholds.sort_unstable_by(|a, b| b.total_cmp(a));
    thresholds.dedup();
    // The highest scores decide the interesting end of the curves, so they are kept densest.
    let last = thresholds.len().saturating_sub(1) as f64;
    let picked = (0..CURVE_POINTS).map(|point| {
        let share = point as f64 / (CURVE_POINTS - 1) as f64;
        (last * share.powi(3)).round() as usize
    });
    let sorted = |scores: &[f32]| {
        let mut sorted = scores.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        sorted
    };
    let (ordinary, events) = (sorted(ordinary), sorted(events));
    let share = |sorted: &[f32], threshold: f32| {
        let below = sorted.partition_point(|score| *score < threshold);
        (sorted.len() - below) as f64 / sorted.len().max(1) as f64
    };
    let mut curve = vec![(0.0, 0.0)];
    for index in picked {
        if let Some(threshold) = thresholds.get(index) {
            curve.push((share(&ordinary, *threshold), share(&events, *threshold)));
        }
    }
    curve.dedup();
    curve
}

/// The share of `scores` above `threshold`.
fn above(scores: &[f32], threshold: f32) -> f64 {
    let over = scores.iter().filter(|score| **score > threshold).count();
    over as f64 / scores.len().max(1) as f64
}

/// Draws into SVG text and puts the page's colours in.
fn picture(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(drawing)?;
    }
    for (stand_in, variable) in TONES {
        svg = svg.replace(stand_in, variable);
    }
    Ok(svg)
}

fn builder<'a, 'b>(area: &'a Area<'b>, _name: &str, left: u32) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(8)
        .margin_top(26)
        .margin_right(16)
        .x_label_area_size(if left == 60 { 44 } else { 24 })
        .y_label_area_size(left);
    builder
}

/// Axes, their labels, and faint lines.
fn axes<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    x_name: &str,
    y_name: &str,
    x_text: &dyn Fn(&f64) -> String,
    y_text: &dyn Fn(&f64) -> String,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT.mix(0.35))
        .axis_style(FAINT)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .x_desc(x_name)
        .y_desc(y_name)
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(x_text)
        .y_label_formatter(y_text)
        .draw()
        .map_err(drawing)
}

/// What each tone stands for, in a row above the picture.
fn legend(area: &Area<'_>, entries: &[(&str, RGBColor)]) -> Result<()> {
    let mut left = 70;
    for (name, tone) in entries {
        let square = Rectangle::new([(left, 8), (left + 12, 20)], tone.filled());
        area.draw(&square).map_err(drawing)?;
        let style = ("sans-serif", 13)
            .into_font()
            .color(&INK)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new((*name).to_owned(), (left + 18, 14), style))
            .map_err(drawing)?;
        left += 36 + 7 * name.len() as i32;
    }
    Ok(())
}

fn fixed(value: &f64) -> String {
    format!("{value:.1}")
}

/// A power of ten as people write it; nothing between them.
fn power(value: &f64) -> String {
    let exponent = value.log10();
    if (exponent - exponent.round()).abs() > 1e-6 {
        return String::new();
    }
    match exponent.round() as i32 {
        0 => "1".into(),
        -1 => "0.1".into(),
        -2 => "0.01".into(),
        power => format!("1e{power}"),
    }
}

fn drawing(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw a picture: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_envelope::time::Timestamp;

    fn scores() -> (Vec<f32>, Vec<f32>) {
        let ordinary = (0..1_000_u16).map(|step| 0.3 + f32::from(step % 100) / 1_000.0);
        (ordinary.collect(), vec![0.35, 0.7, 0.8])
    }

    #[test]
    fn curves_run_from_nothing_to_everything_and_never_back() {
        let (ordinary, events) = scores();
        let curve = exceedances(&ordinary, &events);
        assert_eq!((curve[0], curve[curve.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
        assert!(
            curve
                .windows(2)
                .all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1)
        );
        assert!(
            curve.contains(&(0.0, 2.0 / 3.0)),
            "two events are above all ordinary scores"
        );
    }

    #[test]
    fn pictures_take_every_colour_from_the_page() {
        let (ordinary, events) = scores();
        let mut judged = Judged::default();
        for row in 0..3_000_i64 {
            let event = (1_000..1_100).contains(&row).then(|| "<b>".to_owned());
            judged.push(
                Timestamp::from_micros(row * 5_000_000),
                0.4,
                row == 1_050,
                row == 1_050,
                event,
            );
        }
        let fleet = [judged];
        for svg in [
            distribution(&ordinary, &events, 0.5).unwrap(),
            roc(&ordinary, &events, 0.5).unwrap(),
            precision_recall(&ordinary, &events, 0.5).unwrap(),
            calibration(&fleet, &fleet, 1e-3).unwrap(),
            timeline(&fleet[0], 0.5).unwrap(),
        ] {
            assert!(svg.starts_with("<svg") && svg.contains("var(--"));
            assert!(!svg.contains("=\"#"), "a colour of its own");
        }
    }

    #[test]
    fn pictures_of_nothing_are_still_pictures() {
        assert!(distribution(&[], &[], 0.5).is_ok());
        assert!(roc(&[], &[], 0.5).is_ok());
        assert!(precision_recall(&[], &[], 0.5).is_ok());
        assert!(calibration(&[], &[], 1e-3).is_ok());
        assert!(timeline(&Judged::default(), 0.5).is_ok());
    }
}
