//! Which registries are refused, and where each name leads.

use super::*;
use crate::testing::{device, key, registry, with_devices};

#[test]
fn topics_lead_to_their_device_and_nothing_else() {
    let registry = registry(2);
    let find = |topic| registry.by_topic(topic);
    assert_eq!(
        find("hydroficient/grandmarina/device-001/sensors"),
        Ok(DeviceIndex(0))
    );
    assert_eq!(
        find("hydroficient/grandmarina/device-002/sensors"),
        Ok(DeviceIndex(1))
    );
    assert_eq!(
        find("hydroficient/grandmarina/device-003/sensors"),
        Err(Reason::UnknownDevice)
    );
    for wrong in [
        "",
        "hydroficient/grandmarina//sensors",
        "hydroficient/grandmarina/a/b/sensors",
        "sensors",
    ] {
        assert_eq!(find(wrong), Err(Reason::TopicInvalid), "{wrong}");
    }
}

#[test]
fn registry_with_ambiguous_names_or_unknown_zone_is_refused() {
    let zones = || registry(0).zones().to_vec();
    let shape = || registry(0).topics().clone();
    let twice = Registry::new(zones(), vec![device(1), device(1)], shape());
    assert_eq!(
        twice.unwrap_err().to_string(),
        "id `device-001` belongs to two devices"
    );
    let said = |configure: fn(&mut Device)| {
        let mut second = device(2);
        configure(&mut second);
        let refused = Registry::new(zones(), vec![device(1), second], shape());
        refused.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    };
    assert_eq!(said(|_| {}), "accepted");
    for (configure, error) in [
        (
            (|device| device.topic_segment = "device-001".into()) as fn(&mut Device),
            "topic `device-001` belongs to two devices",
        ),
        (
            |device| device.message_id = MessageDeviceId::new("HYDROLOGIC-Device-001").unwrap(),
            "message_id `HYDROLOGIC-Device-001` belongs to two devices",
        ),
        (
            |device| device.zone = ZoneId::new("roof").unwrap(),
            "device `device-002` is in zone `roof`, which is not defined",
        ),
        (
            |device| device.topic_segment = "a/b".into(),
            "device `device-002` has the topic segment `a/b`; 1 to 64 characters of A-Z a-z 0-9 . _ - are allowed",
        ),
        (
            |device| device.format = cose(&[]),
            "device `device-002` needs 1 to 32 channels whose names differ and have at most 48 bytes",
        ),
        (
            |device| device.format = cose(&["flow_rate", "flow_rate"]),
            "device `device-002` needs 1 to 32 channels whose names differ and have at most 48 bytes",
        ),
        (|device| device.format = cose(&["flow_rate"]), "accepted"),
        (|device| device.keys.clear(), "device `device-002` has no key"),
        (
            |device| device.keys.push(device.keys[0].clone()),
            "the key epochs of device `device-002` must rise",
        ),
    ] {
        assert_eq!(said(configure), error);
    }
    let twice = [zones(), zones()].concat();
    let refused = Registry::new(twice, Vec::new(), shape()).unwrap_err();
    assert_eq!(refused.to_string(), "zone `kitchen` is defined twice");
}

#[test]
fn every_name_of_a_device_leads_to_it() {
    let registry = registry(2);
    let second = registry.device(DeviceIndex(1));
    assert_eq!(registry.by_id(&second.id), Some(DeviceIndex(1)));
    assert_eq!(registry.by_message_id(&second.message_id), Some(DeviceIndex(1)));
    assert_eq!(
        registry.by_topic(&registry.topics().telemetry("device-002")),
        Ok(DeviceIndex(1))
    );
    assert_eq!(
        registry.by_id(&DeviceId::new("HYDROLOGIC-Device-002").unwrap()),
        None
    );
    assert_eq!(
        registry.by_message_id(&MessageDeviceId::new("device-002").unwrap()),
        None
    );
    assert_eq!(
        registry.topics().command("device-002"),
        "hydroficient/grandmarina/device-002/commands"
    );
    assert_eq!(registry.topics().filter(), "hydroficient/grandmarina/#");
}

fn cose(channels: &[&str]) -> Format {
    Format::CoseV1 {
        channels: channels.iter().copied().map(CompactString::from).collect(),
    }
}

#[test]
fn registry_goes_on_from_one_whose_devices_keep_their_places_whatever_else_changes() {
    let earlier = registry(2);
    assert_eq!(registry(2).continues(&earlier), Ok(()));
    assert_eq!(registry(3).continues(&earlier), Ok(()));
    let mut changed = [device(1), device(2)];
    changed[0].enabled = false;
    changed[1].message_id = MessageDeviceId::new("other").unwrap();
    assert_eq!(with_devices(changed.into()).continues(&earlier), Ok(()));

    let gone = |number: u32, position| {
        Err(NotAContinuation {
            device: device(number).id,
            position,
        })
    };
    assert_eq!(registry(1).continues(&earlier), gone(2, 1));
    assert_eq!(registry(0).continues(&earlier), gone(1, 0));
    let swapped = with_devices(vec![device(2), device(1)]);
    assert_eq!(swapped.continues(&earlier), gone(1, 0));
    let replaced = with_devices(vec![device(1), device(3)]);
    let refused = replaced.continues(&earlier).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "device `device-002` (number 2 in the registry) was removed or moved; restart to change that, \
         or disable it and append new ones at the end"
    );
}

#[test]
fn registry_takes_no_more_memory_than_its_entries_and_three_tables_of_positions() {
    const COUNT: usize = 1_000;
    let with_keys = |epochs: &[u16]| {
        let devices = (1..=COUNT as u32).map(|number| {
            let mut device = device(number);
            let key = |epoch: &u16| (KeyEpoch(*epoch), key(&device.id, *epoch));
            device.keys = epochs.iter().map(key).collect();
            device
        });
        with_devices(devices.collect()).bytes()
    };
    let tables = with_keys(&[0]) - COUNT * size_of::<Entry>();
    // A position, half a hash and a byte of it, in a table that is between 44% and 88% full.
    assert!((COUNT * 3 * 10..COUNT * 3 * 21).contains(&tables), "{tables}");
    let older_key = size_of::<(KeyEpoch, MacKey)>();
    assert_eq!(with_keys(&[0, 1, 2]) - with_keys(&[0]), COUNT * 2 * older_key);
    assert_eq!(size_of::<Entry>(), 320);
}

#[test]
fn a_thousand_devices_are_told_apart_by_each_of_their_names() {
    let registry = registry(1_000);
    for (position, device) in (0..).zip(registry.devices()) {
        let index = DeviceIndex(position);
        let topic = registry.topics().telemetry(&device.topic_segment);
        assert_eq!(registry.by_topic(&topic), Ok(index));
        assert_eq!(registry.guess(&topic), Some(index));
        assert_eq!(registry.by_id(&device.id), Some(index));
        assert_eq!(registry.by_message_id(&device.message_id), Some(index));
    }
}

#[test]
fn guess_leads_nowhere_without_a_segment_and_almost_never_to_another_device() {
    let registry = registry(1_000);
    assert_eq!(
        registry.guess("hydroficient/grandmarina/device-001/commands"),
        None
    );
    let strangers = (1_001..11_001).map(|number| registry.topics().telemetry(&format!("device-{number}")));
    // One in four thousand million per pair that shares a group of the table.
    assert!(strangers.filter(|topic| registry.guess(topic).is_some()).count() < 10);
}
