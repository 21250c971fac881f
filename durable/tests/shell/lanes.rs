//! Several stores behind one port, each for the sources of its lane.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use durable::intake::{Framing, Intake, Limits, Oversize, Protocol, receive};
use durable::{Folder, Lanes, QUEUE_BYTES, Store, StoreSettings};
use durable_core::lanes::lane_of;
use proxy_api::partials::Partials;
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::select;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::disk::Disk;
use crate::port::{serving, settings_of};
use crate::world::{read, settings, within};

/// An address of this machine that has this lane of two, with any port.
fn source(lane: usize) -> SocketAddr {
    let mut all = (1..=u8::MAX).map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
    all.find(|address| lane_of(address.ip(), 2) == lane).expect("both have some")
}

/// What a store has, once that is so many messages.
async fn texts(store: &Store, count: u64) -> Vec<String> {
    store.wait_for(count - 1).await.expect("it runs");
    read(store, 0).await.into_iter().map(|(_, payload)| String::from_utf8(payload).expect("text")).collect()
}

/// Two stores in one folder.
fn two(folder: &Folder) -> [Store; 2] {
    ["a-", "b-"].map(|prefix| {
        let settings = StoreSettings { prefix: prefix.to_owned(), ..settings() };
        Store::open(folder.again().expect("a descriptor"), settings).expect("a log")
    })
}

/// Two stores, the first of them on this disk.
fn on(held: &Disk, queue_bytes: u32) -> [Store; 2] {
    let settings = || StoreSettings { queue_bytes, ..settings() };
    [held.clone(), Disk::default()].map(|disk| Store::open(disk, settings()).expect("a log"))
}

/// A port of lines with two stores behind it, which fills them while a test runs.
struct Port {
    first: Store,
    second: Store,
    intake: Intake,
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    async fn new([first, second]: [Store; 2], intake: Intake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        Self { first, second, intake, listener, address }
    }

    /// Runs a test while the port is served.
    async fn serve(&self, test: impl Future<Output = ()>) {
        let lanes = Lanes::new(self.first.clone(), vec![self.second.clone()]);
        let settings = settings_of(Protocol::Framed(Framing::Newline));
        serving(&self.listener, &lanes, settings, &self.intake, test).await;
    }

    /// A connection from a source of this lane.
    async fn connect(&self, lane: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(source(lane)).expect("an address of this machine");
        socket.connect(self.address).await.expect("a connection")
    }
}

#[tokio::test]
async fn a_source_has_one_lane_whatever_its_port_is() {
    let home = tempdir().expect("a folder");
    let folder = Folder::open(home.path()).expect("nobody has it");
    let port = Port::new(two(&folder), Intake::default()).await;
    port.serve(async {
        let mut clients = Vec::new();
        for (lane, line) in [(0, "a\n"), (1, "b\n"), (1, "c\n")] {
            let mut client = port.connect(lane).await;
            client.write_all(line.as_bytes()).await.expect("it is read");
            clients.push(client);
        }
        assert_eq!(texts(&port.first, 1).await, ["a"]);
        let mut of_second = texts(&port.second, 2).await;
        of_second.sort();
        assert_eq!(of_second, ["b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn datagrams_have_the_lanes_of_their_sources() {
    let home = tempdir().expect("a folder");
    let folder = Folder::open(home.path()).expect("nobody has it");
    let [first, second] = two(&folder);
    let (lanes, intake) = (Lanes::new(first.clone(), vec![second.clone()]), Intake::default());
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("it is bound");
    let limits = Limits { max_message_bytes: 16, oversize: Oversize::Truncate };
    let counted = Cell::new(0);
    let test = async {
        for (lane, text) in [(1, "b"), (0, "a")] {
            let sender = UdpSocket::bind(source(lane)).await.expect("an address of this machine");
            sender.send_to(text.as_bytes(), address).await.expect("it is sent");
        }
        assert_eq!((texts(&first, 1).await, texts(&second, 1).await), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!(intake.figures().messages, 2);
    };
    within(async {
        select! {
            error = receive(&socket, &lanes, limits, &intake, |_| None, &counted) => panic!("it failed: {error}"),
            () = test => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_lane_whose_store_has_no_room_holds_up_no_other_one() {
    let held = Disk::default();
    let port = Port::new(on(&held, 128), Intake::default()).await;
    held.hold(true);
    port.serve(async {
        let mut waits = port.connect(0).await;
        // More than the queue has, in one read: the connection waits with its turn to read.
        waits.write_all(&b"line\n".repeat(100)).await.expect("the system takes it");
        let mut goes_on = port.connect(1).await;
        for count in 1..4 {
            goes_on.write_all(b"line\n").await.expect("it is read");
            assert_eq!(texts(&port.second, count).await.len() as u64, count);
        }
        let waits = timeout(Duration::from_millis(100), port.first.wait_for(99)).await;
        waits.expect_err("its disk is held");
        held.hold(false);
        assert_eq!(texts(&port.first, 100).await.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_lane_without_memory_reads_its_part_of_a_little_and_holds_up_no_other_one() {
    let held = Disk::default();
    let without_memory = Intake::default().within(Arc::new(Partials::new(0)).share("ns"));
    let port = Port::new(on(&held, QUEUE_BYTES), without_memory).await;
    held.hold(true);
    port.serve(async {
        let mut waits = port.connect(0).await;
        waits.write_all(&b"m\n".repeat(3000)).await.expect("the system takes it");
        while port.intake.figures().short_reads < 2 {
            yield_now().await;
        }
        let messages = port.intake.figures().messages;
        assert!((1..=512).contains(&messages), "{messages} messages of half of 2 KiB");
        let mut goes_on = port.connect(1).await;
        goes_on.write_all(b"line\n").await.expect("it is read");
        assert_eq!(texts(&port.second, 1).await, ["line"]);
        held.hold(false);
        while port.intake.figures().messages < 3001 {
            yield_now().await;
        }
    })
    .await;
}

#[test]
fn a_folder_is_in_use_until_all_its_logs_are_closed() {
    let home = tempdir().expect("a folder");
    let first = Folder::open(home.path()).expect("nobody has it");
    let second = first.again().expect("a descriptor");
    drop(first);
    Folder::open(home.path()).expect_err("the second log has it");
    drop(second);
    Folder::open(home.path()).expect("it is free");
}
