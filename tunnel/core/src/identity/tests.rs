use proptest::prelude::*;

use super::*;

fn identity(namespace: &str, name: &str, uid: &str, rotation: u32) -> AgentIdentity {
    AgentIdentity::new(AgentName::new(namespace, name).expect("names"), uid, rotation).expect("an identity")
}

#[test]
fn an_identity_is_written_as_documented() {
    let identity = identity("home", "pi4", "0b1c-22", 3);
    assert_eq!(identity.uri(), "portlane://agent/home/pi4/0b1c-22?rotation=3");
    assert_eq!(identity.agent().to_string(), "home/pi4");
    let endpoint = EndpointId::new("edge-0").expect("an id");
    assert_eq!(endpoint.uri(), "portlane://tunnel-endpoint/edge-0");
    assert_eq!(endpoint.sidecar_uri(), "portlane://tunnel-sidecar/edge-0");
}

#[test]
fn an_identity_has_no_second_form() {
    for uri in [
        "",
        "portlane://agent/",
        "portlane://agent/a/b/c",
        "portlane://agent/a/b/c?rotation=",
        "portlane://agent/a/b/c?rotation=+1",
        "portlane://agent/a/b/c?rotation=01",
        "portlane://agent/a/b/c?rotation=-1",
        "portlane://agent/a/b/c?rotation=4294967296",
        "portlane://agent/a/b/c?rotation=1&rotation=1",
        "portlane://agent/a/b/c/?rotation=1",
        "portlane://agent/a/b?rotation=1",
        "portlane://agent//b/c?rotation=1",
        "portlane://agent/A/b/c?rotation=1",
        "portlane://agent/a/-b/c?rotation=1",
        "portlane://agent/a/b/%63?rotation=1",
        "portlane://Agent/a/b/c?rotation=1",
        "portlane://tunnel-endpoint/a",
        " portlane://agent/a/b/c?rotation=1",
    ] {
        assert!(AgentIdentity::from_uri(uri).is_err(), "{uri} is accepted");
    }
    for uri in ["portlane://tunnel-endpoint/", "portlane://tunnel-endpoint/a/b", "portlane://tunnel-endpoint/a.b"] {
        assert!(EndpointId::from_uri(uri).is_err(), "{uri} is accepted");
    }
}

#[test]
fn names_are_bounded_and_errors_repeat_little_of_them() {
    assert!(AgentName::new(&"a".repeat(LABEL), &"a".repeat(LABEL)).is_ok());
    assert!(AgentName::new("a", &"a".repeat(LABEL + 1)).is_err());
    let agent = AgentName::new("a", "b").expect("names");
    assert!(AgentIdentity::new(agent.clone(), &"u".repeat(UID), 0).is_ok());
    assert!(AgentIdentity::new(agent, &"u".repeat(UID + 1), 0).is_err());
    let error = EndpointId::new(&"x".repeat(1 << 20)).expect_err("too long");
    assert!(error.to_string().len() < 400, "the error repeats the name");
}

#[test]
fn a_server_name_says_which_endpoint_is_meant() {
    let one = Dial::Endpoint(EndpointId::new("edge-0").expect("an id"));
    assert_eq!(one.server_name(), "edge-0.portlane-tunnel.invalid");
    assert_eq!(Dial::from_server_name(&one.server_name()), Some(one));
    assert_eq!(Dial::from_server_name(ANY_ENDPOINT), Some(Dial::Any));
    let sidecar = Dial::Sidecar(EndpointId::new("5f3a").expect("an id"));
    assert_eq!(sidecar.server_name(), "5f3a.sidecar.portlane-tunnel.invalid");
    assert_eq!(Dial::from_server_name(&sidecar.server_name()), Some(sidecar));
    for name in [
        "",
        "example.com",
        ".portlane-tunnel.invalid",
        "x-portlane-tunnel.invalid",
        "a.b.portlane-tunnel.invalid",
        ".sidecar.portlane-tunnel.invalid",
        "a.sidecar.sidecar.portlane-tunnel.invalid",
        "a.b.sidecar.portlane-tunnel.invalid",
    ] {
        assert_eq!(Dial::from_server_name(name), None, "{name}");
    }
}

#[test]
fn a_sidecar_is_accepted_by_its_id_alone_and_stands_in_for_no_endpoint() {
    let id = |text: &str| EndpointId::new(text).expect("an id");
    let (endpoint, sidecar) = (Dial::Endpoint(id("a")), Dial::Sidecar(id("a")));
    for found in [&endpoint, &sidecar] {
        let id = found.id().expect("an id");
        let uri = if *found == sidecar { id.sidecar_uri() } else { id.uri() };
        assert_eq!(Dial::from_uri(&uri).as_ref(), Ok(found));
    }
    let accepted = |dial: &Dial| [dial.accepts(&endpoint), dial.accepts(&sidecar)];
    assert_eq!(accepted(&Dial::Any), [true, false]);
    assert_eq!(accepted(&endpoint), [true, false]);
    assert_eq!(accepted(&sidecar), [false, true]);
    assert_eq!(accepted(&Dial::Endpoint(id("b"))), [false, false]);
    assert_eq!(accepted(&Dial::Sidecar(id("b"))), [false, false]);
    for uri in ["portlane://tunnel-sidecar/", "portlane://tunnel-sidecar/a/b", "portlane://agent/a/b/c?rotation=1"] {
        assert!(Dial::from_uri(uri).is_err(), "{uri} is accepted");
    }
}

#[test]
fn fingerprints_compare_and_print() {
    let one = Fingerprint::of(b"abc");
    assert_eq!(one.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(one.same(&Fingerprint::of(b"abc")));
    for byte in 0..32 {
        let mut other = *one.as_bytes();
        other[byte] ^= 1;
        assert!(!one.same(&Fingerprint::from_bytes(other)), "byte {byte} is not compared");
    }
    let mut other = *one.as_bytes();
    (other[0], other[1]) = (other[0] ^ 1, other[1] ^ 1);
    assert!(!one.same(&Fingerprint::from_bytes(other)), "equal differences do not cancel each other");
    assert_eq!(one.to_string().parse::<Fingerprint>(), Ok(one));
    assert_eq!(format!("{one:?}"), one.to_string());
    assert!("ba78".parse::<Fingerprint>().is_err());
}

#[test]
fn a_certificate_is_renewed_at_half_of_its_lifetime() {
    assert!(!renewal_due(100, 200, 149));
    assert!(renewal_due(100, 200, 150));
    assert!(renewal_due(100, 200, 1000), "an expired one too");
    assert!(renewal_due(200, 100, 200), "bounds in the wrong order are no lifetime");
    assert!(!renewal_due(0, u64::MAX, 1));
}

#[test]
fn a_certificate_that_does_not_count_says_by_how_much() {
    assert_eq!(check_validity(100, 200, 100), Ok(()));
    assert_eq!(check_validity(100, 200, 200), Ok(()));
    let early = check_validity(90_000, 200_000, 3600).expect_err("early");
    assert_eq!(early.to_string(), "becomes valid only in 24 hours");
    let late = check_validity(0, 200, 200 + 3 * 86_400).expect_err("late");
    assert_eq!(late.to_string(), "expired 3 days ago");
    assert_eq!(Span(1).to_string(), "1 second");
    assert_eq!(Span(119).to_string(), "119 seconds");
    assert_eq!(Span(120).to_string(), "2 minutes");
}

#[test]
fn a_certificate_is_renewed_soon_after_half_of_its_lifetime() {
    let (begin, end) = (1000, 1000 + 16_000);
    assert_eq!(renew_at(begin, end, None, 0.0), begin + 8000);
    assert_eq!(renew_at(begin, end, None, 0.5), begin + 8500);
    assert!(renewal_due(begin, end, renew_at(begin, end, None, 0.0)));
}

#[test]
fn attempts_to_renew_come_closer_to_each_other_towards_the_end() {
    let end = 1_000_000;
    let pause = |left: u64| renew_at(0, end, Some(end - left), 0.0) - (end - left);
    assert_eq!([100_000, 16_000, 800, 10, 0].map(pause), [1800, 1000, 50, 30, 30]);
    assert_eq!(renew_at(0, end, Some(end + 500), 0.5), end + 545);
}

proptest! {
    #[test]
    fn a_renewal_lies_between_its_bounds(begin in 0..1_u64 << 40, life in 0..1_u64 << 40, chance in 0.0..1.0_f64) {
        let at = renew_at(begin, begin + life, None, chance);
        prop_assert!((begin + life / 2..=begin + life / 2 + life / 16).contains(&at));
        let failed = begin + life / 2;
        let again = renew_at(begin, begin + life, Some(failed), chance);
        prop_assert!((failed + SHORTEST_PAUSE / 2..=failed + LONGEST_PAUSE).contains(&again));
    }

    #[test]
    fn identities_survive_their_uri(
        namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        uid in "[A-Za-z0-9-]{1,64}",
        rotation: u32,
    ) {
        let identity = identity(&namespace, &name, &uid, rotation);
        prop_assert_eq!(AgentIdentity::from_uri(&identity.uri()), Ok(identity));
        let endpoint = EndpointId::new(&name).expect("an id");
        prop_assert_eq!(EndpointId::from_uri(&endpoint.uri()), Ok(endpoint.clone()));
        for dial in [Dial::Endpoint(endpoint.clone()), Dial::Sidecar(endpoint)] {
            prop_assert_eq!(Dial::from_server_name(&dial.server_name()), Some(dial));
        }
    }

    #[test]
    fn what_is_read_is_written_the_same(text in "portlane://agent/[a-c/-]{0,8}[?]rotation=[0-9+]{0,11}") {
        if let Ok(identity) = AgentIdentity::from_uri(&text) {
            prop_assert_eq!(identity.uri(), text);
        }
    }
}
