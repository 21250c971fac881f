//! Identities of sessions.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// Identity of a session: of a TCP connection or a UDP flow through a proxy. As text [`SessionId::DIGITS`] hexadecimal
/// digits, the same in logs, lists and PROXY headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Length of the text, in bytes.
    pub const DIGITS: u16 = 16;
}

/// The text is not the id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a session: {} hexadecimal digits", SessionId::DIGITS)]
pub struct SessionIdError;

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Parsing alone would also accept a sign, and fewer digits.
        let is_id = text.len() == usize::from(Self::DIGITS) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_id);
        number.map(Self).ok_or(SessionIdError)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// A visitor that reads the text of an id without copying it.
struct Digits;

impl Visitor<'_> for Digits {
    type Value = SessionId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hexadecimal digits", SessionId::DIGITS)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SessionId, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_digits_and_reads_as_it_is_written() {
        for (number, text) in [(0, "0000000000000000"), (0xab, "00000000000000ab"), (u64::MAX, "ffffffffffffffff")] {
            let id = SessionId(number);
            assert_eq!((id.to_string().as_str(), text.parse::<SessionId>()), (text, Ok(id)));
            assert_eq!(serde_json::to_value(id).expect("JSON"), text);
            assert_eq!(serde_json::from_value::<SessionId>(text.into()).expect("an id"), id);
        }
        assert_eq!("00000000000000AB".parse::<SessionId>(), Ok(SessionId(0xab)), "a person may write capitals");
    }

    #[test]
    fn texts_of_another_form_are_no_id() {
        for text in ["", "ab", "+0000000000000ab", "0x000000000000ab", "00000000000000abc", "00000000000000ag"] {
            assert_eq!(text.parse::<SessionId>(), Err(SessionIdError), "{text}");
            assert!(serde_json::from_value::<SessionId>(text.into()).is_err(), "{text}");
        }
    }
}
