//! Agents that an endpoint denies.

use std::{cell::RefCell, net::SocketAddr, ops::RangeInclusive, rc::Rc};

use tokio::{net::TcpStream, sync::watch, task::spawn_local};
use tunnel::{
    agent::{Event, Observer, run_observed},
    handshake::greet,
};
use tunnel_core::hello::{Boot, Hello, Instance, VERSIONS};

use super::{
    connect, echo, is_reset,
    world::{Echo, Plain, Running, Server, address, agent, settings, until, within},
};

/// An agent, and the causes of its failed attempts.
fn watched(at: SocketAddr, instance: &str, boot: u8) -> (Running, Rc<RefCell<Vec<String>>>) {
    let failures = Rc::new(RefCell::new(Vec::new()));
    let told = failures.clone();
    let observer: Observer = Rc::new(move |event: &Event<'_>| {
        if let Event::NotConnected { error, .. } = event {
            told.borrow_mut().push((*error).to_owned());
        }
    });
    let (stop, stopped) = watch::channel(false);
    let settings = settings(address(at), None, instance, &["127.0.0.0/8:1-65535"]);
    let task = spawn_local(run_observed(settings, Plain, Boot([boot; 16]), stopped, observer));
    (Running { stop, task }, failures)
}

#[tokio::test]
async fn of_two_processes_with_one_name_the_later_one_stays_and_the_earlier_one_is_told() {
    within(async {
        let (server, target) = (Server::start(1).await, Echo::start().await);
        let (_first, failures) = watched(server.address, "pi4", 1);
        server.has(1).await;
        let mut old = connect(&server, target.address).await;
        echo(&mut old, b"of the earlier one").await;
        let _second = agent(server.address, "pi4", 2);
        assert!(is_reset(&mut old).await);
        let mut stream = connect(&server, target.address).await;
        // The earlier process retries again and again.
        until(|| failures.borrow().len() >= 3).await;
        let is_told = |failure: &String| failure.contains("start each with a --name of its own");
        assert!(failures.borrow().iter().all(is_told), "{failures:?}");
        echo(&mut stream, b"of the later one").await;
        assert_eq!(server.streams(), [1]);
    })
    .await;
}

async fn greeted(server: &Server, versions: RangeInclusive<u16>) -> Result<u16, String> {
    let mut tcp = TcpStream::connect(server.address).await.expect("connected");
    let hello = Hello {
        versions,
        boot: Boot([1; 16]),
        epoch: 1,
        instance: Instance::new("pi4").expect("an instance"),
        program: "0.9.0".to_owned(),
        sessions: Vec::new(),
    };
    greet(&mut tcp, &hello).await.map(|welcome| welcome.version).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_agent_of_another_version_is_told_which_end_to_upgrade() {
    within(async {
        let server = Server::start(1).await;
        for (versions, remedy) in [(0..=0, "upgrade the agent"), (900..=901, "upgrade the endpoint")] {
            let told = greeted(&server, versions).await.expect_err("no common version");
            assert!(told.ends_with(remedy), "{told}");
        }
        assert_eq!(server.endpoint.closed().get("version"), Some(&2));
        let told = server.endpoint.notices();
        assert_eq!(told.len(), 1, "of one kind there is one line: {told:?}");
        assert_eq!((told[0].kind, told[0].subject.as_str()), ("version", "infra/home"));
        assert!(told[0].message.contains("upgrade the agent (and 1 more"), "{told:?}");
        assert!(server.endpoint.agents().is_empty());
        assert_eq!(greeted(&server, *VERSIONS.start()..=900).await, Ok(*VERSIONS.end()));
    })
    .await;
}
