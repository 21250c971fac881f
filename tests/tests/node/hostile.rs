//! A hostile pod tries every door of the operator, of a gateway and of a sidecar, floods a forward with datagrams and has
//! proxies with valid tokens that lie, and nothing that runs meanwhile is refused.
//!
//! How much later things are under attack is measured by a bench: `benches/src/hostile.rs`.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Force, LYING_PROXIES, Node, Operation, Outcomes, Siege};

use crate::shared;

/// About 6,500 clients, over all doors: as many as it takes to fill each. They come more slowly than in the bench, as other
/// tests run beside this one.
const FORCE: Force = Force { clients: 160, connects_per_second: 300, longest: Duration::from_secs(900) };
/// Connections a second with which the attack fills each door. It gets the CPU that others leave, so on a busy machine it
/// may have fewer.
const STRONG: f64 = 100.0;
/// Longest wait for the attack.
const STRENGTH: Duration = Duration::from_secs(180);
/// Connections that the doors leave open at the least when all clients are there.
const MANY: usize = 400;

/// The node is this test's own: the attack would disturb other tests.
#[test]
fn while_a_hostile_pod_tries_every_door_nothing_is_refused() {
    if !shared::are_nodes_ours() {
        return;
    }
    let node = Node::start();
    let siege = Siege::prepare(&node);
    let attack = siege.attack(FORCE);
    let (rate, quick) = siege.meanwhile(|| {
        comes_true(|| attack.open() > MANY && siege.doors().iter().all(|door| attack.has_tried(door.name)));
        eprintln!("all doors were tried {:.1?} after the start", siege.elapsed());
        for operation in Operation::LONG {
            let outcome = siege.run(operation);
            eprintln!("{}: {outcome:?}, {:.1?} after the start", operation.name(), siege.elapsed());
            assert!(outcome.is_ok(), "refused under attack: {outcome:?}");
            // Some operations replace pods; the new ones have doors, too.
            attack.aim(siege.doors());
        }
        // The pods that are there now are new, so their counters began at zero.
        let (begun, before) = (Instant::now(), attack.connections());
        let is_full = comes_true(|| siege.closed().values().all(|count| *count > 0.0));
        eprintln!("all doors were full: {is_full}, {:.1?} after the start", siege.elapsed());
        // The rate, if it was too low to fill them all.
        let rate = f64::from(attack.connections() - before) / begun.elapsed().as_secs_f64();
        (!is_full).then_some(rate)
    });
    let toll = attack.stop();
    let closed = siege.closed();
    if let Some(rate) = rate {
        assert!(rate < STRONG, "every door turns somebody away at {rate} connections a second: {closed:?}");
        shared::not_run(&format!(
            "the machine left {rate:.0} connections a second to the attack: not all doors were full"
        ));
    }
    eprintln!("{toll:?}\nclosed by the doors: {closed:?}");
    eprintln!("datagrams dropped by the proxies: {:?}; at the server: {}", siege.dropped(), siege.received());
    eprintln!("sessions ended by the proxies: {:?}", siege.ended());
    let is_datagram = |why: &&String| why.starts_with(Operation::Datagram.name());
    let (lost, refused): (Vec<_>, Vec<_>) = quick.refused.iter().partition(is_datagram);
    assert!(refused.is_empty(), "{} refused under attack: {refused:?}", refused.len());
    // Datagrams may be lost. A client that the flood starves has no answer at all.
    assert!(lost.len() * 10 <= quick.count(Operation::Datagram), "too many datagrams without an answer: {lost:?}");
    assert!(all_went_on(&quick), "sessions and admissions continue all the time: {quick:?}");
    let held = &quick.held;
    eprintln!("the session that was held: {held:?}");
    assert!(held.breaks.is_empty() && held.echoes > 20, "a session lasts as long as the attack: {held:?}");
    let restarts = siege.restarts();
    assert!(restarts.is_empty(), "no container was restarted: {}", restarts.join("\n"));
    assert!(toll.until_stopped, "the attack lasted as long as the operations");
    let doors = siege.doors();
    let is_tried = |name: &str| toll.connections.contains_key(name);
    let all_tried = doors.iter().all(|door| is_tried(door.name)) && is_tried(LYING_PROXIES);
    assert!(all_tried || rate.is_some(), "every door was tried, and lying proxies had streams: {toll:?}");
    assert!(
        siege.accused().is_empty(),
        "what lying proxies say is reported of forwards of others: {:?}",
        siege.accused()
    );
}

/// Whether something happens while the attack may still grow.
fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + STRENGTH;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::park_timeout(Duration::from_millis(500));
    }
    true
}

fn all_went_on(outcomes: &Outcomes) -> bool {
    Operation::QUICK.into_iter().all(|operation| outcomes.count(operation) > 20)
}
