//! Who is connected, as the page shows it.

use super::held::role_of;
use tidegate_broker::{SessionInfo, TlsInfo};
use tidegate_envelope::principal::Principal;
use tidegate_serve::protocol::{SessionRow, SessionTls};

/// The rows of the page; the hub bounds and cleans them.
pub(super) fn rows(sessions: &[SessionInfo]) -> Vec<SessionRow> {
    sessions.iter().map(row).collect()
}

fn row(session: &SessionInfo) -> SessionRow {
    let (id, role) = match &*session.principal {
        Principal::Certificate { id, role } => (Some(id.to_string()), Some(role_of(*role))),
        Principal::Anonymous | Principal::Broker => (None, None),
    };
    SessionRow {
        id,
        role,
        client_id: session.client_id.to_string(),
        peer: session.peer.to_string(),
        since_ms: session.since.as_millis(),
        tls: session.tls.as_ref().map(tls),
    }
}

fn tls(info: &TlsInfo) -> SessionTls {
    SessionTls {
        version: format!("TLS {}", info.version),
        cipher: info.cipher.to_owned(),
        key_exchange: info.key_exchange.unwrap_or_default().to_owned(),
        post_quantum: info.is_post_quantum(),
        resumed: info.resumed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_envelope::id::DeviceId;
    use tidegate_envelope::principal::Role;
    use tidegate_envelope::time::Timestamp;
    use tidegate_serve::protocol::CertificateRole;

    fn session(principal: Principal, tls: Option<TlsInfo>) -> SessionInfo {
        SessionInfo {
            principal: Arc::new(principal),
            client_id: "client".into(),
            peer: "127.0.0.1:5".parse().unwrap(),
            since: Timestamp::from_micros(7_000),
            tls,
        }
    }

    #[test]
    fn only_what_a_certificate_proved_is_an_identity() {
        let id = DeviceId::new("device-001").unwrap();
        let proven = Principal::Certificate {
            id,
            role: Role::Device,
        };
        let resumed = TlsInfo {
            version: "1.2",
            cipher: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            key_exchange: None,
            resumed: true,
            not_after: None,
        };
        let rows = rows(&[
            session(proven, Some(resumed)),
            session(Principal::Anonymous, None),
        ]);
        assert_eq!(rows[0].id.as_deref(), Some("device-001"));
        assert_eq!(rows[0].role, Some(CertificateRole::Device));
        assert_eq!((rows[0].since_ms, &*rows[0].peer), (7, "127.0.0.1:5"));
        let tls = rows[0].tls.as_ref().unwrap();
        assert_eq!((&*tls.version, &*tls.key_exchange), ("TLS 1.2", ""));
        assert!(tls.resumed && !tls.post_quantum);
        assert_eq!((&rows[1].id, rows[1].role, &rows[1].tls), (&None, None, &None));
    }
}
