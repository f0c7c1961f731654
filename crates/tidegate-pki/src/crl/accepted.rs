//! The lists that were in use, so that an older one cannot take their place.

use super::{CrlError, RevocationList};
use rustls_pki_types::CertificateRevocationListDer;
use std::collections::BTreeMap;

/// Most CAs whose last list is remembered: more than a bundle can hold.
const MAX_REMEMBERED: usize = 64;

/// Per CA, the list with the highest crlNumber (RFC 5280 §5.2.3) that was in use.
///
/// Kept by whoever reloads lists. A false accept would let in who was revoked between the two
/// lists; a false reject keeps the newer list in use, and says so.
#[derive(Debug, Clone, Default)]
pub struct Accepted {
    highest: BTreeMap<String, Highest>,
}

#[derive(Debug, Clone)]
struct Highest {
    number: Vec<u8>,
    /// None when only the number is known, from before this process started.
    der: Option<CertificateRevocationListDer<'static>>,
}

impl Accepted {
    /// Nothing was in use yet: any first list is taken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that a list with `number` was in use before this process started, as the ledger of the CA
    /// knows. `authority` is the CA's key id in hex.
    pub fn remember(&mut self, authority: &str, number: u64) {
        let bytes = number.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        // Zero itself is one byte long in a list.
        let number = bytes[zeros.min(bytes.len() - 1)..].to_vec();
        let highest = Highest { number, der: None };
        let known = self
            .highest
            .entry(authority.to_owned())
            .or_insert_with(|| highest.clone());
        if order(&known.number) < order(&highest.number) {
            *known = highest;
        }
        self.forget_beyond(&[]);
    }

    /// Takes lists into use: all of them, or none when one went back.
    pub fn take(&mut self, lists: &[RevocationList]) -> Result<(), CrlError> {
        for list in lists {
            if let Some(known) = self.highest.get(&list.authority) {
                known.refuse_older(list)?;
            }
        }
        for list in lists {
            let highest = Highest {
                number: list.number.clone(),
                der: Some(list.der.clone()),
            };
            self.highest.insert(list.authority.clone(), highest);
        }
        self.forget_beyond(lists);
        Ok(())
    }

    /// Keeps memory bounded: CAs that are not in use go first.
    fn forget_beyond(&mut self, lists: &[RevocationList]) {
        while self.highest.len() > MAX_REMEMBERED {
            let unused = |authority: &&String| lists.iter().all(|list| list.authority != **authority);
            let Some(authority) = self.highest.keys().find(unused).cloned() else {
                return;
            };
            self.highest.remove(&authority);
        }
    }
}

impl Highest {
    fn refuse_older(&self, list: &RevocationList) -> Result<(), CrlError> {
        let number = hex::encode(&list.number);
        if list.order() < order(&self.number) {
            return Err(CrlError::WentBack {
                number,
                accepted: hex::encode(&self.number),
            });
        }
        let same_number = list.number == self.number;
        if same_number && self.der.as_ref().is_some_and(|der| *der != list.der) {
            return Err(CrlError::SameNumber { number });
        }
        Ok(())
    }
}

fn order(number: &[u8]) -> (usize, &[u8]) {
    (number.len(), number)
}
