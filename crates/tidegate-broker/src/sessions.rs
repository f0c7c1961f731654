//! The table of sessions: who holds a client id, who takes it over, and when a session ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Principal;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::config::Limits;
use crate::filter::Filter;
use crate::info::SessionInfo;
use crate::mailbox::Mailbox;
use crate::router::Router;
use crate::session::{About, Flow, LateWill, Leash, Order, Presence, Session, Taken};

/// All sessions, connected or not.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
    router: Arc<Router>,
    last_key: AtomicU64,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Table {
    /// A client id belongs to its principal alone. If the first who came owned it, a device could
    /// take another one's id while that is away, and keep it out for as long as it likes.
    by_client: HashMap<Owner, Arc<Session>>,
    /// How many of them each certificate's principal has.
    held: HashMap<Arc<Principal>, usize>,
    /// The broker stops: nobody comes in any more.
    closed: bool,
}

/// Whose session it is: the principal, and the client id that it chose.
type Owner = (Arc<Principal>, ByteString);

/// A session that a connection has got hold of.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) session: Arc<Session>,
    pub(crate) flow: OwnedMutexGuard<Flow>,
    /// The session is the one of an earlier connection.
    pub(crate) resumed: bool,
    /// A live connection lost the session to this one.
    pub(crate) took_over: bool,
    /// The delayed will of a session that ended now (MQTT 5 §3.1.3.2.2).
    pub(crate) late_will: Option<LateWill>,
}

/// Why a connection gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// There are as many sessions as there may be.
    Full,
    /// The principal has as many sessions as it may have.
    Share,
    /// The connection that holds it did not let go in time.
    Busy,
    /// The broker stops, or the newcomer was itself ordered to end.
    Ended,
}

impl Sessions {
    pub(crate) fn new(limits: &Limits, router: Arc<Router>) -> Self {
        Self {
            table: Mutex::default(),
            router,
            last_key: AtomicU64::new(0),
            limits: limits.clone(),
        }
    }

    /// Gets hold of a principal's session of a client id, ending the connection that has it now.
    ///
    /// Another principal with the same client id has a session of its own: otherwise it would get
    /// the first one's subscriptions and waiting messages, or anybody could cut anybody off.
    pub(crate) async fn claim(
        &self,
        client_id: &ByteString,
        principal: &Arc<Principal>,
        clean_start: bool,
        leash: &Arc<Leash>,
        wait: Duration,
    ) -> Result<Claim, ClaimError> {
        let deadline = Instant::now() + wait;
        let mut took_over = false;
        loop {
            let session = match self.knock(client_id, principal, leash)? {
                Knock::New(session, flow) => {
                    return Ok(Claim {
                        session,
                        flow,
                        resumed: false,
                        took_over,
                        late_will: None,
                    });
                }
                Knock::Known(session, displaced) => {
                    took_over |= displaced;
                    session
                }
            };
            let Ok(flow) = tokio::time::timeout_at(deadline, Arc::clone(&session.flow).lock_owned()).await
            else {
                self.abandon(&session, leash);
                return Err(ClaimError::Busy);
            };
            if leash.order().is_some() {
                self.abandon(&session, leash);
                return Err(ClaimError::Ended);
            }
            if let Some(claim) = self.enter(session, flow, clean_start, leash, took_over) {
                return Ok(claim);
            }
        }
    }

    fn knock(
        &self,
        client_id: &ByteString,
        principal: &Arc<Principal>,
        leash: &Arc<Leash>,
    ) -> Result<Knock, ClaimError> {
        let mut table = self.lock();
        if table.closed {
            return Err(ClaimError::Ended);
        }
        let owner = (Arc::clone(principal), client_id.clone());
        if let Some(session) = table.by_client.get(&owner) {
            let displaced = presence(session).leash.replace(Arc::clone(leash));
            let displaced = displaced.filter(|old| !Arc::ptr_eq(old, leash));
            if let Some(old) = &displaced {
                old.pull(Order::TakeOver);
            }
            return Ok(Knock::Known(Arc::clone(session), displaced.is_some()));
        }
        if table.by_client.len() >= self.limits.max_sessions {
            return Err(ClaimError::Full);
        }
        if table.held.get(principal).copied().unwrap_or_default() >= self.limits.max_sessions_per_principal {
            return Err(ClaimError::Share);
        }
        let (session, flow) = self.create(client_id, principal, leash);
        table.by_client.insert(owner, Arc::clone(&session));
        if matches!(**principal, Principal::Certificate { .. }) {
            *table.held.entry(Arc::clone(principal)).or_default() += 1;
        }
        Ok(Knock::New(session, flow))
    }

    /// `None` when the session ended while it was waited for.
    fn enter(
        &self,
        session: Arc<Session>,
        mut flow: OwnedMutexGuard<Flow>,
        clean_start: bool,
        leash: &Arc<Leash>,
        took_over: bool,
    ) -> Option<Claim> {
        let mut table = self.lock();
        let current = table.by_client.get(&owner(&session))?;
        if !Arc::ptr_eq(current, &session) {
            return None;
        }
        let mut present = presence(&session);
        let expired = present.ends_at.take().is_some_and(|end| end <= Instant::now());
        let will = present.will.take().map(|(_, will)| will);
        drop(present);
        if !clean_start && !flow.ended && !expired {
            flow.received.retain(|_, taken| *taken == Taken::Acknowledged);
            return Some(Claim {
                session,
                flow,
                resumed: true,
                took_over,
                late_will: None,
            });
        }
        self.forget_subscriptions(&session, &flow);
        flow.ended = true;
        let (fresh, fresh_flow) = self.create(&session.client_id, &session.principal, leash);
        table.by_client.insert(owner(&fresh), Arc::clone(&fresh));
        Some(Claim {
            session: fresh,
            flow: fresh_flow,
            resumed: false,
            took_over,
            late_will: will,
        })
    }

    fn create(
        &self,
        client_id: &ByteString,
        principal: &Arc<Principal>,
        leash: &Arc<Leash>,
    ) -> (Arc<Session>, OwnedMutexGuard<Flow>) {
        let flow = Arc::new(tokio::sync::Mutex::new(Flow::default()));
        let held = Arc::clone(&flow)
            .try_lock_owned()
            .expect("a lock that nobody else knows is free");
        let session = Session {
            key: self.last_key.fetch_add(1, Ordering::Relaxed) + 1,
            client_id: client_id.clone(),
            principal: Arc::clone(principal),
            mailbox: Arc::new(Mailbox::new(
                self.limits.max_queued_messages,
                self.limits.max_queued_bytes,
            )),
            flow,
            presence: Mutex::new(Presence {
                leash: Some(Arc::clone(leash)),
                ..Presence::default()
            }),
        };
        (Arc::new(session), held)
    }

    /// Lets go of a session that was waited for in vain.
    fn abandon(&self, session: &Arc<Session>, leash: &Arc<Leash>) {
        let _table = self.lock();
        let mut present = presence(session);
        if present
            .leash
            .as_ref()
            .is_some_and(|holder| Arc::ptr_eq(holder, leash))
        {
            present.leash = None;
            present.ends_at = Some(Instant::now() + self.limits.max_session_expiry);
        }
    }

    /// Lets go of a session at the end of its connection. It ends when `expiry` is zero, unless
    /// the next connection waits for it already; that one then starts afresh.
    pub(crate) fn release(
        &self,
        session: &Arc<Session>,
        mut flow: OwnedMutexGuard<Flow>,
        leash: &Arc<Leash>,
        expiry: Duration,
        will: Option<(Duration, LateWill)>,
    ) {
        let mut table = self.lock();
        let mut present = presence(session);
        session.mailbox.detach();
        flow.ended |= expiry.is_zero();
        let successor = present
            .leash
            .as_ref()
            .is_some_and(|holder| !Arc::ptr_eq(holder, leash));
        if successor {
            return;
        }
        present.leash = None;
        if flow.ended {
            self.forget_subscriptions(session, &flow);
            table.remove(session);
        } else {
            let now = Instant::now();
            present.ends_at = Some(now + expiry.min(self.limits.max_session_expiry));
            present.will = will.map(|(delay, will)| (now + delay, will));
        }
    }

    /// Ends disconnected sessions whose time is over. The wills that are due are returned.
    pub(crate) fn sweep(&self) -> Vec<(Arc<Session>, LateWill)> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut table = self.lock();
        let Table { by_client, held, .. } = &mut *table;
        by_client.retain(|_, session| {
            let mut present = presence(session);
            if present.leash.is_some() {
                return true;
            }
            let over = present.ends_at.is_some_and(|end| end <= now);
            let will = present.will.take_if(|(at, _)| over || *at <= now);
            due.extend(will.map(|(_, will)| (Arc::clone(session), will)));
            let gone = over && self.end(session);
            if gone {
                give_back(held, &session.principal);
            }
            !gone
        });
        due
    }

    /// Ends every session of an identity, connected or not. Returns those that had no connection;
    /// the others are told by their own connections.
    pub(crate) fn shut_out(&self, id: &DeviceId, order: Order) -> Vec<Arc<Session>> {
        let mut ended = Vec::new();
        let mut table = self.lock();
        let Table { by_client, held, .. } = &mut *table;
        by_client.retain(|_, session| {
            let Principal::Certificate { id: holder, .. } = &*session.principal else {
                return true;
            };
            if holder != id {
                return true;
            }
            let present = presence(session);
            if let Some(leash) = &present.leash {
                leash.pull(order);
                return true;
            }
            let gone = self.end(session);
            if gone {
                give_back(held, &session.principal);
                ended.push(Arc::clone(session));
            }
            !gone
        });
        ended
    }

    /// Ends the connections whose certificate's serial number is revoked. Their sessions stay: the
    /// device may have a newer certificate already.
    pub(crate) fn shut_out_serials(&self, is_revoked: impl Fn(&[u8]) -> bool, order: Order) {
        for session in self.lock().by_client.values() {
            if let Some(leash) = &presence(session).leash
                && !leash.about.serial.is_empty()
                && is_revoked(&leash.about.serial)
            {
                leash.pull(order);
            }
        }
    }

    /// Ends all connections, and lets no new ones in.
    pub(crate) fn shut_down(&self) {
        let mut table = self.lock();
        table.closed = true;
        for session in table.by_client.values() {
            if let Some(leash) = &presence(session).leash {
                leash.pull(Order::ShutDown);
            }
        }
    }

    /// The sessions that a client is connected to, in no order.
    pub(crate) fn connected(&self) -> Vec<SessionInfo> {
        let table = self.lock();
        let mut connected = Vec::with_capacity(table.by_client.len());
        for session in table.by_client.values() {
            if let Some(leash) = &presence(session).leash {
                let About { peer, since, tls, .. } = leash.about;
                connected.push(SessionInfo {
                    principal: Arc::clone(&session.principal),
                    client_id: session.client_id.clone(),
                    peer,
                    since,
                    tls,
                });
            }
        }
        connected
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().by_client.len()
    }

    /// Ends a session without a connection; `false` when its last connection is still on its way out.
    fn end(&self, session: &Session) -> bool {
        let Ok(mut flow) = session.flow.try_lock() else {
            return false;
        };
        self.forget_subscriptions(session, &flow);
        flow.ended = true;
        true
    }

    fn forget_subscriptions(&self, session: &Session, flow: &Flow) {
        for filter in flow.subscriptions.iter().filter_map(|text| Filter::parse(text)) {
            self.router.unsubscribe(session.key, filter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Knock {
    New(Arc<Session>, OwnedMutexGuard<Flow>),
    /// With whether a live connection was ordered to end.
    Known(Arc<Session>, bool),
}

impl Table {
    fn remove(&mut self, session: &Arc<Session>) {
        let owner = owner(session);
        if self
            .by_client
            .get(&owner)
            .is_some_and(|current| Arc::ptr_eq(current, session))
        {
            self.by_client.remove(&owner);
            give_back(&mut self.held, &session.principal);
        }
    }
}

/// Counts one session less; principals without a certificate are not in the table.
fn give_back(held: &mut HashMap<Arc<Principal>, usize>, principal: &Arc<Principal>) {
    if let Some(count) = held.get_mut(principal) {
        *count -= 1;
        if *count == 0 {
            held.remove(principal);
        }
    }
}

fn owner(session: &Session) -> Owner {
    (Arc::clone(&session.principal), session.client_id.clone())
}

fn presence(session: &Session) -> MutexGuard<'_, Presence> {
    session.presence.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tidegate_envelope::principal::Role;
    use tidegate_envelope::reason::Reason;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn sessions() -> Sessions {
        let limits = Limits {
            max_sessions: 2,
            ..Limits::default()
        };
        Sessions::new(&limits, Arc::new(Router::default()))
    }

    fn device(id: &str) -> Arc<Principal> {
        Arc::new(Principal::Certificate {
            id: DeviceId::new(id).unwrap(),
            role: Role::Device,
        })
    }

    async fn claim(
        sessions: &Sessions,
        id: &'static str,
        who: &Arc<Principal>,
        leash: &Arc<Leash>,
    ) -> Result<Claim, ClaimError> {
        sessions.claim(&id.into(), who, false, leash, WAIT).await
    }

    #[tokio::test(start_paused = true)]
    async fn each_principal_has_its_own_session_of_a_client_id() {
        let (sessions, leash, other) = (sessions(), Arc::default(), Arc::<Leash>::default());
        let first = claim(&sessions, "c", &device("a"), &leash).await.unwrap();
        assert!(!first.resumed);
        let second = claim(&sessions, "c", &device("b"), &other).await.unwrap();
        assert!(!second.resumed && !second.took_over);
        assert_eq!(leash.order(), None);
        sessions.release(&second.session, second.flow, &other, Duration::ZERO, None);
        sessions.release(&first.session, first.flow, &leash, HOUR, None);
        assert!(claim(&sessions, "c", &device("a"), &leash).await.unwrap().resumed);
        assert!(!claim(&sessions, "c", &device("b"), &other).await.unwrap().resumed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_for_the_holder_to_let_go_and_resumes() {
        let sessions = Arc::new(sessions());
        let (old, new) = (Arc::<Leash>::default(), Arc::<Leash>::default());
        let first = claim(&sessions, "c", &device("a"), &old).await.unwrap();
        let waiting = tokio::spawn({
            let (sessions, new) = (Arc::clone(&sessions), Arc::clone(&new));
            async move { claim(&sessions, "c", &device("a"), &new).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(old.order(), Some(Order::TakeOver));
        let key = first.session.key;
        sessions.release(&first.session, first.flow, &old, HOUR, None);
        let second = waiting.await.unwrap().unwrap();
        assert!(second.resumed && second.took_over);
        assert_eq!(second.session.key, key);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_never_lets_go_makes_the_newcomer_give_up() {
        let sessions = sessions();
        let held = claim(&sessions, "c", &device("a"), &Arc::default())
            .await
            .unwrap();
        assert_eq!(
            claim(&sessions, "c", &device("a"), &Arc::default())
                .await
                .unwrap_err(),
            ClaimError::Busy
        );
        drop(held);
        assert!(claim(&sessions, "c", &device("a"), &Arc::default()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_its_expiry_and_frees_its_place() {
        let (sessions, leash) = (sessions(), Arc::default());
        for id in ["c", "d"] {
            let claim = claim(&sessions, id, &device("a"), &leash).await.unwrap();
            sessions.release(&claim.session, claim.flow, &leash, HOUR, None);
        }
        assert_eq!(
            claim(&sessions, "e", &device("a"), &leash).await.unwrap_err(),
            ClaimError::Full
        );
        tokio::time::advance(HOUR).await;
        sessions.sweep();
        assert_eq!(sessions.count(), 0);
        assert!(claim(&sessions, "e", &device("a"), &leash).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_has_only_its_share_of_sessions_and_every_way_out_gives_one_back() {
        let limits = Limits {
            max_sessions_per_principal: 1,
            ..Limits::default()
        };
        let sessions = Sessions::new(&limits, Arc::new(Router::default()));
        let (a, b) = (device("a"), device("b"));
        let leash = Arc::<Leash>::default();
        let held = |sessions: &Sessions| sessions.lock().held.clone();
        type Leave = fn(&Sessions);
        let ways_out: [(Duration, Leave); 3] = [
            (Duration::ZERO, |_| ()),
            (HOUR, |sessions| drop(sessions.sweep())),
            (HOUR, |sessions| {
                let order = Order::Close {
                    reason: Reason::DeviceDisabled,
                    keep_session: false,
                };
                sessions.shut_out(&DeviceId::new("a").unwrap(), order);
            }),
        ];
        for (expiry, leave) in ways_out {
            let first = claim(&sessions, "c", &a, &leash).await.unwrap();
            assert_eq!(
                claim(&sessions, "d", &a, &leash).await.unwrap_err(),
                ClaimError::Share
            );
            let other = claim(&sessions, "d", &b, &leash).await.unwrap();
            sessions.release(&other.session, other.flow, &leash, Duration::ZERO, None);
            sessions.release(&first.session, first.flow, &leash, expiry, None);
            if !expiry.is_zero() {
                assert_eq!(
                    claim(&sessions, "d", &a, &leash).await.unwrap_err(),
                    ClaimError::Share,
                    "a session that waits for its client counts"
                );
                tokio::time::advance(HOUR).await;
            }
            leave(&sessions);
            assert!(held(&sessions).is_empty());
        }
        let anybody = Arc::new(Principal::Anonymous);
        for id in ["c", "d", "e"] {
            assert!(claim(&sessions, id, &anybody, &Arc::default()).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_without_expiry_ends_with_its_connection() {
        let (sessions, leash) = (sessions(), Arc::default());
        let first = claim(&sessions, "c", &device("a"), &leash).await.unwrap();
        sessions.release(&first.session, first.flow, &leash, Duration::ZERO, None);
        assert_eq!(sessions.count(), 0);
        assert!(!claim(&sessions, "c", &device("a"), &leash).await.unwrap().resumed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_out_identity_loses_connected_and_waiting_sessions() {
        let (sessions, leash) = (sessions(), Arc::<Leash>::default());
        let kept = claim(&sessions, "c", &device("a"), &Arc::default())
            .await
            .unwrap();
        sessions.release(&kept.session, kept.flow, &Arc::default(), HOUR, None);
        let _live = claim(&sessions, "d", &device("a"), &leash).await.unwrap();
        let order = Order::Close {
            reason: Reason::SessionClosedRevoked,
            keep_session: false,
        };
        assert!(sessions.shut_out(&DeviceId::new("b").unwrap(), order).is_empty());
        assert_eq!(leash.order(), None);
        sessions.shut_out(&DeviceId::new("a").unwrap(), order);
        assert_eq!(leash.order(), Some(order));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_comes_in_after_the_end() {
        let sessions = sessions();
        sessions.shut_down();
        assert_eq!(
            claim(&sessions, "c", &device("a"), &Arc::default())
                .await
                .unwrap_err(),
            ClaimError::Ended
        );
    }
}
