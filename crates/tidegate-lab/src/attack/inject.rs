//! Inject: a forged reading. The attacker has the device's certificate but not its signing key.

use super::{Attack, Outcome, stopped_if_closed};
use crate::client::{Client, ClientError};
use crate::target::Target;
use std::time::SystemTime;
use tidegate_envelope::time::Timestamp;

/// A pressure that would burst the pipe, PSI.
const FORGED_PRESSURE_PSI: f64 = 250.0;

pub(super) async fn run(target: &Target, victim: &str) -> Result<Outcome, ClientError> {
    let mut client = Client::connect(target, Some(victim), Attack::Inject.client_id()).await?;
    match client.publish(&target.topic(victim), forged(victim)).await {
        Ok(answer) => Ok(answer.into()),
        Err(error) => stopped_if_closed(error),
    }
}

/// A message with everything right but the signature.
fn forged(victim: &str) -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or_default());
    let number = victim.rsplit('-').next().unwrap_or("001");
    let guessed_mac = "0123456789abcdef".repeat(4);
    format!(
        r#"{{"device_id": "HYDROLOGIC-Device-{number}", "timestamp": "{now}", "sequence": 4000000000, "readings": {{"pressure_upstream": {FORGED_PRESSURE_PSI:.1}, "pressure_downstream": 55.0, "flow_rate": 50.0, "gate_a_position": 45.0, "gate_b_position": 45.0}}, "status": "operational", "hmac": "{guessed_mac}"}}"#
    )
}
