//! `tidegate readings` and `tidegate events`: tables, JSON lines and CSV, and their errors.

use crate::support::{Site, mtls};

#[test]
fn readings_and_events_are_printed_in_every_format() {
    let site = Site::new("mtls", "");
    let running = site.start(&["up"]);
    let own = mtls("device-001");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    site.python_publish(site.ports.mqtts, 1, &[own.clone(), vec!["--count", "3"]].concat());
    site.python_publish(site.ports.mqtts, 2, &own);
    assert_eq!(running.interrupt(), 0);

    assert_eq!(site.stored_readings().len(), 3);
    let csv = site.succeed(&["readings", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 4);
    assert!(csv.starts_with("received,device,timestamp,sequence,status,protected,pressure_upstream"));
    let table = site.succeed(&["readings", "--last", "2"]);
    assert_eq!(table.matches("device-001").count(), 2);
    assert_eq!(
        site.succeed(&["readings", "--device", "device-002", "--format", "json"]),
        ""
    );
    let events = site.succeed(&["events", "--reason", "acl_denied", "--format", "csv"]);
    assert!(events.lines().count() >= 2, "{events}");
    assert!(site.succeed(&["events"]).contains("acl_denied"));
}

#[test]
fn query_without_database_or_with_wrong_reason_says_what_to_do() {
    let site = Site::new("ai", "");
    let error = String::from_utf8(site.run(&["readings"]).stderr).unwrap();
    assert!(error.contains("tidegate up"), "{error}");
    site.start(&["up"]).interrupt();
    let error = String::from_utf8(site.run(&["events", "--reason", "bad"]).stderr).unwrap();
    assert!(error.contains("bad_mac") && error.contains("replay"), "{error}");
}
