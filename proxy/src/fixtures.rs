//! What tests of all modules build.

use proxy_api::{Configuration, Durable, Framing, Listener, ListenerId, Oversize, Sink, Store, WhenFull};

use crate::{
    clock::Clock,
    lives::Lives,
    log::{Level, Log, LogFormat},
    process::Process,
    settings::Settings,
};

/// A process with this memory limit in bytes, if any. Nobody reads its log, which has errors only.
pub(crate) fn process(settings: &Settings, memory: Option<u64>) -> Process {
    process_of(Clock::start(), settings, memory)
}

/// As [`process`], by this clock.
pub(crate) fn process_of(clock: Clock, settings: &Settings, memory: Option<u64>) -> Process {
    process_with_ports(clock, settings, memory, None)
}

/// As [`process_of`], on a system with this many local ports, if that is known.
pub(crate) fn process_with_ports(
    clock: Clock,
    settings: &Settings,
    memory: Option<u64>,
    local_ports: Option<usize>,
) -> Process {
    let lives = Lives::new(clock);
    let log = Log::start(LogFormat::Text, Level::Error, 16, Box::new(std::io::sink()), lives.guard("log"));
    Process::new(settings, memory, local_ports, lives, log.expect("a thread").0)
}

/// The listener of the document of version 1.
pub(crate) fn template() -> Listener {
    template_with_id().1
}

/// As [`template`], with its id.
pub(crate) fn template_with_id() -> (ListenerId, Listener) {
    let text = include_str!("../../proxy-api/tests/documents/v1.yaml");
    let document = Configuration::decode(text.as_bytes()).expect("v1");
    let (id, listener) = document.supported().next().expect("one");
    (id.clone(), listener.clone())
}

/// Keeps lines of at most 64 bytes in this store, for a sink that takes datagrams.
pub(crate) fn durable(store: Store) -> Durable {
    Durable {
        framing: Framing::Newline,
        max_message_bytes: 64,
        oversize: Oversize::Drop,
        store,
        max_age_seconds: None,
        when_full: WhenFull::DropNewest,
        sync_millis: 0,
        lanes: 1,
        send: Sink::Udp {},
        dead_letter_bytes: None,
        enrich: None,
    }
}

/// As [`durable`], in 16 MiB of the disk.
pub(crate) fn on_disk() -> Durable {
    durable(Store::Disk { max_bytes: 16 << 20 })
}

/// 16 MiB of a stream of this server.
pub(crate) fn stream(url: &str) -> Store {
    Store::JetStream { url: url.to_owned(), credentials_name: None, replicas: 1, max_bytes: 16 << 20 }
}
