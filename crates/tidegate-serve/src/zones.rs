//! How each zone and each device is doing.

use crate::protocol::{ChannelView, DeviceView, ZoneStatus, ZoneView};
use crate::roster::Roster;
use crate::series::{Count, Series};
use crate::view::got_in;
use std::collections::BTreeMap;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};

/// A device, or a zone, that has sent nothing for so long counts as silent.
const SILENT_AFTER_MS: i64 = 30_000;
/// What "the last minute" of a zone means, in seconds.
const MINUTE: usize = 60;

/// Channel name, the names that other publishers use for it, and its unit.
type Channel = (&'static str, &'static [&'static str], &'static str);

/// The channels that are shown.
const CHANNELS: [Channel; 5] = [
    ("pressure_upstream", &["pressure_psi"], "PSI"),
    ("pressure_downstream", &[], "PSI"),
    ("flow_rate", &["flow_rate_lpm", "flow_rate_gpm"], "L/min"),
    ("gate_a_position", &["valve_position"], "%"),
    ("gate_b_position", &[], "%"),
];
/// A mean over devices says something about these, the first of [`CHANNELS`], and nothing about gates.
const ZONE_CHANNELS: usize = 3;

/// The value of a shown channel, under whichever name it arrived.
pub(crate) fn value(channels: &Channels, name: &str) -> Option<f64> {
    let (name, aliases, _) = CHANNELS.iter().find(|(channel, ..)| *channel == name)?;
    channels
        .get(name)
        .or_else(|| aliases.iter().find_map(|alias| channels.get(alias)))
}

/// The changing part of all zones and devices, in the roster's order.
pub(crate) struct Zones {
    zones: Vec<Zone>,
    devices: Vec<Device>,
    /// Something was flagged, blocked or noticed since the last [`views`](Self::views).
    pub(crate) urgent: bool,
}

struct Zone {
    series: Series,
    last_reading_ms: Option<i64>,
    last_notice: Option<(i64, Reason)>,
    last_blocked: Option<Reason>,
}

#[derive(Clone, Default)]
struct Device {
    last_seen_ms: Option<i64>,
    sequence: Option<u64>,
    score: Option<f32>,
    values: [Option<f64>; CHANNELS.len()],
    accepted: u64,
    flagged: u64,
    blocked: u64,
}

impl Zones {
    pub(crate) fn new(roster: &Roster, now_s: i64) -> Self {
        let zone = || Zone {
            series: Series::new(now_s),
            last_reading_ms: None,
            last_notice: None,
            last_blocked: None,
        };
        Self {
            zones: roster.zones.iter().map(|_| zone()).collect(),
            devices: vec![Device::default(); roster.devices.len()],
            urgent: false,
        }
    }

    /// Takes in one event. Costs the same whatever came before.
    pub(crate) fn count(&mut self, roster: &Roster, event: &Event) {
        let at_ms = event.at.as_millis();
        let device = roster.device(event);
        let zone = roster.zone(event, device).map(|index| &mut self.zones[index]);
        if let Some(device) = device {
            self.devices[device].count(event, at_ms);
        }
        let Some(zone) = zone else { return };
        let at_s = at_ms.div_euclid(1_000);
        zone.series.advance_to_at_least(at_s);
        match event.outcome {
            Outcome::Accepted => zone.series.add(at_s, Count::Accepted),
            Outcome::Flagged => zone.series.add(at_s, Count::Flagged),
            Outcome::Blocked => {
                zone.series.add(at_s, Count::Blocked);
                zone.last_blocked = event.reason;
            }
            Outcome::Notice => zone.last_notice = event.reason.map(|reason| (at_ms, reason)),
        }
        if got_in(event) {
            zone.series.add(at_s, Count::GotIn);
        }
        if matches!(event.outcome, Outcome::Accepted | Outcome::Flagged) {
            zone.last_reading_ms = Some(at_ms);
        }
        self.urgent |= event.outcome != Outcome::Accepted || got_in(event);
    }

    /// Every zone as it is now. Visits every device once: about 0.1 ms for 10,000 of them.
    pub(crate) fn views(&mut self, roster: &Roster, now_ms: i64) -> Vec<ZoneView> {
        self.urgent = false;
        let mut means = vec![Mean::default(); self.zones.len()];
        for (device, entry) in self.devices.iter().zip(&roster.devices) {
            if device
                .last_seen_ms
                .is_some_and(|seen| now_ms - seen <= SILENT_AFTER_MS)
            {
                means[entry.zone].add(&device.values);
            }
        }
        let zones = self.zones.iter_mut().zip(&roster.zones).zip(means);
        zones
            .map(|((zone, entry), mean)| {
                zone.series.advance(now_ms.div_euclid(1_000));
                let mut minute = (0, 0, 0, 0);
                for second in zone.series.last(MINUTE) {
                    minute.0 += second.accepted;
                    minute.1 += second.flagged;
                    minute.2 += second.blocked;
                    minute.3 += second.got_in;
                }
                let (accepted, flagged, blocked, got_in) = minute;
                let (status, sentence) =
                    zone.status(now_ms, mean.active, entry.devices, flagged, blocked, got_in);
                ZoneView {
                    id: entry.id.to_string(),
                    name: entry.name.clone(),
                    devices: entry.devices,
                    active: mean.active,
                    status,
                    sentence,
                    channels: mean.channels(),
                    accepted,
                    flagged,
                    blocked,
                }
            })
            .collect()
    }

    /// Some devices, in the registry's order.
    pub(crate) fn devices(&self, roster: &Roster, offset: usize, limit: usize) -> Vec<DeviceView> {
        let states = self.devices.iter().zip(&roster.devices).skip(offset).take(limit);
        states
            .map(|(state, entry)| DeviceView {
                id: entry.id.to_string(),
                zone: roster.zones[entry.zone].id.to_string(),
                last_seen_ms: state.last_seen_ms,
                sequence: state.sequence,
                score: state.score,
                accepted: state.accepted,
                flagged: state.flagged,
                blocked: state.blocked,
                channels: shown(state.values.iter().copied()),
            })
            .collect()
    }
}

impl Zone {
    fn status(
        &self,
        now_ms: i64,
        active: u32,
        devices: u32,
        flagged: u32,
        blocked: u32,
        got_in: u32,
    ) -> (ZoneStatus, String) {
        if got_in > 0 {
            let what = counted(got_in, "attack");
            return (
                ZoneStatus::Attack,
                format!("{what} got in during the last minute"),
            );
        }
        if blocked > 0 {
            let last = self
                .last_blocked
                .map(|reason| format!(". {}", reason.sentence()))
                .unwrap_or_default();
            let what = counted(blocked, "message");
            return (
                ZoneStatus::Attack,
                format!("{what} blocked during the last minute{last}"),
            );
        }
        let Some(last_reading_ms) = self.last_reading_ms else {
            return (ZoneStatus::Waiting, "Waiting for the first reading".to_owned());
        };
        let quiet_ms = now_ms - last_reading_ms;
        if quiet_ms > SILENT_AFTER_MS {
            return (ZoneStatus::Silent, format!("No reading for {}", span(quiet_ms)));
        }
        if flagged > 0 {
            let what = counted(flagged, "unusual reading");
            return (ZoneStatus::Attention, format!("{what} during the last minute"));
        }
        if let Some((at_ms, reason)) = self.last_notice
            && now_ms - at_ms <= MINUTE as i64 * 1_000
        {
            return (ZoneStatus::Attention, reason.sentence().to_owned());
        }
        let who = if active == devices {
            if devices == 1 {
                "The device reports".to_owned()
            } else {
                format!("All {devices} devices report")
            }
        } else {
            format!("{active} of {devices} devices report")
        };
        (ZoneStatus::Normal, format!("{who}, and nothing is unusual"))
    }
}

impl Device {
    fn count(&mut self, event: &Event, at_ms: i64) {
        match event.outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Flagged => self.flagged += 1,
            Outcome::Blocked => self.blocked += 1,
            Outcome::Notice => {}
        }
        if matches!(event.outcome, Outcome::Accepted | Outcome::Flagged) {
            self.last_seen_ms = Some(at_ms);
            self.sequence = event.sequence;
            self.score = event.score;
            self.values = CHANNELS.map(|(name, ..)| value(&event.channels, name));
        }
    }
}

/// Sums over a zone's active devices.
///
/// Made anew for each view: a running sum would keep the error that one absurd value (1e308, from
/// anybody at level plain) leaves in it.
#[derive(Clone, Default)]
struct Mean {
    active: u32,
    sums: [f64; ZONE_CHANNELS],
    counts: [u32; ZONE_CHANNELS],
}

impl Mean {
    fn add(&mut self, values: &[Option<f64>; CHANNELS.len()]) {
        self.active += 1;
        for (channel, value) in values.iter().take(ZONE_CHANNELS).enumerate() {
            if let Some(value) = value {
                self.sums[channel] += value;
                self.counts[channel] += 1;
            }
        }
    }

    fn channels(&self) -> BTreeMap<&'static str, ChannelView> {
        let means = self.sums.iter().zip(self.counts);
        shown(means.map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))))
    }
}

/// Values in the order of [`CHANNELS`], by name. JSON has no infinity, so an overflowed mean is left out.
fn shown(values: impl Iterator<Item = Option<f64>>) -> BTreeMap<&'static str, ChannelView> {
    let named = CHANNELS.iter().zip(values);
    named
        .filter_map(|((name, _, unit), value)| Some((*name, ChannelView { value: value?, unit })))
        .filter(|(_, view)| view.value.is_finite())
        .collect()
}

fn counted(count: u32, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

fn span(ms: i64) -> String {
    match ms / 1_000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{DeviceOptions, ZoneOptions};
    use tidegate_envelope::id::{DeviceId, MessageDeviceId, ZoneId};
    use tidegate_envelope::time::Timestamp;

    const START_MS: i64 = 1_800_000_000_000;

    fn roster() -> Roster {
        let device = |number: u32| DeviceOptions {
            id: DeviceId::new(&format!("device-{number:03}")).unwrap(),
            message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}")).unwrap(),
        };
        Roster::new(vec![ZoneOptions {
            id: ZoneId::new("pool_spa").unwrap(),
            name: "Pool & Spa".into(),
            devices: vec![device(1), device(2)],
        }])
    }

    fn event(outcome: Outcome, device: &str, at_ms: i64, flow: f64) -> Event {
        let mut event = Event::new(Timestamp::from_micros(at_ms * 1_000), outcome, None);
        event.device = Some(DeviceId::new(device).unwrap());
        event.channels = Channels::new(vec![("flow_rate_gpm".into(), flow)]).unwrap();
        event
    }

    /// Feeds events, and expects a status and a sentence at the end.
    fn check(events: &[Event], now_ms: i64, status: ZoneStatus, sentence: &str) -> ZoneView {
        let roster = roster();
        let mut zones = Zones::new(&roster, START_MS / 1_000);
        for event in events {
            zones.count(&roster, event);
        }
        let view = zones.views(&roster, now_ms).remove(0);
        assert_eq!((view.status, view.sentence.as_str()), (status, sentence));
        view
    }

    #[test]
    fn status_follows_what_happened_and_recovers() {
        let reading = event(Outcome::Accepted, "device-001", START_MS, 10.0);
        let mut blocked = event(Outcome::Blocked, "device-001", START_MS, 0.0);
        blocked.reason = Some(Reason::BadMac);
        let flagged = event(Outcome::Flagged, "device-002", START_MS, 30.0);
        let mut gap = event(Outcome::Notice, "device-001", START_MS, 0.0);
        gap.reason = Some(Reason::Gap);
        let mut got_in = reading.clone();
        got_in.reason = Some(Reason::Replay);

        check(
            &[],
            START_MS,
            ZoneStatus::Waiting,
            "Waiting for the first reading",
        );
        let one = std::slice::from_ref(&reading);
        check(
            one,
            START_MS,
            ZoneStatus::Normal,
            "1 of 2 devices report, and nothing is unusual",
        );
        check(one, START_MS + 31_000, ZoneStatus::Silent, "No reading for 31 s");
        let attention = "1 unusual reading during the last minute";
        check(
            &[reading.clone(), flagged],
            START_MS,
            ZoneStatus::Attention,
            attention,
        );
        check(
            &[reading.clone(), gap],
            START_MS,
            ZoneStatus::Attention,
            "Messages before this one never arrived",
        );
        let attack = "1 message blocked during the last minute. The signature does not match the message";
        check(
            &[reading.clone(), blocked.clone()],
            START_MS + 59_000,
            ZoneStatus::Attack,
            attack,
        );
        let later = event(Outcome::Accepted, "device-001", START_MS + 60_000, 10.0);
        let calm = "1 of 2 devices report, and nothing is unusual";
        check(
            &[reading, blocked, later],
            START_MS + 60_000,
            ZoneStatus::Normal,
            calm,
        );
        check(
            &[got_in],
            START_MS,
            ZoneStatus::Attack,
            "1 attack got in during the last minute",
        );
    }

    #[test]
    fn mean_takes_the_latest_reading_of_active_devices_alone() {
        let absurd = event(Outcome::Accepted, "device-001", START_MS, 1e308);
        let first = event(Outcome::Accepted, "device-001", START_MS, 10.0);
        let second = event(Outcome::Accepted, "device-002", START_MS, 20.0);
        let all = "All 2 devices report, and nothing is unusual";
        let view = check(
            &[absurd, first, second.clone()],
            START_MS,
            ZoneStatus::Normal,
            all,
        );
        assert_eq!(
            view.channels["flow_rate"],
            ChannelView {
                value: 15.0,
                unit: "L/min"
            }
        );
        assert_eq!((view.accepted, view.active), (3, 2));

        let alone = event(Outcome::Accepted, "device-001", START_MS + 31_000, 12.0);
        let one = "1 of 2 devices report, and nothing is unusual";
        let view = check(&[second, alone], START_MS + 31_000, ZoneStatus::Normal, one);
        assert_eq!(view.channels["flow_rate"].value, 12.0);
    }

    #[test]
    fn event_of_an_unregistered_device_touches_no_zone() {
        let stranger = event(Outcome::Blocked, "device-999", START_MS, 0.0);
        check(
            &[stranger],
            START_MS,
            ZoneStatus::Waiting,
            "Waiting for the first reading",
        );
    }
}
