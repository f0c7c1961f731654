//! What one seed decides before the simulation starts: who is there, and what goes wrong when.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// Things go wrong until then.
pub(super) const FAULTS_UNTIL: Duration = Duration::from_secs(40);
/// From then on every message must be accepted: the longest wait before reconnecting is 30 s, and
/// a dead connection is noticed within two keep-alives of 5 s.
pub(super) const ALL_ACCEPTED_FROM: Duration = Duration::from_secs(85);
/// Devices measure nothing more, send what they have, and leave.
pub(super) const LAST_READING: Duration = Duration::from_secs(95);
/// The end.
pub(super) const END: Duration = Duration::from_secs(110);

/// How often the simulation stops to deliver messages and let hosts run.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// How a gateway can be broken on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sabotage {
    /// Answers before the disk has the message.
    AcknowledgeEarly,
    /// Writes readings without marks.
    ForgetMarks,
    /// Takes messages of any age.
    IgnoreAge,
    /// Drops every hundredth message and calls it accepted.
    DropSome,
    /// Keeps every hundredth reading with another time.
    ChangeSome,
}

/// Where the replay guard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Behind the embedded broker, in its process.
    Embedded,
    /// On a host of its own, as a subscriber.
    Subscriber,
}

/// Who attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attacker {
    /// Nobody.
    Nobody,
    /// A device with a certificate of its own, where the broker asks for them.
    Insider,
    /// Somebody with the certificate of device 0.
    Thief,
    /// Somebody at a broker that asks nobody for anything.
    Anybody,
}

/// One device.
#[derive(Debug, Clone)]
pub(super) struct DevicePlan {
    /// Between two readings.
    pub(super) interval: Duration,
    pub(super) format: FormatPlan,
    /// How far its clock is off until everything is healed, in microseconds.
    pub(super) offset_us: i64,
    /// How much faster its clock runs than it should, in millionths.
    pub(super) drift_ppm: i64,
}

/// A device's message format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatPlan {
    JsonV1,
    CoseV1,
    CoseDetached,
}

/// A host of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Device(usize),
    Broker,
    Gateway,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    Crash(Host),
    Start(Host),
    /// Messages between two hosts are lost.
    Cut(Host, Host),
    /// Messages from the first host to the second are lost.
    CutOneWay(Host, Host),
    /// Messages are kept back.
    Hold(Host, Host),
    /// What was kept back is delivered.
    Release(Host, Host),
    /// Messages go through again.
    Mend(Host, Host),
    /// Each message is lost with this probability, which breaks its connection.
    Lose(Host, Host, f64),
    /// The gateway's disk takes nothing more, or takes it again.
    DiskFull(bool),
    /// The gateway's clock is off by so many microseconds.
    GatewayClock(i64),
}

/// Everything that a seed decides.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    /// The broker asks for certificates.
    pub(super) certificates: bool,
    pub(super) attacker: Attacker,
    /// The replay guard's window is 64.
    pub(super) window: bool,
    pub(super) devices: Vec<DevicePlan>,
    /// Longest time that the disk takes to have written a group.
    pub(super) slowest_sync: Duration,
    /// Longest way of a message through the network.
    pub(super) slowest_message: Duration,
    pub(super) faults: Vec<(Duration, Fault)>,
    pub(super) sabotage: Option<Sabotage>,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn of(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mode = if random.random_bool(0.5) {
            Mode::Embedded
        } else {
            Mode::Subscriber
        };
        let certificates = random.random_bool(0.6);
        let attacker = match random.random_range(0..5) {
            0 | 1 => Attacker::Nobody,
            2 if certificates => Attacker::Insider,
            _ if certificates => Attacker::Thief,
            _ => Attacker::Anybody,
        };
        let wrong_clocks = random.random_bool(0.5);
        let count = random.random_range(2..=4);
        let devices = (0..count).map(|_| device(&mut random, wrong_clocks)).collect();
        let mut plan = Self {
            seed,
            mode,
            certificates,
            attacker,
            window: random.random_bool(0.3),
            devices,
            slowest_sync: Duration::from_millis(random.random_range(2..=60)),
            slowest_message: Duration::from_millis(random.random_range(5..=400)),
            faults: Vec::new(),
            sabotage,
        };
        plan.faults = plan.draw_faults(&mut random, wrong_clocks);
        plan
    }

    /// Where devices connect to.
    pub(super) fn front(&self) -> Host {
        match self.mode {
            Mode::Embedded => Host::Gateway,
            Mode::Subscriber => Host::Broker,
        }
    }

    /// Whether every clock shows the true time throughout.
    pub(super) fn clocks_are_right(&self) -> bool {
        let device = |device: &DevicePlan| device.offset_us == 0 && device.drift_ppm == 0;
        let gateway = |(_, fault): &(Duration, Fault)| matches!(fault, Fault::GatewayClock(_));
        self.devices.iter().all(device) && !self.faults.iter().any(gateway)
    }

    /// Whether the host is ever down.
    pub(super) fn crashes(&self, host: Host) -> bool {
        self.faults.iter().any(|(_, fault)| *fault == Fault::Crash(host))
    }

    /// Hosts that talk to each other.
    pub(super) fn links(&self) -> Vec<(Host, Host)> {
        let devices = (0..self.devices.len()).map(|index| (Host::Device(index), self.front()));
        let behind = (self.mode == Mode::Subscriber).then_some((Host::Broker, Host::Gateway));
        devices.chain(behind).collect()
    }

    /// All hosts but the attacker's.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let broker = (self.mode == Mode::Subscriber).then_some(Host::Broker);
        let devices = (0..self.devices.len()).map(Host::Device);
        [Host::Gateway].into_iter().chain(broker).chain(devices).collect()
    }

    /// A few faults, each of which is over before the next one at the same place begins.
    fn draw_faults(&self, random: &mut StdRng, wrong_clocks: bool) -> Vec<(Duration, Fault)> {
        let mut faults = Vec::new();
        let mut busy: BTreeMap<(Host, Host), Duration> = BTreeMap::new();
        let mut disk_busy = Duration::ZERO;
        let (hosts, links) = (self.hosts(), self.links());
        for _ in 0..random.random_range(4..=14) {
            let at = Duration::from_millis(random.random_range(1_000..38_000));
            let long = Duration::from_millis(random.random_range(50..12_000));
            let until = (at + long).min(FAULTS_UNTIL);
            let mut claim = |place: (Host, Host)| {
                // Only forward in time, so that no two faults of a place overlap.
                let free = busy.get(&place).is_none_or(|end| *end < at);
                if free {
                    busy.insert(place, until);
                }
                free
            };
            let link = links[random.random_range(0..links.len())];
            match random.random_range(0..12) {
                0..=4 => {
                    // The gateway is what this is about.
                    let host = if random.random_bool(0.5) {
                        Host::Gateway
                    } else {
                        hosts[random.random_range(0..hosts.len())]
                    };
                    // Half of all restarts come at once.
                    let down = if random.random_bool(0.5) { at + TICK } else { until };
                    if claim((host, host)) {
                        faults.extend([(at, Fault::Crash(host)), (down, Fault::Start(host))]);
                    }
                }
                kind @ 5..=8 if claim(link) => {
                    let (a, b) = if random.random_bool(0.5) {
                        link
                    } else {
                        (link.1, link.0)
                    };
                    let (wrong, right) = match kind {
                        5 => (Fault::Cut(a, b), Fault::Mend(a, b)),
                        6 => (Fault::CutOneWay(a, b), Fault::Mend(a, b)),
                        7 => (Fault::Hold(a, b), Fault::Release(a, b)),
                        _ => (
                            Fault::Lose(a, b, random.random_range(0.01..0.3)),
                            Fault::Lose(a, b, 0.0),
                        ),
                    };
                    faults.extend([(at, wrong), (until, right)]);
                }
                9 if disk_busy < at => {
                    disk_busy = until;
                    faults.extend([(at, Fault::DiskFull(true)), (until, Fault::DiskFull(false))]);
                }
                10 | 11 if wrong_clocks => {
                    let offset_us = random.random_range(-60_000_000..=40_000_000);
                    faults.push((at, Fault::GatewayClock(offset_us)));
                }
                _ => {}
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }
}

fn device(random: &mut StdRng, wrong_clocks: bool) -> DevicePlan {
    let wrong = wrong_clocks && random.random_bool(0.7);
    DevicePlan {
        interval: Duration::from_millis(random.random_range(100..=1_000)),
        format: match random.random_range(0..3) {
            0 => FormatPlan::JsonV1,
            1 => FormatPlan::CoseV1,
            _ => FormatPlan::CoseDetached,
        },
        offset_us: if wrong {
            random.random_range(-40_000_000..=40_000_000)
        } else {
            0
        },
        drift_ppm: if wrong {
            random.random_range(-20_000..=20_000)
        } else {
            0
        },
    }
}
