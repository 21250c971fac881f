//! From one store to another over RELP, on loopback.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use durable::intake::Protocol;
use durable::{Dial, Kept, RelpSender, SessionError};
use tempfile::tempdir;
use tokio::net::TcpStream;
use tokio::select;

use crate::port::{Port, settings_of};
use crate::world::{append, figures, messages, open, within};

/// A sink that is not there at first.
struct Late {
    address: SocketAddr,
    failures: Cell<u32>,
}

impl Dial for &Late {
    type Io = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        let failures = self.failures.get();
        if failures > 0 {
            self.failures.set(failures - 1);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        TcpStream::connect(self.address).await
    }
}

#[tokio::test]
async fn a_backlog_is_delivered_in_order_though_the_sink_is_away_and_breaks_off() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    within(append(&store, messages(0..30))).await;
    let port = Port::new().await;
    let late = Late { address: port.address, failures: Cell::new(2) };
    let ends = RefCell::new(Vec::new());
    let sender =
        RelpSender { dial: &late, enrich: |kept: Kept| kept.payload, chance: || 0.0, window: 4, store: store.clone() };
    let sending =
        sender.run(|error: &SessionError, pause: Duration| ends.borrow_mut().push((error.to_string(), pause)));
    let test = Box::pin(async {
        let settings = settings_of(Protocol::Relp);
        // The connection breaks with the end of what serves it.
        port.serve(settings, async { port.store.wait_for(9).await.expect("it runs") }).await;
        append(&store, messages(30..40)).await;
        let all = async { drop(figures(&store, |figures| figures.cursor == 40).await) };
        port.serve(settings, all).await;
    });
    within(async {
        select! {
            () = sending => panic!("it sends until the store is closed"),
            () = test => {}
        }
    })
    .await;
    let texts = port.texts(40).await;
    assert!(texts.len() <= 40 + 4 * 2, "what comes twice is within the window: {texts:?}");
    let mut next = 0;
    for text in &texts {
        let id: u64 = text.trim_start_matches("message ").parse().expect("a number");
        assert!(id <= next, "message {next} is passed over: {texts:?}");
        next = next.max(id + 1);
    }
    assert_eq!(next, 40);
    let ends = ends.into_inner();
    assert!(ends.len() >= 3 && ends[1].1 > ends[0].1, "two failures and a break, with pauses that grow: {ends:?}");
    assert!(ends[0].0.contains("cannot reach the sink"), "{ends:?}");
}
