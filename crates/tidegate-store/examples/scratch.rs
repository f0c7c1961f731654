//! scratch
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;
use support::*;
use tidegate_verify::log::ReplayLog;
fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let path = dir.join("tidegate.db");
    let mut store = open(&path, 1);
    std::fs::write(dir.join("ballast"), vec![1u8; 1 << 20]).unwrap();
    let mut acked = 0u64;
    let mut freed = false;
    let mut errors = 0;
    let mut max_wal = 0;
    for _ in 0..100000 {
        let batch: Vec<_> = (1..=64).map(|n| admission(0, acked + n, 0)).collect();
        match store.commit(&batch, at_ms(0)) {
            Ok(()) => acked += 64,
            Err(e) if !freed => {
                errors += 1;
                if errors == 1 { println!("at {acked}: {e} / {e:?}"); }
                if errors == 5 {
                    let rows = all_readings(&path, &Default::default());
                    println!("rows {} state {}", rows.len(), store.load().unwrap().devices[0].1.mark());
                    std::fs::remove_file(dir.join("ballast")).unwrap();
                    freed = true;
                    println!("freed; acked {acked}");
                }
            }
            Err(e) => { println!("again full at {acked}: {e}"); break; }
        }
        max_wal = max_wal.max(std::fs::metadata(dir.join("tidegate.db-wal")).map_or(0, |m| m.len()));
    }
    println!("max wal {max_wal}, acked {acked}");
    println!("close: {:?}", store.close().map_err(|e| e.to_string()));
    let rows = all_readings(&path, &Default::default());
    println!("rows {}", rows.len());
}
