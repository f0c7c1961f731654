//! The gate thread: replay guard and commit, in groups.
//!
//! One thread, because the guard's decision, the write and the release of a device's messages
//! must keep their order, and because one disk syncs one group at a time anyway. While a group
//! is being synced the next one gathers; so a quiet system pays one sync a message, and a busy
//! one shares it.

use super::Journal;
use super::describe::{self, Origin};
use crate::clock;
use std::sync::Arc;
use tidegate_broker::Disposition;
use tidegate_envelope::reason::Reason;
use tidegate_store::writer::Store;
use tidegate_verify::guard::{Admission, Outcome, ReplayGuard};
use tidegate_verify::registry::Registry;
use tidegate_verify::stage::{Fresh, Verified};
use tidegate_verify::verifier::Message;
use tokio::sync::{mpsc, oneshot};

/// Messages in one transaction at most (VERIFY: one transaction).
const GROUP: usize = 512;

/// What comes through the gate's channel.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are the rule and wake-ups the exception"
)]
pub(super) enum Candidate {
    /// A verified message whose sender waits for an answer.
    Message {
        message: Verified<Message>,
        origin: Origin,
        answer: oneshot::Sender<Disposition>,
    },
    /// There are records to write.
    Wake,
}

/// A fresh and durable message on its way to detection.
pub(super) struct Released {
    pub(super) admission: Fresh<Admission>,
    pub(super) origin: Origin,
}

pub(super) struct Gate {
    pub(super) guard: ReplayGuard,
    pub(super) store: Store,
    pub(super) candidates: mpsc::Receiver<Candidate>,
    pub(super) released: mpsc::Sender<Released>,
    pub(super) journal: Journal,
    pub(super) registry: Arc<Registry>,
}

/// Senders that wait for the group's commit.
#[derive(Default)]
struct Group {
    /// In the order of admission.
    admitted: Vec<(Origin, oneshot::Sender<Disposition>)>,
    /// Redeliveries: acknowledged together with what they repeat, which may be in this very group.
    duplicates: Vec<oneshot::Sender<Disposition>>,
}

impl Gate {
    /// Runs until every sender is gone; then gives the store back.
    pub(super) fn run(mut self) -> Store {
        let mut group = Group::default();
        while let Some(first) = self.candidates.blocking_recv() {
            self.take(first, &mut group);
            while group.admitted.len() < GROUP {
                match self.candidates.try_recv() {
                    Ok(candidate) => self.take(candidate, &mut group),
                    Err(_) => break,
                }
            }
            self.close(&mut group);
        }
        self.flush();
        self.store
    }

    fn take(&mut self, candidate: Candidate, group: &mut Group) {
        let Candidate::Message {
            message,
            origin,
            answer,
        } = candidate
        else {
            return;
        };
        let now = clock::now();
        match self.guard.admit(message, now) {
            Outcome::Admitted => group.admitted.push((origin, answer)),
            Outcome::Duplicate => group.duplicates.push(answer),
            Outcome::Refused(refusal) => {
                // The sender may be gone; its message is refused all the same.
                let _ = answer.send(Disposition::Refused(refusal.reason));
                self.journal
                    .publish(describe::refused(&self.registry, &refusal, &origin, now));
            }
        }
    }

    fn close(&mut self, group: &mut Group) {
        if group.admitted.is_empty() {
            self.flush();
            self.answer_duplicates(group, true);
            return;
        }
        match self.guard.commit(&mut self.store) {
            Ok(admissions) => {
                self.answer_duplicates(group, true);
                for (admission, (origin, answer)) in admissions.into_iter().zip(group.admitted.drain(..)) {
                    let _ = answer.send(Disposition::Deliver);
                    // Fails only when detection has ended, which is at shutdown.
                    drop(self.released.blocking_send(Released { admission, origin }));
                }
            }
            Err(failed) => {
                tracing::error!(error = %failed, messages = group.admitted.len(), "cannot write to the database; nothing is accepted");
                self.answer_duplicates(group, false);
                let now = clock::now();
                if let Some((origin, _)) = group.admitted.first() {
                    let event = describe::storage_unavailable(group.admitted.len(), &failed, origin, now);
                    self.journal.publish(event);
                }
                for (_, answer) in group.admitted.drain(..) {
                    let _ = answer.send(Disposition::Unavailable);
                }
            }
        }
    }

    fn answer_duplicates(&self, group: &mut Group, durable: bool) {
        for answer in group.duplicates.drain(..) {
            let disposition = if durable {
                Disposition::Refused(Reason::Duplicate)
            } else {
                Disposition::Unavailable
            };
            let _ = answer.send(disposition);
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.store.flush() {
            tracing::error!(%error, "cannot write events to the database");
        }
    }
}
