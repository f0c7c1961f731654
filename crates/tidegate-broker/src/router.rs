//! The subscriptions of all clients as a tree of topic levels, and who gets a message.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytestring::ByteString;
use rmqtt_codec::types::QoS;

use crate::filter::Filter;
use crate::mailbox::{Mailbox, Pushed};
use crate::message::{Delivery, Message, SubscriptionIds, owned};

/// Topics whose receivers one connection remembers.
const MAX_REMEMBERED_TOPICS: usize = 64;

/// How a client subscribed to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<NonZeroU32>,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Router {
    root: RwLock<Node>,
    /// Changes with every subscription; tells connections that what they remember is old.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Self>,
    /// Filters that end here.
    here: Leaf,
    /// Filters that end in `#` here.
    below: Leaf,
}

#[derive(Debug, Default)]
struct Leaf {
    direct: HashMap<u64, Subscriber>,
    groups: HashMap<Box<str>, Group>,
}

#[derive(Debug, Clone)]
struct Subscriber {
    mailbox: Arc<Mailbox>,
    options: Options,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<(u64, Subscriber)>,
    turn: Arc<AtomicUsize>,
}

/// Who gets the messages of one topic.
#[derive(Debug, Default)]
struct Route {
    direct: Vec<Target>,
    groups: Vec<(Vec<Target>, Arc<AtomicUsize>)>,
}

#[derive(Debug)]
struct Target {
    session: u64,
    mailbox: Arc<Mailbox>,
    options: Options,
    ids: SubscriptionIds,
}

/// What one connection remembers of the router, so that a publish costs no lock.
#[derive(Debug, Default)]
pub(crate) struct RouteMemory {
    version: u64,
    routes: HashMap<ByteString, Arc<Route>>,
}

/// How many clients a message was queued for, how many had no room, and whether any of them is outrun.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    pub(crate) queued: u64,
    pub(crate) dropped: u64,
    pub(crate) pressed: bool,
}

impl Router {
    /// Adds or replaces a subscription; `true` when it is new.
    pub(crate) fn subscribe(
        &self,
        session: u64,
        filter: Filter<'_>,
        mailbox: &Arc<Mailbox>,
        options: Options,
    ) -> bool {
        let subscriber = Subscriber {
            mailbox: Arc::clone(mailbox),
            options,
        };
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        let leaf = root.leaf(filter.path);
        let new = match filter.share {
            None => leaf.direct.insert(session, subscriber).is_none(),
            Some(name) => {
                let members = &mut leaf.groups.entry(name.into()).or_default().members;
                let before = members.len();
                members.retain(|(member, _)| *member != session);
                let new = members.len() == before;
                members.push((session, subscriber));
                new
            }
        };
        self.version.fetch_add(1, Ordering::Release);
        new
    }

    /// Removes a subscription; `false` when there was none.
    pub(crate) fn unsubscribe(&self, session: u64, filter: Filter<'_>) -> bool {
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        let levels: Vec<&str> = filter.path.split('/').collect();
        let removed = root.remove(&levels, session, filter.share);
        self.version.fetch_add(1, Ordering::Release);
        removed
    }

    /// Queues a message for every subscriber of its topic. `message` is made only if there is one.
    pub(crate) fn route(
        &self,
        memory: &mut RouteMemory,
        topic: &ByteString,
        message: impl FnOnce() -> Arc<Message>,
    ) -> Routed {
        let version = self.version.load(Ordering::Acquire);
        if memory.version != version || memory.routes.len() > MAX_REMEMBERED_TOPICS {
            memory.routes.clear();
            memory.version = version;
        }
        if let Some(route) = memory.routes.get(topic) {
            return route.deliver(message);
        }
        let route = Arc::new(self.find(topic));
        memory.routes.insert(owned(topic), Arc::clone(&route));
        route.deliver(message)
    }

    fn find(&self, topic: &str) -> Route {
        let levels: Vec<&str> = topic.split('/').collect();
        let mut found = Found::default();
        let root = self.root.read().unwrap_or_else(PoisonError::into_inner);
        root.find(&levels, true, &mut found);
        drop(root);
        found.into_route()
    }
}

impl Node {
    /// The leaf of a filter, made where missing.
    fn leaf(&mut self, path: &str) -> &mut Leaf {
        let mut node = self;
        for level in path.split('/') {
            if level == "#" {
                return &mut node.below;
            }
            node = node.children.entry(level.into()).or_default();
        }
        &mut node.here
    }

    /// Removes a subscription and the branches that it leaves empty. As deep as a filter has levels.
    fn remove(&mut self, levels: &[&str], session: u64, share: Option<&str>) -> bool {
        match levels {
            [] => self.here.remove(session, share),
            ["#"] => self.below.remove(session, share),
            [level, rest @ ..] => {
                let Some(child) = self.children.get_mut(*level) else {
                    return false;
                };
                let removed = child.remove(rest, session, share);
                if child.is_empty() {
                    self.children.remove(*level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }

    fn find(&self, levels: &[&str], first: bool, found: &mut Found) {
        // MQTT 5 §4.7.2: a leading wildcard does not match topics that begin with `$`.
        let wildcards = !(first && levels.first().is_some_and(|level| level.starts_with('$')));
        if wildcards {
            found.add(&self.below);
        }
        let Some((level, rest)) = levels.split_first() else {
            found.add(&self.here);
            return;
        };
        if let Some(child) = self.children.get(*level) {
            child.find(rest, false, found);
        }
        if wildcards && let Some(child) = self.children.get("+") {
            child.find(rest, false, found);
        }
    }
}

impl Leaf {
    fn remove(&mut self, session: u64, share: Option<&str>) -> bool {
        let Some(name) = share else {
            return self.direct.remove(&session).is_some();
        };
        let Some(group) = self.groups.get_mut(name) else {
            return false;
        };
        let before = group.members.len();
        group.members.retain(|(member, _)| *member != session);
        let removed = group.members.len() < before;
        if group.members.is_empty() {
            self.groups.remove(name);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }
}

/// Matches while they are collected: a client with overlapping filters gets one copy, with the
/// highest QoS and all subscription identifiers (MQTT 5 §3.3.4).
#[derive(Default)]
struct Found {
    direct: HashMap<u64, (Subscriber, Vec<NonZeroU32>)>,
    groups: Vec<(Vec<Target>, Arc<AtomicUsize>)>,
}

impl Found {
    fn add(&mut self, leaf: &Leaf) {
        for (session, subscriber) in &leaf.direct {
            let given = subscriber.options;
            let (merged, ids) = self
                .direct
                .entry(*session)
                .or_insert_with(|| (subscriber.clone(), Vec::new()));
            let options = &mut merged.options;
            options.qos = options.qos.max(given.qos);
            options.no_local &= given.no_local;
            options.retain_as_published |= given.retain_as_published;
            ids.extend(given.id);
        }
        for group in leaf.groups.values() {
            let member = |(session, subscriber): &(u64, Subscriber)| {
                target(*session, subscriber.clone(), subscriber.options.id.as_slice())
            };
            self.groups.push((
                group.members.iter().map(member).collect(),
                Arc::clone(&group.turn),
            ));
        }
    }

    fn into_route(self) -> Route {
        let direct = self.direct.into_iter();
        let direct = direct.map(|(session, (subscriber, ids))| target(session, subscriber, &ids));
        Route {
            direct: direct.collect(),
            groups: self.groups,
        }
    }
}

fn target(session: u64, subscriber: Subscriber, ids: &[NonZeroU32]) -> Target {
    let ids = (!ids.is_empty()).then(|| Arc::from(ids));
    Target {
        session,
        mailbox: subscriber.mailbox,
        options: subscriber.options,
        ids,
    }
}

impl Route {
    fn deliver(&self, message: impl FnOnce() -> Arc<Message>) -> Routed {
        let mut routed = Routed::default();
        if self.direct.is_empty() && self.groups.is_empty() {
            return routed;
        }
        let message = message();
        for target in &self.direct {
            if target.options.no_local && target.session == message.sender {
                continue;
            }
            routed.count(target.push(&message));
        }
        for (members, turn) in &self.groups {
            routed.count(deliver_to_one(members, turn, &message));
        }
        routed
    }
}

/// Gives a message to the next member of a shared subscription: a connected one with room, else
/// a disconnected one that keeps it.
fn deliver_to_one(members: &[Target], turn: &AtomicUsize, message: &Arc<Message>) -> Pushed {
    let start = turn.fetch_add(1, Ordering::Relaxed);
    let from_turn = |step: usize| members.get(start.wrapping_add(step) % members.len().max(1));
    let in_turn = || (0..members.len()).filter_map(from_turn);
    let connected = in_turn().filter(|member| member.mailbox.is_attached());
    let mut attempts = connected.chain(in_turn()).map(|member| member.push(message));
    attempts
        .find(|pushed| *pushed != Pushed::Dropped)
        .unwrap_or(Pushed::Dropped)
}

impl Target {
    fn push(&self, message: &Arc<Message>) -> Pushed {
        self.mailbox.push(Delivery {
            message: Arc::clone(message),
            qos: message.qos.less_value(self.options.qos),
            retain: message.retain && self.options.retain_as_published,
            ids: self.ids.clone(),
        })
    }
}

impl Routed {
    fn count(&mut self, pushed: Pushed) {
        match pushed {
            Pushed::Queued => self.queued += 1,
            Pushed::Pressed => {
                self.queued += 1;
                self.pressed = true;
            }
            Pushed::Dropped => self.dropped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::types::Publish;

    use super::*;

    const AT_LEAST_ONCE: Options = Options {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };

    fn connected() -> Arc<Mailbox> {
        let mailbox = Mailbox::new(100, 1 << 20);
        mailbox.attach();
        Arc::new(mailbox)
    }

    fn filter(text: &str) -> Filter<'_> {
        Filter::parse(text).unwrap()
    }

    fn send(router: &Router, memory: &mut RouteMemory, topic: &'static str) -> Routed {
        let message = || {
            let publish = Publish {
                dup: false,
                retain: false,
                qos: QoS::ExactlyOnce,
                topic: topic.into(),
                packet_id: None,
                payload: "x".into(),
                properties: None,
            };
            Arc::new(Message::new(&publish, 7))
        };
        router.route(memory, &topic.into(), message)
    }

    fn received(mailbox: &Mailbox) -> Vec<Delivery> {
        let mut batch = Vec::new();
        mailbox.drain(&mut batch, |_| true).unwrap();
        batch
    }

    #[test]
    fn a_subscription_is_seen_and_forgotten_despite_memory() {
        let (router, mut memory, mailbox) = (Router::default(), RouteMemory::default(), connected());
        assert_eq!(send(&router, &mut memory, "a/b").queued, 0);
        for text in ["a/+", "a/#", "+/b", "#", "a/b/#", "a/b"] {
            assert!(router.subscribe(1, filter(text), &mailbox, AT_LEAST_ONCE));
            assert!(!router.subscribe(1, filter(text), &mailbox, AT_LEAST_ONCE));
            assert_eq!(send(&router, &mut memory, "a/b").queued, 1, "{text}");
            assert!(router.unsubscribe(1, filter(text)));
            assert!(!router.unsubscribe(1, filter(text)));
            assert_eq!(send(&router, &mut memory, "a/b").queued, 0, "{text}");
        }
        assert!(router.root.read().unwrap().is_empty());
    }

    #[test]
    fn overlapping_filters_give_one_copy_with_the_highest_qos_and_all_ids() {
        let (router, mut memory, mailbox) = (Router::default(), RouteMemory::default(), connected());
        let with = |qos, id| Options {
            qos,
            id: NonZeroU32::new(id),
            ..AT_LEAST_ONCE
        };
        router.subscribe(1, filter("a/#"), &mailbox, with(QoS::AtMostOnce, 3));
        router.subscribe(1, filter("a/+"), &mailbox, with(QoS::AtLeastOnce, 4));
        send(&router, &mut memory, "a/b");
        let got = received(&mailbox);
        assert_eq!((got.len(), got[0].qos), (1, QoS::AtLeastOnce));
        let mut ids: Vec<u32> = got[0].ids.as_ref().unwrap().iter().map(|id| id.get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [3, 4]);
    }

    #[test]
    fn no_local_keeps_a_message_from_its_sender_alone() {
        let (router, mut memory) = (Router::default(), RouteMemory::default());
        let (own, other) = (connected(), connected());
        let no_local = Options {
            no_local: true,
            ..AT_LEAST_ONCE
        };
        router.subscribe(7, filter("a"), &own, no_local);
        router.subscribe(8, filter("a"), &other, no_local);
        send(&router, &mut memory, "a");
        assert_eq!((received(&own).len(), received(&other).len()), (0, 1));
    }

    #[test]
    fn a_shared_subscription_takes_turns_and_skips_the_disconnected() {
        let (router, mut memory) = (Router::default(), RouteMemory::default());
        let boxes = [connected(), connected(), Arc::new(Mailbox::new(100, 1 << 20))];
        for (session, mailbox) in (0..).zip(&boxes) {
            router.subscribe(session, filter("$share/g/a/+"), mailbox, AT_LEAST_ONCE);
        }
        for _ in 0..30 {
            send(&router, &mut memory, "a/b");
        }
        let counts = boxes.each_ref().map(|mailbox| received(mailbox).len());
        assert_eq!(counts.iter().sum::<usize>(), 30);
        assert_eq!(counts[2], 0);
        assert!(counts[0] >= 10 && counts[1] >= 10, "{counts:?}");
        assert!(router.unsubscribe(0, filter("$share/g/a/+")));
        assert!(!router.unsubscribe(0, filter("$share/h/a/+")));
    }

    #[test]
    fn dollar_topics_are_not_matched_by_leading_wildcards() {
        let (router, mut memory, mailbox) = (Router::default(), RouteMemory::default(), connected());
        router.subscribe(1, filter("#"), &mailbox, AT_LEAST_ONCE);
        router.subscribe(1, filter("+/x"), &mailbox, AT_LEAST_ONCE);
        assert_eq!(send(&router, &mut memory, "$SYS/x").queued, 0);
        router.subscribe(1, filter("$SYS/+"), &mailbox, AT_LEAST_ONCE);
        assert_eq!(send(&router, &mut memory, "$SYS/x").queued, 1);
    }
}
