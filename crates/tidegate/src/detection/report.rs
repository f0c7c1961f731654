//! An evaluation as one HTML file: no script, nothing from the network, light and dark.

use super::measure::{Judged, Summary};
use super::plots;
use anyhow::Result;
use std::fmt::Write;
use tidegate_detect::model::Model;

/// Devices whose timelines are shown.
const TIMELINES: usize = 12;
/// Lines of alarms that are shown.
const ALARMS: usize = 40;

const STYLE: &str = "
:root { color-scheme: light dark;
  --ground: light-dark(#f3f5f8, #0b1017); --surface: light-dark(#ffffff, #131a24);
  --line: light-dark(#dfe5ec, #243040); --ink: light-dark(#101825, #e8eef6);
  --quiet: light-dark(#536173, #9aa9bd); --faint: light-dark(#7f8da0, #64768e); --ordinary: light-dark(#0b5fc7, #6db3ff);
  --event: light-dark(#d58500, #ffbe3d); --found: light-dark(#129c83, #4fd1ab);
  --missed: light-dark(#a80f45, #f0446d); --threshold: light-dark(#4c2fc0, #b39bf7); }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1400px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 0 0 8px; }
p { margin: 4px 0; } .quiet { color: var(--quiet); }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 14px; padding: 16px;
  margin-top: 16px; overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 0 16px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; }
.figures div { display: flex; flex-direction: column; } .figures b { font-size: 26px; font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { font-family: inherit; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--quiet); font-weight: 500; } td, th { padding: 4px 10px 4px 0; }
tr + tr td { border-top: 1px solid var(--line); }
.bar { display: inline-block; height: 10px; border-radius: 5px; vertical-align: middle; margin-right: 8px; }
.found { background: var(--found); } .missed { background: var(--missed); } .delay { background: var(--ordinary); }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 4px 0 12px; vertical-align: -1px; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid; } }
";

/// Everything that a report shows.
pub(crate) struct Report<'a> {
    /// Where the readings are from.
    pub(crate) data: &'a str,
    pub(crate) model: &'a Model,
    /// The model's name, or what it is.
    pub(crate) name: &'a str,
    pub(crate) summary: &'a Summary,
    pub(crate) fleet: &'a [Judged],
    /// The fleet as a model of half of the training readings scores it; empty without one.
    pub(crate) halved: &'a [Judged],
    /// What speaks for training again, line by line.
    pub(crate) shifts: &'a [String],
    /// What a candidate would have done otherwise, line by line; empty without one.
    pub(crate) differences: &'a [String],
    /// What was made of the readings, and when, as RFC 3339.
    pub(crate) made_at: &'a str,
}

impl Report<'_> {
    /// The page.
    pub(crate) fn html(&self) -> Result<String> {
        let mut page = String::new();
        write!(
            page,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>Tidegate detection report</title><style>{STYLE}</style></head><body>"
        )?;
        self.head(&mut page)?;
        self.pictures(&mut page)?;
        self.types(&mut page)?;
        self.timelines(&mut page)?;
        self.devices(&mut page)?;
        self.alarms(&mut page)?;
        list(&mut page, "What has changed since training", self.shifts)?;
        list(&mut page, "Where the candidate differs", self.differences)?;
        page.push_str("</body></html>\n");
        Ok(page)
    }

    fn head(&self, page: &mut String) -> Result<()> {
        let (summary, about) = (self.summary, self.model.about());
        write!(
            page,
            "<h1>Detection report</h1><p>{} devices, {} of {}</p><p class=\"quiet\">model {}, trained {} on {}: \
             {:?} forest, {} trees of {} readings, seed {}. Report of {}.</p><section class=\"figures\">",
            self.fleet.len(),
            count(self.fleet.iter().map(|judged| judged.scores.len()).sum()),
            escaped(self.data),
            escaped(self.name),
            about.trained_at(),
            escaped(&about.data),
            about.forest,
            about.trees,
            about.subsample,
            about.seed,
            escaped(self.made_at),
        )?;
        let rate = |rate: f64| format!("{rate:.5}");
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let figures = [
            (
                "events found, observable types",
                summary.event_recall_observable.map(percent),
            ),
            (
                "median delay",
                summary.median_delay_s.map(|seconds| format!("{seconds:.0} s")),
            ),
            ("false-alarm rate obtained", summary.false_alarm_rate.map(rate)),
            ("false-alarm rate set", Some(rate(summary.false_alarm_rate_set))),
            (
                "false episodes a device and day",
                summary
                    .false_episodes_per_device_day
                    .map(|episodes| format!("{episodes:.2}")),
            ),
            (
                "area under the ROC curve",
                summary.auroc.map(|area| format!("{area:.3}")),
            ),
        ];
        for (name, figure) in figures {
            let figure = figure.unwrap_or_else(|| "–".into());
            write!(
                page,
                "<div><b>{figure}</b><span class=\"quiet\">{name}</span></div>"
            )?;
        }
        page.push_str("</section>");
        Ok(())
    }

    fn pictures(&self, page: &mut String) -> Result<()> {
        let split: Vec<_> = self.fleet.iter().map(Judged::split_scores).collect();
        let ordinary: Vec<f32> = split.iter().flat_map(|(ordinary, _)| ordinary).copied().collect();
        let events: Vec<f32> = split.iter().flat_map(|(_, events)| events).copied().collect();
        let threshold = self.model.calibration().threshold;
        let mut pictures = vec![(
            "Scores",
            plots::distribution(&ordinary, &events, threshold)?,
            "A reading that breaks a rule has the score 1; scores above it are drawn there.",
        )];
        if !events.is_empty() {
            pictures.push((
                "ROC curve",
                plots::roc(&ordinary, &events, threshold)?,
                "Reading by reading, before 3 of 5 make an alarm.",
            ));
            pictures.push((
                "Precision and recall",
                plots::precision_recall(&ordinary, &events, threshold)?,
                "Reading by reading, before 3 of 5 make an alarm.",
            ));
        }
        pictures.push((
            "Calibration",
            plots::calibration(self.halved, self.fleet, self.summary.false_alarm_rate_set)?,
            "Rates below 1e-5 are drawn there. The curve, where the model was fitted for this report, is that of its forest on half of the readings, with thresholds from the other half.",
        ));
        page.push_str("<div class=\"pair\">");
        for (title, svg, note) in pictures {
            write!(
                page,
                "<section><h2>{title}</h2>{svg}<p class=\"quiet\">{note}</p></section>"
            )?;
        }
        page.push_str("</div>");
        Ok(())
    }

    fn types(&self, page: &mut String) -> Result<()> {
        if self.summary.types.is_empty() {
            return Ok(());
        }
        page.push_str(
            "<section><h2>By type of event</h2><table><tr><th>type</th><th>found</th><th></th>\
             <th>readings over the threshold</th><th>median delay</th></tr>",
        );
        let slowest = self
            .summary
            .types
            .iter()
            .filter_map(|of_type| of_type.median_delay_s);
        let slowest = slowest.fold(1.0, f64::max);
        for of_type in &self.summary.types {
            let share = of_type.found as f64 / of_type.events as f64;
            let bar = |class: &str, share: f64| {
                format!(
                    "<span class=\"bar {class}\" style=\"width:{:.0}px\"></span>",
                    share * 160.0
                )
            };
            let delay = of_type.median_delay_s.map_or_else(
                || "–".into(),
                |seconds| format!("{}{seconds:.0} s", bar("delay", seconds / slowest)),
            );
            write!(
                page,
                "<tr><td>{}{}</td><td>{} of {}</td><td>{}{}</td><td>{:.0}%</td><td>{delay}</td></tr>",
                escaped(&of_type.kind),
                if of_type.observable {
                    ""
                } else {
                    " <span class=\"quiet\">(not observable)</span>"
                },
                of_type.found,
                of_type.events,
                bar("found", share),
                bar("missed", 1.0 - share),
                of_type.reading_recall * 100.0,
            )?;
        }
        page.push_str("</table></section>");
        Ok(())
    }

    fn timelines(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "<section><h2>Timelines</h2><p class=\"quiet\">Largest score of each step, from the first tested reading on.\
             <span class=\"key\" style=\"background:var(--ordinary)\"></span>score\
             <span class=\"key\" style=\"background:var(--threshold)\"></span>threshold\
             <span class=\"key\" style=\"background:var(--event)\"></span>alarm\
             <span class=\"key\" style=\"background:var(--found)\"></span>event, found\
             <span class=\"key\" style=\"background:var(--missed)\"></span>event, missed</p>",
        );
        let threshold = self.model.calibration().threshold;
        for judged in self.fleet.iter().take(TIMELINES) {
            let svg = plots::timeline(judged, threshold)?;
            write!(page, "<p>{}</p>{svg}", escaped(&judged.device))?;
        }
        if self.fleet.len() > TIMELINES {
            write!(
                page,
                "<p class=\"quiet\">The first {TIMELINES} of {} devices.</p>",
                self.fleet.len()
            )?;
        }
        page.push_str("</section>");
        Ok(())
    }

    fn devices(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "<section><h2>By device</h2><table><tr><th>device</th><th>events found</th><th>false-alarm rate</th>\
             <th>false episodes a day</th><th>area under the ROC curve</th></tr>",
        );
        let number = |number: Option<f64>, digits: usize| {
            number.map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
        };
        for device in &self.summary.devices {
            write!(
                page,
                "<tr><td>{}</td><td>{} of {}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(&device.device),
                device.found,
                device.events,
                number(device.false_alarm_rate, 6),
                number(device.false_episodes_per_day, 2),
                number(device.auroc, 4),
            )?;
        }
        page.push_str("</table></section>");
        Ok(())
    }

    fn alarms(&self, page: &mut String) -> Result<()> {
        let begun = self.fleet.iter().flat_map(|judged| {
            let begun = judged.reasons.iter().filter(|(row, _)| judged.tested[**row]);
            begun.map(move |(row, reason)| (judged, *row, reason))
        });
        let begun: Vec<_> = begun.collect();
        if begun.is_empty() {
            return Ok(());
        }
        page.push_str("<section><h2>Alarms</h2><table><tr><th>device</th><th>row</th><th>event</th><th>reason</th></tr>");
        for (judged, row, reason) in begun.iter().take(ALARMS) {
            write!(
                page,
                "<tr><td>{}</td><td>{row}</td><td>{}</td><td>{}</td></tr>",
                escaped(&judged.device),
                judged.events[*row].as_deref().map_or_else(|| "–".into(), escaped),
                escaped(reason),
            )?;
        }
        page.push_str("</table>");
        if begun.len() > ALARMS {
            write!(
                page,
                "<p class=\"quiet\">The first {ALARMS} of {}.</p>",
                begun.len()
            )?;
        }
        page.push_str("</section>");
        Ok(())
    }
}

fn list(page: &mut String, title: &str, lines: &[String]) -> Result<()> {
    if !lines.is_empty() {
        write!(page, "<section><h2>{title}</h2><ul>")?;
        for line in lines {
            write!(page, "<li>{}</li>", escaped(line))?;
        }
        page.push_str("</ul></section>");
    }
    Ok(())
}

fn count(readings: usize) -> String {
    format!("{readings} readings")
}

/// Text that stays text in HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_become_no_markup() {
        assert_eq!(escaped("<b>&\"x"), "&lt;b&gt;&amp;&quot;x");
    }
}
