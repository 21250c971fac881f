//! Tests of the open sockets.

use std::net::{Ipv4Addr, TcpListener};

use proxy_api::{FailureReason, Listener};

use super::*;
use crate::{
    commands::Command,
    core::{
        changes::diff::{self, Running},
        logging::unrouted::Unroutable,
    },
    files::FOR_LISTENERS,
    fixtures::process,
    settings::Settings,
    supervisor::fixtures::{id, listener, socket},
};

/// A listener on a loopback port that is free now.
fn free(transport: Transport) -> Arc<Listener> {
    let port = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok().map(|own| own.port());
    let key = |port| SocketKey { transport, ..socket(port) };
    let free = (0..100).filter_map(|_| port()).find(|port| net::open(key(*port), &[]).is_ok());
    let port = free.expect("a free port");
    let template = (*listener(port, "b")).clone();
    Arc::new(Listener { socket: key(port), end_port: None, ..template }.sealed())
}

#[tokio::test]
async fn a_look_has_few_sockets_and_a_round_has_all_of_them() {
    let (foreign, files) = (ForeignPorts::new(&Settings::default(), || {}), Arc::new(Files::new(100)));
    let mut sockets = Sockets::new(foreign);
    let spec = Arc::new(Listener { hostnames: vec!["a.example".to_owned()], ..(*listener(1, "b")).clone() });
    let shared = [Shared::new(id("a"), spec, Arc::default(), Arc::default())];
    for (port, unrouted) in (1..=600).map(|port| (port, Arc::<Unrouted>::default())) {
        assert_eq!(unrouted.due(Unroutable::NotTls, 0, unrouted.count(Unroutable::NotTls)), Some(1));
        unrouted.count(Unroutable::NotTls);
        let served = Served::of(&shared, &unrouted).expect("a listener");
        sockets.open.insert(socket(port), OpenSocket::new(served, unrouted, files.take_anyway(0)));
    }
    let workers = Workers { handles: Vec::new(), durable: None, threads: Vec::new() };
    let (mut walk, mut counts) = (Walk::default(), Vec::new());
    while counts.is_empty() || walk.is_under_way() {
        counts.push(sockets.look(&mut walk, 256, 100, &workers, &files).await.len());
    }
    assert_eq!(counts, [256, 256, 88]);
}

// D20
#[test]
fn a_port_that_was_closed_is_free_at_once() {
    let settings = Settings::default();
    let process = process(&settings, None);
    let workers = Workers::start(&settings, &process).expect("threads");
    let mut sockets = Sockets::new(ForeignPorts::new(&settings, || {}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for spec in [Transport::Tcp, Transport::Udp].map(free) {
            let live = ById::from([(id("a"), Shared::new(id("a"), spec.clone(), Arc::default(), Arc::default()))]);
            let (before, desired) = (Running::default(), BTreeMap::from([(id("a"), Some(spec.clone()))]));
            for _ in 0..50 {
                let Bound { settled, opened, errors } = sockets.bind(&diff::diff(&before, &desired), &process);
                assert!(errors.is_empty(), "{errors:?}");
                sockets.switch(&settled.next.sockets, &live, opened, &workers, &process.files).await;
                sockets.close(&BTreeSet::from([spec.socket]), &workers).await;
            }
        }
        for worker in &workers.handles {
            worker.send(Command::Drain { millis: 0 }).await;
        }
    });
    workers.join();
}

/// A listener on another port than `first` that is free now.
fn free_beside(first: &Listener) -> Arc<Listener> {
    let mut others = (0..100).map(|_| free(Transport::Tcp));
    others.find(|other| other.socket.port.abs_diff(first.socket.port) > 8).expect("another port")
}

fn is_for_files(error: &BindError) -> bool {
    error.reason == FailureReason::FileLimit && error.to_string().contains("too many open files")
}

/// A process that may open this many files, besides the reserve.
fn with_files(limit: usize) -> Process {
    let mut process = process(&Settings::default(), None);
    process.files = Arc::new(Files::new(limit));
    process
}

#[test]
fn listeners_for_which_too_few_files_are_free_are_refused_and_bound_once_more_are() {
    let mut sockets = Sockets::new(ForeignPorts::new(&Settings::default(), || {}));
    let first = free(Transport::Tcp);
    let second = free_beside(&first);
    let before = Running::default();
    let desired = BTreeMap::from([(id("a"), Some(first)), (id("b"), Some(second))]);
    let process = with_files(3);
    let files = &process.files;
    let Bound { settled, opened, errors } = sockets.bind(&diff::diff(&before, &desired), &process);
    assert_eq!((settled.next.listeners.len(), opened.len(), settled.blocked.len()), (1, 1, 1));
    assert!(errors.len() == 1 && errors.values().all(is_for_files), "{errors:?}");
    assert_eq!(files.usage(), (2, 3), "held before a worker has the sockets");
    assert!(sockets.is_lacking() && !sockets.have_news(&process), "too few are free for the other");
    assert_eq!(sockets.refused(), 1);
    files.resize(4);
    assert!(sockets.have_news(&process));
    drop(opened);
    let Bound { opened, errors, .. } = sockets.bind(&diff::diff(&before, &desired), &process);
    assert!(errors.is_empty() && !sockets.is_lacking(), "{errors:?}");
    assert_eq!((opened.len(), files.usage(), sockets.refused()), (2, (4, 4), 1));
}

#[test]
fn a_listener_is_bound_while_sessions_have_all_files_but_the_reserve() {
    let mut sockets = Sockets::new(ForeignPorts::new(&Settings::default(), || {}));
    let process = with_files(100);
    let _sessions: Vec<_> = std::iter::from_fn(|| process.take_session()).collect();
    assert_eq!(process.files.usage(), (100, 100));
    let (before, desired) = (Running::default(), BTreeMap::from([(id("a"), Some(free(Transport::Tcp)))]));
    let Bound { opened, errors, .. } = sockets.bind(&diff::diff(&before, &desired), &process);
    assert!(errors.is_empty() && opened.len() == 1, "{errors:?}");
    assert_eq!(process.files.usage(), (102, 100));
    assert!(process.take_session().is_none(), "the reserve is for listeners only");
    process.files.occupy(FOR_LISTENERS - 2);
    let (before, desired) = (Running::default(), BTreeMap::from([(id("b"), Some(free(Transport::Tcp)))]));
    let Bound { errors, .. } = sockets.bind(&diff::diff(&before, &desired), &process);
    assert!(errors.len() == 1 && errors.values().all(is_for_files), "{errors:?}");
}

#[test]
fn a_range_for_which_too_few_files_are_free_takes_none_from_others_and_waits_until_more_are_free() {
    let mut sockets = Sockets::new(ForeignPorts::new(&Settings::default(), || {}));
    let first = free(Transport::Tcp);
    let single = free_beside(&first);
    let range = Arc::new(Listener { end_port: Some(first.socket.port + 3), ..(*first).clone() }.sealed());
    let before = Running::default();
    let desired = BTreeMap::from([(id("a"), Some(range)), (id("b"), Some(single.clone()))]);
    let process = with_files(5);
    let Bound { settled, mut opened, errors } = sockets.bind(&diff::diff(&before, &desired), &process);
    assert!(errors.values().any(is_for_files), "{errors:?}");
    assert_eq!(settled.next.sockets.keys().collect::<Vec<_>>(), [&single.socket]);
    // As a switch does.
    opened.retain(|key, _| settled.next.sockets.contains_key(key));
    assert_eq!(process.files.usage(), (2, 5));
    assert!(sockets.is_lacking() && !sockets.have_news(&process), "as many are free as before");
    process.files.resize(20);
    assert!(sockets.have_news(&process));
}
