//! What all proofs do while they run: show how far they are, and end in order when they are asked to.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// A bar that counts so many `things`, with a message beside it.
pub(crate) fn progress_bar(number: u64, things: &str) -> Result<ProgressBar> {
    let style = format!("{{wide_bar}} {{pos}}/{{len}} {things}, {{elapsed}} of {{duration}}  {{msg}}");
    Ok(ProgressBar::new(number).with_style(ProgressStyle::with_template(&style)?))
}

/// Ctrl-C, or a request to end, ends a proof after what is under way, with its comparison and its
/// report; and so no process of it is left behind.
pub(crate) fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let set = Arc::clone(&stop);
    let asked = async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        set.store(true, Ordering::Relaxed);
        std::io::Result::Ok(())
    };
    // Ends with the process: there may never be a signal.
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || runtime.block_on(asked))?;
    Ok(stop)
}
