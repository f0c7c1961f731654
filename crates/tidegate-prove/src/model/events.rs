//! What can happen in the model, and how often.

/// One step of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A device measures, signs its next message and gives it to the broker.
    Say(usize),
    /// The same, passing over some numbers.
    Skip(usize),
    /// A copy of the device with the same key says something else under the newest number.
    Clone(usize),
    /// A device starts again.
    Start(usize),
    /// A device signs with its newer key from now on.
    Rotate(usize),
    /// A message reaches the gateway.
    Deliver(usize, Way),
    /// What is admitted is made durable.
    Commit,
    /// The disk refuses to.
    FailCommit,
    /// The broker learns of everything that waits to be acknowledged.
    Acknowledge,
    /// The gateway process is killed and started again.
    Crash,
    /// True time passes.
    Wait {
        /// How much, in seconds.
        s: u32,
    },
    /// The gateway's clock is set wrong, or right.
    SetClock {
        /// How far it is ahead of true time, in seconds.
        ahead_s: i32,
    },
}

/// How a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the broker, which has not heard of it being done.
    Broker,
    /// The same after the broker's session was resumed.
    Resumed,
    /// From somebody who has listened, and sends it by himself.
    Attacker,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Broker, Self::Resumed, Self::Attacker];
}

/// How often each kind of event may happen; all of it together is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    /// Messages of each device.
    pub(super) says: [u8; 2],
    pub(super) skips: u8,
    pub(super) clones: u8,
    pub(super) starts: u8,
    pub(super) rotations: u8,
    pub(super) failures: u8,
    pub(super) crashes: u8,
    pub(super) waits: u8,
    pub(super) clock_changes: u8,
}

/// What devices and gateway are set to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    /// Whether publishers send a start counter.
    pub(super) counts_starts: bool,
    /// Whether messages may come out of order, by up to 63 numbers.
    pub(super) window: bool,
    /// What takes seconds to walk through.
    small: Bounds,
    /// What takes minutes.
    full: Bounds,
}

const NONE: Bounds = Bounds {
    says: [0, 0],
    skips: 0,
    clones: 0,
    starts: 0,
    rotations: 0,
    failures: 0,
    crashes: 0,
    waits: 0,
    clock_changes: 0,
};

/// Each brings together what can disturb each other; all of it at once would have no end.
pub(super) const SETTINGS: [Setting; 8] = [
    Setting {
        name: "two devices, a failing disk and crashes",
        counts_starts: true,
        window: false,
        small: Bounds {
            says: [1, 1],
            failures: 1,
            crashes: 1,
            ..NONE
        },
        full: Bounds {
            says: [2, 1],
            failures: 1,
            crashes: 1,
            waits: 1,
            ..NONE
        },
    },
    Setting {
        name: "one device, crashes and waiting",
        counts_starts: true,
        window: false,
        small: Bounds {
            says: [2, 0],
            crashes: 1,
            waits: 1,
            ..NONE
        },
        full: Bounds {
            says: [2, 0],
            failures: 1,
            crashes: 2,
            waits: 2,
            ..NONE
        },
    },
    Setting {
        name: "clocks that are set, and gaps",
        counts_starts: true,
        window: false,
        small: Bounds {
            says: [2, 0],
            skips: 1,
            clock_changes: 1,
            ..NONE
        },
        full: Bounds {
            says: [2, 0],
            skips: 1,
            failures: 1,
            crashes: 1,
            waits: 1,
            clock_changes: 2,
            ..NONE
        },
    },
    Setting {
        name: "a clone with the same key",
        counts_starts: true,
        window: false,
        small: Bounds {
            says: [2, 0],
            clones: 1,
            ..NONE
        },
        full: Bounds {
            says: [2, 0],
            skips: 1,
            clones: 1,
            crashes: 1,
            waits: 1,
            clock_changes: 1,
            ..NONE
        },
    },
    Setting {
        name: "starts and a newer key",
        counts_starts: true,
        window: false,
        small: Bounds {
            says: [2, 0],
            rotations: 1,
            waits: 1,
            ..NONE
        },
        full: Bounds {
            says: [3, 0],
            starts: 1,
            rotations: 1,
            waits: 1,
            ..NONE
        },
    },
    Setting {
        name: "starts without a counter",
        counts_starts: false,
        window: false,
        small: Bounds {
            says: [2, 0],
            starts: 1,
            waits: 1,
            ..NONE
        },
        full: Bounds {
            says: [3, 0],
            starts: 1,
            failures: 1,
            crashes: 1,
            waits: 1,
            ..NONE
        },
    },
    Setting {
        name: "messages out of order, no window",
        counts_starts: true,
        window: false,
        small: Bounds { says: [3, 0], ..NONE },
        full: Bounds {
            says: [3, 0],
            failures: 1,
            crashes: 1,
            rotations: 1,
            ..NONE
        },
    },
    Setting {
        name: "messages out of order, a window of 64",
        counts_starts: true,
        window: true,
        small: Bounds {
            says: [2, 0],
            crashes: 1,
            waits: 1,
            ..NONE
        },
        full: Bounds {
            says: [3, 0],
            crashes: 1,
            waits: 1,
            ..NONE
        },
    },
];

impl Setting {
    pub(super) fn bounds(&self, small: bool) -> Bounds {
        if small { self.small } else { self.full }
    }

    /// The bounds in words.
    pub(super) fn described(&self, small: bool) -> String {
        let bounds = self.bounds(small);
        let kinds = [
            (bounds.says[0] + bounds.says[1], "messages"),
            (bounds.skips, "gaps"),
            (bounds.clones, "messages of a clone"),
            (bounds.starts, "publisher starts"),
            (bounds.rotations, "newer keys"),
            (bounds.failures, "failed commits"),
            (bounds.crashes, "crashes"),
            (bounds.waits, "waits"),
            (bounds.clock_changes, "clock changes"),
        ];
        let counted: Vec<_> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!("{}: {}", self.name, counted.join(", "))
    }
}
