//! Impersonate: a stolen device publishes on the topic of another.

use super::{Attack, Outcome, stopped_if_closed};
use crate::client::{Client, ClientError};
use crate::target::Target;

pub(super) async fn run(target: &Target, thief: &str, victim: &str) -> Result<Outcome, ClientError> {
    let mut client = Client::connect(target, Some(thief), Attack::Impersonate.client_id()).await?;
    let payload = r#"{"device_id": "HYDROLOGIC-Device-000", "timestamp": "2026-01-01T00:00:00Z", "readings": {"pressure_upstream": 20.0}}"#;
    match client.publish(&target.topic(victim), payload).await {
        Ok(answer) => Ok(answer.into()),
        Err(error) => stopped_if_closed(error),
    }
}
