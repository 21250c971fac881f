//! Framings of streams.

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline ends a message.
    Newline,
    /// A NUL ends a message.
    Nul,
    /// The length in decimal digits, a space, the message (RFC 6587, 3.4.1).
    OctetCounting,
    /// RFC 6587 both ways. Messages are written with a count.
    Syslog,
    /// The length in two bytes, the higher one first.
    Length2,
    /// The length in four bytes, the highest one first.
    Length4,
}

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message with the byte that ends messages.
    #[error("a message has {found:?} within, which would end it: send with the framing OctetCounting or Length4")]
    Delimiter {
        /// The byte.
        found: char,
    },
    /// A message whose length does not fit.
    #[error("a message of {bytes} bytes is too long for this framing: send with another framing")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Appends `message` in this framing to `out`, or leaves `out` as it is if the framing cannot carry
/// the message.
pub fn encode(framing: Framing, message: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
    let bytes = message.len();
    let delimiter = match framing {
        Framing::Newline => Some(b'\n'),
        Framing::Nul => Some(0),
        Framing::OctetCounting | Framing::Syslog => {
            out.extend_from_slice(format!("{bytes} ").as_bytes());
            None
        }
        Framing::Length2 => {
            let length = u16::try_from(bytes).map_err(|_| FramingError::TooLong { bytes })?;
            out.extend_from_slice(&length.to_be_bytes());
            None
        }
        Framing::Length4 => {
            let length = u32::try_from(bytes).map_err(|_| FramingError::TooLong { bytes })?;
            out.extend_from_slice(&length.to_be_bytes());
            None
        }
    };
    if let Some(found) = delimiter.filter(|delimiter| message.contains(delimiter)) {
        return Err(FramingError::Delimiter { found: char::from(found) });
    }
    out.extend_from_slice(message);
    out.extend(delimiter);
    Ok(())
}
