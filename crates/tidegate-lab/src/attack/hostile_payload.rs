//! Hostile payload: tens of thousands of nested lists, which exhaust a recursive parser's stack.

use super::{Attack, Outcome, stopped_if_closed};
use crate::client::{Client, ClientError};
use crate::target::Target;

/// Levels of nesting; the payload stays below the usual packet limit of 64 KiB, so that it
/// reaches the parser and not only the size check.
const LEVELS: usize = 60_000;

pub(super) async fn run(target: &Target, victim: &str) -> Result<Outcome, ClientError> {
    let mut client = Client::connect(target, Some(victim), Attack::HostilePayload.client_id()).await?;
    match client.publish(&target.topic(victim), "[".repeat(LEVELS)).await {
        Ok(answer) => Ok(answer.into()),
        Err(error) => stopped_if_closed(error),
    }
}
