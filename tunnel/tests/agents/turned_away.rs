//! An agent whose connection is closed before its handshake.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};
use tunnel::agent::{Connector, Event, Observer, Settings, run_observed};
use tunnel_core::{hello::Boot, identity::Dial, join::Address};

use super::world::{address, settings, until, within};

/// A handshake that begins with a byte of the server.
struct ServerFirst;

impl Connector for ServerFirst {
    type Io = TcpStream;

    async fn secure(&self, mut tcp: TcpStream, _: &Dial) -> io::Result<TcpStream> {
        tcp.read_u8().await?;
        Ok(tcp)
    }
}

/// The pauses that an agent with these addresses reports after its first attempts.
async fn pauses(addresses: Vec<Address>, attempts: usize) -> Vec<Duration> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let all = told.clone();
    let observer: Observer = Rc::new(move |event: &Event<'_>| {
        if let Event::NotConnected { kind: "tls", pause, .. } = event {
            all.borrow_mut().push(*pause);
        }
    });
    let first = addresses.first().expect("an address").clone();
    let settings = Settings { addresses, ..settings(first, None, "pi4", &["127.0.0.1:1"]) };
    let (_stop, stopped) = watch::channel(false);
    let agent = spawn_local(run_observed(settings, ServerFirst, Boot([1; 16]), stopped, observer));
    until(|| told.borrow().len() >= attempts).await;
    agent.abort();
    told.take()
}

/// A server that closes every connection at once.
async fn closing() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    spawn_local(async move { while listener.accept().await.is_ok() {} });
    address(at)
}

#[tokio::test]
async fn an_agent_waits_before_it_dials_the_same_server_again_and_no_longer_before_it_dials_another_one() {
    within(async {
        let (one, two) = (closing().await, closing().await);
        let least = Duration::from_millis(750);
        let alone = pauses(vec![one.clone()], 1).await;
        assert!(alone[0] >= least, "{alone:?}");
        let several = pauses(vec![one, two], 2).await;
        assert!(several.iter().all(|pause| *pause < least), "{several:?}");
    })
    .await;
}
