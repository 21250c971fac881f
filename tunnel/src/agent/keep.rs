//! The task that drives a session while it lasts.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel_core::identity::EndpointId;

use super::{Agent, Connector, Drops, Event, Held, serve};
use crate::Hint;

/// Time limit for streams to deliver bytes that arrived before the session was lost.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// Drives the timers of a session and serves its requests, until the session is lost. Dropping the future resets the
/// streams.
pub(super) async fn keep<C: Connector>(agent: Rc<Agent<C>>, id: EndpointId, held: Rc<Held>) {
    let tunnel = &held.tunnel;
    let mut streams = JoinSet::new();
    let loss = {
        let mut run = pin!(tunnel.run());
        loop {
            tell_dropped(&agent, &held);
            select! {
                loss = &mut run => break loss,
                Some(incoming) = tunnel.accept() => serve::begin(&mut streams, agent.clone(), incoming),
                Some(_) = streams.join_next(), if !streams.is_empty() => {}
                named = tunnel.peers() => agent.told(&held, &id, named),
                hint = tunnel.hint() => {
                    let mark = match hint {
                        Hint::Suspect => &held.suspect,
                        Hint::GoAway => &held.leaving,
                    };
                    mark.set(true);
                    agent.tell(&Event::Needed { endpoint: &id, hint });
                    agent.changed.notify_one();
                }
            }
        }
    };
    tell_dropped(&agent, &held);
    agent.tell(&Event::Ended { endpoint: &id, loss });
    let is_this = agent.sessions.borrow().get(&id).is_some_and(|present| Rc::ptr_eq(present, &held));
    if is_this {
        agent.sessions.borrow_mut().remove(&id);
    }
    agent.changed.notify_one();
    let last = async { while streams.join_next().await.is_some() {} };
    // Streams that have not delivered everything by then are reset as their tasks are dropped.
    let _ = timeout(LAST_BYTES, last).await;
}

/// Reports the datagrams that the session has dropped, whenever a stream or a flow has begun or ended.
fn tell_dropped<C>(agent: &Agent<C>, held: &Held) {
    let count = held.dropped();
    if count > 0 {
        agent.tell(&Event::Dropped { reason: Drops::Waited, count });
    }
}
