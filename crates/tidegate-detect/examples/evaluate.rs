#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "dev")]
//! dev
use std::{env, fs, sync::Arc, time::Instant};
use tidegate_detect::{detector::Detector, forest::Kind, train::{TrainOptions, TrainingData, train}};
use tidegate_envelope::{id::{DeviceId, DeviceIndex}, reading::Channels, time::Timestamp};
fn main() {
    let args: Vec<String> = env::args().collect();
    let (folder, out) = (&args[1], &args[2]);
    let far: f64 = args[3].parse().unwrap();
    let kind = if args[4] == "plain" { Kind::Plain } else { Kind::Oblique };
    let seed: u64 = args[5].parse().unwrap();
    let explain = args.get(6).is_some();
    let restart = env::var("RESTART").ok().and_then(|v| v.parse::<usize>().ok());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "csv")).collect();
    files.sort();
    let mut data = TrainingData::new("hotel");
    let mut all = vec![]; let mut ids = vec![];
    for f in &files {
        let mut r = csv::Reader::from_path(f).unwrap();
        let h = r.headers().unwrap().clone();
        let mut rows = vec![]; let mut n0 = 0;
        let mut ev = vec![];
        for rec in r.records() {
            let rec = rec.unwrap();
            let t: i64 = rec[0].parse().unwrap();
            let c = Channels::new((1..6).map(|i| (h[i].into(), rec[i].parse::<f64>().unwrap())).collect()).unwrap();
            if &rec[8] == "train" { n0 += 1; }
            ev.push(rec[6].to_owned());
            rows.push((Timestamp::from_micros(t * 1_000_000), c));
        }
        let id = DeviceId::new(f.file_stem().unwrap().to_str().unwrap()).unwrap();
        if env::var("LEAVE").ok().as_deref() != Some(id.as_str()) { data.add(id.clone(), rows[..n0].to_vec()); }
        ids.push(id); all.push((rows, n0, ev));
    }
    let mut o = TrainOptions::new(seed, Timestamp::from_micros(0)); o.false_alarm_rate = far; o.forest = kind;
    let t = Instant::now();
    let m = Arc::new(train(&data, &o, &mut |_| ()).unwrap());
    println!("train {} rows: {:?}; model {} bytes; {:?}", data.readings(), t.elapsed(), m.to_bytes().len(), m.calibration());
    let mut d = Detector::new(m.clone(), &ids);
    println!("state {} bytes", d.state_bytes(DeviceIndex(0)));
    if let Ok(v) = env::var("DUMP") { let v: Vec<usize> = v.split(',').map(|x| x.parse().unwrap()).collect();
        use tidegate_detect::features::{aggregate, stream::State, Feature};
        let p = m.profile(&ids[v[0]]).unwrap(); for r in &p.residuals { println!("rho {} inn {} scale {} {}", r.autocorrelation, r.innovation, r.scale, r.scale_per_driver); }
        let mut st = State::new(p); let mut h = vec![0.0; p.head_count()];
        for (j, (at, c)) in all[v[0]].0.iter().enumerate() { let x: Vec<f64> = p.channels.iter().map(|ch| c.get(&ch.name).unwrap()).collect(); st.observe(p, *at, &x, &mut h);
          if j >= v[1] && j < v[2] && (j - v[1]) % v[3] == 0 { let f = aggregate(p, &h); println!("{j} {:.3} {}", m.forest().score(&f), Feature::ALL.iter().zip(f).map(|(a, b)| format!("{a:?}={b:.1}")).collect::<Vec<_>>().join(" ")); println!("   {:.2?}", &h[..12]); } }
        return; }
    let t = Instant::now(); let mut n = 0u64; let mut spent_flag = 0u64;
    for (i, (rows, n0, ev)) in (0u32..).zip(&all) {
        let mut s = vec![]; let mut last = String::new(); let mut k = 0;
        for (j, (at, c)) in rows.iter().enumerate() {
            if let Some(r) = restart && j >= *n0 && j % r == 0 { d = Detector::new(m.clone(), &ids); }
            let a = d.assess(DeviceIndex(i), *at, c); n += 1; spent_flag += u64::from(a.flagged);
            if explain && j >= *n0 && a.flagged { let r = a.reason.as_ref().unwrap();
                if ev[j] != last { last.clone_from(&ev[j]); k = 0; println!("--- {} {j}: {}", i, ev[j]); }
                k += 1; if k <= 2 || k % 60 == 0 { println!("{:.3} {} | {:?}", a.score, r.sentence, r.shares.iter().take(3).map(|s| format!("{} {:.2}", s.feature.as_str(), s.share)).collect::<Vec<_>>()); } }
            s.extend((-f64::from(a.score)).to_le_bytes());
        }
        fs::write(format!("{out}/{}.scores", ids[i as usize].as_str()), s).unwrap();
    }
    println!("assess {:.2} us/row, flagged {spent_flag}", t.elapsed().as_secs_f64() * 1e6 / n as f64);
}
