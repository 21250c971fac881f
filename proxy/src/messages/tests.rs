//! Logs whose disk or server hangs.

use std::{path::Path, sync::mpsc::Receiver};

use durable::{Incoming, Store};
use durable_core::{FileError, Files};
use proxy_api::{self as api, EndpointSet, Listener, Origin, Surroundings};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;
use crate::{core::durable::delivery::Delivery, fixtures, messages::generations::Opened};

mod ages;
mod lanes;
pub(super) mod leftovers;
mod panics;

/// Longest wait for what comes at once.
const SOON: Duration = Duration::from_secs(10);

fn id(name: &str) -> ListenerId {
    ListenerId::new(Origin::port_forward("ns", "f"), name)
}

fn process() -> Process {
    process_with(None)
}

/// A process with this memory limit in bytes, if any.
pub(super) fn process_with(memory: Option<u64>) -> Process {
    fixtures::process(&Settings::default(), memory)
}

fn durable(store: api::Store) -> Durable {
    Durable { framing: api::Framing::Datagram, ..fixtures::durable(store) }
}

pub(super) fn disk() -> Durable {
    durable(api::Store::Disk { max_bytes: 16 << 20 })
}

fn listener(durable: Durable) -> Arc<Listener> {
    Arc::new(Listener { durable: Some(Box::new(durable)), backends: Vec::new(), ..fixtures::template() })
}

/// A folder whose syncs hang until the sender is gone. Without a receiver they panic.
struct Stuck(Option<Receiver<()>>);

impl Files for Stuck {
    fn create(&mut self, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn append(&mut self, _: &str, _: &[u8]) -> Result<(), FileError> {
        Ok(())
    }

    fn read_at(&mut self, _: &str, _: u64, _: &mut [u8]) -> Result<usize, FileError> {
        Ok(0)
    }

    fn sync(&mut self, _: &str) -> Result<(), FileError> {
        // Nothing is ever sent.
        let _ = self.0.as_ref().expect("as the test wants").recv();
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), FileError> {
        Ok(())
    }

    fn rename(&mut self, _: &str, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn remove(&mut self, _: &str) -> Result<(), FileError> {
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>, FileError> {
        Ok(Vec::new())
    }
}

/// A log of default bounds in this folder, for now with a store of these files that has a message.
fn log(files: impl Files + Send + 'static, folder: &Path, process: &Process, wake: &Rc<Notify>) -> Log {
    let store = Store::open(files, settings::disk(&disk(), 16 << 20)).expect("a log");
    let message = Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 0, payload: vec![b'm'] };
    drop(store.try_append(vec![message]).expect("room"));
    let place = PlaceOfLog::new(&id("l"), folder, ServerFiles::default());
    Log::new(place, &disk(), Opened::from(store), process, wake.clone())
}

/// The store of the only lane.
fn store(taker: &taker::Taker) -> &Store {
    taker.lanes.stores().next().expect("there is one")
}

/// A listener with these settings.
pub(super) fn shared(durable: Durable) -> Arc<Shared> {
    Shared::new(id("l"), listener(durable), Arc::default(), Arc::default())
}

#[tokio::test]
async fn a_disk_that_hangs_while_its_log_is_closed_holds_up_nothing_and_the_log_is_opened_later() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let (release, held) = std::sync::mpsc::channel();
    let test = async {
        let mut log = log(Stuck(Some(held)), folder.path(), &process, &wake);
        log.run(&shared(Durable { max_message_bytes: 65, ..disk() }), &process);
        log.look(&process).await;
        log.settle(&process);
        assert!(log.taker().is_none(), "the disk hangs");
        drop(release);
        timeout(SOON, wake.notified()).await.expect("it is opened");
        log.settle(&process);
        assert!(log.taker().is_some());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn logs_whose_disks_hang_hold_up_the_end_of_the_process_once_for_all() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
    let mut thread = Thread::new(Place::of(&settings).expect("a folder"), process.clone());
    let mut releases = Vec::new();
    for name in ["a", "b", "c"] {
        let (release, held) = std::sync::mpsc::channel();
        releases.push(release);
        thread.logs.insert(id(name), log(Stuck(Some(held)), folder.path(), &process, &wake));
    }
    let began = Instant::now();
    LocalSet::new().run_until(thread.end()).await;
    assert_eq!(began.elapsed().as_secs(), CLOSE_WITHIN.as_secs());
}

#[tokio::test]
async fn a_log_whose_thread_has_ended_by_itself_is_opened_again() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let test = async {
        let mut log = log(Stuck(None), folder.path(), &process, &wake);
        let shared = shared(disk());
        log.run(&shared, &process);
        let taker = log.taker().expect("nobody has seen it");
        let ended = timeout(SOON, store(&taker).wait_for(u64::MAX)).await.expect("the folder panics");
        ended.expect_err("the thread has ended");
        log.look(&process).await;
        assert!(log.taker().is_none());
        assert_eq!(shared.counters.delivery(), Some(Delivery::StoreFailed), "it is logged");
        timeout(SOON, wake.notified()).await.expect("it is opened");
        log.settle(&process);
        let taker = log.taker().expect("it runs");
        store(&taker).close().await.expect("the other thread runs");
    };
    LocalSet::new().run_until(test).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn datagrams_that_the_system_drops_while_a_log_is_not_open_are_counted_once_it_is() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let bound = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    bound.set_nonblocking(true).expect("an option");
    socket2::SockRef::from(&bound).set_recv_buffer_size(1).expect("an option");
    let address = bound.local_addr().expect("it is bound");
    let shared = shared(disk());
    let served = crate::route::Served::One(shared.clone());
    let route: Route = Arc::new(arc_swap::ArcSwap::from_pointee(served));
    let mut socket = Socket::new(OsSocket::Udp(Arc::new(bound)), route);
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    for _ in 0..64 {
        sender.send_to(&[b'm'; 1024], address).expect("it is sent");
    }
    let test = async {
        let (release, held) = std::sync::mpsc::channel();
        drop(release);
        let mut log = log(Stuck(Some(held)), folder.path(), &process, &wake);
        log.run(&shared, &process);
        let intake = log.taker().expect("it runs").intake;
        socket.serve(&BTreeMap::from([(id("l"), log)]), &process).await;
        let counted = async {
            while intake.figures().kernel_drops == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counted).await.expect("some found no room");
        assert!(process.messages.is_used(), "they share the memory of all listeners");
        socket.stop().await;
    };
    LocalSet::new().run_until(test).await;
}

/// A socket with so many datagrams in it.
fn with_datagrams(count: usize) -> OsSocket {
    let bound = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    bound.set_nonblocking(true).expect("an option");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    for _ in 0..count {
        sender.send_to(b"m", bound.local_addr().expect("it is bound")).expect("it is sent");
    }
    OsSocket::Udp(Arc::new(bound))
}

/// Files that take everything.
fn free() -> Stuck {
    Stuck(Some(std::sync::mpsc::channel().1))
}

// D1
#[tokio::test]
async fn what_a_proxy_of_the_same_fleet_sends_has_come_back_and_is_dropped_and_counted() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let shared = shared(disk());
    let pods: EndpointSet = [std::net::SocketAddr::from(([127, 0, 0, 1], 0))].into_iter().collect();
    let sets = BTreeMap::from([(api::FLEET.to_owned(), pods)]);
    shared.surroundings.store(Arc::new(Surroundings::of(&sets)));
    let route: Route = Arc::new(arc_swap::ArcSwap::from_pointee(crate::route::Served::One(shared.clone())));
    let mut socket = Socket::new(with_datagrams(1), route);
    let test = async {
        let mut log = log(free(), folder.path(), &process, &wake);
        log.run(&shared, &process);
        let mut logs = BTreeMap::from([(id("l"), log)]);
        socket.serve(&logs, &process).await;
        let counted = async {
            loop {
                logs.get_mut(&id("l")).expect("it runs").look(&process).await;
                let seen = shared.counters.durable().expect("it was looked at");
                if seen.dropped.contains(&("Loop", 1)) {
                    break seen;
                }
                tokio::task::yield_now().await;
            }
        };
        let seen = timeout(SOON, counted).await.expect("it is counted");
        assert!(seen.received == 0 && seen.dropped.contains(&("AccessDenied", 0)), "{:?}", seen.dropped);
        assert_eq!(shared.counters.looped(), 1, "as the report has it");
        socket.stop().await;
    };
    LocalSet::new().run_until(test).await;
}

// C9
#[tokio::test]
async fn connections_beyond_the_share_of_their_namespace_are_closed_and_counted_as_sessions_are() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let shared = shared(Durable { framing: api::Framing::Newline, ..disk() });
    shared.limiter.share.set(crate::core::limits::share::Bound::of(0));
    let (mut socket, address) = over_tcp(&shared);
    let test = async {
        let mut log = log(free(), folder.path(), &process, &wake);
        log.run(&shared, &process);
        socket.serve(&BTreeMap::from([(id("l"), log)]), &process).await;
        let mut client = tokio::net::TcpStream::connect(address).await.expect("connected");
        let read = timeout(SOON, client.read_u8()).await.expect("it is closed");
        read.expect_err("nothing answers");
        assert_eq!(shared.counters.refused_by_share(), 1);
        socket.stop().await;
    };
    LocalSet::new().run_until(test).await;
}

/// The socket of a listener that takes messages over TCP, and its address.
fn over_tcp(shared: &Arc<Shared>) -> (Socket, std::net::SocketAddr) {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    bound.set_nonblocking(true).expect("an option");
    let address = bound.local_addr().expect("it is bound");
    let route: Route = Arc::new(arc_swap::ArcSwap::from_pointee(crate::route::Served::One(shared.clone())));
    (Socket::new(OsSocket::Tcp(Arc::new(bound)), route), address)
}

// D7
#[tokio::test]
async fn messages_that_have_not_ended_share_a_part_of_the_memory_of_the_process() {
    // Of 32 MiB they have 4, of which a source has a third: one message of a MiB, and not two.
    let (folder, process, wake) = (tempdir().expect("a folder"), process_with(Some(32 << 20)), Rc::<Notify>::default());
    let shared = shared(Durable { framing: api::Framing::Newline, max_message_bytes: 1 << 20, ..disk() });
    let (mut socket, address) = over_tcp(&shared);
    let test = async {
        let mut log = log(free(), folder.path(), &process, &wake);
        log.run(&shared, &process);
        timeout(SOON, wake.notified()).await.expect("it is opened with the other bound");
        log.settle(&process);
        let intake = log.taker().expect("it runs").intake;
        socket.serve(&BTreeMap::from([(id("l"), log)]), &process).await;
        let (line, mut clients) = (vec![b'm'; 1 << 20], Vec::new());
        for _ in 0..2 {
            let mut client = tokio::net::TcpStream::connect(address).await.expect("connected");
            // It may be closed meanwhile.
            let _ = client.write_all(&line).await;
            clients.push(client);
        }
        let counted = async {
            while (intake.figures().crowded, intake.figures().connections) != (1, 1) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counted).await.expect("there is room for one");
        assert!(process.messages.is_used());
        socket.stop().await;
    };
    LocalSet::new().run_until(test).await;
}

// C9
#[test]
fn a_log_beyond_the_share_of_its_namespace_is_refused_unless_the_gateway_gives_more() {
    let folder = tempdir().expect("a folder");
    let data_bytes = Some(48 << 20);
    let settings = Settings { data: Some(folder.path().to_owned()), data_bytes, ..Settings::default() };
    let thread = Thread::new(Place::of(&settings).expect("a folder"), process());
    let refused = |max_log_bytes: Option<u64>| {
        let wanted = |namespace: &str, name: &str| {
            let limits = api::TenantLimits { max_log_bytes, ..api::TenantLimits::default() };
            let spec = Listener { tenant_limits: Some(Box::new(limits)), ..(*listener(disk())).clone() };
            let id = ListenerId::new(Origin::port_forward(namespace, "f"), name);
            Wanted { id, spec: Arc::new(spec), done: oneshot::channel().0 }
        };
        let all = [wanted("a", "one"), wanted("a", "two"), wanted("b", "one")];
        thread.without_room(&all).into_keys().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(refused(None), ["a/f/two"]);
    assert!(refused(Some(32 << 20)).is_empty());
}

#[cfg(feature = "jetstream")]
#[tokio::test]
async fn a_server_that_does_not_answer_holds_up_no_other_log_and_not_the_end_of_the_thread() {
    let data = tempdir().expect("a folder");
    let settings = Settings { data: Some(data.path().to_owned()), ..Settings::default() };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", silent.local_addr().expect("an address"));
    let stream = durable(api::Store::JetStream { url, credentials_name: None, replicas: 1, max_bytes: 16 << 20 });
    let place = Place::of(&settings).expect("a folder");
    let (handle, thread) = start(place, &process()).expect("a thread");
    let wanted = |name: &str, durable: Durable| {
        let (done, opened) = oneshot::channel();
        (Wanted { id: id(name), spec: listener(durable), done }, opened)
    };
    let ((first, mut hung), (second, opened)) = (wanted("a", stream), wanted("b", disk()));
    handle.send(Command::Keep(Ask::Open(vec![first, second]))).await;
    let opened = timeout(SOON, opened).await.expect("it does not wait for the other one");
    assert_eq!(opened.expect("an answer"), Ok(()));
    hung.try_recv().expect_err("the server does not answer");
    handle.send(Command::Drain { millis: 0 }).await;
    thread.join().expect("it ends");
}
