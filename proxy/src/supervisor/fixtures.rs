//! Listeners for the tests of the owners, and what makes listeners durable for all tests.

use std::{collections::BTreeMap, sync::Arc};

use proxy_api::{
    Backend, Bind, Configuration, Durable, Framing, Listener, ListenerId, Origin, Oversize, Sink, SocketKey, Store,
    Target, Transport, WhenFull,
};

/// `ns/f/NAME`.
pub(super) fn id(name: &str) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", "f"), name)
}

/// TCP on loopback.
pub(super) fn socket(port: u16) -> SocketKey {
    SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port }
}

/// A TCP listener on loopback with one backend, the endpoint set of that name.
pub(super) fn listener(port: u16, backend: &str) -> Arc<Listener> {
    let text = include_str!("../../../proxy-api/tests/documents/v1.yaml");
    let document = Configuration::decode(text.as_bytes()).expect("v1");
    let template = document.supported().next().expect("one").1.clone();
    let target = Target::Endpoints(backend.to_owned());
    let backends = vec![Backend { id: backend.to_owned(), weight: 1, priority: 0, check_port: None, target }];
    Arc::new(Listener { socket: socket(port), backends, ..template }.sealed())
}

/// Listeners by name.
pub(super) fn listeners<const N: usize>(all: [(&str, Arc<Listener>); N]) -> BTreeMap<ListenerId, Arc<Listener>> {
    all.into_iter().map(|(name, listener)| (id(name), listener)).collect()
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
