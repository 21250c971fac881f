//! The room that connections take of the process.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use durable::intake::{Framing, Hold, Intake, Protocol, TcpSettings};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::port::{Port, rest, settings_of};

// C9, D7
#[tokio::test]
async fn a_connection_for_which_there_is_no_room_is_closed_and_counted_and_one_that_ends_gives_its_room_back() {
    let room = Arc::new(Semaphore::new(1));
    let all = room.clone();
    let hold = move |_: IpAddr| ready(all.clone().try_acquire_owned().ok().map(|place| Box::new(place) as Hold));
    let port = Port { intake: Intake::default().holding(hold), ..Port::new().await };
    let test = async {
        let first = port.connect().await;
        port.until(|figures| figures.connections == 1).await;
        assert_eq!(rest(&mut port.connect().await).await, b"");
        assert_eq!(port.intake.figures().refused_room, 1);
        drop(first);
        port.until(|figures| figures.connections == 0).await;
        assert_eq!(room.available_permits(), 1);
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn a_connection_for_which_its_source_has_no_place_takes_nothing_of_the_process_and_one_without_room_no_place() {
    let (asked, has_room) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicBool::new(false)));
    let (count, room) = (asked.clone(), has_room.clone());
    let hold = move |_: IpAddr| {
        count.fetch_add(1, Ordering::Relaxed);
        ready(room.load(Ordering::Relaxed).then(|| Box::new(()) as Hold))
    };
    let port = Port { intake: Intake::default().holding(hold), ..Port::new().await };
    let test = async {
        for _ in 0..3 {
            assert_eq!(rest(&mut port.connect().await).await, b"");
        }
        has_room.store(true, Ordering::Relaxed);
        let _open = (port.connect().await, port.connect().await);
        port.until(|figures| figures.connections == 2).await;
        assert_eq!(rest(&mut port.connect().await).await, b"");
        let figures = port.intake.figures();
        assert_eq!((figures.refused_room, figures.refused_source, asked.load(Ordering::Relaxed)), (3, 1, 5));
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}

#[tokio::test]
async fn a_connection_waits_for_its_room_while_others_send_and_end_and_those_behind_it_come_afterwards() {
    let room = Arc::new(Semaphore::new(1));
    let all = room.clone();
    let hold = move |_: IpAddr| {
        let all = all.clone();
        async move { all.acquire_owned().await.ok().map(|place| Box::new(place) as Hold) }
    };
    let port = Port { intake: Intake::default().holding(hold), ..Port::new().await };
    let settings = TcpSettings { connections_per_source: Some(3), ..settings_of(Protocol::Framed(Framing::Newline)) };
    let test = async {
        let mut first = port.connect().await;
        port.until(|figures| figures.connections == 1).await;
        let (mut second, mut third) = (port.connect().await, port.connect().await);
        second.write_all(b"two\n").await.expect("it is open");
        third.write_all(b"three\n").await.expect("it is open");
        first.write_all(b"one\n").await.expect("it is read");
        assert_eq!(port.texts(1).await, ["one"], "it is served while another one waits");
        assert_eq!(port.intake.figures().connections, 1);
        drop(first);
        assert_eq!(port.texts(2).await[1], "two");
        port.until(|figures| figures.connections == 1).await;
        drop(second);
        assert_eq!(port.texts(3).await[2], "three");
        drop(third);
        port.until(|figures| figures.connections == 0).await;
        assert_eq!((port.intake.figures().refused_room, room.available_permits()), (0, 1));
    };
    port.serve(settings, test).await;
}

/// Panics when it is dropped, if so.
struct Panics(bool);

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.0, "as the test wants");
    }
}

#[tokio::test]
async fn a_connection_that_panics_gives_its_place_back() {
    let is_first = AtomicBool::new(true);
    let hold = move |_: IpAddr| ready(Some(Box::new(Panics(is_first.swap(false, Ordering::Relaxed))) as Hold));
    let port = Port { intake: Intake::default().holding(hold), ..Port::new().await };
    let test = async {
        let first = port.connect().await;
        port.until(|figures| figures.connections == 1).await;
        drop(first);
        port.until(|figures| figures.connections == 0).await;
        let mut second = port.connect().await;
        second.write_all(b"one\n").await.expect("it is read");
        assert_eq!(port.texts(1).await, ["one"]);
    };
    let settings = settings_of(Protocol::Framed(Framing::Newline));
    port.serve(TcpSettings { connections: 1, ..settings }, test).await;
}
