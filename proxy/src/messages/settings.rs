//! From the contract to the settings of the log, of what takes messages and of what sends them.

use std::time::Duration;

use durable::{
    Format, HttpSettings, QUEUE_BYTES, Sink, StoreSettings,
    intake::{Framing, Limits, Oversize, Protocol, TcpSettings},
};
use durable_core::{Settings, WhenFull};
use proxy_api::{self as api, Access, Durable, HttpFormat, Listener, SinkFraming, Target};

/// Most connections of a listener. Each may hold a message of the longest length.
const CONNECTIONS: u32 = 512;
/// Bytes that wait for a sync, which is then due.
const SYNC_BYTES: u64 = 1 << 20;
/// The names of a log's files start with this.
const PREFIX: &str = "log-";

/// The settings of the log.
pub(super) fn store(durable: &Durable) -> StoreSettings {
    let api::Store::Disk { max_bytes } = durable.store;
    StoreSettings {
        prefix: PREFIX.to_owned(),
        log: Settings {
            max_bytes,
            max_message_bytes: size(durable.max_message_bytes),
            max_age: durable.max_age_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            when_full: match durable.when_full {
                api::WhenFull::DropOldest => WhenFull::DropOldest,
                api::WhenFull::DropNewest | api::WhenFull::Block => WhenFull::Refuse,
            },
            sync_after: Duration::from_millis(durable.sync_millis.into()),
            sync_bytes: SYNC_BYTES,
        },
        blocks: durable.when_full == api::WhenFull::Block,
        dead_bytes: durable.dead_letter_bytes.unwrap_or(0),
        queue_bytes: QUEUE_BYTES,
    }
}

/// Whether both have the same settings of the log.
pub(super) fn is_same_store(one: &Durable, other: &Durable) -> bool {
    one.store == other.store
        && one.max_message_bytes == other.max_message_bytes
        && one.max_age_seconds == other.max_age_seconds
        && one.when_full == other.when_full
        && one.sync_millis == other.sync_millis
        && one.dead_letter_bytes == other.dead_letter_bytes
}

/// How messages are taken. What is equal needs no other sockets or connections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taking {
    framing: api::Framing,
    pub(super) limits: Limits,
    connections: usize,
    connections_per_source: usize,
    idle: Duration,
    access: Option<Access>,
}

impl Taking {
    pub(super) fn of(spec: &Listener, durable: &Durable) -> Self {
        let limits = spec.limits.as_deref();
        let bounded = |limit: Option<u32>| size(limit.map_or(CONNECTIONS, |most| most.min(CONNECTIONS)));
        Self {
            framing: durable.framing,
            limits: Limits {
                max_message_bytes: size(durable.max_message_bytes),
                oversize: match durable.oversize {
                    api::Oversize::Truncate => Oversize::Truncate,
                    api::Oversize::Drop => Oversize::Drop,
                },
            },
            connections: bounded(limits.and_then(|limits| limits.max_connections)),
            connections_per_source: bounded(limits.and_then(|limits| limits.max_connections_per_source)),
            idle: Duration::from_secs(spec.timeouts.idle_seconds.max(1).into()),
            access: spec.access.as_deref().cloned(),
        }
    }

    /// How they are taken over TCP; `None`: they come in datagrams.
    pub(super) fn tcp(&self) -> Option<TcpSettings> {
        let protocol = match self.framing {
            api::Framing::Datagram => return None,
            api::Framing::Newline => Protocol::Framed(Framing::Newline),
            api::Framing::Nul => Protocol::Framed(Framing::Nul),
            api::Framing::OctetCounting => Protocol::Framed(Framing::OctetCounting),
            api::Framing::Syslog => Protocol::Framed(Framing::Syslog),
            api::Framing::Length2 => Protocol::Framed(Framing::Length2),
            api::Framing::Length4 => Protocol::Framed(Framing::Length4),
            api::Framing::Relp => Protocol::Relp,
        };
        let Self { limits, connections, connections_per_source, idle, .. } = *self;
        Some(TcpSettings { protocol, limits, connections, connections_per_source, idle })
    }
}

/// What the sink of a listener speaks.
pub(super) fn sink(spec: &Listener, durable: &Durable) -> Sink {
    match &durable.send {
        api::Sink::Relp { window_messages } => {
            Sink::Relp { window: u16::try_from(*window_messages).unwrap_or(u16::MAX) }
        }
        api::Sink::Tcp { framing, rewind_bytes } => Sink::Tcp {
            framing: match framing {
                SinkFraming::Newline => Framing::Newline,
                SinkFraming::Nul => Framing::Nul,
                SinkFraming::OctetCounting => Framing::OctetCounting,
                SinkFraming::Length2 => Framing::Length2,
                SinkFraming::Length4 => Framing::Length4,
            },
            rewind_bytes: *rewind_bytes,
        },
        api::Sink::Udp {} => Sink::Udp,
        api::Sink::Http { path, format, batch_bytes, batch_messages, linger_millis } => Sink::Http(HttpSettings {
            host: host(spec),
            path: path.clone(),
            format: match format {
                HttpFormat::Ndjson => Format::Ndjson,
                HttpFormat::JsonArray => Format::JsonArray,
                HttpFormat::Raw => Format::Raw,
            },
            batch_bytes: size(*batch_bytes),
            batch_messages: size(*batch_messages),
            linger: Duration::from_millis((*linger_millis).into()),
        }),
    }
}

/// The host that requests name: that of the first backend with an address.
fn host(spec: &Listener) -> String {
    let address = spec.backends.iter().find_map(|backend| match &backend.target {
        Target::Address { host, port } => Some((host, *port)),
        Target::Endpoints(_) | Target::Tunnel { .. } => None,
    });
    match address {
        None => "localhost".to_owned(),
        Some((host, port)) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            if port == 80 { host } else { format!("{host}:{port}") }
        }
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
