//! Violations of RELP by a client.

/// How a client violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No number where a frame starts.
    #[error(
        "a RELP frame starts with {found:?} and not with the number of a transaction: have the sender speak RELP, \
         without TLS, or set `framing` to the one that the sender uses"
    )]
    Number {
        /// The byte.
        found: char,
    },
    /// A number or a length with too many digits.
    #[error("a RELP frame has a number of more than 9 digits: see whether the sender is a client of RELP")]
    Digits,
    /// A command that is no word of at most 32 letters.
    #[error("a RELP frame has {found:?} in its command, where 1 to 32 letters and a space belong: update the sender")]
    Command {
        /// The byte.
        found: char,
    },
    /// A length that is no number, or is not followed as it should be.
    #[error(
        "a RELP frame has {found:?} in its length, where digits belong, then a space, or a newline after 0: update the \
         sender"
    )]
    Length {
        /// The byte.
        found: char,
    },
    /// More data than a command may have.
    #[error("a RELP frame announces {length} bytes of data, and the maximum is {max}: send shorter messages")]
    TooLong {
        /// The length.
        length: usize,
        /// The greatest length.
        max: usize,
    },
    /// No newline after the data.
    #[error("a RELP frame has {found:?} where its newline belongs, so its length is wrong: update the sender")]
    End {
        /// The byte.
        found: char,
    },
    /// Another number than the next one.
    #[error(
        "a RELP transaction has the number {found} instead of {expected}: update the sender, and check that nothing on \
         the way changes the stream"
    )]
    Order {
        /// The number that is next.
        expected: u32,
        /// The number of the frame.
        found: u32,
    },
    /// Another command before `open`.
    #[error("a RELP session starts without open: update the sender")]
    NotOpen,
    /// A second `open`.
    #[error("a RELP session is opened twice: update the sender")]
    Twice,
    /// A command after `close`.
    #[error("a command follows the close of a RELP session: update the sender")]
    AfterClose,
    /// `starttls`.
    #[error("the sender asks for TLS within RELP, which is not offered: have it send without TLS")]
    StartTls,
    /// A command that is not known.
    #[error("the RELP command {command:?} is not one of open, syslog and close: have the sender use only these")]
    Unknown {
        /// The command.
        command: String,
    },
    /// A version that is no number.
    #[error("the sender offers a RELP version that is not a number: update the sender")]
    Version,
    /// Offers without `syslog`.
    #[error("the sender does not offer the RELP command syslog: have it send by this command")]
    NoSyslog,
    /// The stream ended within a frame.
    #[error(
        "the connection ended within a RELP frame: find out why the sender disconnected; it resends what was not \
         acknowledged"
    )]
    Cut,
}

impl Violation {
    /// The answer to the client's command. `None`: there is no complete command.
    pub(super) const fn answer(&self) -> Option<&'static str> {
        match self {
            Self::NotOpen => Some("500 open the session first"),
            Self::Twice => Some("500 the session is open"),
            Self::AfterClose => Some("500 the session is closed"),
            Self::StartTls => Some("500 TLS is not offered"),
            Self::Unknown { .. } => Some("500 the command is not offered"),
            Self::Version => Some("500 the version is not a number"),
            Self::NoSyslog => Some("500 the command syslog is required"),
            Self::TooLong { .. } => Some("500 the data are too long"),
            Self::Number { .. }
            | Self::Digits
            | Self::Command { .. }
            | Self::Length { .. }
            | Self::End { .. }
            | Self::Order { .. }
            | Self::Cut => None,
        }
    }
}
