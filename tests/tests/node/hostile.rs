//! A hostile pod tries every door of the operator and of a gateway, floods a forward with datagrams and has proxies with
//! valid tokens that lie, and nothing that goes on meanwhile is refused.
//!
//! How much later things are under attack is measured by a bench: `benches/src/hostile.rs`.

use std::time::Duration;

use harness::{Force, LYING_PROXIES, Node, Operation, Outcomes, Siege, until};

use crate::shared;

/// About 2,500 clients, over all doors: as many as it takes to fill each. What they cost the node is left to the bench, as
/// other tests run beside this one.
const FORCE: Force = Force { clients: 100, connects_per_second: 150, longest: Duration::from_secs(900) };
/// Connections that the doors leave open at the least when all clients are there.
const MANY: usize = 400;

/// The node is this test's own: the attack would disturb other tests.
#[test]
fn while_a_hostile_pod_tries_every_door_nothing_is_refused() {
    if shared::node_with_a_host().is_none() {
        return;
    }
    let node = Node::start();
    let siege = Siege::prepare(&node);
    let attack = siege.attack(FORCE);
    let ((), quick) = siege.meanwhile(|| {
        until("the attack is at full strength", || attack.open() > MANY);
        for operation in Operation::LONG {
            let outcome = siege.run(operation);
            eprintln!("{}: {outcome:?}", operation.name());
            assert!(outcome.is_ok(), "refused under attack: {outcome:?}");
            // Some operations replace pods; the new ones have doors, too.
            attack.aim(siege.doors());
        }
        // The pods that are there now are new, so their counters began at zero.
        until("every door has turned somebody away", || siege.closed().values().all(|count| *count > 0.0));
    });
    let toll = attack.stop();
    let closed = siege.closed();
    eprintln!("{toll:?}\nclosed by the doors: {closed:?}");
    eprintln!("datagrams dropped by the proxies: {:?}; at the server: {}", siege.dropped(), siege.received());
    let is_datagram = |why: &&String| why.starts_with(Operation::Datagram.name());
    let (lost, refused): (Vec<_>, Vec<_>) = quick.refused.iter().partition(is_datagram);
    assert!(refused.is_empty(), "{} refused under attack: {refused:?}", refused.len());
    // Datagrams may be lost. A client that the flood starves has no answer at all.
    assert!(lost.len() * 10 <= quick.count(Operation::Datagram), "too many datagrams without an answer: {lost:?}");
    assert!(all_went_on(&quick), "sessions and admissions go on all the time: {quick:?}");
    let restarts = siege.restarts();
    assert!(restarts.is_empty(), "no container was restarted: {}", restarts.join("\n"));
    assert!(toll.until_stopped, "the attack lasted as long as the operations");
    let doors = siege.doors();
    assert!(doors.iter().all(|door| toll.connections.contains_key(door.name)), "every door was tried: {toll:?}");
    assert!(toll.connections.contains_key(LYING_PROXIES), "lying proxies had streams: {toll:?}");
    assert!(siege.accused().is_empty(), "what lying proxies say is told of forwards of others: {:?}", siege.accused());
}

fn all_went_on(outcomes: &Outcomes) -> bool {
    Operation::QUICK.into_iter().all(|operation| outcomes.count(operation) > 20)
}
