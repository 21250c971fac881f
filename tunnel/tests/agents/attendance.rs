//! What a server logs about agents that connect and are lost.

use std::cell::RefCell;

use tokio::net::TcpStream;
use tunnel_core::registry::Policy;

use super::world::{Server, agent, until, within};

/// Waits for a line, and returns its kind and its message.
async fn line(server: &Server) -> (&'static str, String) {
    let found = RefCell::new(None);
    until(|| {
        let notices = server.endpoint.attendance();
        assert!(notices.len() <= 1, "{notices:?}");
        let line = notices.into_iter().next().map(|notice| (notice.kind, notice.message));
        found.replace(line);
        found.borrow().is_some()
    })
    .await;
    found.into_inner().expect("just found")
}

#[tokio::test]
async fn an_agent_that_comes_and_stops_has_two_lines_and_a_client_that_is_no_agent_has_none() {
    within(async {
        let server = Server::start(1).await;
        drop(TcpStream::connect(server.address).await.expect("connected"));
        until(|| !server.endpoint.closed().is_empty()).await;
        assert!(server.endpoint.attendance().is_empty());
        let agent = agent(server.address, "pi4", 1);
        let (kind, message) = line(&server).await;
        assert_eq!(kind, "agent_connected");
        assert!(message.starts_with("instance pi4 has connected from 127.0.0.1:"), "{message}");
        agent.stop.send_replace(true);
        let (kind, message) = line(&server).await;
        assert_eq!(kind, "agent_lost");
        assert!(message.ends_with("is lost: the agent was stopped"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn the_line_about_a_suspended_agent_says_so_and_its_attempts_have_none() {
    within(async {
        let server = Server::start(1).await;
        let _agent = agent(server.address, "pi4", 1);
        assert_eq!(line(&server).await.0, "agent_connected");
        server.policy.set(Policy { suspended: true, ..server.policy.get() });
        server.endpoint.review();
        let (kind, message) = line(&server).await;
        assert_eq!(kind, "agent_lost");
        assert!(message.ends_with("agent infra/home is suspended: its owner sets suspend to false"), "{message}");
        until(|| server.endpoint.closed().contains_key("suspended")).await;
        assert!(server.endpoint.attendance().is_empty());
    })
    .await;
}
