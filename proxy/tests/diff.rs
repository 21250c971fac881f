//! Properties of the plan: unchanged listeners are not touched, and a failed bind loses nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

mod document;

use std::{collections::BTreeSet, sync::Arc};

use document::template;
use proptest::prelude::*;
use proxy::core::changes::diff::{Blocked, Desired, Facts, Lost, Running, Which, diff};
use proxy_api::{Backend, Bind, Listener, ListenerId, SocketKey, Target, Transport};

fn id(n: u8) -> ListenerId {
    format!("ns/f/l{n}").parse().expect("id")
}

fn socket(bind: Bind, port: u16) -> SocketKey {
    SocketKey { transport: Transport::Tcp, bind, port }
}

fn listener(socket: SocketKey, backends: &[u8]) -> Arc<Listener> {
    let backend = |n: &u8| {
        let target = Target::Endpoints(format!("b{n}"));
        Backend { id: format!("b{n}"), weight: 1, priority: 0, check_port: None, target }
    };
    Arc::new(Listener { socket, backends: backends.iter().map(backend).collect(), ..template() }.sealed())
}

fn desired(listeners: &[(u8, SocketKey, &[u8])]) -> Desired {
    listeners.iter().map(|(n, socket, backends)| (id(*n), Some(listener(*socket, backends)))).collect()
}

fn run(running: &Running, desired: &Desired, unbound: &[SocketKey]) -> proxy::core::changes::diff::Settled {
    diff(running, desired).settle(&unbound.iter().copied().collect())
}

const A: SocketKey = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 1 };
const B: SocketKey = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 2 };
const C: SocketKey = SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port: 3 };

#[test]
fn swapped_ports_close_and_bind_nothing() {
    let before = run(&Running::default(), &desired(&[(1, A, &[1]), (2, B, &[1])]), &[]).next;
    let swapped = desired(&[(1, B, &[1]), (2, A, &[1])]);
    let plan = diff(&before, &swapped);
    assert!(plan.bind.is_empty());
    let after = plan.settle(&BTreeSet::new());
    assert!(after.close.is_empty() && after.blocked.is_empty());
    assert_eq!(after.next.sockets[&A], BTreeSet::from([id(2)]));
    assert_eq!(after.concerned.len(), 2, "existing sessions belong to the other port");
}

#[test]
fn a_port_passes_from_a_deleted_to_a_new_listener() {
    let before = run(&Running::default(), &desired(&[(1, A, &[1])]), &[]).next;
    let renamed = desired(&[(2, A, &[1])]);
    let after = run(&before, &renamed, &[]);
    assert!(diff(&before, &renamed).bind.is_empty() && after.close.is_empty());
    assert_eq!(after.next.sockets[&A], BTreeSet::from([id(2)]));
}

#[test]
fn a_listener_that_cannot_move_stays_and_so_does_whoever_wanted_its_place() {
    let before = run(&Running::default(), &desired(&[(1, A, &[1]), (2, B, &[1])]), &[]).next;
    let wanted = desired(&[(1, C, &[1]), (2, A, &[1])]);
    let after = run(&before, &wanted, &[C]);
    assert_eq!(after.blocked[&id(1)], Blocked::Unbound(vec![C]));
    assert_eq!(after.blocked[&id(2)], Blocked::Held(A, id(1)));
    assert_eq!(after.next, before);
    assert!(after.concerned.is_empty() && after.close.is_empty() && after.applied.is_empty());
}

#[test]
fn an_unsupported_listener_leaves_the_previous_one_serving() {
    let before = run(&Running::default(), &desired(&[(1, A, &[1])]), &[]).next;
    let after = run(&before, &Desired::from([(id(1), None)]), &[]);
    assert_eq!(after.blocked[&id(1)], Blocked::Unsupported);
    assert_eq!(after.next, before);
}

#[test]
fn loopback_to_all_keeps_the_old_socket_and_back_closes_the_wide_one() {
    let wide = socket(Bind::All, 1);
    let before = run(&Running::default(), &desired(&[(1, A, &[1])]), &[]).next;
    let after = run(&before, &desired(&[(1, wide, &[1])]), &[]);
    assert_eq!(after.next.sockets.keys().copied().collect::<Vec<_>>(), [A, wide]);
    assert!(after.close.is_empty());
    let back = desired(&[(1, A, &[1])]);
    assert!(diff(&after.next, &back).bind.is_empty());
    assert_eq!(run(&after.next, &back, &[]).close, BTreeSet::from([wide]));
}

#[test]
fn only_sessions_of_a_backend_that_is_gone_are_concerned() {
    let before = run(&Running::default(), &desired(&[(1, A, &[1, 2])]), &[]).next;
    assert!(run(&before, &desired(&[(1, A, &[1, 2, 3])]), &[]).concerned.is_empty());
    let concerned = run(&before, &desired(&[(1, A, &[2])]), &[]).concerned;
    assert_eq!(concerned[0].which, Which::Some(Lost { gone: BTreeSet::from(["b1".to_owned()]), ..Lost::default() }));
}

fn with(plain: &Listener, end_port: Option<u16>, names: &[&str]) -> Arc<Listener> {
    let hostnames = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Listener { end_port, hostnames, ..plain.clone() }.sealed())
}

fn of(listeners: &[(u8, Arc<Listener>)]) -> Desired {
    listeners.iter().map(|(n, listener)| (id(*n), Some(listener.clone()))).collect()
}

#[test]
fn a_range_is_bound_whole_or_not_at_all_and_a_smaller_one_concerns_only_the_ports_that_it_lost() {
    let plain = listener(A, &[1]);
    let wide = of(&[(1, with(&plain, Some(3), &[]))]);
    let failed = run(&Running::default(), &wide, &[B, C]);
    assert_eq!(failed.blocked[&id(1)], Blocked::Unbound(vec![B, C]));
    assert!(failed.next.sockets.is_empty() && failed.close.contains(&A));
    let before = run(&Running::default(), &wide, &[]).next;
    assert_eq!(before.sockets.keys().copied().collect::<Vec<_>>(), [A, B, C]);
    let narrow = run(&before, &of(&[(1, with(&plain, Some(2), &[]))]), &[]);
    assert_eq!(narrow.close, BTreeSet::from([C]));
    let facts = |offset| Facts { client: [10, 0, 0, 1].into(), backend: Some("b1"), offset, name: None };
    assert!(narrow.concerned[0].which.has(facts(2)) && !narrow.concerned[0].which.has(facts(1)));
    assert!(run(&narrow.next, &wide, &[]).concerned.is_empty(), "growing a range concerns no session");
}

#[test]
fn listeners_share_a_port_by_names_and_a_name_moves_between_them() {
    let plain = listener(A, &[1]);
    let one = |names: &[&str]| with(&plain, None, names);
    let before = run(&Running::default(), &of(&[(1, one(&["a.example"])), (2, one(&["*.example"]))]), &[]);
    assert_eq!(before.next.sockets[&A], BTreeSet::from([id(1), id(2)]));
    let moved = of(&[(1, one(&["c.example"])), (2, one(&["*.example", "a.example"]))]);
    assert!(diff(&before.next, &moved).bind.is_empty());
    let after = run(&before.next, &moved, &[]);
    assert!(after.blocked.is_empty() && after.close.is_empty());
    let facts = |name| Facts { client: [10, 0, 0, 1].into(), backend: Some("b1"), offset: 0, name: Some(name) };
    assert_eq!(after.concerned.len(), 1, "only the listener that lost a name");
    assert!(after.concerned[0].which.has(facts("a.example")) && !after.concerned[0].which.has(facts("c.example")));
    // A listener without hostnames claims the whole port and has to wait for the listener with a hostname.
    let greedy = run(&after.next, &of(&[(2, one(&["*.example"])), (3, plain.clone())]), &[]);
    assert_eq!(greedy.blocked[&id(3)], Blocked::Held(A, id(2)));
}

fn worlds() -> impl Strategy<Value = Desired> {
    let listener = (0_u8..6, 1_u16..6, any::<bool>(), 0_u8..3, proptest::bool::weighted(0.1), 0_u16..3, 0_usize..4);
    proptest::collection::vec(listener, 0..6).prop_map(|listeners| {
        let mut desired = Desired::new();
        for (n, port, all, backend, unsupported, further, names) in listeners {
            let bind = if all { Bind::All } else { Bind::Loopback };
            let plain = self::listener(socket(bind, port), &[backend]);
            let names = [&[][..], &["a.example"], &["b.example", "*.example"], &["a.example", "c.example"]][names];
            let listener = Listener {
                end_port: (further > 0).then_some(port + further),
                hostnames: names.iter().map(|name| (*name).to_owned()).collect(),
                ..(*plain).clone()
            };
            desired.insert(id(n), (!unsupported).then(|| Arc::new(listener.sealed())));
        }
        desired
    })
}

proptest! {
    #[test]
    fn whatever_happens_the_result_is_whole(
        steps in proptest::collection::vec((worlds(), proptest::collection::btree_set((any::<bool>(), 1_u16..6), 0..4)), 1..6),
    ) {
        let mut running = Running::default();
        for (desired, taken) in steps {
            let taken: BTreeSet<SocketKey> = taken.into_iter()
                .map(|(all, port)| socket(if all { Bind::All } else { Bind::Loopback }, port)).collect();
            let plan = diff(&running, &desired);
            let unbound: BTreeSet<SocketKey> = plan.bind.intersection(&taken).copied().collect();
            let settled = plan.settle(&unbound);
            for (id, listener) in &settled.next.listeners {
                for socket in listener.sockets() {
                    prop_assert!(settled.next.sockets[&socket].contains(id), "a listener has all its sockets");
                }
            }
            for (socket, ids) in &settled.next.sockets {
                let of = |id: &ListenerId| settled.next.listeners.get(id);
                prop_assert!(!ids.is_empty() && ids.iter().all(|id| of(id).is_some()), "{} serves no listener", socket);
                let all: Vec<&Arc<Listener>> = ids.iter().filter_map(of).collect();
                for (at, one) in all.iter().enumerate() {
                    prop_assert!(all[..at].iter().all(|other| one.shares_with(other)), "{} is not shared", socket);
                }
                prop_assert!(running.sockets.contains_key(socket) || plan.bind.contains(socket) && !unbound.contains(socket));
            }
            for id in settled.blocked.keys() {
                prop_assert_eq!(settled.next.listeners.get(id), running.listeners.get(id), "a blocked listener is unchanged");
            }
            for (id, before) in &running.listeners {
                if desired.get(id).and_then(Option::as_ref).is_some_and(|wanted| wanted == before)
                    && !settled.blocked.contains_key(id)
                {
                    prop_assert!(!settled.applied.contains(id), "an unchanged listener is never touched");
                    prop_assert!(!settled.concerned.iter().any(|concern| concern.listener == *id));
                }
            }
            let again = diff(&settled.next, &desired).settle(&unbound);
            prop_assert_eq!(&again.next, &settled.next, "settling is idempotent");
            prop_assert!(again.applied.is_empty());
            // Only sockets opened for a range that cannot be bound whole are closed again.
            prop_assert!(again.close.iter().all(|socket| !settled.next.sockets.contains_key(socket)));
            running = settled.next;
        }
    }
}
