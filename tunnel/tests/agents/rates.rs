//! More connections than the rate of an endpoint allows.

use std::{
    cell::RefCell,
    future::ready,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tunnel::endpoint::{Authenticator, listen};
use tunnel_core::identity::AgentIdentity;

use super::world::{Server, agent, until, within};

/// Records when handshakes begin, and ends them.
struct Noted(Rc<RefCell<Vec<Instant>>>);

impl Authenticator for Noted {
    type Io = TcpStream;

    fn authenticate(&self, _: TcpStream) -> impl Future<Output = io::Result<Option<(AgentIdentity, TcpStream)>>> {
        self.0.borrow_mut().push(Instant::now());
        ready(Ok(None))
    }
}

#[tokio::test]
async fn a_connection_beyond_the_rate_is_closed_and_counted_and_an_agent_comes_back() {
    within(async {
        let server = Server::start_with(1, 1).await;
        let _first = TcpStream::connect(server.address).await.expect("connected");
        let mut second = TcpStream::connect(server.address).await.expect("connected");
        let closed = second.read(&mut [0]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        assert_eq!(server.endpoint.closed().get("source_rate"), Some(&1));
        let _agent = agent(server.address, "pi4", 1);
        server.has(1).await;
    })
    .await;
}

#[tokio::test]
async fn the_handshakes_of_a_burst_begin_one_after_the_other() {
    within(async {
        let server = Server::start_with(1, 40).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let begun = Rc::new(RefCell::new(Vec::new()));
        let since = Instant::now();
        spawn_local(listen(server.endpoint.clone(), listener, Noted(begun.clone())));
        let mut burst = Vec::new();
        for _ in 0..8 {
            let mut client = TcpStream::connect(address).await.expect("connected");
            client.write_all(b"?").await.expect("sent");
            burst.push(client);
        }
        until(|| begun.borrow().len() == burst.len()).await;
        // Two lanes, each of which begins one handshake in 50 ms.
        let last = begun.borrow().last().copied().expect("the last one");
        assert!(last.duration_since(since) >= Duration::from_millis(150), "{:?}", last.duration_since(since));
    })
    .await;
}
