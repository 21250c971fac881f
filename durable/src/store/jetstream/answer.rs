//! The answers of the server, or of the client in its place, to messages that were published.

use std::error::Error as _;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use durable_core::stream::Outcome;

/// The outcome of an error for messages. The client itself refuses to send one that is too long for the server.
pub(super) fn outcome_of(error: &PublishError) -> Outcome {
    if error.kind() == PublishErrorKind::MaxPayloadExceeded { Outcome::TooLong } else { outcome(code(error)) }
}

/// The outcome of an error of the server for messages; `None`: the error is not one of the server.
fn outcome(code: Option<ErrorCode>) -> Outcome {
    match code {
        // The answer to an earlier try was lost.
        Some(ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE) => Outcome::Stored,
        Some(
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ) => Outcome::Full,
        Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM) => Outcome::TooLong,
        // The server leaves messages that it does not take out of a batch, and says no more than that.
        Some(ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH) => Outcome::Incomplete,
        _ => Outcome::Broken,
    }
}

/// The code of an error of the server.
fn code(error: &PublishError) -> Option<ErrorCode> {
    let of_the_server = error.source()?.downcast_ref::<async_nats::jetstream::Error>()?;
    Some(of_the_server.error_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_the_stream_has_messages_has_no_room_or_that_nobody_knows() {
        let of = |code: u64| outcome(Some(ErrorCode(code)));
        assert_eq!(of(10_201), Outcome::Stored, "the batch has a message that it has");
        assert_eq!([10_077, 10_047, 10_002].map(of), [Outcome::Full; 3], "its bytes, the server's, the account's");
        assert_eq!([10_054, 10_097].map(of), [Outcome::TooLong; 2], "the message, its headers");
        assert_eq!(of(10_176), Outcome::Incomplete, "a message of the batch was not taken");
        assert_eq!(of(10_059), Outcome::Broken, "there is no such stream");
        assert_eq!(outcome(None), Outcome::Broken, "no answer came");
    }

    #[test]
    fn a_message_that_the_client_does_not_send_is_too_long_and_not_tried_for_ever() {
        let of = |kind| outcome_of(&PublishError::new(kind));
        assert_eq!(of(PublishErrorKind::MaxPayloadExceeded), Outcome::TooLong);
        assert_eq!(of(PublishErrorKind::TimedOut), Outcome::Broken);
    }
}
