//! `tidegate.toml` and `devices.toml`: whatever they hold is taken, or refused in words.

/// Takes `bytes` for a configuration.
///
/// # Panics
/// When a property does not hold.
pub fn check(bytes: &[u8]) {
    judged(bytes, tidegate::check_configuration);
}

/// Takes `bytes` for a registry of devices.
///
/// # Panics
/// When a property does not hold.
pub fn check_registry(bytes: &[u8]) {
    judged(bytes, tidegate::check_registry);
}

fn judged(bytes: &[u8], judge: fn(&str) -> Result<(), String>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match judge(text) {
        Ok(()) => {
            let with_comment = format!("{text}\n# the end");
            assert_eq!(judge(&with_comment), Ok(()), "a comment changes nothing");
        }
        Err(words) => assert!(!words.is_empty(), "a refusal says why"),
    }
}
