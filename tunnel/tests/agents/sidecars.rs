//! What an agent believes of sidecars.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    rc::Rc,
};

use tokio::{net::TcpStream, sync::watch, task::spawn_local};
use tunnel::{
    agent::{self, Connector, Event, Observer},
    endpoint::Sidecar,
};
use tunnel_core::{
    hello::Boot,
    identity::{Dial, EndpointId},
};

use super::world::{Echo, Server, UID, address, settings, until, within};
use super::{connect, echo};

/// No TLS, and who dials a sidecar comes to this address.
struct Routed(SocketAddr);

impl Connector for Routed {
    type Io = TcpStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<TcpStream> {
        match dial {
            Dial::Any | Dial::Endpoint(_) => Ok(tcp),
            Dial::Sidecar(_) => TcpStream::connect(self.0).await,
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_speaks_for_an_endpoint_of_the_server_ends_no_session_of_it() {
    within(async {
        // Both have the same id.
        let (server, liar, target) = (Server::start(1).await, Server::start(2).await, Echo::start().await);
        let refused = Rc::new(Cell::new(0));
        let seen = refused.clone();
        let observer: Observer = Rc::new(move |event: &Event<'_>| {
            if matches!(event, Event::NotConnected { dial: Dial::Sidecar(_), kind: "unexpected", .. }) {
                seen.set(seen.get() + 1);
            }
        });
        let settings = settings(address(server.address), None, "pi4", &["127.0.0.0/8:1-65535"]);
        let (_stop, stopped) = watch::channel(false);
        spawn_local(agent::run_observed(settings, Routed(liar.address), Boot([3; 16]), stopped, observer));
        server.has(1).await;
        let mut stream = connect(&server, target.address).await;
        echo(&mut stream, b"before").await;
        let sidecar = Sidecar { address: liar.address, agents: BTreeSet::from([UID.to_owned()]) };
        let id = EndpointId::new("s1").expect("an id");
        server.endpoint.set_sidecars(&BTreeMap::from([(id, sidecar)]));
        until(|| refused.get() > 0).await;
        echo(&mut stream, b"after").await;
        assert_eq!(server.streams(), [1]);
    })
    .await;
}
