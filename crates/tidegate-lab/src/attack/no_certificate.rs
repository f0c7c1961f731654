//! No certificate: a client that only trusts the broker, and proves nothing.

use super::{Attack, Outcome, stopped_if_closed};
use crate::client::{Client, ClientError};
use crate::target::Target;

pub(super) async fn run(target: &Target, victim: &str) -> Result<Outcome, ClientError> {
    let mut client = match Client::connect(target, None, Attack::NoCertificate.client_id()).await {
        Ok(client) => client,
        Err(error) => return stopped_if_closed(error),
    };
    let payload =
        r#"{"device_id": "stranger", "timestamp": "2026-01-01T00:00:00Z", "readings": {"flow_rate": 0.0}}"#;
    match client.publish(&target.topic(victim), payload).await {
        Ok(answer) => Ok(answer.into()),
        Err(error) => stopped_if_closed(error),
    }
}
