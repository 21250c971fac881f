//! Translation of the contract to the settings of the log, the intake and the sender.

use std::{net::SocketAddr, time::Duration};

use durable::{
    Format, GATHER, HttpSettings, QUEUE_BYTES, Sink, StoreSettings,
    intake::{Framing, Limits, Oversize, Protocol, TcpSettings},
};
use durable_core::{
    Settings, WhenFull,
    lanes::{Bytes, MAX_LANES, part},
};
use proxy_api::{self as api, Access, Backend, Durable, HttpFormat, Listener, ListenerId, SinkFraming, Target};

use crate::core::durable::{log_files::PREFIX, log_room::Need};

/// Most connections of a listener. Each may hold a message of the longest length.
const CONNECTIONS: u32 = 512;
/// What a log needs for each of its messages beside its bytes, and more: heads, a source, and the reason of a dead letter.
const OVERHEAD: u64 = 4096;
/// Bytes that wait for a sync, which is then due.
const SYNC_BYTES: u64 = 1 << 20;

/// The logs that take the messages of a listener. A stream is one.
pub(super) fn lanes(durable: &Durable) -> usize {
    match durable.store {
        api::Store::Disk { .. } => size(durable.lanes).clamp(1, MAX_LANES),
        api::Store::JetStream { .. } => 1,
    }
}

/// The server whose stream has the messages of a listener; `None`: they are on disk.
pub(super) fn server(durable: &Durable) -> Option<&str> {
    match &durable.store {
        api::Store::Disk { .. } => None,
        api::Store::JetStream { url, .. } => Some(url),
    }
}

/// Fewest bytes of a log on disk: those of eight messages.
pub(super) const fn least_bytes(max_message_bytes: usize) -> u64 {
    8 * (max_message_bytes as u64 + OVERHEAD)
}

/// The settings of each of `lanes` logs on disk beside earlier ones, whose logs and dead letters have these bytes. The
/// logs have equal parts of the bytes that those leave of the `whole`.
pub(super) fn of_lane(whole: &StoreSettings, lanes: usize, (logs, letters): (u64, u64)) -> StoreSettings {
    let mut settings = whole.clone();
    if (lanes, logs, letters) == (1, 0, 0) {
        return settings;
    }
    let least = least_bytes(whole.log.max_message_bytes);
    settings.log.max_bytes = part(whole.log.max_bytes, logs, lanes, least);
    if whole.dead_bytes > 0 {
        settings.dead_bytes = part(whole.dead_bytes, letters, lanes, least);
    }
    settings.queue_bytes = whole.queue_bytes / u32::try_from(lanes.max(1)).unwrap_or(1);
    settings
}

/// The settings of each of `lanes` logs that only send. They take no messages, so nothing in them gives way. Their dead
/// letters leave half of the bytes to those of later logs.
pub(super) fn of_former(whole: &StoreSettings, lanes: usize) -> StoreSettings {
    let letters = (whole.dead_bytes > 0).then(|| (whole.dead_bytes / 2).max(least_bytes(whole.log.max_message_bytes)));
    let half = StoreSettings { dead_bytes: letters.unwrap_or(0), ..whole.clone() };
    StoreSettings { log: whole.log.clone(), ..of_lane(&half, lanes, (0, 0)) }
}

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
        gather: GATHER,
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

/// The bytes of the logs of a listener on this machine.
pub(super) fn bytes(durable: &Durable) -> Bytes {
    Bytes { all: log_bytes(durable), least: least_bytes(size(durable.max_message_bytes)) }
}

/// Bytes that a log may have by its bounds, wherever it is.
pub(super) const fn limit_bytes(durable: &Durable) -> u64 {
    match durable.store {
        api::Store::Disk { max_bytes } | api::Store::JetStream { max_bytes, .. } => max_bytes,
    }
}

/// Like [`log_bytes`], with the dead letters.
pub(super) fn most_bytes(durable: &Durable) -> u64 {
    match durable.store {
        api::Store::Disk { .. } => log_bytes(durable).saturating_add(durable.dead_letter_bytes.unwrap_or(0)),
        api::Store::JetStream { .. } => 0,
    }
}

/// The need of this listener's log for the room that logs share; `None`: the listener has no log.
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
        && lanes(one) == lanes(other)
        && one.dead_letter_bytes == other.dead_letter_bytes
}

/// How messages are taken. A change of the listener that leaves this equal needs no new sockets or connections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taking {
    framing: api::Framing,
    pub(super) limits: Limits,
    connections: usize,
    connections_per_source: Option<usize>,
    idle: Duration,
    access: Option<Access>,
}

impl Taking {
    pub(super) fn of(spec: &Listener, durable: &Durable) -> Self {
        let limits = spec.limits.as_deref();
        let bounded = |limit: u32| size(limit.min(CONNECTIONS));
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
            connections: bounded(limits.and_then(|limits| limits.max_connections).unwrap_or(CONNECTIONS)),
            // Without a number of the forward, each source leaves room to others.
            connections_per_source: of_one.map(bounded),
            idle: Duration::from_secs(spec.timeouts.idle_seconds.max(1).into()),
            access: spec.access.as_deref().cloned(),
        }
    }

    /// The settings of the intake over TCP; `None`: messages come in datagrams.
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

/// The protocol of a listener's sink.
pub(super) fn sink(durable: &Durable) -> Sink {
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

/// The host that requests to a backend name: its own name where it has one, and otherwise the address that was dialled.
pub(super) fn host(backend: Option<&Backend>, dialled: SocketAddr) -> String {
    let named = backend.and_then(|backend| match &backend.target {
        Target::Address { host, port } => Some((host.trim_end_matches('.').to_owned(), *port)),
        Target::Endpoints(_) => service(&backend.id),
        Target::Tunnel { .. } => None,
    });
    let (host, port) = named.unwrap_or_else(|| (dialled.ip().to_string(), dialled.port()));
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    if port == 80 { host } else { format!("{host}:{port}") }
}

/// The name and the port of the Service of a backend with this id, which is `svc/NAMESPACE/NAME:PORT`.
fn service(id: &str) -> Option<(String, u16)> {
    let (key, port) = id.strip_prefix("svc/")?.rsplit_once(':')?;
    let (namespace, name) = key.split_once('/')?;
    Some((format!("{name}.{namespace}.svc"), port.parse().ok()?))
}

pub(super) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proxy_api::Limits as OfForward;

    use super::*;
    use crate::fixtures::{on_disk, stream, template};

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
        let in_stream = Durable { store: stream("nats://a"), ..durable.clone() };
        assert_eq!((log_bytes(&in_stream), most_bytes(&in_stream)), (0, 0));
        assert_eq!(limit_bytes(&durable), 16 << 20);
        assert!(limit_bytes(&in_stream) > 0, "its server has the bound");
    }

    #[test]
    fn lanes_have_equal_parts_of_the_bounds_of_their_listener_and_a_stream_has_none() {
        let durable = Durable { lanes: 4, dead_letter_bytes: Some(128 << 20), ..durable(api::WhenFull::Block) };
        let whole = disk(&durable, 256 << 20);
        let of = |lanes, earlier| {
            let settings = of_lane(&whole, lanes, earlier);
            (settings.log.max_bytes, settings.dead_bytes, settings.queue_bytes)
        };
        assert_eq!(of(1, (0, 0)), (256 << 20, 128 << 20, QUEUE_BYTES));
        assert_eq!(of(4, (0, 0)), (64 << 20, 32 << 20, QUEUE_BYTES / 4));
        assert_eq!(of(1, (64 << 20, 28 << 20)), (192 << 20, 100 << 20, QUEUE_BYTES), "beside earlier ones");
        let least = 8 * (64 + 4096);
        assert_eq!(of(16, (1 << 30, 1 << 30)), (least, least, QUEUE_BYTES / 16), "a log needs so many");
        assert_eq!(of_lane(&StoreSettings { dead_bytes: 0, ..whole.clone() }, 4, (0, 0)).dead_bytes, 0);
        let former = of_former(&whole, 4);
        assert_eq!((former.log.max_bytes, former.dead_bytes), (256 << 20, 16 << 20), "they take no messages");
        let long = Durable { max_message_bytes: 1 << 20, dead_letter_bytes: Some(16 << 20), ..durable.clone() };
        assert_eq!(of_former(&disk(&long, 256 << 20), 1).dead_bytes, least_bytes(1 << 20), "a store needs so many");
        assert_eq!((lanes(&durable), lanes(&Durable { store: stream("nats://a"), ..durable.clone() })), (4, 1));
        assert!(!is_same_store(&durable, &Durable { lanes: 2, ..durable.clone() }));
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
    fn connections_are_bounded_by_the_forward_and_without_its_numbers_sources_leave_room_to_others() {
        let connections = |limits: Option<OfForward>| {
            let spec = Listener { limits: limits.map(Box::new), ..template() };
            let tcp = Taking::of(&spec, &durable(api::WhenFull::Block)).tcp().expect("over TCP");
            (tcp.connections, tcp.connections_per_source)
        };
        assert_eq!(connections(None), (512, None));
        let few = OfForward { max_connections: Some(3), max_connections_per_source: Some(600), ..OfForward::default() };
        assert_eq!(connections(Some(few)), (3, Some(512)));
    }

    #[test]
    fn requests_name_the_backend_that_is_dialled() {
        let dialled = SocketAddr::from(([192, 0, 2, 1], 9000));
        let host = |id: &str, target| {
            let backend = Backend { id: id.to_owned(), weight: 1, priority: 0, check_port: None, target };
            host(Some(&backend), dialled)
        };
        let address = |name: &str, port| host("b", Target::Address { host: name.to_owned(), port });
        assert_eq!(address("logs.example.com.", 80), "logs.example.com");
        assert_eq!(address("2001:db8::1", 8080), "[2001:db8::1]:8080");
        let service = |id: &str| host(id, Target::Endpoints("set".to_owned()));
        assert_eq!(service("svc/shop/logs:8080"), "logs.shop.svc:8080");
        assert_eq!(service("svc/shop/logs:80"), "logs.shop.svc");
        assert_eq!(service("other"), "192.0.2.1:9000");
        assert_eq!(super::host(None, SocketAddr::from(([192, 0, 2, 1], 80))), "192.0.2.1");
        assert_eq!(super::host(None, "[2001:db8::1]:81".parse().expect("an address")), "[2001:db8::1]:81");
    }
}
