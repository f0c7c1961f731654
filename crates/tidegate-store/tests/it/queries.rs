//! Readings: ranges, orders, pages, and reading while the writer writes.

use crate::support::{admission, all_readings, at_ms, device, devices, open, sequences};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_store::reader::{Order, Reader, ReadingQuery};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::log::ReplayLog;

/// Sequence n at n × 10 ms, of devices 1, 2, 1, 2, …
fn filled(path: &std::path::Path, count: u64) -> Store {
    let mut store = open(path, 2);
    let batch: Vec<_> = (1..=count)
        .map(|sequence| admission((sequence % 2) as u32 ^ 1, sequence, sequence as i64 * 10))
        .collect();
    store.commit(&batch, at_ms(count as i64 * 10)).unwrap();
    store
}

#[test]
fn ranges_are_half_open_and_hold_for_one_device_and_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let _store = filled(&path, 2_500);
    let of = |query: ReadingQuery| sequences(&all_readings(&path, &query));
    let range = ReadingQuery {
        from: Some(at_ms(12_000)),
        to: Some(at_ms(12_050)),
        ..ReadingQuery::default()
    };
    assert_eq!(of(range.clone()), [1_200, 1_201, 1_202, 1_203, 1_204]);
    let of_second = ReadingQuery {
        device: Some(device(2)),
        ..range
    };
    assert_eq!(of(of_second), [1_200, 1_202, 1_204]);
    let nobody = ReadingQuery {
        device: Some(device(9)),
        ..range
    };
    assert!(of(nobody).is_empty());
    for (from, to) in [(30_000, 40_000), (-10, 10), (100, 100), (100, 50)] {
        let empty = ReadingQuery {
            from: Some(at_ms(from)),
            to: Some(at_ms(to)),
            ..range.clone()
        };
        assert!(of(empty).is_empty(), "{from} to {to}");
    }
    assert_eq!(of(ReadingQuery::default()), (1..=2_500).collect::<Vec<_>>());
}

#[test]
fn pages_join_without_hole_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let _store = filled(&path, 2_500);
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut query = ReadingQuery {
            device: Some(device(1)),
            limit: Some(7),
            order,
            ..ReadingQuery::default()
        };
        let mut seen = Vec::new();
        loop {
            let rows = all_readings(&path, &query);
            let Some(last) = rows.last() else { break };
            query.after = Some(last.id);
            seen.extend(sequences(&rows));
        }
        if order == Order::NewestFirst {
            seen.reverse();
        }
        assert_eq!(seen, (1..=2_500).step_by(2).collect::<Vec<_>>());
    }
}

#[test]
fn reader_that_has_enough_gets_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let _store = filled(&path, 50);
    let mut seen = 0;
    Reader::open(&path)
        .unwrap()
        .readings(&ReadingQuery::default(), |_| {
            seen += 1;
            if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn latest_reading_of_each_device_that_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = Store::open(&path, &devices(3), &Options::default()).unwrap();
    let batch = [admission(2, 1, 0), admission(0, 1, 1), admission(2, 2, 2)];
    store.commit(&batch, at_ms(2)).unwrap();
    let latest = Reader::open(&path).unwrap().latest_by_device().unwrap();
    let shown: Vec<_> = latest
        .iter()
        .map(|row| (row.device.clone().unwrap(), row.sequence))
        .collect();
    assert_eq!(shown, [(device(1), Some(1)), (device(3), Some(2))]);
}

#[test]
fn arrival_never_falls_even_when_the_clock_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    store.commit(&[admission(0, 1, 1_000)], at_ms(1_000)).unwrap();
    store.commit(&[admission(0, 2, 500)], at_ms(1_000)).unwrap();
    store.close().unwrap();
    let mut store = open(&path, 1);
    store.commit(&[admission(0, 3, 400)], at_ms(1_000)).unwrap();
    let received: Vec<_> = all_readings(&path, &ReadingQuery::default())
        .iter()
        .map(|row| row.received)
        .collect();
    assert_eq!(received, [at_ms(1_000); 3]);
}

#[test]
fn row_is_serialised_with_names_and_units() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let _store = filled(&path, 1);
    let row = &all_readings(&path, &ReadingQuery::default())[0];
    assert_eq!(
        serde_json::to_string(row).unwrap(),
        "{\"id\":1,\"device\":\"device-001\",\"timestamp_us\":1771472104990000,\"received_us\":1771472105010000,\
         \"boot\":3,\"sequence\":1,\"protected\":true,\"status\":\"operational\",\"channels\":{\"flow_rate\":40.21,\
         \"gate_a_position\":45.0,\"gate_b_position\":45.0,\"pressure_downstream\":55.11,\"pressure_upstream\":60.01}}"
    );
}

#[test]
fn reader_beside_the_writer_sees_whole_batches_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..100_u64 {
                let batch: Vec<_> = (1..=16).map(|n| admission(0, batch * 16 + n, 0)).collect();
                store.commit(&batch, at_ms(0)).unwrap();
            }
            finished.store(true, Ordering::Release);
        });
        let mut reader = Reader::open(&path).unwrap();
        let mut seen = 0;
        loop {
            let last_round = finished.load(Ordering::Acquire);
            let mut count = 0;
            let query = ReadingQuery {
                limit: Some(1_000),
                ..ReadingQuery::default()
            };
            reader
                .readings(&query, |row| {
                    count += 1;
                    assert_eq!(row.sequence, Some(count));
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert!(
                count >= seen && (count % 16 == 0 || count == 1_000),
                "{count} after {seen}"
            );
            seen = count;
            if last_round {
                break;
            }
        }
        assert_eq!(seen, 1_000);
    });
}

#[test]
fn reading_beyond_the_layouts_that_are_remembered_keeps_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = open(&path, 1);
    let mut batch = Vec::new();
    for number in 1..=1_100_u64 {
        let mut unsigned = admission(0, number, 0);
        unsigned.message.reading.channels = crate::support::channels(&[(&format!("c{number}"), 0.5)]);
        batch.push(unsigned);
    }
    store.commit(&batch, at_ms(0)).unwrap();
    store.close().unwrap();
    let rows = all_readings(&path, &ReadingQuery::default());
    for (row, admission) in rows.iter().zip(&batch) {
        assert_eq!(row.channels, admission.message.reading.channels);
    }
    assert_eq!(rows.len(), 1_100);
}

#[test]
fn view_names_every_value_for_other_tools() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    let mut store = filled(&path, 1);
    let mut batch = Vec::new();
    for number in 1..=1_024_u64 {
        let mut unsigned = admission(0, number + 1, 0);
        unsigned.message.reading.channels = crate::support::channels(&[(&format!("c{number}"), 0.5)]);
        batch.push(unsigned);
    }
    store.commit(&batch, at_ms(0)).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    let value = |id: i64| -> (String, String, f64) {
        connection
            .query_row(
                "SELECT device, channel, value FROM reading_values WHERE id = ?1 ORDER BY channel DESC",
                [id],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap()
    };
    assert_eq!(value(1), ("device-001".into(), "pressure_upstream".into(), 60.01));
    // The last one has no place in the table of layouts any more.
    assert_eq!(value(1_025), ("device-001".into(), "c1024".into(), 0.5));
}
