//! Scratch.
#![expect(clippy::unwrap_used, reason = "scratch")]
use tidegate_detect::forest::Kind;
use tidegate_detect::table::{Table, TableForest, TableOptions};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    for f in std::fs::read_dir(&a[1]).unwrap() {
        let p = f.unwrap().path();
        if p.extension().is_none_or(|e| e != "f64") {
            continue;
        }
        let b = std::fs::read(&p).unwrap();
        let v: Vec<f64> = b
            .chunks_exact(8)
            .map(|c| f64::from_le_bytes(c.try_into().unwrap()))
            .collect();
        let d = v[0] as usize;
        let t = Table::new(&v[1..], d).unwrap();
        for (k, n) in [(Kind::Plain, "plain"), (Kind::Oblique, "oblique")] {
            for seed in 0..8 {
                let s = TableForest::fit(&t, &TableOptions::new(k, seed))
                    .unwrap()
                    .scores(&t)
                    .unwrap();
                let o: Vec<u8> = s.iter().flat_map(|x| x.to_le_bytes()).collect();
                std::fs::write(p.with_extension(format!("{n}{seed}")), o).unwrap();
            }
        }
    }
}
