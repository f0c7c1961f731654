//! The device itself says that something is wrong.

use super::Rule;
use crate::explain::Explanation;

/// The explanation for a status that is not one of the `allowed`; every one is where there are none.
pub(super) fn status(allowed: &[String], status: &str) -> Option<Explanation> {
    if allowed.is_empty() || allowed.iter().any(|allowed| allowed == status) {
        return None;
    }
    let sentence = format!("the device reports status {status:?}");
    Some(Explanation::of_rule(
        Rule::Status,
        sentence,
        "status",
        0.0,
        f64::NAN,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_status_is_well_and_without_a_list_every_one_is() {
        let allowed = ["operational".to_owned()];
        assert_eq!(status(&allowed, "operational"), None);
        assert_eq!(
            status(&allowed, "fault").unwrap().sentence,
            "the device reports status \"fault\""
        );
        assert_eq!(status(&[], "fault"), None);
    }
}
