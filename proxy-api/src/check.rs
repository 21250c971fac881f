//! Active health checks.
//!
//! A kind of check that a proxy does not know makes its listener unsupported, as every unknown value does: a proxy that
//! checked something else would send sessions where the forward does not want them.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// Most bytes that a check sends, and most bytes that it looks for in an answer.
pub const MAX_CHECK_BYTES: usize = 256;

/// Active health checks of every endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// Kind of check.
    pub probe: Probe,
    /// Port to check; `None`: the endpoint's own port. The port of a backend comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between checks.
    pub interval_seconds: u32,
    /// Timeout of one check, in seconds.
    pub timeout_seconds: u32,
    /// Consecutive failures after which a healthy endpoint becomes unhealthy.
    pub unhealthy_threshold: u32,
    /// Consecutive successes after which an unhealthy endpoint becomes healthy.
    pub healthy_threshold: u32,
}

/// Kind of check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// The endpoint must accept a connection.
    Tcp,
    /// `GET` of this path must return a status of 200 to 399.
    Http {
        /// Path with its query string.
        path: String,
    },
    /// The answer of the endpoint must contain these bytes.
    Exchange {
        /// Bytes that the check sends first; empty: none.
        #[serde(default, skip_serializing_if = "Octets::is_empty")]
        send: Octets,
        /// Bytes that the answer must contain; not empty.
        expect: Octets,
    },
    /// `MySQL` or `MariaDB`: the server must greet and answer a login.
    Mysql {
        /// An account without a password, which the server must accept; `None`: an account that does not exist, which
        /// the server must refuse.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// `PostgreSQL`: the server must answer.
    Postgres {
        /// The account of a session that the server must begin, at least up to the request for a password; `None`: the
        /// server must answer a request for encryption.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
}

/// At most [`MAX_CHECK_BYTES`] bytes, written as hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Octets(Vec<u8>);

impl Octets {
    /// Wraps these bytes; `None` if there are too many.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= MAX_CHECK_BYTES).then_some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Octets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_CHECK_BYTES} bytes as pairs of hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Octets, E> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        };
        let pairs = text.as_bytes().chunks(2).take(MAX_CHECK_BYTES + 1);
        let bytes: Option<Vec<u8>> = pairs.map(pair).collect();
        bytes.and_then(Octets::new).ok_or_else(|| E::invalid_value(de::Unexpected::Str("other text"), &self))
    }
}
