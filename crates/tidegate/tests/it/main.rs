//! The program as its users run it: the real binary, real brokers, real sockets and files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests state their expectations"
)]

mod benches;
mod certs;
mod compatible;
mod detect;
mod first_run;
mod hostile;
mod keys;
mod levels;
mod mosquitto;
mod queries;
mod reload;
mod restart;
mod support;
mod verify_command;
