//! The meaning of the status with which a sink answers over HTTP.

use std::time::Duration;

/// The longest pause that a sink may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The meaning of a status for the messages of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Delivered,
    /// At least one message is refused because of its contents.
    Poison,
    /// The status says nothing about the messages.
    Retry,
}

pub(super) const fn meaning(status: u16) -> Meaning {
    match status {
        200..=299 => Meaning::Delivered,
        400..=499 if !is_of_all(status) => Meaning::Poison,
        _ => Meaning::Retry,
    }
}

/// Whether a status of 400 to 499 is about properties that all requests share, such as their path, their headers or
/// their number: a misconfigured sink would otherwise get none of the messages, and all would be put aside.
const fn is_of_all(status: u16) -> bool {
    matches!(status, 401 | 403..=408 | 410 | 411 | 414 | 415 | 417 | 421 | 425 | 426 | 428 | 429 | 431)
}

/// The answer of a sink, for people.
pub(super) fn words(status: u16, said: &str) -> String {
    let advice = match status {
        401 => "it requires credentials, which are not sent: configure it to accept messages by source address instead",
        403 => "it forbids this: permit the path and the source address at the sink",
        404 | 410 => "it serves nothing at this path: correct send.http.path",
        405 => "it does not accept POST at this path: correct send.http.path",
        408 => "the request arrived too slowly: check the network, or lower send.http.batchBytes",
        415 => "it does not accept this kind of body: set send.http.format to a format that it accepts",
        413 => "the body is too long: lower send.http.batchBytes, or raise the bound of the sink",
        429 => "it limits the rate of requests: messages wait; see its rate limits",
        400..=499 if is_of_all(status) => "it refuses such requests, whatever they contain: see its documentation",
        400..=499 => "it refuses a message because of its contents",
        500..=599 => "it failed: see its log",
        _ => "that is not an answer to a POST: name the sink itself in the backend and send.http.path",
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
