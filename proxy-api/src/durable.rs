//! Durable listeners: messages in, a log on disk, messages out.

use std::{fmt::Write as _, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ListenerId, Transport};

/// Why a stream of a NATS server is refused in a sidecar.
pub const SIDECAR_STREAM: &str = "is not for sidecars: the credentials of the server would have to be in the pod of the \
                                  app; use placement.gateway with a gateway that has spec.jetStream, or store.disk";
/// Why the server of a stream is refused in a cluster.
pub const STREAM_SERVER: &str = "is for portlane run: in a cluster the gateway names the server (spec.jetStream), so that \
                                 its credentials reach no other; remove url, credentialsRef and replicas";

/// Longest name of a stream, in bytes. A server accepts 255, and the stream of dead letters has the suffix `-dead`. A
/// name that fits never changes: the messages under it would be left.
const STREAM_NAME: usize = 250;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const TIB: u64 = 1024 * 1024 * MIB;

/// Least size of each log, in bytes.
const LEAST_LOG: u64 = 16 * MIB;
/// Most lanes of a listener.
const LANES: u64 = 16;

/// The store of a durable listener, and how its messages are sent on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Durable {
    /// How messages are delimited in the data of clients.
    pub framing: Framing,
    /// Longest message, in bytes.
    pub max_message_bytes: u32,
    /// What happens to a longer message.
    pub oversize: Oversize,
    /// Where messages are stored.
    pub store: Store,
    /// Age at which messages are dropped; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// What is dropped when the store is full.
    pub when_full: WhenFull,
    /// Longest time until a message is synced.
    pub sync_millis: u32,
    /// Number of logs, each with a connection to the sink, among which sources are divided; 1 if absent.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub lanes: u32,
    /// How messages are sent.
    pub send: Sink,
    /// Bytes of the log of dead letters; `None`: such messages are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_bytes: Option<u64>,
    /// Metadata that is added to messages; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrich: Option<Enrich>,
}

/// How messages are delimited in the data of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// Each datagram is a message.
    Datagram,
    /// A line feed ends a message.
    Newline,
    /// A zero byte ends a message.
    Nul,
    /// A decimal length and a space precede a message (RFC 6587).
    OctetCounting,
    /// Each message has either form of RFC 6587: `OctetCounting` or `Newline`.
    Syslog,
    /// A length of 2 bytes precedes a message.
    Length2,
    /// A length of 4 bytes precedes a message.
    Length4,
    /// RELP, by which each message is acknowledged.
    Relp,
}

/// What happens to a message that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oversize {
    /// Its beginning is stored.
    Truncate,
    /// It is dropped.
    Drop,
}

/// Where messages are stored until the sink has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Store {
    /// A log on the disk of the proxy.
    Disk {
        /// Bytes of the log.
        max_bytes: u64,
    },
    /// A stream of a NATS server.
    JetStream {
        /// `nats://HOST:PORT` or `tls://HOST:PORT`. Empty only within the operator: that of the gateway.
        url: String,
        /// Name of the Secret with the credentials; `None`: the server requires none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials_name: Option<String>,
        /// Number of servers of a cluster that store each message.
        replicas: u32,
        /// Bytes of the stream.
        max_bytes: u64,
    },
}

/// What is dropped when the store is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// The oldest messages.
    DropOldest,
    /// The new message.
    DropNewest,
    /// Nothing: clients are not read until there is room.
    Block,
}

/// How messages are sent to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Sink {
    /// By RELP.
    Relp {
        /// Messages that are sent before the first of them is acknowledged.
        window_messages: u32,
    },
    /// By framed TCP.
    Tcp {
        /// How messages are delimited.
        framing: SinkFraming,
        /// Acknowledged bytes that are sent again after a reset.
        rewind_bytes: u32,
    },
    /// By UDP, each in a datagram.
    Udp {},
    /// By HTTP POST, in batches.
    Http {
        /// Path with its query string.
        path: String,
        /// Body of a request.
        format: HttpFormat,
        /// Bytes of messages in a request.
        batch_bytes: u32,
        /// Messages in a request.
        batch_messages: u32,
        /// Longest time that a message waits for others.
        linger_millis: u32,
    },
}

/// How messages are delimited in the data to the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkFraming {
    /// A line feed ends a message.
    Newline,
    /// A zero byte ends a message.
    Nul,
    /// A decimal length and a space precede a message (RFC 6587).
    OctetCounting,
    /// A length of 2 bytes precedes a message.
    Length2,
    /// A length of 4 bytes precedes a message.
    Length4,
}

/// Body of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpFormat {
    /// A message on each line.
    Ndjson,
    /// An array of the messages.
    JsonArray,
    /// The messages one after the other.
    Raw,
}

/// Receive time, client address, forward and pod, and the form in which they are added to messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Enrich {
    /// An object of JSON around each message.
    Json {},
    /// An element of structured data in each message of RFC 5424; other messages stay unchanged.
    Syslog {
        /// Name of the element.
        structured_data_id: String,
    },
}

/// A number: its name, its value and the allowed range.
type Number = (&'static str, u64, RangeInclusive<u64>);

impl Durable {
    /// Whether a server stores the messages.
    fn is_stream(&self) -> bool {
        matches!(self.store, Store::JetStream { .. })
    }

    /// Describes the first number that is out of its bounds. The lengths of texts are numbers, too.
    #[must_use]
    pub fn beyond(&self) -> Option<String> {
        let (lanes, most_lanes) = (u64::from(self.lanes), if self.is_stream() { 1 } else { LANES });
        let least = LEAST_LOG * lanes.clamp(1, most_lanes);
        let store = match &self.store {
            Store::Disk { max_bytes } => [Some(("store.disk.maxBytes", *max_bytes, least..=TIB)), None, None],
            Store::JetStream { url, replicas, max_bytes, .. } => [
                Some(("store.jetStream.maxBytes", *max_bytes, LEAST_LOG..=TIB)),
                Some(("store.jetStream.replicas", u64::from(*replicas), 1..=5)),
                Some(("the length of store.jetStream.url", length(url), 0..=KIB)),
            ],
        };
        let own = [
            Some(("maxMessageBytes", u64::from(self.max_message_bytes), 64..=MIB)),
            self.max_age_seconds.map(|seconds| ("maxAgeSeconds", u64::from(seconds), 60..=2_592_000)),
            Some(("syncMillis", u64::from(self.sync_millis), 0..=10_000)),
            Some(("lanes", lanes, 1..=most_lanes)),
            self.dead_letter_bytes.map(|bytes| ("deadLetter.maxBytes", bytes, least..=TIB)),
            self.enrich.as_ref().and_then(Enrich::number),
        ];
        let mut numbers = store.into_iter().chain(own).flatten().chain(self.send.numbers());
        let (name, value, bounds) = numbers.find(|(_, value, bounds)| !bounds.contains(value))?;
        Some(format!("{name} is {value}, but must be {} to {}", bounds.start(), bounds.end()))
    }
}

impl Enrich {
    fn number(&self) -> Option<Number> {
        match self {
            Self::Json {} => None,
            Self::Syslog { structured_data_id: id } => Some(("the length of structuredDataId", length(id), 3..=32)),
        }
    }
}

impl Sink {
    /// Transport of the connections to backends.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self {
            Self::Udp {} => Transport::Udp,
            Self::Relp { .. } | Self::Tcp { .. } | Self::Http { .. } => Transport::Tcp,
        }
    }

    fn numbers(&self) -> Vec<Number> {
        match self {
            Self::Relp { window_messages } => {
                vec![("send.relp.windowMessages", u64::from(*window_messages), 1..=1024)]
            }
            Self::Tcp { rewind_bytes, .. } => vec![("send.tcp.rewindBytes", u64::from(*rewind_bytes), 0..=16 * MIB)],
            Self::Udp {} => Vec::new(),
            Self::Http { path, batch_bytes, batch_messages, linger_millis, .. } => vec![
                ("the length of send.http.path", length(path), 1..=KIB),
                ("send.http.batchBytes", u64::from(*batch_bytes), KIB..=16 * MIB),
                ("send.http.batchMessages", u64::from(*batch_messages), 1..=10_000),
                ("send.http.lingerMillis", u64::from(*linger_millis), 0..=60_000),
            ],
        }
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// The name of the stream of a listener: the parts of its id with `__` between them. Other bytes than letters, digits
/// and `-` are written as `_XX`: a stream has no dots in its name. A name that is too long ends with a hash of it.
#[must_use]
pub fn stream_name(id: &ListenerId) -> String {
    let mut name = "portlane".to_owned();
    for part in id.to_string().split('/') {
        name += "__";
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                name.push(char::from(byte));
            } else {
                // Writing to a string never fails.
                let _ = write!(name, "_{byte:02X}");
            }
        }
    }
    if name.len() <= STREAM_NAME {
        return name;
    }
    // No other name contains `_h`: a byte is two digits of 0 to 9 and A to F.
    let mut hash = "_h".to_owned();
    for byte in Sha256::digest(name.as_bytes()).iter().take(16) {
        // Writing to a string never fails.
        let _ = write!(hash, "{byte:02x}");
    }
    name.truncate(STREAM_NAME - hash.len());
    name + &hash
}
