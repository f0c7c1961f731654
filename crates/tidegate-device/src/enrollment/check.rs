//! What came from the gateway, before anything of it is used.

use super::EnrollError;
use super::exchange::Answer;
use rustls_pki_types::CertificateDer;
use std::path::Path;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::files::MAX_CHAIN;
use tidegate_pki::identity::role_name;
use tidegate_pki::inspect::{self, CertificateInfo, Usage};
use tidegate_pki::request::Request;

/// Stands for a file name in errors.
const ANSWER: &str = "the gateway's answer";

/// The CAs that the device shall trust, one at least.
///
/// They came over an authenticated connection, so its server says which they are. Refused are those
/// with which the device would not find back to this very server: taking them would lock it out.
pub(super) fn authorities(answer: Answer) -> Result<Vec<CertificateInfo>, EnrollError> {
    let mut authorities: Vec<CertificateInfo> = Vec::new();
    for der in answer.certificates {
        let info = inspect::describe(der, Path::new(ANSWER))?;
        if info.usage != Usage::Authority {
            return Err(EnrollError::NotAuthority);
        }
        if !authorities.iter().any(|known| known.der == info.der) {
            authorities.push(info);
        }
    }
    let signs_server = answer
        .server_chain
        .iter()
        .any(|certificate| inspect::issuer_of(certificate, &authorities).is_some());
    // A file of more could not be read back.
    if authorities.len() > MAX_CHAIN {
        return Err(EnrollError::TooManyAuthorities(authorities.len()));
    }
    if !signs_server {
        return Err(EnrollError::AuthoritiesLockOut {
            server: answer.server,
        });
    }
    Ok(authorities)
}

/// The certificate for the key of `request`, which must be this device's, signed by one of
/// `authorities` and valid now.
///
/// A false accept would put a certificate in place with which the broker lets nobody in, or lets
/// this device in as another; a false reject makes the device ask again.
pub(super) fn certificate(
    offered: Vec<CertificateDer<'static>>,
    request: &[u8],
    device: &DeviceId,
    authorities: &[CertificateInfo],
    now: Timestamp,
) -> Result<CertificateInfo, EnrollError> {
    let key = Request::parse_der(request)?.public_key();
    let mut offered = offered
        .into_iter()
        .filter_map(|der| inspect::describe(der, Path::new(ANSWER)).ok());
    let info = offered
        .find(|info| info.public_key == key)
        .ok_or(EnrollError::OtherKey)?;
    if info.identity.as_ref() != Some(device) || info.role != Some(Role::Device) {
        return Err(EnrollError::OtherIdentity {
            device: device.clone(),
            found: match (&info.role, &info.identity) {
                (Some(role), Some(id)) => format!("the {} {id}", role_name(*role)),
                _ => "nobody".to_owned(),
            },
        });
    }
    if info.usage != Usage::Client || inspect::issuer_of(&info.der, authorities).is_none() {
        return Err(EnrollError::OtherAuthority);
    }
    if !info.is_valid(now) {
        return Err(EnrollError::CertificateClock {
            not_before: info.not_before,
            not_after: info.not_after,
            now,
        });
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_pki::authority::Authority;
    use tidegate_pki::profile::Profile;
    use tidegate_pki::request;

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    struct Site {
        authority: Authority,
        request: Vec<u8>,
    }

    fn id(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    fn info(der: CertificateDer<'static>) -> CertificateInfo {
        inspect::describe(der, Path::new("test")).unwrap()
    }

    impl Site {
        fn new() -> Self {
            Self {
                authority: Authority::generate(NOW).unwrap(),
                request: request::make(&id("device-001")).unwrap().der,
            }
        }

        fn signed(&self, request: &[u8], profile: &Profile) -> CertificateDer<'static> {
            let request = Request::parse_der(request).unwrap();
            let pem = self.authority.sign_request(&request, profile, NOW).unwrap();
            inspect::from_pem(&pem, Path::new("test")).unwrap().der
        }

        fn server(&self) -> CertificateDer<'static> {
            let profile = Profile::server(&[""; 0]).unwrap();
            let pem = self.authority.issue(&profile, NOW).unwrap().certificate_pem;
            inspect::from_pem(&pem, Path::new("test")).unwrap().der
        }

        fn check(
            &self,
            offered: Vec<CertificateDer<'static>>,
            now: Timestamp,
        ) -> Result<CertificateInfo, EnrollError> {
            let authorities = [info(self.authority.der().clone())];
            certificate(offered, &self.request, &id("device-001"), &authorities, now)
        }

        fn offers(
            &self,
            certificates: Vec<CertificateDer<'static>>,
        ) -> Result<Vec<CertificateInfo>, EnrollError> {
            authorities(Answer {
                server: "gateway.example:8443".parse().unwrap(),
                server_chain: vec![self.server()],
                certificates,
            })
        }
    }

    fn device() -> Profile {
        Profile::device(id("device-001")).lasting(DAY)
    }

    #[test]
    fn certificate_for_the_key_and_the_device_is_found_wherever_it_stands() {
        let site = Site::new();
        let good = site.signed(&site.request, &device());
        let der = site.authority.der().clone();
        assert_eq!(site.check(vec![der, good.clone()], NOW).unwrap().der, good);
    }

    #[test]
    fn certificate_for_another_key_is_refused() {
        let site = Site::new();
        let other = request::make(&id("device-001")).unwrap().der;
        let refused = site.check(vec![site.signed(&other, &device())], NOW).unwrap_err();
        assert!(matches!(refused, EnrollError::OtherKey), "{refused}");
    }

    #[test]
    fn certificate_for_another_device_or_role_is_refused() {
        let site = Site::new();
        for (profile, found) in [
            (Profile::device(id("device-002")), "the device device-002"),
            (Profile::gateway(id("device-001")), "the gateway device-001"),
            (Profile::server(&[""; 0]).unwrap(), "nobody"),
        ] {
            let refused = site
                .check(vec![site.signed(&site.request, &profile)], NOW)
                .unwrap_err()
                .to_string();
            assert!(refused.contains(found), "{refused}");
        }
    }

    #[test]
    fn certificate_of_another_ca_is_refused() {
        let (site, other) = (Site::new(), Site::new());
        let refused = site
            .check(vec![other.signed(&site.request, &device())], NOW)
            .unwrap_err();
        assert!(matches!(refused, EnrollError::OtherAuthority), "{refused}");
    }

    #[test]
    fn certificate_outside_its_validity_is_refused_and_the_clock_is_named() {
        let site = Site::new();
        let good = site.signed(&site.request, &device());
        assert!(site.check(vec![good.clone()], NOW.plus(DAY)).is_ok());
        for now in [NOW.minus(DAY), NOW.plus(DAY + Duration::from_secs(1))] {
            let refused = site.check(vec![good.clone()], now).unwrap_err().to_string();
            assert!(refused.contains("set the clock"), "{refused}");
        }
    }

    #[test]
    fn authorities_are_taken_once_each_with_the_one_of_the_server_among_them() {
        let (site, next) = (Site::new(), Site::new());
        let both = [site.authority.der(), next.authority.der(), site.authority.der()].map(Clone::clone);
        let taken = site.offers(both.to_vec()).unwrap();
        assert_eq!(
            taken.iter().map(|info| info.der.clone()).collect::<Vec<_>>(),
            both[..2]
        );
    }

    #[test]
    fn authorities_that_would_lock_the_device_out_are_refused() {
        let (site, next) = (Site::new(), Site::new());
        for offered in [Vec::new(), vec![next.authority.der().clone()]] {
            let refused = site.offers(offered).unwrap_err();
            assert!(
                matches!(refused, EnrollError::AuthoritiesLockOut { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn more_authorities_than_a_file_may_hold_are_refused() {
        let site = Site::new();
        let mut offered = vec![site.authority.der().clone()];
        let more = || Authority::generate(NOW).unwrap().der().clone();
        offered.extend(std::iter::repeat_with(more).take(MAX_CHAIN - 1));
        assert_eq!(site.offers(offered.clone()).unwrap().len(), MAX_CHAIN);
        offered.push(more());
        let refused = site.offers(offered).unwrap_err();
        assert!(matches!(refused, EnrollError::TooManyAuthorities(_)), "{refused}");
    }

    #[test]
    fn leaf_offered_as_authority_is_refused() {
        let site = Site::new();
        let refused = site
            .offers(vec![site.authority.der().clone(), site.server()])
            .unwrap_err();
        assert!(matches!(refused, EnrollError::NotAuthority), "{refused}");
    }
}
