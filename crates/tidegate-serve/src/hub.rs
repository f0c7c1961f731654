//! The hub: takes every event in without waiting, and gives readers what they need.
//!
//! Publishing counts under one short lock and never waits for a reader. For the page, one frame
//! per `TICK` is built and serialised once for all readers. Compatible events leave at once,
//! serialised once each, and only when somebody listens.

use crate::compatible;
use crate::identity::{self, Identity};
use crate::metrics::{EventCounts, Snapshot};
use crate::protocol::{
    Alarm, CertificateRow, DevicePage, EventView, Frame, Hello, LayerCount, LayerView, RevocationView,
    ServerMessage, SessionRow, Summary, Totals, VERSION, ZoneView,
};
use crate::recent::{Pending, Recent};
use crate::roster::Roster;
use crate::series::{Count, Series};
use crate::view::{LAYERS, RAW_IN_STREAM, event_view, got_in, layer_index};
use crate::zones::Zones;
use axum::extract::ws::Utf8Bytes;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_envelope::reason::Layer;
use tidegate_envelope::time::Timestamp;
use tidegate_store::event::{Event, Outcome};
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use crate::roster::{DeviceOptions, ZoneOptions};

/// Time from frame to frame.
const TICK: Duration = Duration::from_millis(100);
/// Zones are looked at every so many frames, and at once when something needs attention.
const TICKS_PER_ZONES: u32 = 5;
/// Certificates, sessions and revocation lists are sent every so many frames, when they changed.
const TICKS_PER_IDENTITY: u32 = 10;
/// Compatible statistics are sent every so many frames, when they changed.
const TICKS_PER_STATS: u32 = 10;
/// Frames that a slow reader may be behind before it gets the newest state instead.
const FRAME_BACKLOG: usize = 8;
/// The rate is the mean over so many whole seconds.
const RATE_SECONDS: usize = 3;

/// What the hub shows besides events.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The name of the place.
    pub site: String,
    /// How much protection is on: plain, tls, mtls, signed, dashboard or ai.
    pub level: String,
    /// Whether the devices are simulated.
    pub demo: bool,
    /// The layers that are on; the others are shown as off.
    pub layers: Vec<Layer>,
    /// The registered zones and devices.
    pub zones: Vec<ZoneOptions>,
    /// Counts since the database began.
    pub totals: Totals,
    /// The newest events of the database, without holes, oldest first; empty only where it has none.
    pub recent: Vec<Event>,
    /// Lasting warnings for everybody who looks.
    pub notes: Vec<String>,
    /// Reads the clock.
    pub clock: fn() -> Timestamp,
}

/// A cheap handle to the one hub of a server.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    site: String,
    level: String,
    demo: bool,
    on: [bool; LAYERS.len()],
    notes: Vec<String>,
    clock: fn() -> Timestamp,
    started: Timestamp,
    roster: Roster,
    /// Whether the database can be written, as far as is known.
    storage_available: AtomicBool,
    state: Mutex<State>,
    frames: broadcast::Sender<SharedFrame>,
    compatible: broadcast::Sender<Utf8Bytes>,
}

/// A frame, serialised once for all readers.
#[derive(Clone)]
pub(crate) struct SharedFrame {
    pub(crate) number: u64,
    pub(crate) last_id: i64,
    pub(crate) text: Utf8Bytes,
}

struct State {
    totals: Totals,
    counts: EventCounts,
    series: Series,
    stopped: [u64; LAYERS.len()],
    stopped_changed: [bool; LAYERS.len()],
    zones: Zones,
    identity: Identity,
    pending: Pending,
    recent: Recent,
    behind_ms: i64,
    /// The last frame: everything in it is in `recent`, nothing after it is.
    frame_number: u64,
    last_id: i64,
    /// Zones as the last frame left them; empty when they must be sent whole.
    sent_zones: Vec<ZoneView>,
    tick: u32,
    sent_stats: Totals,
}

/// A page reader's start: the whole state, and the frames that follow it.
pub(crate) struct Joined {
    pub(crate) hello: Hello,
    /// Whether `hello.events` holds every event after the one that the reader named.
    pub(crate) whole: bool,
    /// Frames up to this one are contained in `hello`.
    pub(crate) frame_number: u64,
    pub(crate) frames: broadcast::Receiver<SharedFrame>,
}

impl Hub {
    /// A hub that has seen nothing but what `options` say.
    #[must_use]
    pub fn new(options: HubOptions) -> Self {
        let started = (options.clock)();
        let now_s = started.as_millis().div_euclid(1_000);
        let roster = Roster::new(options.zones);
        let last_id = options.recent.iter().map(|event| event.id).max().unwrap_or(0);
        let first_id = options.recent.iter().map(|event| event.id).min().unwrap_or(1);
        let mut recent = Recent::after(first_id - 1);
        for event in &options.recent {
            recent.push(event, Arc::new(event_view(event, RAW_IN_STREAM)));
        }
        let state = State {
            totals: options.totals,
            counts: EventCounts::new(),
            series: Series::new(now_s),
            stopped: [0; LAYERS.len()],
            stopped_changed: [false; LAYERS.len()],
            zones: Zones::new(&roster, now_s),
            identity: Identity::default(),
            pending: Pending::after((last_id > 0).then_some(last_id)),
            recent,
            behind_ms: 0,
            frame_number: 0,
            last_id,
            sent_zones: Vec::new(),
            tick: 0,
            sent_stats: options.totals,
        };
        let shared = Shared {
            site: options.site,
            level: options.level,
            demo: options.demo,
            on: LAYERS.each_ref().map(|text| options.layers.contains(&text.layer)),
            notes: options.notes,
            clock: options.clock,
            started,
            roster,
            storage_available: AtomicBool::new(true),
            state: Mutex::new(state),
            frames: broadcast::Sender::new(FRAME_BACKLOG),
            compatible: broadcast::Sender::new(compatible::BACKLOG),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Shows an event to everybody who looks. Never waits for a reader.
    ///
    /// Events other than accepted readings need their id by now. An accepted event with a reason
    /// is an attack that got in because the layer of that reason is off, and is counted so.
    pub fn publish(&self, event: Arc<Event>) {
        let now = self.now();
        self.lock().count(&self.shared.roster, &event, now);
        // After counting, so that a client that connects in between has it in its statistics.
        if self.shared.compatible.receiver_count() > 0
            && let Some(text) = compatible::event::event(&self.shared.roster, &event)
        {
            // Fails only when the last client has just gone.
            drop(self.shared.compatible.send(text));
        }
    }

    /// Shows these certificates from now on, in place of those before. Pass all that are not long
    /// over, in any order: the hub counts them and keeps the 1,000 that matter most. Call it again
    /// whenever one is issued, revoked, or changes its state by the clock.
    ///
    /// Ids become labels in `/metrics`: only registered ones, and the gateway's own, belong here.
    pub fn set_certificates(&self, rows: Vec<CertificateRow>) {
        let view = identity::certificates_view(rows);
        self.lock().identity.set_certificates(view);
    }

    /// Shows these sessions from now on. Pass all of them, in any order: the hub counts them and
    /// keeps 500. Cheap when nothing changed; a call per second is what it is made for.
    pub fn set_sessions(&self, rows: Vec<SessionRow>) {
        let sessions = identity::sessions_view(rows);
        self.lock().identity.set_sessions(sessions);
    }

    /// Shows these revocation lists from now on.
    pub fn set_revocation(&self, view: RevocationView) {
        let view = identity::revocation_view(view);
        self.lock().identity.set_revocation(view);
    }

    /// Shows these alarms from now on, on every page, the most urgent 20 of them; an empty list
    /// ends all that were there.
    pub fn set_alarms(&self, alarms: Vec<Alarm>) {
        let alarms = identity::alarms_view(alarms);
        self.lock().identity.set_alarms(alarms);
    }

    /// Takes down whether the database can be written: `/readyz` says no while it cannot.
    pub fn storage_available(&self, available: bool) {
        self.shared.storage_available.store(available, Ordering::Relaxed);
    }

    /// What was taken down last; at first it is available.
    pub(crate) fn is_storage_available(&self) -> bool {
        self.shared.storage_available.load(Ordering::Relaxed)
    }

    /// The time by the hub's clock.
    pub(crate) fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// Sends frames and statistics until `cancelled`. The server runs this.
    pub(crate) async fn run(&self, cancelled: CancellationToken) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while cancelled.run_until_cancelled(interval.tick()).await.is_some() {
            self.tick();
        }
    }

    /// Builds one frame, and sends it where anybody listens.
    fn tick(&self) {
        let now = self.now();
        let mut frame = {
            let mut state = self.lock();
            let listened = self.is_listened();
            state.drain(&self.shared.roster, now, listened)
        };
        // Outside the lock: hundreds of views take longer than anybody who publishes should wait.
        let views: Vec<_> = frame
            .events
            .iter()
            .map(|event| (Arc::clone(event), Arc::new(event_view(event, RAW_IN_STREAM))))
            .collect();
        let (number, listened) = {
            let mut state = self.lock();
            if frame.message.dropped > 0 {
                state.recent.leave_out_up_to(frame.last_id);
            }
            for (event, view) in &views {
                state.recent.push(event, Arc::clone(view));
            }
            state.last_id = frame.last_id;
            state.frame_number += 1;
            (state.frame_number, self.is_listened())
        };
        if listened {
            frame.message.events = views.iter().map(|(_, view)| EventView::clone(view)).collect();
            let text = serialised(&ServerMessage::Frame(frame.message));
            drop(self.shared.frames.send(SharedFrame {
                number,
                last_id: frame.last_id,
                text,
            }));
        }
        if let Some(totals) = frame.stats
            && self.shared.compatible.receiver_count() > 0
        {
            drop(self.shared.compatible.send(compatible::event::stats(&totals)));
        }
    }

    /// The whole state, and what follows it without gap or repetition.
    pub(crate) fn join(&self, after: Option<i64>) -> Joined {
        let now = self.now();
        let roster = &self.shared.roster;
        let mut state = self.lock();
        let frames = self.shared.frames.subscribe();
        let events = state.recent.all();
        let resume_from = state.last_id;
        let frame_number = state.frame_number;
        // An id from the future is from another database: start anew.
        let after = after.filter(|after| *after <= resume_from);
        let whole = after.is_none_or(|after| state.recent.reaches(after));
        let zones = state.zones.views(roster, now.as_millis());
        // The next frame would otherwise leave out zones that are as an earlier frame left them.
        state.sent_zones.clear();
        let totals = state.totals;
        let seconds = state.series.all().collect();
        let layers = self.layers(&state);
        let identity = state.identity.view();
        drop(state);

        let mut events: Vec<EventView> = events
            .iter()
            .filter(|event| after.is_none_or(|after| event.id > after))
            .map(|event| EventView::clone(event))
            .collect();
        events.sort_by_key(|event| (event.t_ms, event.id));
        let hello = Hello {
            version: VERSION,
            level: self.shared.level.clone(),
            demo: self.shared.demo,
            site: self.shared.site.clone(),
            server_time_ms: now.as_millis(),
            started_ms: self.shared.started.as_millis(),
            layers,
            zones,
            totals,
            seconds,
            events,
            missed: 0,
            resume_from,
            device_count: roster.device_count(),
            unprotected: self.unprotected(),
            notes: self.shared.notes.clone(),
            identity,
        };
        Joined {
            hello,
            whole,
            frame_number,
            frames,
        }
    }

    /// The statistics so far, and the compatible events that follow.
    pub(crate) fn join_compatible(&self) -> (Utf8Bytes, broadcast::Receiver<Utf8Bytes>) {
        let state = self.lock();
        let events = self.shared.compatible.subscribe();
        let totals = state.totals;
        drop(state);
        (compatible::event::stats(&totals), events)
    }

    /// The state without its history.
    pub(crate) fn summary(&self) -> Summary {
        let now = self.now();
        let mut state = self.lock();
        let zones = state.zones.views(&self.shared.roster, now.as_millis());
        state.sent_zones.clear();
        Summary {
            version: VERSION,
            site: self.shared.site.clone(),
            level: self.shared.level.clone(),
            demo: self.shared.demo,
            server_time_ms: now.as_millis(),
            started_ms: self.shared.started.as_millis(),
            totals: state.totals,
            layers: self.layers(&state),
            zones,
            device_count: self.shared.roster.device_count(),
            notes: self.shared.notes.clone(),
        }
    }

    /// What `/metrics` tells.
    pub(crate) fn metrics(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            started_ms: self.shared.started.as_millis(),
            devices: self.shared.roster.device_count(),
            storage_available: self.is_storage_available(),
            events: state.counts.clone(),
            identity: state.identity.view(),
            sessions: state.identity.sessions_by_role(),
        }
    }

    /// Some devices, in the registry's order.
    pub(crate) fn devices(&self, offset: u32, limit: u32) -> DevicePage {
        let total = self.shared.roster.device_count();
        let devices = self
            .lock()
            .zones
            .devices(&self.shared.roster, offset as usize, limit as usize);
        let end = offset.saturating_add(limit);
        DevicePage {
            devices,
            total,
            next_offset: (end < total).then_some(end),
        }
    }

    /// Whether a page reader is there. Readers join under the state's lock: asked under it, the
    /// answer holds for what is taken out of the state with it.
    fn is_listened(&self) -> bool {
        self.shared.frames.receiver_count() > 0
    }

    fn unprotected(&self) -> bool {
        !self.shared.on[layer_index(Layer::Signature)]
    }

    fn layers(&self, state: &State) -> Vec<LayerView> {
        let layers = LAYERS.iter().zip(self.shared.on).zip(state.stopped);
        layers
            .map(|((text, on), stopped)| LayerView {
                id: text.id,
                name: text.name,
                explains: text.explains,
                on,
                stopped,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters stay sound whatever a panicking holder left half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`State::drain`] took for one frame.
struct Drained {
    message: Frame,
    events: Vec<Arc<Event>>,
    last_id: i64,
    stats: Option<Totals>,
}

impl State {
    fn count(&mut self, roster: &Roster, event: &Arc<Event>, now: Timestamp) {
        let at_s = event.at.as_millis().div_euclid(1_000);
        self.series.advance_to_at_least(at_s);
        let (total, count) = match event.outcome {
            Outcome::Accepted => (Some(&mut self.totals.accepted), Some(Count::Accepted)),
            Outcome::Flagged => (Some(&mut self.totals.flagged), Some(Count::Flagged)),
            Outcome::Blocked => (Some(&mut self.totals.blocked), Some(Count::Blocked)),
            Outcome::Notice => (None, None),
        };
        if let (Some(total), Some(count)) = (total, count) {
            *total += 1;
            self.series.add(at_s, count);
        }
        if got_in(event) {
            self.totals.got_in += 1;
            self.series.add(at_s, Count::GotIn);
        }
        if let (Outcome::Flagged | Outcome::Blocked, Some(reason)) = (event.outcome, event.reason) {
            let layer = layer_index(reason.layer());
            self.stopped[layer] += 1;
            self.stopped_changed[layer] = true;
        }
        self.counts.count(event);
        self.behind_ms = self.behind_ms.max(now.as_millis() - event.at.as_millis());
        self.zones.count(roster, event);
        self.pending.push(Arc::clone(event));
    }

    fn drain(&mut self, roster: &Roster, now: Timestamp, listened: bool) -> Drained {
        self.tick = self.tick.wrapping_add(1);
        self.series.advance(now.as_millis().div_euclid(1_000));
        let zones = if listened && (self.zones.urgent || self.tick.is_multiple_of(TICKS_PER_ZONES)) {
            self.changed_zones(roster, now)
        } else {
            Vec::new()
        };
        let identity_due = self.identity.is_urgent() || self.tick.is_multiple_of(TICKS_PER_IDENTITY);
        let identity = (listened && identity_due)
            .then(|| self.identity.take_changed())
            .flatten();
        let batch = self.pending.take();
        let changed = std::mem::take(&mut self.stopped_changed);
        let layers = LAYERS.iter().zip(self.stopped).zip(changed);
        let message = Frame {
            t_ms: now.as_millis(),
            rate: self.rate(),
            behind_ms: u32::try_from(std::mem::take(&mut self.behind_ms)).unwrap_or(0),
            totals: self.totals,
            seconds: self.series.take_changed(),
            zones,
            layers: layers
                .filter(|(_, changed)| *changed)
                .map(|((text, stopped), _)| LayerCount { id: text.id, stopped })
                .collect(),
            events: Vec::new(),
            dropped: batch.dropped,
            identity,
        };
        let stats_due = self.tick.is_multiple_of(TICKS_PER_STATS) && self.sent_stats != self.totals;
        let stats = stats_due.then(|| {
            self.sent_stats = self.totals;
            self.totals
        });
        Drained {
            message,
            events: batch.events,
            last_id: batch.last_id,
            stats,
        }
    }

    fn changed_zones(&mut self, roster: &Roster, now: Timestamp) -> Vec<ZoneView> {
        let views = self.zones.views(roster, now.as_millis());
        let changed = views
            .iter()
            .enumerate()
            .filter(|(at, view)| self.sent_zones.get(*at) != Some(view));
        let changed = changed.map(|(_, view)| view.clone()).collect();
        self.sent_zones = views;
        changed
    }

    fn rate(&self) -> f64 {
        let whole = self.series.last(RATE_SECONDS + 1).take(RATE_SECONDS);
        let accepted: u64 = whole
            .map(|second| u64::from(second.accepted) + u64::from(second.flagged))
            .sum();
        accepted as f64 / RATE_SECONDS as f64
    }
}

impl Hello {
    /// Puts events in front that the hub no longer had, and says how many may still be missing
    /// when there were more than these.
    pub(crate) fn prepend(&mut self, mut older: Vec<EventView>, after: i64, more: bool) {
        let have: HashSet<i64> = self.events.iter().map(|event| event.id).collect();
        older.retain(|event| !have.contains(&event.id));
        older.append(&mut self.events);
        older.sort_by_key(|event| (event.t_ms, event.id));
        self.events = older;
        if more {
            let here = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
            self.missed = u64::try_from(self.resume_from - after - here).unwrap_or(0);
        }
    }
}

pub(crate) fn serialised(message: &ServerMessage) -> Utf8Bytes {
    serde_json::to_string(message)
        .expect("views hold text and finite numbers alone")
        .into()
}
