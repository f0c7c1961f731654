//! Certificates, sessions, revocation lists and alarms as they stand: cleaned and bounded on the way
//! in, and sent on when they changed.

use crate::protocol::{
    Alarm, CertificateCounts, CertificateRole, CertificateRow, CertificateState, CertificatesView,
    IdentityChange, IdentityView, RevocationView, SessionRow, SessionsView,
};
use crate::text::plain;
use std::cmp::Reverse;
use std::sync::Arc;

/// Certificates in the stream and in the metrics.
const MAX_CERTIFICATES: usize = 1_000;
/// Sessions in the stream.
const MAX_SESSIONS: usize = 500;
/// Revocation lists in the stream.
const MAX_LISTS: usize = 16;
/// Alarms in the stream.
const MAX_ALARMS: usize = 20;
/// Longest name, serial number or address, in characters.
const MAX_NAME: usize = 120;
/// Longest sentence, in characters.
const MAX_SENTENCE: usize = 500;

/// Sessions by role, those without a proven identity last.
pub(crate) type SessionsByRole = [u32; CertificateRole::ALL.len() + 1];

/// What the program said last, and what of it no frame has carried yet.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    view: IdentityView,
    changed: IdentityChange,
    sessions_by_role: SessionsByRole,
}

/// Sessions, fit to be shown and counted.
pub(crate) struct CountedSessions {
    view: SessionsView,
    by_role: SessionsByRole,
}

impl Identity {
    /// The whole of it.
    pub(crate) fn view(&self) -> IdentityView {
        self.view.clone()
    }

    /// All sessions by role, those left out of the view included.
    pub(crate) fn sessions_by_role(&self) -> SessionsByRole {
        self.sessions_by_role
    }

    /// Takes in certificates; sent on where they are not as they were. The same for the others below.
    pub(crate) fn set_certificates(&mut self, view: CertificatesView) {
        if self.view.certificates.as_deref() != Some(&view) {
            let view = Arc::new(view);
            self.view.certificates = Some(Arc::clone(&view));
            self.changed.certificates = Some(view);
        }
    }

    pub(crate) fn set_sessions(&mut self, sessions: CountedSessions) {
        self.sessions_by_role = sessions.by_role;
        if self.view.sessions.as_deref() != Some(&sessions.view) {
            let view = Arc::new(sessions.view);
            self.view.sessions = Some(Arc::clone(&view));
            self.changed.sessions = Some(view);
        }
    }

    pub(crate) fn set_revocation(&mut self, view: RevocationView) {
        if self.view.revocation.as_deref() != Some(&view) {
            let view = Arc::new(view);
            self.view.revocation = Some(Arc::clone(&view));
            self.changed.revocation = Some(view);
        }
    }

    pub(crate) fn set_alarms(&mut self, alarms: Vec<Alarm>) {
        if *self.view.alarms != alarms {
            let alarms = Arc::new(alarms);
            self.view.alarms = Arc::clone(&alarms);
            self.changed.alarms = Some(alarms);
        }
    }

    /// Whether the change cannot wait for its turn.
    pub(crate) fn is_urgent(&self) -> bool {
        self.changed.alarms.is_some()
    }

    /// What changed since the last call; `None` where nothing did.
    pub(crate) fn take_changed(&mut self) -> Option<IdentityChange> {
        let changed = std::mem::take(&mut self.changed);
        (changed != IdentityChange::default()).then_some(changed)
    }
}

/// Certificates fit to be shown: counted, in order, cleaned, and at most [`MAX_CERTIFICATES`].
pub(crate) fn certificates_view(mut rows: Vec<CertificateRow>) -> CertificatesView {
    let mut counts = CertificateCounts::default();
    for row in &rows {
        let count = match row.state {
            CertificateState::Valid => &mut counts.valid,
            CertificateState::Expiring => &mut counts.expiring,
            CertificateState::Expired => &mut counts.expired,
            CertificateState::Revoked => &mut counts.revoked,
            CertificateState::Superseded => &mut counts.superseded,
        };
        *count += 1;
    }
    rows.sort_by(|a, b| certificate_order(a).cmp(&certificate_order(b)));
    let left_out = left_out(rows.len(), MAX_CERTIFICATES);
    rows.truncate(MAX_CERTIFICATES);
    for row in &mut rows {
        clean(&mut row.id, MAX_NAME);
        clean(&mut row.serial, MAX_NAME);
        clean(&mut row.authority, MAX_NAME);
    }
    CertificatesView {
        rows,
        counts,
        left_out,
    }
}

/// Those that somebody should look at, then by their end. Of those that are over, the latest first:
/// they are what gives way when there are too many.
fn certificate_order(row: &CertificateRow) -> impl Ord + '_ {
    let over = matches!(
        row.state,
        CertificateState::Revoked | CertificateState::Superseded
    );
    // The gateway's own certificates come before thousands of devices.
    let role = if over { CertificateRole::Device } else { row.role };
    let own = role < CertificateRole::Gateway;
    let end = if over {
        (i64::MIN, Reverse(row.not_after_ms))
    } else {
        (row.not_after_ms, Reverse(0))
    };
    (over, !own, row.state, end, &row.id, &row.serial)
}

/// Sessions fit to be shown, and all of them by role.
pub(crate) fn sessions_view(mut rows: Vec<SessionRow>) -> CountedSessions {
    let mut by_role = SessionsByRole::default();
    let mut view = SessionsView {
        total: count(rows.len()),
        ..SessionsView::default()
    };
    for row in &rows {
        by_role[row.role.map_or(CertificateRole::ALL.len(), |role| role as usize)] += 1;
        match &row.tls {
            Some(tls) if tls.post_quantum => view.post_quantum += 1,
            Some(_) => {}
            None => view.unencrypted += 1,
        }
    }
    rows.sort_by(|a, b| session_order(a).cmp(&session_order(b)));
    view.left_out = left_out(rows.len(), MAX_SESSIONS);
    rows.truncate(MAX_SESSIONS);
    for row in &mut rows {
        if let Some(id) = &mut row.id {
            clean(id, MAX_NAME);
        }
        clean(&mut row.client_id, MAX_NAME);
        clean(&mut row.peer, MAX_NAME);
        if let Some(tls) = &mut row.tls {
            clean(&mut tls.version, MAX_NAME);
            clean(&mut tls.cipher, MAX_NAME);
            clean(&mut tls.key_exchange, MAX_NAME);
        }
    }
    view.rows = rows;
    CountedSessions { view, by_role }
}

fn session_order(row: &SessionRow) -> impl Ord + '_ {
    (row.role, &row.id, row.since_ms, &row.client_id)
}

/// Revocation lists fit to be shown.
pub(crate) fn revocation_view(mut view: RevocationView) -> RevocationView {
    view.lists.truncate(MAX_LISTS);
    for list in &mut view.lists {
        clean(&mut list.authority, MAX_NAME);
        clean(&mut list.number, MAX_NAME);
    }
    view
}

/// Alarms fit to be shown, the most urgent and oldest first.
pub(crate) fn alarms_view(mut alarms: Vec<Alarm>) -> Vec<Alarm> {
    alarms.sort_by(|a, b| (a.severity, a.since_ms, &a.text).cmp(&(b.severity, b.since_ms, &b.text)));
    alarms.truncate(MAX_ALARMS);
    for alarm in &mut alarms {
        clean(&mut alarm.text, MAX_SENTENCE);
        clean(&mut alarm.remedy, MAX_SENTENCE);
    }
    alarms
}

fn clean(text: &mut String, max: usize) {
    *text = plain(text, max);
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn left_out(number: usize, max: usize) -> u32 {
    count(number.saturating_sub(max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{AlarmSeverity, SessionTls};

    fn certificate(id: &str, state: CertificateState, not_after_ms: i64) -> CertificateRow {
        CertificateRow {
            id: id.into(),
            role: CertificateRole::Device,
            serial: "0a".into(),
            not_before_ms: 0,
            not_after_ms,
            state,
            authority: "Tidegate CA".into(),
        }
    }

    fn session(id: &str, role: Option<CertificateRole>, post_quantum: Option<bool>) -> SessionRow {
        SessionRow {
            id: role.map(|_| id.to_owned()),
            role,
            client_id: id.into(),
            peer: "127.0.0.1:50000".into(),
            since_ms: 0,
            tls: post_quantum.map(|post_quantum| SessionTls {
                version: "TLS 1.3".into(),
                cipher: "TLS_AES_256_GCM_SHA384".into(),
                key_exchange: if post_quantum { "X25519MLKEM768" } else { "X25519" }.into(),
                post_quantum,
                resumed: false,
            }),
        }
    }

    fn ids(view: &CertificatesView) -> Vec<&str> {
        view.rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn certificates_that_need_somebody_come_first_and_those_that_are_over_last() {
        use CertificateState::{Expired, Expiring, Revoked, Superseded, Valid};
        let mut server = certificate("localhost", Valid, 9_000);
        server.role = CertificateRole::Server;
        let view = certificates_view(vec![
            certificate("old", Superseded, 1),
            certificate("later", Valid, 300),
            certificate("revoked-first", Revoked, 1),
            certificate("revoked-last", Revoked, 2),
            certificate("soon", Valid, 200),
            certificate("expiring", Expiring, 100),
            server,
            certificate("expired", Expired, 10),
        ]);
        assert_eq!(
            ids(&view),
            [
                "localhost",
                "expired",
                "expiring",
                "soon",
                "later",
                "revoked-last",
                "revoked-first",
                "old"
            ]
        );
        let counts = CertificateCounts {
            valid: 3,
            expiring: 1,
            expired: 1,
            revoked: 2,
            superseded: 1,
        };
        assert_eq!((view.counts, view.left_out), (counts, 0));
    }

    #[test]
    fn certificates_beyond_the_bound_are_counted_and_the_expiring_one_stays() {
        let mut rows: Vec<_> = (0..MAX_CERTIFICATES + 4)
            .map(|number| certificate(&format!("device-{number}"), CertificateState::Valid, 500))
            .collect();
        rows.push(certificate("expiring", CertificateState::Expiring, 900));
        let view = certificates_view(rows);
        assert_eq!((view.rows.len(), view.left_out), (MAX_CERTIFICATES, 5));
        assert_eq!((view.counts.valid, view.counts.expiring), (1_004, 1));
        assert_eq!(view.rows[0].id, "expiring");
        let exact = vec![certificate("a", CertificateState::Valid, 1); MAX_CERTIFICATES];
        assert_eq!(certificates_view(exact).left_out, 0);
    }

    #[test]
    fn sessions_are_counted_before_they_are_cut_and_the_unproven_stay() {
        let mut rows = vec![session("device", Some(CertificateRole::Device), Some(true)); MAX_SESSIONS];
        rows.push(session("gateway", Some(CertificateRole::Gateway), Some(false)));
        rows.push(session("stranger", None, None));
        let CountedSessions { view, by_role } = sessions_view(rows);
        assert_eq!((view.total, view.left_out), (502, 2));
        assert_eq!((view.post_quantum, view.unencrypted), (500, 1));
        assert_eq!(by_role, [0, 0, 1, 0, 500, 1]);
        assert_eq!(
            (&*view.rows[0].client_id, view.rows[1].id.as_deref()),
            ("stranger", Some("gateway"))
        );
    }

    #[test]
    fn hostile_client_id_is_cleaned_and_cut() {
        let hostile = format!("<b>\u{202e}\n{}", "x".repeat(1_000));
        let CountedSessions { view, .. } = sessions_view(vec![session(&hostile, None, None)]);
        let shown = &view.rows[0].client_id;
        assert!(shown.starts_with("<b>  xxx") && shown.chars().count() == MAX_NAME + 1);
    }

    #[test]
    fn most_urgent_alarms_come_first_and_the_rest_is_cut() {
        let alarm = |severity, since_ms| Alarm {
            severity,
            text: "text".into(),
            remedy: String::new(),
            since_ms,
        };
        let mut alarms = vec![alarm(AlarmSeverity::Info, 0); MAX_ALARMS];
        alarms.push(alarm(AlarmSeverity::Warning, 5));
        alarms.push(alarm(AlarmSeverity::Critical, 9));
        let view = alarms_view(alarms);
        let severities: Vec<_> = view.iter().map(|alarm| alarm.severity).collect();
        assert_eq!(severities.len(), MAX_ALARMS);
        assert_eq!(
            severities[..3],
            [
                AlarmSeverity::Critical,
                AlarmSeverity::Warning,
                AlarmSeverity::Info
            ]
        );
    }

    #[test]
    fn only_what_changed_is_sent_and_only_once() {
        let mut identity = Identity::default();
        assert_eq!(identity.take_changed(), None);
        let rows = vec![certificate("device-001", CertificateState::Valid, 1)];
        identity.set_certificates(certificates_view(rows.clone()));
        assert!(!identity.is_urgent());
        let changed = identity.take_changed().unwrap();
        assert!(changed.certificates.is_some() && changed.sessions.is_none() && changed.alarms.is_none());
        identity.set_certificates(certificates_view(rows));
        identity.set_alarms(Vec::new());
        assert_eq!(identity.take_changed(), None);
        identity.set_sessions(sessions_view(Vec::new()));
        assert!(identity.take_changed().unwrap().sessions.is_some());
        assert!(identity.view().certificates.is_some());
    }
}
