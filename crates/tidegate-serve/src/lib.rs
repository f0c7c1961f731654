//! What people see: the page, its stream and API, and the compatible event stream.
//!
//! - [`protocol`]: what the page receives; `web/src/lib/protocol.ts` is written from it
//! - [`hub`]: takes events in, counts them, and builds what readers get
//! - [`server`]: listeners and connections, with their bounds
//! - [`access`]: the Host and Origin checks before every request
//! - `page`, `stream`, `api`, `assets`, `metrics`: the page's port
//! - `compatible`: events for pages and programs written for `ws://localhost:8765`
//! - `zones`, `series`, `recent`, `identity`, `view`, `text`, `roster`: the state behind them
//! - `history`: questions to the database
//!
//! **Invariant**: nothing here can slow a message down. Publishing takes one short lock and waits
//! for no reader; a reader that is too slow gets the newest state, or is dropped. Nothing is
//! written to the database, and no request changes anything.

mod api;
mod assets;
mod compatible;
mod history;
mod identity;
mod metrics;
mod page;
mod recent;
mod roster;
mod series;
mod stream;
mod text;
mod view;
mod zones;

pub mod access;
pub mod hub;
pub mod protocol;
pub mod server;
