//! A join string with several addresses.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, task::spawn_local};
use tunnel::enrol::{Way, enrol, renew};
use tunnel_core::join::JoinString;

use super::world::{Home, Server, address, identity, way, within};

/// A load balancer without a server behind it.
async fn balancer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    spawn_local(async move {
        loop {
            drop(listener.accept().await.expect("a connection"));
        }
    });
    at
}

/// The join string of this agent, with these addresses.
fn join(of_server: &JoinString, addresses: Vec<SocketAddr>) -> JoinString {
    let (agent, token) = (of_server.agent().clone(), of_server.token().clone());
    let addresses = addresses.into_iter().map(address).collect();
    JoinString::new(addresses, of_server.root(), agent, of_server.expires(), token).expect("a join string")
}

#[tokio::test]
async fn addresses_that_take_connections_and_say_nothing_leave_time_to_the_last_one_and_are_named() {
    within(async {
        let (server, home) = (Server::start(), Home::new());
        let of_server = JoinString::parse(&server.join(1, 0)).expect("a join string");
        // The system takes connections that nobody accepts.
        let silent = [TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await];
        let silent = silent.map(|listener| listener.expect("a port"));
        let [one, other] = [&silent[0], &silent[1]].map(|listener| listener.local_addr().expect("an address"));
        let way = |seconds| Way { within: Duration::from_secs(seconds), ..way(&server.clock) };
        let told = enrol(&join(&of_server, vec![one, other]).encode(), &home.folder, &way(1)).await;
        let told = told.expect_err("nobody answers").to_string();
        assert!(told.starts_with(&format!("{one}: the connection to the server failed")), "{told}");
        let last = join(&of_server, vec![one, other, server.address]);
        let enrolled = enrol(&last.encode(), &home.folder, &way(6)).await.expect("enrolled");
        assert_eq!(enrolled.identity, identity(0));
    })
    .await;
}

#[tokio::test]
async fn an_agent_enrols_and_renews_at_the_first_address_that_leads_to_the_server() {
    within(async {
        let (server, home, empty) = (Server::start(), Home::new(), balancer().await);
        let of_server = JoinString::parse(&server.join(1, 0)).expect("a join string");
        let way = way(&server.clock);
        let nowhere = enrol(&join(&of_server, vec![empty, empty]).encode(), &home.folder, &way).await;
        assert!(nowhere.is_err_and(|error| !error.is_final()), "the owner may be late with the pods");
        let join = join(&of_server, vec![empty, server.address]);
        let enrolled = enrol(&join.encode(), &home.folder, &way).await.expect("enrolled");
        assert_eq!(enrolled.identity, identity(0));
        renew(&enrolled, &home.folder, join.addresses(), &way).await.expect("renewed");
    })
    .await;
}
