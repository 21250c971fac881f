//! From the contract to the settings of the log, of what takes messages and of what sends them.

use std::time::Duration;

use durable::{
    Format, HttpSettings, QUEUE_BYTES, Sink, StoreSettings,
    intake::{Framing, Limits, Oversize, Protocol, TcpSettings},
};
use durable_core::{Settings, WhenFull};
use proxy_api::{self as api, Access, Durable, HttpFormat, Listener, ListenerId, SinkFraming, Target};

use crate::core::log_room::Need;

/// Most connections of a listener. Each may hold a message of the longest length.
const CONNECTIONS: u32 = 512;
/// Most of them that one source has, unless the forward says otherwise: a quarter is left to others.
const OF_ONE_SOURCE: u32 = CONNECTIONS / 4 * 3;
/// Bytes that wait for a sync, which is then due.
const SYNC_BYTES: u64 = 1 << 20;
/// The names of a log's files start with this.
pub(super) const PREFIX: &str = "log-";

/// The settings of a log on disk.
pub(super) fn disk(durable: &Durable, max_bytes: u64) -> StoreSettings {
    StoreSettings {
        prefix: PREFIX.to_owned(),
        log: Settings {
            max_bytes,
            max_message_bytes: size(durable.max_message_bytes),
            max_age: max_age(durable),
            when_full: when_full(durable),
            sync_after: Duration::from_millis(durable.sync_millis.into()),
            sync_bytes: SYNC_BYTES,
        },
        blocks: durable.when_full == api::WhenFull::Block,
        dead_bytes: durable.dead_letter_bytes.unwrap_or(0),
        queue_bytes: QUEUE_BYTES,
    }
}

/// The age at which messages are dropped.
pub(super) fn max_age(durable: &Durable) -> Option<Duration> {
    durable.max_age_seconds.map(|seconds| Duration::from_secs(seconds.into()))
}

/// What gives way in a full log.
pub(super) fn when_full(durable: &Durable) -> WhenFull {
    match durable.when_full {
        api::WhenFull::DropOldest => WhenFull::DropOldest,
        api::WhenFull::DropNewest | api::WhenFull::Block => WhenFull::Refuse,
    }
}

/// Bytes of this machine that a log may have by its bounds. Those of a stream are the server's.
pub(super) fn log_bytes(durable: &Durable) -> u64 {
    match durable.store {
        api::Store::Disk { max_bytes } => max_bytes,
        api::Store::JetStream { .. } => 0,
    }
}

/// As [`log_bytes`], with its dead letters.
pub(super) fn most_bytes(durable: &Durable) -> u64 {
    match durable.store {
        api::Store::Disk { .. } => log_bytes(durable).saturating_add(durable.dead_letter_bytes.unwrap_or(0)),
        api::Store::JetStream { .. } => 0,
    }
}

/// What the log of this listener needs of the room that logs share; `None`: the listener has none.
pub(super) fn need(id: &ListenerId, spec: &Listener) -> Option<Need> {
    let bytes = most_bytes(spec.durable.as_deref()?);
    let of_namespace = spec.tenant_limits.as_deref().and_then(|limits| limits.max_log_bytes);
    Some(Need { id: id.clone(), bytes, of_namespace })
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
        let bounded = |limit: Option<u32>, otherwise: u32| size(limit.unwrap_or(otherwise).min(CONNECTIONS));
        let of_one = limits.and_then(|limits| limits.max_connections_per_source);
        Self {
            framing: durable.framing,
            limits: Limits {
                max_message_bytes: size(durable.max_message_bytes),
                oversize: match durable.oversize {
                    api::Oversize::Truncate => Oversize::Truncate,
                    api::Oversize::Drop => Oversize::Drop,
                },
            },
            connections: bounded(limits.and_then(|limits| limits.max_connections), CONNECTIONS),
            connections_per_source: bounded(of_one, OF_ONE_SOURCE),
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

pub(super) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proxy_api::{Backend, Configuration, Limits as OfForward};

    use super::*;
    use crate::supervisor::fixtures::{on_disk, stream};

    fn listener() -> Listener {
        let text = include_str!("../../../proxy-api/tests/documents/v1.yaml");
        let document = Configuration::decode(text.as_bytes()).expect("v1");
        document.supported().next().expect("one").1.clone()
    }

    fn durable(when_full: api::WhenFull) -> Durable {
        Durable { when_full, ..on_disk() }
    }

    #[test]
    fn a_full_log_does_what_the_listener_says() {
        let of = |when_full| {
            let settings = disk(&durable(when_full), 16 << 20);
            (settings.log.when_full, settings.blocks)
        };
        assert_eq!(of(api::WhenFull::DropOldest), (WhenFull::DropOldest, false));
        assert_eq!(of(api::WhenFull::DropNewest), (WhenFull::Refuse, false));
        assert_eq!(of(api::WhenFull::Block), (WhenFull::Refuse, true));
    }

    #[test]
    fn a_log_on_disk_takes_its_bound_and_that_of_its_dead_letters_and_a_stream_takes_none() {
        let durable = Durable { dead_letter_bytes: Some(16 << 20), ..durable(api::WhenFull::Block) };
        assert_eq!((log_bytes(&durable), most_bytes(&durable)), (16 << 20, 32 << 20));
        assert_eq!(most_bytes(&Durable { store: stream("nats://a"), ..durable }), 0);
    }

    #[test]
    fn another_sink_needs_no_other_log_and_another_bound_does() {
        let before = durable(api::WhenFull::Block);
        let sink = Durable { send: api::Sink::Relp { window_messages: 7 }, ..before.clone() };
        assert!(is_same_store(&before, &sink));
        assert!(!is_same_store(&before, &Durable { max_message_bytes: 65, ..before.clone() }));
        assert!(!is_same_store(&before, &durable(api::WhenFull::DropNewest)));
        assert!(!is_same_store(&before, &Durable { store: stream("nats://a"), ..before.clone() }));
    }

    // C3
    #[test]
    fn connections_are_bounded_by_the_forward_and_one_source_leaves_a_quarter_to_others() {
        let connections = |limits: Option<OfForward>| {
            let spec = Listener { limits: limits.map(Box::new), ..listener() };
            let tcp = Taking::of(&spec, &durable(api::WhenFull::Block)).tcp().expect("over TCP");
            (tcp.connections, tcp.connections_per_source)
        };
        assert_eq!(connections(None), (512, 384));
        let few = OfForward { max_connections: Some(3), max_connections_per_source: Some(600), ..OfForward::default() };
        assert_eq!(connections(Some(few)), (3, 512));
    }

    #[test]
    fn requests_name_the_first_backend_that_has_an_address() {
        let backend = |host: &str, port| Backend {
            id: "b".to_owned(),
            weight: 1,
            priority: 0,
            check_port: None,
            target: Target::Address { host: host.to_owned(), port },
        };
        let host = |backends: Vec<Backend>| host(&Listener { backends, ..listener() });
        assert_eq!(host(vec![backend("logs.example.com", 80), backend("other", 1)]), "logs.example.com");
        assert_eq!(host(vec![backend("2001:db8::1", 8080)]), "[2001:db8::1]:8080");
        assert_eq!(host(Vec::new()), "localhost");
    }
}
