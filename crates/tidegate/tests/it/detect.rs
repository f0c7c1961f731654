//! `tidegate detect` and `tidegate bench detect`: models are made, judged, switched and explained.

use crate::support::{Site, mtls};
use std::path::{Path, PathBuf};

/// Two ordinary mornings of a hotel's inlet, then one with four events: 2,500 readings each.
const HOTEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tidegate-detect/testdata/hotel_106_excerpt.csv"
);
const ORDINARY: &str = "0..5000";
/// A reading late in the first event.
const IN_EVENT: usize = 5_700;

fn error(site: &Site, arguments: &[&str]) -> String {
    let output = site.run(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn scores(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let numbers = bytes.chunks_exact(8);
    numbers
        .map(|number| f64::from_le_bytes(number.try_into().unwrap()))
        .collect()
}

/// The rows of the excerpt that are labelled.
fn labelled() -> Vec<bool> {
    let text = std::fs::read_to_string(HOTEL).unwrap();
    text.lines().skip(1).map(|line| !line.ends_with(',')).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn train(site: &Site, name: &str, seed: &str) -> String {
    site.succeed(&[
        "detect", "train", "--from", HOTEL, "--rows", ORDINARY, "--name", name, "--seed", seed,
    ])
}

#[test]
fn models_are_trained_activated_and_rolled_back() {
    let site = Site::new("ai", "");
    assert!(train(&site, "first", "1").contains("in use     from the next start on"));
    assert!(train(&site, "second", "2").contains("tidegate detect activate second"));
    let state = |wanted: &str| {
        let listed = site.succeed(&["detect", "models", "--format", "json"]);
        let models = listed.lines().map(json);
        let with = models.filter(|model| model["state"] == wanted);
        with.map(|model| model["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(state("active"), ["first"]);
    site.succeed(&["detect", "activate", "second"]);
    assert_eq!(
        (state("active"), state("previous")),
        (vec!["second".into()], vec!["first".into()])
    );
    site.succeed(&["detect", "activate", "--previous"]);
    assert_eq!(state("active"), ["first"]);
    assert!(site.succeed(&["detect", "show"]).contains("name       first"));
    assert!(error(&site, &["detect", "activate", "third"]).contains("there are: first, second"));
    assert!(
        error(
            &site,
            &[
                "detect", "train", "--from", HOTEL, "--rows", ORDINARY, "--name", "first"
            ]
        )
        .contains("there is a model first already")
    );
}

#[test]
fn training_refuses_what_teaches_nothing_or_the_wrong_thing() {
    let site = Site::new("ai", "");
    let refused = |extra: &[&str]| error(&site, &[&["detect", "train", "--from"], extra].concat());
    let poisoned = refused(&[HOTEL]);
    assert!(poisoned.contains("hotel_106_excerpt, rows 5"), "{poisoned}");
    assert!(
        poisoned.contains("(noise_up)") && poisoned.contains("--exclude-alarms"),
        "{poisoned}"
    );
    assert!(refused(&[HOTEL, "--rows", "0..500"]).contains("has 500 readings"));
    assert!(refused(&[HOTEL, "--rows", "0..9000"]).contains("has 7500"));
    assert!(refused(&["nowhere.csv"]).contains("`store`, `simulator`, or CSV files"));
    let constant: String = (0..3_000).map(|second| format!("{second},7\n")).collect();
    std::fs::write(site.path("constant.csv"), format!("t,level\n{constant}")).unwrap();
    assert!(refused(&["constant.csv"]).contains("stuck"));
    site.succeed(&["detect", "train", "--from", HOTEL, "--exclude-alarms"]);
}

#[test]
fn scores_are_one_number_a_row_and_the_same_each_time() {
    let site = Site::new("ai", "");
    let score = |out: &str, extra: &[&str]| {
        let arguments = ["detect", "score", HOTEL, "--fit-rows", ORDINARY, "--scores", out];
        site.succeed(&[&arguments, extra].concat());
        scores(&site.path(out))
    };
    let streamed = score("a.scores", &[]);
    assert_eq!(streamed.len(), 7_500);
    assert_eq!(streamed, score("b.scores", &[]));
    assert_ne!(streamed, score("c.scores", &["--seed", "9"]));
    let labelled = labelled();
    let of = |scores: &[f64], wanted: bool| {
        mean(
            (0..7_500)
                .filter(|&row| labelled[row] == wanted)
                .map(|row| scores[row]),
        )
    };
    assert!(of(&streamed, true) > of(&streamed, false) + 0.2);
    for kind in ["plain", "oblique"] {
        let raw = score(
            "raw.scores",
            &["--features", "raw", "--forest", kind, "--columns", "flow_rate"],
        );
        assert!(
            raw.len() == 7_500 && raw.iter().all(|score| *score > 0.0),
            "{kind}"
        );
    }
}

#[test]
fn a_value_that_no_sensor_can_mean_is_scored_and_not_learnt() {
    let site = Site::new("ai", "");
    let text = std::fs::read_to_string(HOTEL).unwrap();
    let spoilt = |(row, line): (usize, &str)| match row {
        3_001 => format!("{},-60.0,{}\n", &line[..5], line.splitn(3, ',').nth(2).unwrap()),
        _ => format!("{line}\n"),
    };
    let spoilt: String = text.lines().enumerate().map(spoilt).collect();
    std::fs::write(site.path("spoilt.csv"), spoilt).unwrap();
    site.succeed(&[
        "detect",
        "score",
        "spoilt.csv",
        "--fit-rows",
        ORDINARY,
        "--scores",
        "out",
    ]);
    assert_eq!(scores(&site.path("out")).len(), 7_500);
    let refused = error(
        &site,
        &["detect", "train", "--from", "spoilt.csv", "--rows", ORDINARY],
    );
    assert!(
        refused.contains("rows 3000 to 3001 are not ordinary"),
        "{refused}"
    );
}

#[test]
fn bad_files_are_refused_by_row_and_column() {
    let site = Site::new("ai", "");
    let write = |name: &str, text: String| std::fs::write(site.path(name), text).unwrap();
    let rows = |bad: &str| -> String {
        let row = |row: usize| format!("{},{}\n", row % 97, if row == 1_500 { bad } else { "1.5" });
        (0..2_000).map(row).collect()
    };
    let refused = |file: &str, extra: &[&str]| {
        error(
            &site,
            &[&["detect", "score", file, "--scores", "out"], extra].concat(),
        )
    };
    write("text.csv", format!("level,flow\n{}", rows("high")));
    let text = refused("text.csv", &[]);
    assert!(
        text.contains("row 1500") && text.contains("column flow: `high`"),
        "{text}"
    );
    write("gap.csv", format!("level,flow\n{}", rows("")));
    let gap = refused("gap.csv", &["--fit-rows", "0..1200"]);
    assert!(gap.contains("row 1500") && gap.contains("channel flow"), "{gap}");
    let raw = refused("gap.csv", &["--features", "raw"]);
    assert!(raw.contains("row 1500: column flow is empty"), "{raw}");
    assert!(refused("gap.csv", &["--fit-rows", "0..5000"]).contains("which has 2000 rows"));
    assert!(refused("gap.csv", &["--columns", "pressure"]).contains("only level, flow"));
    assert!(refused("gap.csv", &["--fit-rows", "7..7"]).contains("are none"));
    write("not.npz", "level\n1\n".into());
    assert!(refused("not.npz", &["--features", "raw"]).contains("not an .npz archive"));
    assert!(refused("not.npz", &[]).contains("--features raw"));
    assert!(!site.path("out").exists());
}

#[test]
fn evaluation_finds_the_events_and_writes_a_page_that_needs_nothing_else() {
    let site = Site::new("ai", "");
    let evaluate = [
        "detect",
        "evaluate",
        "--from",
        HOTEL,
        "--fit-rows",
        ORDINARY,
        "--false-alarm-rate",
        "0.001",
    ];
    let report = json(&site.succeed(&[&evaluate[..], &["--json", "--html", "report.html"]].concat()));
    assert_eq!(report["event_recall_observable"], 1.0);
    assert_eq!(report["types"].as_array().unwrap().len(), 4);
    assert!(report["false_alarm_rate"].as_f64().unwrap() < 0.01);
    assert!(
        report["ordinary_readings"].as_u64().unwrap() < 2_500,
        "training readings do not count"
    );
    let page = std::fs::read_to_string(site.path("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 5);
    for outside in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let table = site.succeed(&evaluate);
    assert!(table.contains("noise_up") && table.contains("1 of 1"), "{table}");
}

#[test]
fn a_candidate_is_compared_with_the_model_in_use() {
    let site = Site::new("ai", "");
    train(&site, "one", "1");
    site.succeed(&[
        "detect",
        "train",
        "--from",
        HOTEL,
        "--rows",
        ORDINARY,
        "--name",
        "raw",
        "--features",
        "raw",
        "--forest",
        "plain",
    ]);
    let evaluate = |shadow: &str| site.succeed(&["detect", "evaluate", "--from", HOTEL, "--shadow", shadow]);
    assert!(evaluate("one").contains("only the model 0, only the candidate 0"));
    let differing = evaluate("raw");
    assert!(
        differing.contains("only the model raises an alarm: "),
        "{differing}"
    );
    let models = site.succeed(&["detect", "models", "--format", "json"]);
    let one = models
        .lines()
        .map(json)
        .find(|model| model["name"] == "one")
        .unwrap();
    assert!(one["false_alarm_rate_obtained"].is_number());
}

#[test]
fn an_explanation_says_what_was_expected_and_shares_out_the_score() {
    let site = Site::new("ai", "");
    train(&site, "one", "1");
    let row = (IN_EVENT..7_500).find(|row| labelled()[*row]).unwrap() + 60;
    let explain = ["detect", "explain", "--file", HOTEL, "--row", &row.to_string()];
    let explained = json(&site.succeed(&[&explain[..], &["--json"]].concat()));
    assert_eq!(explained["flagged"], true);
    assert_eq!(explained["replayed"], row);
    assert!(explained["expected"].is_number() && explained["seen"].is_number());
    let shares = explained["features"].as_array().unwrap();
    let sum: f64 = shares
        .iter()
        .map(|feature| feature["share"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    assert!(site.succeed(&explain).contains("because    "));
    let beyond = error(&site, &["detect", "explain", "--file", HOTEL, "--row", "7500"]);
    assert!(beyond.contains("has 7500 rows"), "{beyond}");
}

#[test]
fn readings_of_the_store_are_explained_and_too_few_to_train_on() {
    let site = Site::new("mtls", "");
    let running = site.start(&["up"]);
    let own = mtls("device-001");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    site.python_publish(site.ports.mqtts, 1, &[own, vec!["--count", "3"]].concat());
    assert_eq!(running.interrupt(), 0);
    site.succeed(&["detect", "train", "--from", "simulator"]);
    let explained = json(&site.succeed(&["detect", "explain", "--device", "device-001", "--json"]));
    assert_eq!(
        (&explained["device"], &explained["replayed"]),
        (&"device-001".into(), &2.into())
    );
    let few = error(&site, &["detect", "train"]);
    assert!(few.contains("device-001 has 3 readings"), "{few}");
    let none = error(&site, &["detect", "explain", "--event", "999999"]);
    assert!(none.contains("there is no event 999999"), "{none}");
    let unheard = error(&site, &["detect", "explain", "--device", "device-002"]);
    assert!(unheard.contains("no reading of device-002"), "{unheard}");
}

#[test]
fn detection_is_measured_on_labelled_recordings_and_tables() {
    let site = Site::new("ai", "");
    let folder: PathBuf = site.path("recordings");
    std::fs::create_dir(&folder).unwrap();
    let text = std::fs::read_to_string(HOTEL).unwrap();
    let split = |(row, line): (usize, &str)| match row {
        0 => format!("{line},split\n"),
        1..=5_000 => format!("{line},train\n"),
        _ => format!("{line},test\n"),
    };
    let marked: String = text.lines().enumerate().map(split).collect();
    std::fs::write(folder.join("hotel.csv"), marked).unwrap();
    let report = site.succeed(&[
        "bench",
        "detect",
        "--rounds",
        "1",
        "--rows",
        "1000",
        "--data",
        "recordings",
        "--json",
    ]);
    let report = json(&report);
    assert!(report["speed"]["single_row_ns"]["median"].as_f64().unwrap() > 0.0);
    assert!(report["speed"]["oblique_message_ns"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(
        report["quality"][0]["at_rates"][0]["event_recall_observable"],
        1.0
    );
    assert!(report["tables"].is_null());
}
