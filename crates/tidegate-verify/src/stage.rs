//! The stages of trust as types: a skipped check does not compile.

/// Anything that came from outside: nothing about it has been checked.
#[derive(Debug, Clone)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Marks something from outside.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The untrusted value, for the checks of this crate only.
    pub(crate) fn into_untrusted(self) -> T {
        self.0
    }
}

/// The signature holds, and the signer is the device that the topic and the certificate name.
///
/// Made only by [`Verifier::verify`](crate::verifier::Verifier::verify). At the levels without
/// signatures it means that those checks are turned off, and the inner value says so.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) const fn attest(value: T) -> Self {
        Self(value)
    }

    /// The verified value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

/// Verified, never accepted before, and durable.
///
/// Made only by [`ReplayGuard::commit`](crate::guard::ReplayGuard::commit), after the log has
/// said that the reading and the device's new high-water mark are on disk.
#[derive(Debug, Clone)]
pub struct Fresh<T>(T);

impl<T> Fresh<T> {
    pub(crate) const fn attest(value: T) -> Self {
        Self(value)
    }

    /// The fresh value.
    pub const fn get(&self) -> &T {
        &self.0
    }
}
