//! How many sockets the operating system lets the process hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that the process needs beside its connections.
const BESIDE: u64 = 256;

/// Raises the process's limit of open files to what `connections` need, as far as it may: soft
/// limits are often 1,024 for the sake of programs that use `select`, hard limits far higher.
pub(crate) fn raise_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(BESIDE);
    // No limit is `None`.
    let possible = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < possible) {
        let raised = Rlimit {
            current: Some(possible),
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
    let now = getrlimit(Resource::Nofile).current;
    if let Some(now) = now.filter(|now| *now < wanted) {
        tracing::info!(
            open_files = now,
            wanted,
            "fewer connections than configured: raise the limit of open files (ulimit -n)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_rises_to_what_is_wanted_or_to_the_hard_limit_and_never_falls() {
        raise_limit(1_000);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let reached = |wanted: u64| {
            let possible = maximum.map_or(wanted, |maximum| maximum.min(wanted));
            getrlimit(Resource::Nofile)
                .current
                .is_none_or(|now| now >= possible)
        };
        assert!(reached(1_256));
        raise_limit(10);
        assert_eq!(getrlimit(Resource::Nofile).current, current, "never lowered");
        raise_limit(usize::MAX);
        assert_eq!(getrlimit(Resource::Nofile).maximum, maximum);
        assert!(reached(u64::MAX));
    }
}
