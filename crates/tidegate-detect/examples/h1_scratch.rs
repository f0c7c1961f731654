//! Scratch.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "scratch")]
use std::sync::Arc;
use tidegate_detect::forest::Kind;
use tidegate_detect::scorer::Scorer;
use tidegate_detect::train::{FeatureSet, TrainOptions, TrainingData, fit};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

type R = Vec<(Timestamp, Channels)>;
fn load(path: &str) -> R {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|l| {
            let f: Vec<&str> = l.split(',').collect();
            let t: f64 = f[0].parse().unwrap();
            let v = (1..names.len() - 3)
                .map(|c| (names[c].into(), f[c].parse().unwrap()))
                .collect();
            (
                Timestamp::from_micros((t * 1e6) as i64),
                Channels::new(v).unwrap(),
            )
        })
        .collect()
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    // in_dir out_dir plain|oblique stream|raw seed [features dump]
    let kind = if a[3] == "plain" {
        Kind::Plain
    } else {
        Kind::Oblique
    };
    let features = if a[4] == "raw" {
        FeatureSet::Raw
    } else {
        FeatureSet::Stream
    };
    let seed: u64 = a[5].parse().unwrap();
    let dump = a.len() > 6;
    std::fs::create_dir_all(&a[2]).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&a[1])
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "csv"));
    files.sort();
    std::thread::scope(|s| {
        let n = files.len();
        for part in files.chunks(n.div_ceil(2)) {
            let a = &a;
            s.spawn(move || {
                for f in part {
                    let rows = load(f.to_str().unwrap());
                    let name = f.file_stem().unwrap().to_str().unwrap().to_owned();
                    let id = DeviceId::new(&name.replace('_', "-")).unwrap();
                    let mut data = TrainingData::new("x");
                    data.add(id.clone(), rows[..17_280].to_vec());
                    let o = TrainOptions {
                        forest: kind,
                        features,
                        ..TrainOptions::new(seed, Timestamp::from_micros(0))
                    };
                    let model = Arc::new(fit(&data, &o, &mut |_| ()).unwrap());
                    let mut scorer = Scorer::new(model, &id).unwrap();
                    let mut out = Vec::new();
                    let mut feats: Vec<u8> = Vec::new();
                    for (at, c) in &rows {
                        out.extend(f64::from(scorer.score(*at, c).unwrap()).to_le_bytes());
                        if dump {
                            for v in scorer.features() {
                                feats.extend(v.to_le_bytes());
                            }
                        }
                    }
                    std::fs::write(format!("{}/{name}.scores", a[2]), out).unwrap();
                    if dump {
                        std::fs::write(format!("{}/{name}.feat", a[2]), feats).unwrap();
                    }
                }
            });
        }
    });
    println!("done");
}
