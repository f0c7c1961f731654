//! Few handshakes compute at one time, so that a flood of them leaves the rest of the processor to
//! those who are connected.
//!
//! A handshake takes half a millisecond of a processor, a message some microseconds. Were each
//! handshake just a task like any other, a working connection would wait behind all that have
//! something to compute. Here a handshake needs a permit for each step, and none while it waits for
//! the other end: those who say nothing hold nobody up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// A future that is polled only with a permit, and gives it back after each poll.
pub(crate) struct InTurn<F> {
    turns: PollSemaphore,
    future: F,
}

/// Permits for half of the processors, one at least.
pub(crate) fn turns() -> Arc<Semaphore> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new((processors / 2).max(1)))
}

impl<F> InTurn<F> {
    pub(crate) fn new(turns: &Arc<Semaphore>, future: F) -> Self {
        Self {
            turns: PollSemaphore::new(Arc::clone(turns)),
            future,
        }
    }
}

impl<F: Future + Unpin> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody closes the semaphore; without a permit it would go on all the same.
        let _permit = ready!(self.turns.poll_acquire(cx));
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn futures_that_wait_hold_no_permit() {
        let turns = Arc::new(Semaphore::new(1));
        let (answer, waiting) = oneshot::channel::<u8>();
        let mut mute = InTurn::new(&turns, waiting);
        assert!((&mut mute).now_or_never().is_none());
        assert_eq!(InTurn::new(&turns, Box::pin(async { 7 })).now_or_never(), Some(7));
        answer.send(8).unwrap();
        assert_eq!(mute.await, Ok(8));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_compute_at_one_time_than_there_are_permits() {
        let turns = Arc::new(Semaphore::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..64).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let steps = async move {
                for _ in 0..10 {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::hint::black_box((0..10_000_u64).fold(0, u64::wrapping_add));
                    now.fetch_sub(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            };
            tokio::spawn(InTurn::new(&turns, Box::pin(steps)))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }
}
