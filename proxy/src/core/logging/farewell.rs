//! What a drain of the process means for its live sessions, in words.

use proxy_api::count;

/// Describes what happens to `live` sessions. `longest`: seconds of the drain that begins now; `None`: a drain that
/// began earlier goes on, with a deadline of its own.
#[must_use]
pub fn farewell(live: u64, longest: Option<u64>) -> String {
    let sessions = count(live, "live session");
    match (live, longest) {
        (0, _) => "no session is live".to_owned(),
        (_, Some(0)) => format!("ending {sessions} now"),
        (_, Some(seconds)) => format!("{sessions} can continue for up to {seconds} s"),
        (_, None) => format!("{sessions} can continue until the end of the drain that has already begun"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_that_of_the_drain_that_runs() {
        for (live, longest, expected) in [
            (0, Some(60), "no session is live"),
            (0, None, "no session is live"),
            (1, Some(0), "ending 1 live session now"),
            (1, Some(60), "1 live session can continue for up to 60 s"),
            (2, Some(60), "2 live sessions can continue for up to 60 s"),
            (2, None, "2 live sessions can continue until the end of the drain that has already begun"),
        ] {
            assert_eq!(farewell(live, longest), expected);
        }
    }
}
