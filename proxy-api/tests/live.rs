//! Live sessions: which ones are listed, and how many there are.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::collections::BTreeMap;

use proxy_api::{ListenerId, LiveSessions, MAX_COUNTED, Origin, Selection, SessionId};

fn origin(name: &str) -> Origin {
    Origin::port_forward("shop", name)
}

#[test]
fn a_session_is_listed_if_it_is_of_the_object_the_namespace_and_the_id_that_are_asked_for() {
    let listener = ListenerId::new(origin("db"), "pg");
    let all = Selection::default;
    let namespace = |name: &str| Selection { namespace: Some(name.to_owned()), ..all() };
    for (selection, expected) in [
        (all(), true),
        (Selection { origin: Some(origin("db")), ..all() }, true),
        (Selection { origin: Some(origin("web")), ..all() }, false),
        (namespace("shop"), true),
        (namespace("other"), false),
        (Selection { session: Some(SessionId(7)), ..all() }, true),
        (Selection { session: Some(SessionId(8)), ..all() }, false),
    ] {
        assert_eq!(selection.has(&listener, Some(SessionId(7))), expected, "{selection:?}");
    }
    let one = Selection { session: Some(SessionId(7)), ..all() };
    assert!(!one.has(&listener, None), "a proxy that knows no ids");
}

#[test]
fn sessions_are_counted_together_and_by_object_if_that_is_asked_for() {
    let counted = |by_origin: bool| {
        let (selection, mut live) = (Selection { by_origin, ..Selection::default() }, LiveSessions::default());
        for name in ["db", "web", "db"] {
            live.count(&selection, &origin(name));
        }
        live
    };
    assert_eq!(counted(false), LiveSessions { total: 3, ..LiveSessions::default() });
    let mut live = counted(true);
    live.add(counted(true));
    let origins = BTreeMap::from([(origin("db"), 4), (origin("web"), 2)]);
    assert_eq!(live, LiveSessions { total: 6, origins, ..LiveSessions::default() });
}

#[test]
fn no_more_objects_are_counted_one_by_one_than_an_answer_has_room_for() {
    let (selection, mut live) = (Selection { by_origin: true, ..Selection::default() }, LiveSessions::default());
    for at in 0..=MAX_COUNTED {
        live.count(&selection, &origin(&at.to_string()));
    }
    live.count(&selection, &origin("0"));
    assert_eq!((live.total, live.origins.len()), (MAX_COUNTED as u64 + 2, MAX_COUNTED));
    assert_eq!(live.origins[&origin("0")], 2, "one that is counted stays so");
}
