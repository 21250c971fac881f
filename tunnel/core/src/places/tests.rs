use super::*;

const ATTACHED: Standing = Standing { attached: true, suspect: false, leaving: false };
const NONE: [Dial; 0] = [];
const LOST: Standing = Standing { attached: false, suspect: false, leaving: false };

fn id(name: &str) -> EndpointId {
    EndpointId::new(name).expect("an id")
}

fn to(name: &str) -> Dial {
    Dial::Endpoint(id(name))
}

fn peers(names: &[&str]) -> Vec<EndpointId> {
    names.iter().map(|name| id(name)).collect()
}

fn sessions(standings: &[(&str, Standing)]) -> Standings {
    standings.iter().map(|(name, standing)| (to(name), *standing)).collect()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn an_agent_without_a_session_dials_any_endpoint_once_at_a_time() {
    let mut places = Places::new(4);
    assert_eq!(places.due(&sessions(&[]), at(0)), [Dial::Any]);
    assert_eq!(places.due(&sessions(&[]), at(0)), NONE);
    assert_eq!(places.next(&sessions(&[])), None);
    assert_eq!(places.failed(&Dial::Any, at(100), 0.5), at(100));
    assert_eq!(places.due(&sessions(&[]), at(199)), NONE);
    assert_eq!(places.next(&sessions(&[])), Some(at(200)));
    assert_eq!(places.due(&sessions(&[]), at(200)), [Dial::Any]);
}

#[test]
fn a_lost_endpoint_is_dialled_by_its_id_and_any_other_if_it_does_not_answer() {
    let mut places = Places::new(4);
    let lost = sessions(&[("a", LOST)]);
    places.ended(&to("a"), Duration::from_secs(60), at(0), 0.0);
    assert_eq!(places.due(&lost, at(0)), [to("a")]);
    places.failed(&to("a"), at(5), 0.0);
    assert_eq!(places.due(&lost, at(5)), [to("a"), Dial::Any]);
    // Another endpoint serves: the first one is still wanted for its streams.
    places.succeeded(&Dial::Any, false, at(5), 0.0);
    places.failed(&to("a"), at(6), 0.0);
    assert_eq!(places.due(&sessions(&[("a", LOST), ("b", ATTACHED)]), at(6)), [to("a")]);
}

#[test]
fn each_endpoint_that_was_named_is_dialled_up_to_the_bound() {
    let mut places = Places::new(3);
    places.told(&id("a"), peers(&["b", "c", "d"]));
    let one = sessions(&[("a", ATTACHED)]);
    assert_eq!(places.due(&one, at(0)), [to("b"), to("c")]);
    let all = sessions(&[("a", ATTACHED), ("b", ATTACHED), ("c", ATTACHED)]);
    assert_eq!(places.due(&all, at(0)), NONE);
    assert_eq!(places.next(&all), None);
}

#[test]
fn an_endpoint_that_is_named_no_more_is_dialled_only_for_its_session() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&["b", "c"]));
    let one = sessions(&[("a", ATTACHED)]);
    assert_eq!(places.due(&one, at(0)), [to("b"), to("c")]);
    places.succeeded(&to("b"), false, at(0), 0.0);
    places.failed(&to("c"), at(0), 0.0);
    places.told(&id("a"), peers(&["b"]));
    let both = sessions(&[("a", ATTACHED), ("b", ATTACHED)]);
    assert_eq!(places.due(&both, at(1)), NONE);
    places.told(&id("a"), peers(&[]));
    let lost = sessions(&[("a", ATTACHED), ("b", LOST)]);
    assert_eq!(places.due(&lost, at(1)), [to("b")], "its streams may continue");
    places.failed(&to("b"), at(1), 0.0);
    assert_eq!(places.due(&one, at(2)), NONE, "the session has ended");
    places.told(&id("a"), peers(&["c"]));
    assert_eq!(places.due(&one, at(2)), [to("c")]);
}

#[test]
fn an_endpoint_that_is_named_no_more_is_dialled_without_haste() {
    let mut places = Places::new(4);
    places.told(&id("b"), peers(&["c"]));
    // The endpoint that named the others exists, too.
    for dial in [to("b"), to("c"), Dial::Any] {
        assert_eq!(places.failed(&dial, at(0), 1.0), at(200), "{dial:?}");
    }
    assert_eq!(places.failed(&to("a"), at(0), 1.0), at(10_000));
    assert_eq!(places.failed(&to("a"), at(0), 0.5), at(5000));
    places.told(&id("c"), peers(&["a", "b"]));
    places.ended(&to("a"), Duration::from_secs(60), at(0), 1.0);
    assert_eq!(places.failed(&to("a"), at(0), 1.0), at(600), "it is back");
}

#[test]
fn who_is_turned_away_waits_longer_and_dials_any_other_endpoint_at_once() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&["b"]));
    places.told_sidecars(peers(&["s"]));
    let lost = sessions(&[("a", LOST), ("b", LOST)]);
    assert_eq!(places.due(&lost, at(0)), [to("a"), to("b"), sidecar("s")]);
    assert_eq!(places.turned_away(&to("a"), at(0), 0.0), at(750));
    assert_eq!(places.turned_away(&to("b"), at(0), 1.0), at(1500));
    assert_eq!(places.turned_away(&sidecar("s"), at(0), 1.0), at(200), "the sidecar may be away");
    assert_eq!(places.due(&lost, at(0)), [Dial::Any]);
    assert_eq!(places.turned_away(&Dial::Any, at(0), 1.0), at(1500));
    assert_eq!(places.due(&lost, at(749)), [sidecar("s")]);
    assert_eq!(places.due(&lost, at(750)), [to("a")]);
    places.told(&id("a"), Vec::new());
    assert_eq!(places.turned_away(&to("b"), at(750), 1.0), at(10_000), "it is gone");
}

#[test]
fn a_silent_connection_is_replaced_while_it_is_there() {
    let mut places = Places::new(4);
    let silent = sessions(&[("a", Standing { suspect: true, ..ATTACHED })]);
    assert_eq!(places.due(&silent, at(0)), [to("a")]);
}

#[test]
fn an_agent_whose_endpoint_leaves_dials_elsewhere_first() {
    let leaving = Standing { leaving: true, ..ATTACHED };
    let mut places = Places::new(1);
    assert_eq!(places.due(&sessions(&[("a", leaving)]), at(0)), [Dial::Any]);
    let mut places = Places::new(1);
    places.told(&id("a"), peers(&["b"]));
    assert_eq!(places.due(&sessions(&[("a", leaving)]), at(0)), [to("b")]);
    // Open streams are resumed where they are.
    let lost = sessions(&[("a", Standing { leaving: true, ..LOST }), ("b", ATTACHED)]);
    assert_eq!(places.due(&lost, at(0)), [to("a")]);
}

#[test]
fn an_agent_that_finds_only_the_endpoint_that_leaves_looks_for_others_less_and_less_often() {
    let leaving = sessions(&[("a", Standing { leaving: true, ..ATTACHED })]);
    let mut places = Places::new(4);
    for (now, next) in [(0, 200), (200, 800), (800, 1800)] {
        assert_eq!(places.due(&leaving, at(now)), [Dial::Any]);
        places.succeeded(&Dial::Any, true, at(now), 1.0);
        assert_eq!(places.next(&leaving), Some(at(next)));
        assert_eq!(places.due(&leaving, at(next - 1)), NONE);
    }
    assert_eq!(places.due(&leaving, at(1800)), [Dial::Any]);
    places.succeeded(&Dial::Any, false, at(1800), 1.0);
    let both = sessions(&[("a", Standing { leaving: true, ..ATTACHED }), ("b", ATTACHED)]);
    assert_eq!(places.next(&both), None);
}

#[test]
fn an_agent_that_stops_dials_only_for_the_streams_that_it_has() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&["b"]));
    places.close();
    assert_eq!(places.due(&sessions(&[("a", LOST)]), at(0)), [to("a")]);
    assert_eq!(places.due(&sessions(&[]), at(0)), NONE);
}

#[test]
fn a_place_that_is_not_wanted_for_a_moment_keeps_its_attempt_its_pause_and_its_failures() {
    let mut places = Places::new(4);
    let (none, one) = (sessions(&[]), sessions(&[("a", ATTACHED)]));
    assert_eq!(places.due(&none, at(0)), [Dial::Any]);
    assert_eq!(places.due(&one, at(0)), NONE);
    assert_eq!(places.due(&none, at(0)), NONE, "the attempt is under way");
    assert_eq!(places.failed(&Dial::Any, at(0), 1.0), at(200));
    assert_eq!(places.due(&one, at(1)), NONE);
    assert_eq!(places.due(&none, at(199)), NONE, "the pause is not over");
    assert_eq!(places.due(&none, at(200)), [Dial::Any]);
    assert_eq!(places.ended(&to("a"), at(0), at(200), 1.0), at(200));
    assert_eq!(places.due(&one, at(1000)), NONE);
    assert_eq!(places.ended(&to("a"), at(0), at(1000), 1.0), at(600), "its connections do not hold");
}

#[test]
fn a_place_that_is_not_wanted_when_its_pause_is_over_is_forgotten_with_its_failures() {
    let mut places = Places::new(4);
    let one = sessions(&[("a", ATTACHED)]);
    for _ in 0..2 {
        places.told(&id("a"), peers(&["b"]));
        assert_eq!(places.due(&one, at(200)), [to("b")]);
        assert_eq!(places.failed(&to("b"), at(0), 1.0), at(200), "the first failure");
        places.told(&id("a"), peers(&[]));
        assert_eq!(places.due(&one, at(200)), NONE);
    }
}

#[test]
fn an_attempt_that_found_an_endpoint_is_followed_by_no_pause() {
    let mut places = Places::new(4);
    for _ in 0..2 {
        assert_eq!(places.due(&sessions(&[]), at(0)), [Dial::Any]);
        places.succeeded(&Dial::Any, false, at(0), 1.0);
    }
}

fn sidecar(name: &str) -> Dial {
    Dial::Sidecar(id(name))
}

#[test]
fn sidecars_are_dialled_beside_endpoints_and_up_to_a_bound_of_their_own() {
    let mut places = Places::new(1);
    places.told(&id("a"), peers(&["b"]));
    let names: Vec<String> = (0..=MAX_SIDECARS).map(|number| format!("s{number:02}")).collect();
    let all: Vec<EndpointId> = names.iter().map(|name| id(name)).collect();
    places.told_sidecars(all.clone());
    let mut held = sessions(&[("a", ATTACHED)]);
    let expected: Vec<Dial> = all.iter().take(MAX_SIDECARS).cloned().map(Dial::Sidecar).collect();
    assert_eq!(places.due(&held, at(0)), expected, "the server has as many sessions as it may");
    held.extend(expected.iter().map(|dial| (dial.clone(), ATTACHED)));
    assert_eq!((places.due(&held, at(0)), places.next(&held)), (Vec::new(), None));
    held.insert(sidecar("s00"), Standing { leaving: true, ..ATTACHED });
    assert_eq!(places.due(&held, at(0)), [sidecar("s32")], "one that leaves makes room");
}

#[test]
fn a_sidecar_that_is_named_no_more_makes_room_before_it_says_that_it_leaves() {
    let mut places = Places::new(1);
    places.told(&id("a"), peers(&[]));
    let names: Vec<String> = (0..=MAX_SIDECARS).map(|number| format!("s{number:02}")).collect();
    let all: Vec<EndpointId> = names.iter().map(|name| id(name)).collect();
    let mut held = sessions(&[("a", ATTACHED)]);
    held.extend(all.iter().take(MAX_SIDECARS).map(|id| (Dial::Sidecar(id.clone()), ATTACHED)));
    places.told_sidecars(all.iter().skip(1).cloned().collect());
    assert_eq!(places.due(&held, at(0)), [sidecar("s32")], "the pod of s00 is being deleted");
}

#[test]
fn sidecars_do_not_keep_an_agent_from_looking_for_the_server() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&[]));
    places.told_sidecars(peers(&["s", "t"]));
    // All endpoints of the server were replaced, and its address leads to others.
    let mut held = sessions(&[("a", LOST)]);
    held.insert(sidecar("s"), ATTACHED);
    assert_eq!(places.due(&held, at(0)), [to("a"), sidecar("t")]);
    places.failed(&to("a"), at(1), 0.0);
    assert_eq!(places.due(&held, at(1)), [to("a"), Dial::Any]);
}

#[test]
fn a_sidecar_that_is_named_no_more_is_dialled_for_its_session_alone_and_without_haste() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&[]));
    places.told_sidecars(peers(&["s"]));
    assert_eq!(places.failed(&sidecar("s"), at(0), 1.0), at(200));
    places.told_sidecars(Vec::new());
    let mut held = sessions(&[("a", ATTACHED)]);
    assert_eq!(places.due(&held, at(300)), NONE);
    held.insert(sidecar("s"), LOST);
    assert_eq!(places.due(&held, at(300)), [sidecar("s")], "its streams may continue");
    assert_eq!(places.failed(&sidecar("s"), at(300), 1.0), at(10_000));
}

#[test]
fn an_endpoint_or_a_sidecar_that_is_named_again_is_dialled_at_once() {
    let mut places = Places::new(4);
    places.told(&id("a"), peers(&[]));
    let mut lost = sessions(&[("a", ATTACHED), ("b", LOST)]);
    lost.insert(sidecar("s"), LOST);
    for dial in [to("b"), sidecar("s")] {
        assert_eq!(places.failed(&dial, at(0), 1.0), at(10_000), "{dial:?}");
    }
    assert_eq!(places.due(&lost, at(1)), NONE);
    places.told(&id("a"), peers(&["b"]));
    places.told_sidecars(peers(&["s"]));
    assert_eq!(places.next(&lost), Some(at(0)));
    assert_eq!(places.due(&lost, at(1)), [to("b"), sidecar("s")]);
    // The list that comes again ends no pause.
    assert_eq!(places.failed(&to("b"), at(1), 1.0), at(600));
    places.told(&id("a"), peers(&["b"]));
    assert_eq!(places.due(&lost, at(2)), NONE);
}

#[test]
fn pauses_grow_while_a_connection_does_not_hold() {
    let mut places = Places::new(4);
    let pauses = [0, 100, 499, 500].map(|up| places.ended(&to("a"), at(up), at(0), 1.0));
    assert_eq!(pauses, [at(200), at(600), at(1000), at(200)]);
}

#[test]
fn places_that_are_no_longer_wanted_are_forgotten() {
    let mut places = Places::new(64);
    for round in 0..100 {
        places.told(&id("a"), peers(&[&format!("pod-{round}")]));
        for dial in places.due(&sessions(&[("a", ATTACHED)]), at(round * 60_000)) {
            places.failed(&dial, at(round * 60_000), 1.0);
        }
    }
    assert!(places.places.len() <= 2, "{}", places.places.len());
}
