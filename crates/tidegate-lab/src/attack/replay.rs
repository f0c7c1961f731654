//! Replay: a genuine, correctly signed message, captured and sent again.

use super::{Attack, Outcome, stopped_if_closed};
use crate::client::{Client, ClientError};
use crate::target::Target;

/// The certificate that may read all telemetry, from an operator's unlocked laptop.
const STOLEN_READER: &str = "operator";

pub(super) async fn run(target: &Target, victim: &str) -> Result<Outcome, ClientError> {
    let topic = target.topic(victim);
    let mut tap = Client::connect(target, Some(STOLEN_READER), "attacker-tap").await?;
    let (_, payload) = tap.capture(&topic).await?;
    let mut client = Client::connect(target, Some(victim), Attack::Replay.client_id()).await?;
    match client.publish(&topic, payload).await {
        Ok(answer) => Ok(answer.into()),
        Err(error) => stopped_if_closed(error),
    }
}
