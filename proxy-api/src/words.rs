//! Numbers in messages for people, the same in every program.

/// Formats a number with its noun: `1 session`, `2 sessions`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(
            [count(0, "proxy pod"), count(1, "session"), count(2, "session")].join(", "),
            "0 proxy pods, 1 session, 2 sessions"
        );
    }
}
