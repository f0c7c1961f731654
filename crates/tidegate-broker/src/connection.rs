//! One client's connection: a single task that reads, asks the gate, delivers and writes.
//!
//! Nothing here waits for one thing alone: [`Connection::poll_serve`] does whatever is possible,
//! and sleeps when nothing is. So acknowledgements of many publishes leave in one write, and a
//! client that does not read keeps nobody but itself waiting.

use std::num::NonZeroU16;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rmqtt_codec::v5::DisconnectReasonCode;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::either::Either;

use crate::acl::Rights;
use crate::end::End;
use crate::limits::Place;
use crate::message::Delivery;
use crate::publish::Pending;
use crate::router::RouteMemory;
use crate::session::{Flow, LateWill, Leash, Order, Session};
use crate::shared::{Shared, Who};
use crate::wire::{Acknowledge, Packet, Will, Wire};

/// What carries a connection: a TCP socket, or anything else, TLS for example.
pub(crate) type Link = Either<TcpStream, Box<dyn Stream>>;

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// First size of a connection's read buffer; most devices never need more.
pub(crate) const FIRST_READ_BYTES: usize = 512;

/// Size that the read buffer of a busy connection grows to: what one TLS record holds.
const MAX_READ_BYTES: usize = 16_384;

/// Bytes to write beyond which nothing more is read or delivered until the client has read some.
const OUTPUT_HIGH_BYTES: usize = 65_536;

/// QoS 0 publishes that may wait for the gate beside the Receive Maximum.
const AT_MOST_ONCE_IN_FLIGHT: usize = 64;

/// Longest time between two looks at the clock, and at which idle buffers are given back.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Pause of a publisher that outruns a subscriber.
const PACE: Duration = Duration::from_millis(10);

/// Time for the last bytes to a client that is sent away.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// The same for one that is shut out: it must be gone within a second, whether it reads or not.
const SHUT_OUT_WITHIN: Duration = Duration::from_millis(250);

/// An open connection whose CONNECT was accepted.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Link,
    pub(crate) wire: Wire,
    /// Bytes that came and were not understood yet.
    pub(crate) input: BytesMut,
    /// Bytes that are to go.
    pub(crate) output: BytesMut,
    pub(crate) who: Who,
    pub(crate) principal: Arc<Principal>,
    pub(crate) stable_id: u64,
    /// Whether CONNACK said that the session was still there.
    pub(crate) resumed: bool,
    pub(crate) rights: Rights,
    pub(crate) session: Arc<Session>,
    pub(crate) flow: OwnedMutexGuard<Flow>,
    pub(crate) leash: Arc<Leash>,
    /// Publishes that the gate has, in the order in which they came.
    pub(crate) pending: FuturesOrdered<Pending>,
    /// How many of those are of QoS 1 or 2.
    pub(crate) unacknowledged: usize,
    pub(crate) routes: RouteMemory,
    /// Deliveries on their way from mailbox to output; empty between polls.
    pub(crate) batch: Vec<Delivery>,
    /// Unacknowledged deliveries that the client takes.
    pub(crate) outgoing_window: usize,
    /// One and a half times what the client promised (MQTT 5 §3.1.2.10).
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) session_expiry: Duration,
    /// When the client's certificate expires.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) will: Option<Will>,
    pub(crate) clock: Clock,
    pub(crate) _place: Place,
}

/// When the client was last heard, and last read.
pub(crate) struct Clock {
    heard: Instant,
    /// Last time that written bytes left, or that there was nothing to write.
    wrote: Instant,
    timer: Pin<Box<Sleep>>,
    /// Nothing is read before this fires, because a subscriber is being outrun.
    pause: Option<Pin<Box<Sleep>>>,
    read_bytes: usize,
    flushed: bool,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            heard: now,
            wrote: now,
            timer: Box::pin(sleep_until(now)),
            pause: None,
            read_bytes: FIRST_READ_BYTES,
            flushed: true,
        }
    }

    /// Lets a subscriber that is being outrun catch up. The pause does not depend on what the
    /// subscriber does, so none can hold a publisher longer than this at a time.
    pub(crate) fn pause(&mut self) {
        self.pause
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + PACE)));
    }
}

impl Connection {
    /// Serves the client until the connection ends, and then leaves everything in order.
    pub(crate) async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll_serve(cx)).await;
        // In a box, since its future is larger than the connection and lives only at its end.
        Box::pin(self.finish(end)).await;
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.progress(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Does all that can be done now.
    fn progress(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if let Some(order) = self.leash.poll(cx.waker()) {
                return Err(End::Ordered(order));
            }
            let mut moved = self.settle_ready(cx)?;
            moved |= self.receive(cx)?;
            moved |= self.deliver(cx)?;
            moved |= self.write(cx)?;
            if !moved {
                return self.watch_clock(cx);
            }
        }
    }

    /// Answers publishes that the gate has decided about.
    fn settle_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while let Poll::Ready(Some(settled)) = self.pending.poll_next_unpin(cx) {
            self.settle(settled)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Handles the packets that are here, and reads once if more bytes are needed.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let limit = self.shared.limits.max_packet_bytes();
        let mut moved = false;
        if let Some(pause) = &mut self.clock.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            self.clock.pause = None;
        }
        while !self.is_saturated() {
            match self.wire.read(&mut self.input, limit)? {
                Some(packet) => {
                    self.handle(packet)?;
                    moved = true;
                }
                None => return Ok(moved | self.read_more(cx)?),
            }
        }
        Ok(moved)
    }

    /// Whether reading must wait for the gate or for the client to read.
    fn is_saturated(&self) -> bool {
        let most = usize::from(self.shared.limits.max_incoming_in_flight) + AT_MOST_ONCE_IN_FLIGHT;
        self.pending.len() >= most || self.output.len() >= OUTPUT_HIGH_BYTES
    }

    fn read_more(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let clock = &mut self.clock;
        if self.input.capacity() - self.input.len() < clock.read_bytes / 2 {
            self.input.reserve(clock.read_bytes);
        }
        match pin!(self.link.read_buf(&mut self.input)).poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => Err(End::Lost),
            Poll::Ready(Ok(count)) => {
                clock.heard = Instant::now();
                if count >= clock.read_bytes / 2 {
                    clock.read_bytes = (clock.read_bytes * 2).min(MAX_READ_BYTES);
                }
                Ok(true)
            }
        }
    }

    fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.accept_publish(publish),
            Packet::Acknowledge {
                kind,
                packet_id,
                success,
            } => self.acknowledged(kind, packet_id, success),
            Packet::Subscribe {
                packet_id,
                id,
                filters,
            } => self.subscribe(packet_id, id, filters),
            Packet::Unsubscribe { packet_id, filters } => {
                self.unsubscribe(packet_id, &filters);
                Ok(())
            }
            Packet::Ping => {
                Wire::pong(&mut self.output);
                Ok(())
            }
            Packet::Disconnect {
                with_will,
                session_expiry_s,
            } => {
                if let Some(seconds) = session_expiry_s {
                    self.change_session_expiry(Duration::from_secs(u64::from(seconds)))?;
                }
                Err(End::Left { with_will })
            }
        }
    }

    /// MQTT 5 §3.14.2.2.2: a session that was to end with the connection cannot be kept after all.
    fn change_session_expiry(&mut self, wanted: Duration) -> Result<(), End> {
        if self.session_expiry.is_zero() && !wanted.is_zero() {
            return Err(End::protocol(
                DisconnectReasonCode::ProtocolError,
                "a session expiry in DISCONNECT after none in CONNECT",
            ));
        }
        self.session_expiry = wanted;
        Ok(())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.link).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Lost),
                Poll::Ready(Ok(count)) => {
                    self.output.advance(count);
                    self.clock.wrote = Instant::now();
                    self.clock.flushed = false;
                    moved = true;
                }
                Poll::Pending => break,
            }
        }
        if !self.clock.flushed {
            match Pin::new(&mut self.link).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.clock.flushed = true,
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Pending => {}
            }
        }
        Ok(moved)
    }

    /// Ends a connection that has been silent or has not read for too long. The timer is not
    /// moved with every packet; when it fires, it is set again for what is still to come.
    fn watch_clock(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.clock.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            let now = Instant::now();
            let mut next = now + LONGEST_SLEEP;
            if let Some(keep_alive) = self.keep_alive {
                let silent_at = self.clock.heard + keep_alive;
                // Bytes may be waiting while nothing is read: that silence is not the client's.
                if silent_at <= now && !self.is_saturated() {
                    return Err(End::Silent);
                }
                next = next.min(silent_at.max(now + Duration::from_millis(100)));
            }
            if let Some(expires_at) = self.expires_at {
                if expires_at <= now {
                    return Err(End::Expired);
                }
                next = next.min(expires_at);
            }
            if self.output.is_empty() && self.clock.flushed {
                self.clock.wrote = now;
                self.give_back_buffers(now);
            }
            let stalled_at = self.clock.wrote + self.shared.limits.write_stall;
            if stalled_at <= now {
                return Err(End::Stalled);
            }
            next = next.min(stalled_at);
            self.clock.timer.as_mut().reset(next);
        }
    }

    fn give_back_buffers(&mut self, now: Instant) {
        if self.input.is_empty() && now.duration_since(self.clock.heard) >= LONGEST_SLEEP / 3 {
            self.input = BytesMut::new();
            self.output = BytesMut::new();
            self.batch = Vec::new();
            self.clock.read_bytes = FIRST_READ_BYTES;
        }
    }

    async fn finish(mut self, end: End) {
        tracing::debug!(client = &*self.session.client_id, peer = %self.who.peer, ?end, "connection ends");
        self.explain(&end);
        if end.shuts_out() {
            // At once, and not after the gate has decided about what came before: that is the
            // broker's concern, and no longer this client's.
            self.link = farewell(self.link, &mut self.wire, &mut self.output, &end).await;
        }
        self.drain().await;
        let will = self.will.take().filter(|_| end.publishes_will());
        let mut will = will.map(|will| LateWill {
            will,
            leash: Arc::clone(&self.leash),
        });
        let wait = will.as_ref().map_or(0, |late| late.will.delay_s);
        let wait = Duration::from_secs(u64::from(wait)).min(self.session_expiry);
        let late = if wait.is_zero() {
            None
        } else {
            will.take().map(|will| (wait, will))
        };
        let expiry = end.session_expiry(self.session_expiry);
        self.shared
            .sessions
            .release(&self.session, self.flow, &self.leash, expiry, late);
        if !end.shuts_out() {
            farewell(self.link, &mut self.wire, &mut self.output, &end).await;
        }
        if let Some(will) = will {
            self.shared.publish_will(&self.session, will).await;
        }
    }

    fn explain(&self, end: &End) {
        match end {
            End::Broken { reason, detail, .. } => {
                self.shared.report(*reason, &self.who, None, detail.as_str());
            }
            End::Ordered(Order::Close { reason, .. }) => {
                self.shared
                    .report(*reason, &self.who, None, "a live session was closed");
            }
            End::Expired => {
                self.shared
                    .report(Reason::TlsExpired, &self.who, None, "a live session was closed");
            }
            End::Slow | End::Stalled => {
                tracing::info!(client = &*self.session.client_id, peer = %self.who.peer, ?end, "client too slow");
            }
            _ => {}
        }
    }

    /// Lets the gate finish what it has: those messages may be durable already, and then their
    /// subscribers are to have them.
    async fn drain(&mut self) {
        let deadline = Instant::now() + self.shared.limits.drain_within;
        while let Ok(Some(settled)) = timeout_at(deadline, self.pending.next()).await {
            // An unavailable gate could end the connection only once more.
            let _ = self.settle(settled);
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    fn acknowledged(&mut self, kind: Acknowledge, packet_id: NonZeroU16, success: bool) -> Result<(), End> {
        match kind {
            Acknowledge::Release => return self.release(packet_id),
            Acknowledge::Received if success => {
                self.flow.outgoing.receive(packet_id);
                Wire::acknowledge(Acknowledge::Release, packet_id, &mut self.output);
            }
            Acknowledge::Received => {
                self.flow.outgoing.refuse(packet_id);
            }
            Acknowledge::Ack => {
                self.flow.outgoing.finish(packet_id);
            }
            Acknowledge::Complete => self.flow.outgoing.complete(packet_id),
        }
        Ok(())
    }
}

/// Tells the client why, if it still listens, and closes. What comes back is a link to nobody.
async fn farewell(mut link: Link, wire: &mut Wire, output: &mut BytesMut, end: &End) -> Link {
    if let Some(code) = end.code() {
        wire.disconnect(code, output);
    }
    let within = if end.shuts_out() {
        SHUT_OUT_WITHIN
    } else {
        FAREWELL_WITHIN
    };
    if end.code().is_some() || matches!(end, End::Left { .. }) {
        say_within(&mut link, output, within).await;
    }
    Either::Right(Box::new(tokio::io::empty()))
}

/// Writes the last bytes to a client that is not let in, and closes, for as long as is reasonable.
pub(crate) async fn say(link: &mut Link, bytes: &[u8]) {
    say_within(link, bytes, FAREWELL_WITHIN).await;
}

async fn say_within(link: &mut Link, bytes: &[u8], within: Duration) {
    let farewell = async {
        link.write_all(bytes).await?;
        link.shutdown().await?;
        // Closing a socket with unread bytes resets it, and the client may lose what was said.
        let mut unread = vec![0; FIRST_READ_BYTES];
        while link.read(&mut unread).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // The client may be gone already; nothing depends on its hearing this.
    let _ = timeout(within, farewell).await;
}
