//! The ledger over several handles, threads, crashes and damaged files.

use crate::support::{DAY, Site, id, now};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::RevocationReason;
use tidegate_pki::ledger::{CertificateRole, How, Ledger, LedgerError, Record, State};

fn record(serial: &str, name: &str, not_after: Timestamp) -> Record {
    Record {
        serial: serial.into(),
        id: id(name),
        role: CertificateRole::Device,
        not_before: now().minus(DAY),
        not_after,
        authority: "aa".into(),
        how: How::Issued,
        at: now(),
    }
}

fn states(ledger: &Ledger) -> Vec<State> {
    let entries = ledger.certificates().unwrap();
    entries.iter().map(|entry| entry.state(now())).collect()
}

#[test]
fn newest_certificate_of_a_name_is_valid_and_the_one_before_superseded_until_the_newest_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("certificates.jsonl")).unwrap();
    let later = now().plus(DAY);
    ledger.record(record("01", "device-001", later)).unwrap();
    ledger.record(record("02", "device-002", later)).unwrap();
    ledger
        .record(record("03", "device-003", now().minus(DAY)))
        .unwrap();
    assert_eq!(states(&ledger), [State::Valid, State::Valid, State::Expired]);
    ledger.record(record("04", "device-001", later)).unwrap();
    assert_eq!(
        states(&ledger),
        [State::Superseded, State::Valid, State::Expired, State::Valid]
    );
    let since = now();
    let reason = Some(RevocationReason::KeyCompromise);
    assert!(ledger.revoke("04", since, reason).unwrap());
    assert!(
        !ledger.revoke("04", since.plus(DAY), None).unwrap(),
        "the first revocation counts"
    );
    let (first, last) = (states(&ledger)[0], states(&ledger)[3]);
    let State::Revoked { since: shown } = last else {
        panic!("{last:?}")
    };
    assert_eq!((first, shown), (State::Valid, since));
    let entries = ledger.certificates().unwrap();
    assert_eq!(entries[3].revoked.unwrap().reason, reason);
    assert!(
        entries[0].is_accepted(now()) && !entries[2].is_accepted(now()) && !entries[3].is_accepted(now())
    );
}

#[test]
fn a_gateway_and_a_device_of_one_name_do_not_supersede_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("certificates.jsonl")).unwrap();
    ledger.record(record("01", "a", now().plus(DAY))).unwrap();
    let gateway = Record {
        role: CertificateRole::Gateway,
        ..record("02", "a", now().plus(DAY))
    };
    ledger.record(gateway).unwrap();
    assert_eq!(states(&ledger), [State::Valid, State::Valid]);
}

#[test]
fn second_handle_sees_what_the_first_wrote_and_the_file_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    let (first, second) = (Ledger::open(&path).unwrap(), Ledger::open(&path).unwrap());
    assert!(!path.exists(), "nothing is written before the first record");
    first.record(record("0A", "device-001", now().plus(DAY))).unwrap();
    assert_eq!(second.certificates().unwrap(), first.certificates().unwrap());
    assert_eq!(second.certificates().unwrap()[0].record.serial, "0a");
    assert!(second.revoke("0:A", now(), None).unwrap());
    assert!(matches!(states(&first)[..], [State::Revoked { .. }]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn records_of_many_threads_with_handles_of_their_own_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                let ledger = Ledger::open(path).unwrap();
                for number in 0..25_u8 {
                    let serial = hex::encode([thread + 1, number]);
                    ledger
                        .record(record(&serial, "device-001", now().plus(DAY)))
                        .unwrap();
                }
            });
        }
    });
    let mut serials: Vec<_> = Ledger::open(&path)
        .unwrap()
        .certificates()
        .unwrap()
        .into_iter()
        .map(|entry| entry.record.serial)
        .collect();
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 100);
}

#[test]
fn numbers_of_lists_are_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("certificates.jsonl")).unwrap();
    assert_eq!(ledger.next_crl_number("aa").unwrap(), 1);
    ledger.lock().unwrap().record_list("aa", 7, now()).unwrap();
    ledger.lock().unwrap().record_list("aa", 3, now()).unwrap();
    assert_eq!(ledger.next_crl_number("aa").unwrap(), 8);
    assert_eq!(ledger.next_crl_number("bb").unwrap(), 1);
    assert_eq!(ledger.crl_numbers().unwrap(), [("aa".to_owned(), 7)]);
}

#[test]
fn line_that_a_dying_process_left_half_written_is_passed_over_and_then_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    let ledger = Ledger::open(&path).unwrap();
    ledger
        .record(record("01", "device-001", now().plus(DAY)))
        .unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for cut in 1..whole.len() {
        fs::write(&path, format!("{whole}{}", &whole[..cut])).unwrap();
        let reopened = Ledger::open(&path).unwrap();
        assert_eq!(reopened.certificates().unwrap().len(), 1, "cut at {cut}");
        reopened
            .record(record("02", "device-002", now().plus(DAY)))
            .unwrap();
        assert_eq!(reopened.certificates().unwrap().len(), 2, "cut at {cut}");
        let reread = Ledger::open(&path).unwrap();
        assert_eq!(reread.certificates().unwrap(), reopened.certificates().unwrap());
    }
}

#[test]
fn damaged_line_stops_everything_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    let ledger = Ledger::open(&path).unwrap();
    ledger
        .record(record("01", "device-001", now().plus(DAY)))
        .unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let bad = [
        "junk\n".to_owned(),
        "\n".to_owned(),
        "{\"event\":\"unknown\"}\n".to_owned(),
        good.replace("not_after", "not_later"),
        good.replace("device-001", "device/001"),
        good.replace("\"device\"", "\"admin\""),
    ];
    for line in bad {
        fs::write(&path, format!("{good}{line}{good}")).unwrap();
        let refused = Ledger::open(&path).unwrap_err();
        assert!(
            matches!(refused, LedgerError::Damaged { number: 2, .. }),
            "{line}: {refused}"
        );
        assert!(ledger.record(record("02", "a", now())).is_err(), "{line}");
    }
}

#[test]
fn file_that_is_put_back_from_a_copy_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    let ledger = Ledger::open(&path).unwrap();
    ledger
        .record(record("01", "device-001", now().plus(DAY)))
        .unwrap();
    let copy = fs::read(&path).unwrap();
    ledger
        .record(record("02", "device-002", now().plus(DAY)))
        .unwrap();
    fs::write(&path, copy).unwrap();
    assert_eq!(ledger.certificates().unwrap().len(), 1);
}

#[test]
fn forgetting_keeps_what_has_not_ended_and_the_numbers_and_other_handles_follow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.jsonl");
    let (ledger, other) = (Ledger::open(&path).unwrap(), Ledger::open(&path).unwrap());
    for (serial, name, days) in [
        ("01", "old", 1),
        ("02", "old-revoked", 1),
        ("03", "kept", 100),
        ("04", "kept-revoked", 100),
    ] {
        let not_after = now().minus(50 * DAY).plus(days * DAY);
        ledger.record(record(serial, name, not_after)).unwrap();
    }
    for serial in ["02", "04", "99"] {
        ledger.revoke(serial, now(), None).unwrap();
    }
    ledger.lock().unwrap().record_list("aa", 5, now()).unwrap();
    assert_eq!(other.certificates().unwrap().len(), 4);
    ledger.lock().unwrap().forget(now()).unwrap();
    for ledger in [&ledger, &other] {
        let kept = ledger.certificates().unwrap();
        let kept: Vec<_> = kept
            .iter()
            .map(|entry| (entry.record.serial.as_str(), entry.revoked.is_some()))
            .collect();
        assert_eq!(kept, [("03", false), ("04", true)]);
        assert_eq!(ledger.next_crl_number("aa").unwrap(), 6);
        assert!(
            !ledger.revoke("99", now(), None).unwrap(),
            "a serial number without record stays revoked"
        );
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn oversize_ledger_is_refused_unread() {
    let site = Site::new();
    let path = site.path("certificates.jsonl");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(b"x").unwrap();
    // A hole: nothing is written.
    file.set_len(tidegate_pki::ledger::MAX_LEDGER_BYTES + 1).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::TooLarge { .. })));
}
