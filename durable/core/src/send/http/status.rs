//! What an answer of a sink means.

use std::time::Duration;

/// A sink may ask for so long a pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What a status says about the messages of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Delivered,
    /// At least one of them is refused for what it is.
    Poison,
    /// It says nothing about them.
    Retry,
}

pub(super) const fn meaning(status: u16) -> Meaning {
    match status {
        200..=299 => Meaning::Delivered,
        400..=499 if !matches!(status, 401 | 403 | 404 | 408 | 429) => Meaning::Poison,
        _ => Meaning::Retry,
    }
}

/// What a sink says, for people.
pub(super) fn words(status: u16, said: &str) -> String {
    let advice = match status {
        401 => "it wants credentials, which are not sent: let it take messages without, by their source address",
        403 => "it forbids this: permit the path and the source address at the sink",
        404 => "it has nothing at this path: correct send.http.path",
        408 => "the request came too slowly: see the network, or lower send.http.batchBytes",
        413 => "the body is too long: lower send.http.batchBytes, or raise the bound of the sink",
        429 => "it wants less: messages wait; see the bounds of the sink",
        400..=499 => "it refuses a message for what it is",
        500..=599 => "it failed: see its log",
        _ => "that is no answer to a POST: name the sink itself in the backend and send.http.path",
    };
    let colon = if said.is_empty() { "" } else { ": " };
    format!("the sink answers {status}: {advice}{colon}{said}")
}

/// The pause that a sink asks for, up to five minutes. A date is not read: the pause is then the usual
/// one.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let seconds = value.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}
