//! An endpoint's session with an agent: its task drives the timers until the session is lost.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use tokio::select;
use tokio::task::spawn_local;
use tunnel_core::registry::Key;
use tunnel_core::{Loss, Reason, Refusal};

use super::{Endpoint, Held};
use crate::Hint;

/// Begins to keep a session, in a task of its own.
pub(super) fn begin(endpoint: Rc<Endpoint>, key: Key, held: Rc<Held>) {
    let keeping = keep(endpoint.clone(), key.uid.clone(), held.clone());
    spawn_local(until_lost(endpoint, key, held, keeping));
}

/// Forgets a session once `keeping` reports that it is lost, or has panicked: without its timers it would never be
/// lost, and its agent would return to it. A panic ends only this session, as the agent may be the cause.
async fn until_lost(endpoint: Rc<Endpoint>, key: Key, held: Rc<Held>, keeping: impl Future<Output = Loss>) {
    let loss = unless_it_panics(pin!(keeping)).await.unwrap_or_else(|| {
        endpoint.count("session_failed");
        let (uid, instance) = (&key.uid, &key.instance);
        tracing::error!(uid, %instance, "the task of a session failed, so the session is closed: report this as a bug");
        Loss::Closed
    });
    tracing::info!(uid = key.uid, instance = %key.instance, reason = %loss, "the session of an agent has ended");
    // A later run of the instance may have taken the place, and its session may have the same name.
    let is_this = endpoint.sessions.borrow().get(&key).is_some_and(|present| Rc::ptr_eq(present, &held));
    if is_this {
        endpoint.retire(&held);
        endpoint.registry.borrow_mut().forget(&key, held.name);
        endpoint.sessions.borrow_mut().remove(&key);
        endpoint.touch(&key.uid);
    }
    // A session whose task has panicked is not lost yet.
    held.tunnel.lose(loss);
}

/// Waits for the output of a future; `None`: the future has panicked, and standard error has the message.
async fn unless_it_panics<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    // The future is not polled again after a panic.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Drives the timers of a session until it is lost. Agents may not request streams.
async fn keep(endpoint: Rc<Endpoint>, uid: String, held: Rc<Held>) -> Loss {
    let tunnel = &held.tunnel;
    let mut run = pin!(tunnel.run());
    loop {
        select! {
            loss = &mut run => return loss,
            Some(incoming) = tunnel.accept() => {
                let detail = "an endpoint connects no targets for agents".to_owned();
                incoming.refuse(Refusal { reason: Reason::NotAllowed, detail });
            }
            hint = tunnel.hint() => match hint {
                Hint::GoAway => {
                    held.leaving.set(true);
                    endpoint.touch(&uid);
                }
                // Only the agent can dial again.
                Hint::Suspect => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::join;
    use tokio::task::LocalSet;
    use tokio::time::timeout;
    use tunnel_core::allow::AllowList;
    use tunnel_core::hello::{Boot, Hello, Instance, SessionName, VERSIONS};
    use tunnel_core::identity::{AgentIdentity, AgentName, EndpointId};
    use tunnel_core::registry::Policy;
    use tunnel_core::{Limits, Open, Protocol, Session, Side, Target};

    use super::super::{Rules, Settings};
    use super::*;
    use crate::handshake::greet;
    use crate::{OpenError, Tunnel};

    /// A target that the rules of the endpoint allow.
    fn request(protocol: Protocol) -> Open {
        Open { target: Target { protocol, host: "127.0.0.1".to_owned(), port: 5432 }, source: None }
    }

    fn endpoint() -> Rc<Endpoint> {
        let settings = Settings {
            id: EndpointId::new("a").expect("an id"),
            boot: Boot([1; 16]),
            limits: Limits::default(),
            max_agents: 1,
            connections_per_second: 1,
        };
        let policy = Policy { rotation: 0, suspended: false, is_newer: false, max_instances: 1 };
        let targets = AllowList::parse(Side::Listener, &["127.0.0.1:5432", "udp/127.0.0.1:5432"]).expect("a list");
        let rules = Rc::new(Rules { policy, targets });
        Endpoint::new(settings, move |_| Some(rules.clone()))
    }

    fn hello(epoch: u64, sessions: Vec<SessionName>) -> Hello {
        Hello {
            versions: VERSIONS,
            boot: Boot([2; 16]),
            epoch,
            instance: Instance::new("pi4").expect("an instance"),
            program: "0.9.0".to_owned(),
            sessions,
        }
    }

    fn identity() -> AgentIdentity {
        let agent = AgentName::new("home", "pi4").expect("names");
        AgentIdentity::new(agent, "u-1", 0).expect("an identity")
    }

    // D12
    #[tokio::test]
    async fn a_session_whose_task_panics_ends_and_is_counted_and_its_agent_begins_another_one() {
        let (endpoint, identity) = (endpoint(), identity());
        let test = async {
            let (_, held) = endpoint.decide(&identity, &hello(1, Vec::new())).expect("it is admitted");
            let key = endpoint.sessions.borrow().keys().next().cloned().expect("a session");
            let panics = poll_fn(|_| -> Poll<Loss> { panic!("as the test wants") });
            until_lost(endpoint.clone(), key, held.clone(), panics).await;
            assert_eq!(endpoint.closed().get("session_failed"), Some(&1));
            assert!(endpoint.agents().is_empty() && held.tunnel.look(Session::lost).is_some());
            let again = endpoint.decide(&identity, &hello(2, vec![held.name])).expect("it is admitted");
            assert!(!again.0.resumed);
        };
        LocalSet::new().run_until(test).await;
    }

    // An attacker in control of an agent reaches nothing through the endpoint, not even the targets behind that agent.
    #[tokio::test(start_paused = true)]
    async fn what_an_agent_asks_for_is_refused_and_its_session_goes_on() {
        let (endpoint, identity) = (endpoint(), identity());
        let test = async {
            let (mut near, far) = duplex(4096);
            let hello = hello(1, Vec::new());
            let (greeted, admitted) = join!(greet(&mut near, &hello), endpoint.admit(&identity, far));
            greeted.expect("it is admitted");
            spawn_local(admitted.expect("it is admitted").carry());
            let agent = Tunnel::new(Side::Dialler, Limits::default());
            let (runs, carries) = (agent.clone(), agent.clone());
            spawn_local(async move { runs.run().await });
            spawn_local(async move { carries.carry(1, near).await });

            let detail = "an endpoint connects no targets for agents".to_owned();
            let refused = OpenError::Refused(Refusal { reason: Reason::NotAllowed, detail });
            assert_eq!(agent.open(request(Protocol::Tcp)).await.err(), Some(refused.clone()));
            assert_eq!(agent.open_flow(request(Protocol::Udp)).await.err(), Some(refused));

            let asked = request(Protocol::Tcp);
            let accepts = async { agent.accept().await.expect("a request").accept() };
            let (opened, _accepted) = join!(endpoint.open(identity.uid(), &asked), accepts);
            assert!(opened.is_ok(), "the endpoint opens streams to the agent: {opened:?}");
        };
        // With virtual time, a request without an answer fails the test.
        LocalSet::new().run_until(timeout(Duration::from_secs(60), test)).await.expect("an answer");
    }
}
