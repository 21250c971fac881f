//! Streams that are not what their framing says, and messages that a framing cannot carry.

/// Why a stream cannot be cut, or a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// No digit where a count starts.
    #[error(
        "a message starts with {found:?} and not with the count of its octets: set `framing` to Syslog or Newline, or \
         have the sender count octets, including a newline at the end"
    )]
    NoCount {
        /// The byte.
        found: char,
    },
    /// A count of 0, or with zeros before it.
    #[error("a count of octets starts with 0: have the sender write it without zeros, and send no empty messages")]
    LeadingZero,
    /// No space after a count.
    #[error(
        "a count of octets ends with {found:?} and not with a space: have the sender write one, or set `framing` to \
         Newline if its messages start with digits"
    )]
    CountEnd {
        /// The byte.
        found: char,
    },
    /// A length that no message has.
    #[error(
        "a message announces a length of {length} bytes or more, and the maximum is {max}: set `framing` to the one \
         that the sender uses"
    )]
    Length {
        /// The length, as far as it was read.
        length: usize,
        /// The greatest length.
        max: usize,
    },
    /// The stream ended within a length.
    #[error("the connection ended within the length of a message: find out why the sender disconnected")]
    CutLength,
    /// The stream ended before the message did.
    #[error(
        "the connection ended after {bytes} of the {length} bytes of a message: find out why the sender disconnected"
    )]
    Cut {
        /// The bytes that came.
        bytes: usize,
        /// The length of the message.
        length: usize,
    },
    /// A message with the byte that ends messages.
    #[error("a message contains {found:?}, which would end it: send with the framing OctetCounting or Length4")]
    Delimiter {
        /// The byte.
        found: char,
    },
    /// A message without bytes.
    #[error("a message is empty, and receivers skip empty messages in this framing: send with Length2 or Length4")]
    Empty,
    /// A message whose length does not fit.
    #[error(
        "a message of {bytes} bytes is longer than {most}, the maximum in this framing: send with another framing, or \
         lower `maxMessageBytes`"
    )]
    TooLong {
        /// The length of the message.
        bytes: usize,
        /// The greatest length.
        most: usize,
    },
}
