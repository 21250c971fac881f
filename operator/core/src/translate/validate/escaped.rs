//! Bytes as text with escapes.

use proxy_api::{MAX_CHECK_BYTES, Octets};

/// Decodes printable ASCII with the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`.
///
/// # Errors
/// The rule that the text violates.
pub(super) fn octets(text: &str) -> Result<Octets, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = next(rest)? {
        bytes.push(byte);
        rest = after;
    }
    let count = bytes.len();
    Octets::new(bytes)
        .filter(|octets| !octets.is_empty())
        .ok_or_else(|| format!("must be 1 to {MAX_CHECK_BYTES} bytes, but has {count}"))
}

/// Decodes the first byte of a text. Returns it with the rest of the text; `None` at the end.
fn next(text: &[u8]) -> Result<Option<(u8, &[u8])>, String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Ok(Some(match text {
        [] => return Ok(None),
        [b'\\', b'r', rest @ ..] => (b'\r', rest),
        [b'\\', b'n', rest @ ..] => (b'\n', rest),
        [b'\\', b't', rest @ ..] => (b'\t', rest),
        [b'\\', b'0', rest @ ..] => (0, rest),
        [b'\\', b'\\', rest @ ..] => (b'\\', rest),
        [b'\\', b'x', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            let value = digit(high).zip(digit(low)).map_or(0, |(high, low)| (high << 4) | low);
            (value, rest)
        }
        [b'\\', ..] => {
            return Err("a backslash begins one of the escapes \\r, \\n, \\t, \\0, \\xHH and \\\\".to_owned());
        }
        [byte @ b' '..=b'~', rest @ ..] => (*byte, rest),
        _ => {
            return Err(
                "must be printable ASCII: write other bytes as \\xHH, and line ends as \\r and \\n in single quotes"
                    .to_owned(),
            );
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u8>, String> {
        octets(text).map(|octets| octets.bytes().to_vec())
    }

    #[test]
    fn escapes_mean_one_byte_each() {
        assert_eq!(bytes(r"PING\r\n").as_deref(), Ok(&b"PING\r\n"[..]));
        assert_eq!(bytes(r"\t\0\\ \xfF\x00~").as_deref(), Ok(&b"\t\0\\ \xff\0~"[..]));
    }

    #[test]
    fn what_is_no_escape_and_what_is_not_printable_is_refused() {
        for text in [r"\", r"a\q", r"\x", r"\x1", r"\x1g", r"\X11"] {
            assert!(bytes(text).is_err_and(|why| why.contains("escapes")), "{text}");
        }
        for text in ["\r", "ä", "\u{7f}", "a\nb"] {
            assert!(bytes(text).is_err_and(|why| why.contains("printable")), "{text:?}");
        }
    }

    #[test]
    fn the_bound_counts_bytes_and_not_letters() {
        assert_eq!(bytes("").err().as_deref(), Some("must be 1 to 256 bytes, but has 0"));
        assert_eq!(bytes(&r"\xff".repeat(256)).map(|bytes| bytes.len()), Ok(256));
        assert_eq!(bytes(&"a".repeat(257)).err().as_deref(), Some("must be 1 to 256 bytes, but has 257"));
    }
}
