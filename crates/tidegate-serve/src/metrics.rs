//! `/metrics`: counts and states in the Prometheus text format, version 0.0.4.
//!
//! Labels come from fixed lists, or from the ids of certificates that our own CA issued: nothing
//! that a stranger sends can become a label, and the number of series is bounded.

use crate::hub::Hub;
use crate::identity::SessionsByRole;
use crate::protocol::{AlarmSeverity, CertificateRole, CertificateState, IdentityView};
use crate::server::Context;
use crate::view::got_in;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};

/// Reasons, and none.
const REASONS: usize = Reason::ALL.len() + 1;

/// Events since the start, by what became of them and why.
#[derive(Debug, Clone)]
pub(crate) struct EventCounts {
    accepted: u64,
    flagged: [u64; REASONS],
    blocked: [u64; REASONS],
    got_in: [u64; REASONS],
    notices: [u64; REASONS],
}

impl EventCounts {
    pub(crate) const fn new() -> Self {
        Self {
            accepted: 0,
            flagged: [0; REASONS],
            blocked: [0; REASONS],
            got_in: [0; REASONS],
            notices: [0; REASONS],
        }
    }

    pub(crate) fn count(&mut self, event: &Event) {
        // Reasons stand in `Reason::ALL` in the order of the enum; a test holds the two together.
        let reason = event.reason.map_or(REASONS - 1, |reason| reason as usize);
        let count = match event.outcome {
            Outcome::Accepted if got_in(event) => &mut self.got_in[reason],
            Outcome::Accepted => &mut self.accepted,
            Outcome::Flagged => &mut self.flagged[reason],
            Outcome::Blocked => &mut self.blocked[reason],
            Outcome::Notice => &mut self.notices[reason],
        };
        *count += 1;
    }
}

/// What the hub knows at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) started_ms: i64,
    pub(crate) devices: u32,
    pub(crate) storage_available: bool,
    pub(crate) events: EventCounts,
    pub(crate) identity: IdentityView,
    pub(crate) sessions: SessionsByRole,
}

/// Answers `/metrics`.
pub(crate) async fn metrics(State(context): State<Context>) -> Response {
    match text(&context.hub) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn text(hub: &Hub) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tidegate");
    registry.register_collector(Box::new(hub.metrics()));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        out.gauge(
            "build_info",
            "The program's version; always 1.",
            [([("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        out.gauge(
            "start_time_seconds",
            "When the program started, in seconds since 1970.",
            [(NO_LABELS, seconds(self.started_ms))],
        )?;
        out.gauge(
            "registered_devices",
            "How many devices are registered.",
            [(NO_LABELS, f64::from(self.devices))],
        )?;
        out.gauge(
            "storage_available",
            "Whether the database can be written: 1, or 0 while nothing can be accepted.",
            [(NO_LABELS, if self.storage_available { 1.0 } else { 0.0 })],
        )?;
        self.encode_events(&mut out)?;
        self.encode_certificates(&mut out)?;
        self.encode_revocation(&mut out)?;
        self.encode_sessions(&mut out)?;
        out.gauge(
            "alarms",
            "What needs somebody, by how soon.",
            AlarmSeverity::ALL.map(|severity| {
                let alarms = self.identity.alarms.iter();
                let number = alarms.filter(|alarm| alarm.severity == severity).count();
                ([("severity", severity.as_str())], number as f64)
            }),
        )
    }
}

impl Snapshot {
    /// Every reason is there from the start where it can be the reason for a refusal, so that the
    /// first refusal shows as an increase.
    fn encode_events(&self, out: &mut Out) -> fmt::Result {
        let events = &self.events;
        let accepted = [([("outcome", "accepted"), ("reason", "")], events.accepted)];
        let blocked = with_reasons("blocked", &events.blocked, |_| true);
        let flagged = with_reasons("flagged", &events.flagged, |at| {
            at == Reason::Anomaly as usize || events.flagged[at] > 0
        });
        let got_in = with_reasons("got_in", &events.got_in, |at| events.got_in[at] > 0);
        out.counter(
            "messages",
            "Messages and refused connections since the start, by what became of them and why.",
            accepted.into_iter().chain(flagged).chain(blocked).chain(got_in),
        )?;
        let notices = with_reasons("", &events.notices, |at| events.notices[at] > 0);
        out.counter(
            "notices",
            "Things worth knowing since the start, nothing refused, by reason.",
            notices.map(|([_, reason], count)| ([reason], count)),
        )
    }

    fn encode_certificates(&self, out: &mut Out) -> fmt::Result {
        let Some(view) = &self.identity.certificates else {
            return Ok(());
        };
        // Of several, the one that ends last: a series must not be there twice.
        let mut expiry = BTreeMap::new();
        for row in &view.rows {
            let over = matches!(
                row.state,
                CertificateState::Revoked | CertificateState::Superseded
            );
            // Ids of issued certificates are all of this form; nothing else becomes a label.
            if !over && DeviceId::new(&row.id).is_ok() {
                let end = expiry
                    .entry((row.role, row.id.as_str()))
                    .or_insert(row.not_after_ms);
                *end = row.not_after_ms.max(*end);
            }
        }
        out.gauge(
            "certificate_expiry_timestamp_seconds",
            "When a certificate ends, in seconds since 1970; at most 1,000, those that end first.",
            expiry
                .into_iter()
                .map(|((role, id), end_ms)| ([("id", id), ("role", role.as_str())], seconds(end_ms))),
        )?;
        let counts = view.counts;
        out.gauge(
            "certificates",
            "Certificates by how they stand.",
            [
                ("valid", counts.valid),
                ("expiring", counts.expiring),
                ("expired", counts.expired),
                ("revoked", counts.revoked),
                ("superseded", counts.superseded),
            ]
            .map(|(state, count)| ([("state", state)], f64::from(count))),
        )
    }

    fn encode_revocation(&self, out: &mut Out) -> fmt::Result {
        let Some(view) = &self.identity.revocation else {
            return Ok(());
        };
        let lists: BTreeMap<_, _> = view
            .lists
            .iter()
            .map(|list| (list.authority.as_str(), list))
            .collect();
        out.gauge(
            "crl_next_update_timestamp_seconds",
            "When the next revocation list is due, in seconds since 1970; after it every client is refused.",
            lists
                .iter()
                .map(|(authority, list)| ([("authority", *authority)], seconds(list.next_update_ms))),
        )?;
        out.gauge(
            "crl_revoked_certificates",
            "How many certificates a revocation list revokes.",
            lists
                .iter()
                .map(|(authority, list)| ([("authority", *authority)], f64::from(list.revoked))),
        )
    }

    fn encode_sessions(&self, out: &mut Out) -> fmt::Result {
        let Some(view) = &self.identity.sessions else {
            return Ok(());
        };
        let roles = CertificateRole::ALL.map(CertificateRole::as_str);
        let roles = roles.into_iter().chain(["none"]).zip(self.sessions);
        // Nobody connects as a CA or with a server's certificate.
        let roles = roles.filter(|(role, count)| !matches!(*role, "authority" | "server") || *count > 0);
        out.gauge(
            "sessions",
            "Connected clients by the role in their certificate.",
            roles.map(|(role, count)| ([("role", role)], f64::from(count))),
        )?;
        out.gauge(
            "post_quantum_sessions",
            "Connected clients whose key exchange withstands a quantum computer.",
            [(NO_LABELS, f64::from(view.post_quantum))],
        )
    }
}

const NO_LABELS: [(&str, &str); 0] = [];

/// Writes one metric after another.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let series = series
            .into_iter()
            .map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, MetricType::Gauge, series)
    }

    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let series = series
            .into_iter()
            .map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, series)
    }

    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl Iterator<Item = (L, impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in series {
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The counts of one outcome with their labels, of the reasons that are `wanted` by position.
fn with_reasons<'a>(
    outcome: &'static str,
    counts: &'a [u64; REASONS],
    wanted: impl Fn(usize) -> bool + 'a,
) -> impl Iterator<Item = ([(&'static str, &'static str); 2], u64)> + 'a {
    let names = Reason::ALL.iter().map(|reason| reason.as_str()).chain([""]);
    let counts = names.zip(counts).enumerate();
    counts
        .filter(move |(at, _)| wanted(*at))
        .map(move |(_, (reason, count))| ([("outcome", outcome), ("reason", reason)], *count))
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use crate::protocol::{Alarm, CertificateRow, RevocationList, RevocationView};
    use std::sync::Arc;
    use tidegate_envelope::time::Timestamp;

    fn snapshot() -> Snapshot {
        Snapshot {
            started_ms: 1_800_000_000_500,
            devices: 3,
            storage_available: true,
            events: EventCounts::new(),
            identity: IdentityView::default(),
            sessions: SessionsByRole::default(),
        }
    }

    fn written(snapshot: Snapshot) -> Vec<String> {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register_collector(Box::new(snapshot));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn has(lines: &[String], line: &str) -> bool {
        lines.iter().any(|found| found == line)
    }

    fn certificate(id: &str, state: CertificateState, not_after_ms: i64) -> CertificateRow {
        CertificateRow {
            id: id.into(),
            role: CertificateRole::Device,
            serial: "0a".into(),
            not_before_ms: 0,
            not_after_ms,
            state,
            authority: "CA".into(),
        }
    }

    #[test]
    fn reasons_stand_at_their_index() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at, "{reason}");
        }
    }

    #[test]
    fn messages_are_counted_by_outcome_and_reason() {
        let mut snapshot = snapshot();
        let mut count = |outcome, reason| {
            let event = Event::new(Timestamp::from_micros(0), outcome, reason);
            snapshot.events.count(&event);
        };
        count(Outcome::Accepted, None);
        count(Outcome::Accepted, None);
        count(Outcome::Accepted, Some(Reason::Replay));
        count(Outcome::Blocked, Some(Reason::BadMac));
        count(Outcome::Notice, Some(Reason::Gap));
        let lines = written(snapshot);
        for line in [
            r#"tidegate_messages_total{outcome="accepted",reason=""} 2"#,
            r#"tidegate_messages_total{outcome="got_in",reason="replay"} 1"#,
            r#"tidegate_messages_total{outcome="blocked",reason="bad_mac"} 1"#,
            r#"tidegate_messages_total{outcome="blocked",reason="replay"} 0"#,
            r#"tidegate_messages_total{outcome="flagged",reason="anomaly"} 0"#,
            r#"tidegate_notices_total{reason="gap"} 1"#,
            "# TYPE tidegate_messages_total counter",
            "tidegate_start_time_seconds 1800000000.5",
            "tidegate_storage_available 1.0",
        ] {
            assert!(has(&lines, line), "{line} is missing in\n{}", lines.join("\n"));
        }
        assert!(!lines.iter().any(|line| line.starts_with("tidegate_certificate")));
    }

    #[test]
    fn expiry_is_told_of_certificates_in_force_alone_and_once_each() {
        use CertificateState::{Expired, Revoked, Superseded, Valid};
        let mut snapshot = snapshot();
        snapshot.identity.certificates = Some(Arc::new(identity::certificates_view(vec![
            certificate("device-001", Valid, 2_000_000),
            certificate("device-001", Superseded, 9_000_000),
            certificate("device-002", Valid, 3_000_000),
            certificate("device-002", Valid, 4_000_000),
            certificate("device-003", Expired, 1_000_000),
            certificate("device-004", Revoked, 5_000_000),
        ])));
        let lines = written(snapshot);
        let expiry: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("tidegate_certificate_expiry"))
            .collect();
        assert_eq!(
            expiry,
            [
                r#"tidegate_certificate_expiry_timestamp_seconds{id="device-001",role="device"} 2000.0"#,
                r#"tidegate_certificate_expiry_timestamp_seconds{id="device-002",role="device"} 4000.0"#,
                r#"tidegate_certificate_expiry_timestamp_seconds{id="device-003",role="device"} 1000.0"#,
            ]
        );
        assert!(has(&lines, r#"tidegate_certificates{state="valid"} 3.0"#));
    }

    #[test]
    fn id_that_is_no_registered_name_becomes_no_label() {
        let mut snapshot = snapshot();
        snapshot.identity.certificates = Some(Arc::new(identity::certificates_view(vec![
            certificate("evil\"} 1\ntidegate_fake 1", CertificateState::Valid, 1),
            certificate("device-001", CertificateState::Valid, 1),
        ])));
        let lines = written(snapshot);
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("evil") || line.contains("fake"))
        );
        assert!(lines.iter().any(|line| line.contains(r#"id="device-001""#)));
    }

    #[test]
    fn sessions_lists_and_alarms_are_told() {
        let mut snapshot = snapshot();
        snapshot.sessions = [0, 0, 1, 0, 7, 2];
        snapshot.identity.sessions = Some(Arc::default());
        let list = RevocationList {
            authority: "CA \"one\"".into(),
            number: "12".into(),
            this_update_ms: 0,
            next_update_ms: 86_400_000,
            revoked: 3,
        };
        snapshot.identity.revocation = Some(Arc::new(RevocationView { lists: vec![list] }));
        snapshot.identity.alarms = Arc::new(vec![Alarm {
            severity: AlarmSeverity::Critical,
            text: "text".into(),
            remedy: String::new(),
            since_ms: 0,
        }]);
        let lines = written(snapshot);
        for line in [
            r#"tidegate_sessions{role="device"} 7.0"#,
            r#"tidegate_sessions{role="none"} 2.0"#,
            r#"tidegate_sessions{role="operator"} 0.0"#,
            r#"tidegate_crl_next_update_timestamp_seconds{authority="CA \"one\""} 86400.0"#,
            r#"tidegate_crl_revoked_certificates{authority="CA \"one\""} 3.0"#,
            r#"tidegate_alarms{severity="critical"} 1.0"#,
            r#"tidegate_alarms{severity="warning"} 0.0"#,
        ] {
            assert!(has(&lines, line), "{line} is missing in\n{}", lines.join("\n"));
        }
        assert!(!lines.iter().any(|line| line.contains(r#"role="server""#)));
    }
}
