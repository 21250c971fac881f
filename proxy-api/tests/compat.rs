//! The compatibility rules of the contract, one test each.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use proxy_api::{
    Agent, Assembler, Change, ChangeError, Configuration, Delivery, EndpointSet, FailureReason, FromProxy, HealthCheck,
    Held, Inquiry, ListenerId, ListenerState, LiveSession, LiveSessions, MAX_DOCUMENT_BYTES, Octets, Offer, Origin,
    Probe, Report, Selection, SessionId, Sidecar, ToProxy, Version,
};

const V1: &str = include_str!("documents/v1.yaml");

fn v1() -> Configuration {
    Configuration::decode(V1.as_bytes()).expect("v1 decodes")
}

fn id() -> ListenerId {
    "shop/shop-db/pg".parse().expect("id")
}

#[test]
fn a_document_of_v1_decodes_for_ever_and_is_the_same_after_a_round_trip() {
    let configuration = v1();
    assert_eq!(configuration.supported().count(), 1);
    assert_eq!(configuration.version, Version { epoch: "lease-7".into(), number: 42 });
    let json = configuration.encode().expect("encodes");
    assert_eq!(Configuration::decode(&json).expect("decodes"), configuration);
    let yaml = configuration.to_yaml().expect("encodes");
    assert_eq!(Configuration::decode(yaml.as_bytes()).expect("decodes"), configuration, "{yaml}");
}

#[test]
fn old_proxy_new_operator_an_unknown_field_in_a_listener_fails_that_listener_only() {
    let newer = V1.replace("    policy:", "    quotas: {maxConnections: 10}\n    policy:").replace(
        "endpoints:\n  shop",
        "  shop/other/tcp:\n    revision: r2\n    socket: {transport: TCP, bind: All, port: 1}\n    backends: []\n    policy: Random\n    outlier: {consecutiveFailures: 1, ejectSeconds: 1}\n    timeouts: {connectSeconds: 5, idleSeconds: 3600, halfCloseSeconds: 300, udpIdleSeconds: 60, keepaliveSeconds: 60}\n    retry: {attempts: 3, initialBackoffMillis: 50, maxBackoffMillis: 2000}\n    sessions: {onUpdate: Keep, onUnhealthy: Keep, drainSeconds: 300}\n    accessLog: {mode: Close, intervalSeconds: 0}\n    destinations: {refuseLocal: false, cidrs: []}\nendpoints:\n  shop",
    );
    let configuration = Configuration::decode(newer.as_bytes()).expect("decodes");
    let Offer::Unsupported { revision, what, .. } = &configuration.listeners[&id()] else { panic!("supported") };
    assert_eq!(&*revision.0, "d2c9a9c0ffee0001");
    assert!(what.contains("`quotas`"), "{what}");
    assert_eq!(configuration.supported().count(), 1, "the other listener still runs");
    let again = Configuration::decode(&configuration.encode().expect("encodes")).expect("decodes");
    assert_eq!(again, configuration, "the document is preserved as received");
}

#[test]
fn limits_of_a_namespace_change_no_document_without_them_and_an_unknown_one_fails_its_listener() {
    let listener = v1().supported().next().expect("one").1.clone();
    assert!(!serde_json::to_string(&listener).expect("encodes").contains("tenantLimits"));
    let with = |limits: &str| {
        let newer = V1.replace("    policy:", &format!("    tenantLimits: {limits}\n    policy:"));
        Configuration::decode(newer.as_bytes()).expect("decodes").listeners[&id()].clone()
    };
    let Offer::Supported(limited) = with("{maxConnections: 7}") else { panic!("not supported") };
    assert_eq!(limited.tenant_limits.as_ref().and_then(|limits| limits.max_connections), Some(7));
    assert_ne!((*limited).clone().sealed().revision, listener.sealed().revision);
    let Offer::Supported(limited) = with("{maxLogBytes: 16777216}") else { panic!("not supported") };
    assert_eq!(limited.tenant_limits.as_ref().and_then(|limits| limits.max_log_bytes), Some(16 << 20));
    let Offer::Unsupported { what, .. } = with("{maxConnections: 7, maxBytes: 1}") else { panic!("supported") };
    assert!(what.contains("`maxBytes`"), "{what}");
}

#[test]
fn kinds_of_checks_change_no_document_without_them_and_an_unknown_one_fails_its_listener() {
    let template = v1().supported().next().expect("one").1.clone();
    assert!(!serde_json::to_string(&template).expect("encodes").contains("checkPort"));
    let with = |probe: &str| {
        let check = format!(
            "    healthCheck: {{probe: {probe}, intervalSeconds: 1, timeoutSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}}\n    policy:"
        );
        Configuration::decode(V1.replace("    policy:", &check).as_bytes()).map(|all| all.listeners[&id()].clone())
    };
    for (probe, expected) in [
        ("tcp", Probe::Tcp),
        ("{http: {path: /}}", Probe::Http { path: "/".to_owned() }),
        ("{mysql: {}}", Probe::Mysql { user: None }),
        ("{postgres: {user: u}}", Probe::Postgres { user: Some("u".to_owned()) }),
        (
            "{exchange: {send: '0d0A', expect: 'ff'}}",
            Probe::Exchange {
                send: Octets::new(vec![13, 10]).expect("short"),
                expect: Octets::new(vec![255]).expect("short"),
            },
        ),
    ] {
        let Ok(Offer::Supported(listener)) = with(probe) else { panic!("{probe} is not supported") };
        let check = listener.health_check.clone().expect("a check");
        assert_eq!(check.probe, expected);
        let json = serde_json::to_string(&check).expect("encodes");
        assert_eq!(serde_json::from_str::<HealthCheck>(&json).expect("decodes"), *check);
    }
    for (probe, unknown) in [("{redis: {}}", "redis"), ("{mysql: {tls: true}}", "tls")] {
        let Ok(Offer::Unsupported { what, .. }) = with(probe) else { panic!("{probe} is supported") };
        assert!(what.contains(&format!("`{unknown}`")), "{what}");
    }
    for damaged in ["f", "fg", &"00".repeat(257)] {
        assert!(with(&format!("{{exchange: {{expect: '{damaged}'}}}}")).is_err(), "{damaged}");
    }
}

#[test]
fn old_proxy_new_operator_an_unknown_value_in_a_listener_fails_it() {
    let newer = V1.replace("policy: LeastConnections", "policy: Fastest");
    let configuration = Configuration::decode(newer.as_bytes()).expect("decodes");
    let Offer::Unsupported { what, .. } = &configuration.listeners[&id()] else { panic!("supported") };
    assert!(what.contains("Fastest"), "{what}");
}

#[test]
fn a_damaged_listener_is_no_newer_one_and_refuses_the_document() {
    for damage in [
        ("    policy: LeastConnections\n", ""),
        ("weight: 90", "weight: heavy"),
        ("port: 5432}\n    back", "port: 70000}\n    back"),
    ] {
        let damaged = V1.replace(damage.0, damage.1);
        assert_ne!(damaged, V1);
        Configuration::decode(damaged.as_bytes()).expect_err(damage.0);
    }
}

#[test]
fn unknown_top_level_fields_are_ignored() {
    let newer = format!("{V1}trust: {{bundle: abc}}\n");
    assert_eq!(Configuration::decode(newer.as_bytes()).expect("decodes"), v1());
}

#[test]
fn new_proxy_old_operator_unknown_states_and_fields_of_a_report_are_read_as_unknown() {
    let newer = r#"{"contract": 9, "epoch": "e", "number": 1, "load": 3, "listeners": {"a/b/c":
        {"revision": "r", "state": "Warming", "since": 4, "failure": {"reason": "TooHot", "message": "m", "x": 1}}}}"#;
    let report: Report = serde_json::from_str(newer).expect("decodes");
    let listener = report.listeners.values().next().expect("one");
    assert_eq!(listener.state, ListenerState::Unknown);
    assert_eq!(listener.failure.as_ref().map(|failure| failure.reason), Some(FailureReason::Unknown));
    assert_eq!(report.contract, 9);
}

#[test]
fn a_listener_that_lacks_files_says_so_to_its_operator_and_an_older_operator_reads_that_reason_as_unknown() {
    let text = serde_json::to_string(&FailureReason::FileLimit).expect("encodes");
    assert_eq!(text, r#""FileLimit""#);
    assert_eq!(serde_json::from_str::<FailureReason>(&text).expect("decodes"), FailureReason::FileLimit);
    let older = serde_json::from_str::<FailureReason>(&text.replace("File", "Other")).expect("decodes");
    assert_eq!(older, FailureReason::Unknown, "as every reason that a side does not know");
}

#[test]
fn inquiries_and_their_answers_are_read_by_older_and_newer_peers() {
    let selection = Selection { origin: Some(Origin::port_forward("shop", "db")), limit: 5, ..Selection::default() };
    let inquiry = Inquiry { id: 7, selection };
    let written = serde_json::to_value(ToProxy { inquiry: Some(inquiry.clone()), ..ToProxy::default() });
    let expected = serde_json::json!({"inquiry": {"id": 7, "origin": "shop/db", "limit": 5}});
    assert_eq!(written.expect("encodes"), expected);
    let newer = r#"{"inquiry": {"id": 7, "origin": "shop/db", "limit": 5, "sortBy": "age"}, "advice": {}}"#;
    let read: ToProxy = serde_json::from_str(newer).expect("decodes");
    assert_eq!(read.inquiry, Some(inquiry));
    let least: ToProxy = serde_json::from_str(r#"{"inquiry": {}}"#).expect("decodes");
    assert_eq!(least.inquiry, Some(Inquiry::default()), "an inquiry about all sessions that lists none");

    let newer = r#"{"inspected": {"id": 7, "since": 1, "live": {"total": 9, "cut": true, "sessions": [
        {"listener": "shop/shop-db/pg", "protocol": "TCP", "client": "192.0.2.1:1", "zone": "a"}]}}}"#;
    let read: FromProxy = serde_json::from_str(newer).expect("decodes");
    let inspected = read.inspected.expect("an answer");
    assert_eq!((inspected.id, inspected.live.total), (7, 9));
    assert_eq!((&inspected.live.sessions[0].listener, inspected.live.sessions[0].bytes_up), (&id(), 0));
    let least: FromProxy = serde_json::from_str(r#"{"inspected": {}}"#).expect("decodes");
    assert_eq!(least.inspected, Some(proxy_api::Inspected::default()));
}

#[test]
fn ids_of_sessions_are_absent_from_what_older_peers_write_and_read() {
    let id = SessionId(0x00c0_ffee_0000_0001);
    let session = r#"{"listener": "shop/shop-db/pg", "protocol": "TCP", "client": "192.0.2.1:1"}"#;
    let old: LiveSession = serde_json::from_str(session).expect("decodes");
    assert_eq!(old.session, None);
    assert!(serde_json::to_value(&old).expect("encodes").get("session").is_none());
    let new = LiveSession { session: Some(id), ..old };
    let written = serde_json::to_value(&new).expect("encodes");
    assert_eq!(written["session"], "00c0ffee00000001");
    assert_eq!(serde_json::from_value::<LiveSession>(written).expect("decodes"), new);

    let selection = Selection { session: Some(id), limit: 5, ..Selection::default() };
    let inquiry = Inquiry { id: 7, selection };
    let written = serde_json::to_value(&inquiry).expect("encodes");
    assert_eq!(written, serde_json::json!({"id": 7, "session": "00c0ffee00000001", "limit": 5}));
    assert_eq!(serde_json::from_value::<Inquiry>(written).expect("decodes"), inquiry);
}

#[test]
fn an_endpoint_behind_an_agent_is_an_instance_and_no_address() {
    let session = r#"{"listener": "shop/shop-db/pg", "protocol": "TCP", "client": "192.0.2.1:1"}"#;
    let old: LiveSession = serde_json::from_str(session).expect("decodes");
    assert!(serde_json::to_value(&old).expect("encodes").get("instance").is_none(), "as releases before wrote it");
    let new = LiveSession { instance: Some("pi4".to_owned()), ..old };
    let written = serde_json::to_value(&new).expect("encodes");
    assert_eq!((&written["endpoint"], &written["instance"]), (&serde_json::Value::Null, &serde_json::json!("pi4")));
    assert_eq!(serde_json::from_value::<LiveSession>(written).expect("decodes"), new);
}

#[test]
fn sessions_are_counted_by_object_only_between_peers_that_know_of_it() {
    let selection = Selection { namespace: Some("shop".to_owned()), by_origin: true, limit: 5, ..Selection::default() };
    let inquiry = Inquiry { id: 7, selection };
    let written = serde_json::to_value(&inquiry).expect("encodes");
    assert_eq!(written, serde_json::json!({"id": 7, "namespace": "shop", "byOrigin": true, "limit": 5}));
    assert_eq!(serde_json::from_value::<Inquiry>(written).expect("decodes"), inquiry);

    let old: LiveSessions = serde_json::from_str(r#"{"total": 9}"#).expect("decodes");
    assert!(old.origins.is_empty() && serde_json::to_value(&old).expect("encodes").get("origins").is_none());
    let route = Origin::try_from("TCPRoute/shop/db".to_owned()).expect("an origin");
    let origins = [(Origin::port_forward("shop", "db"), 8), (route, 1)].into();
    let new = LiveSessions { origins, ..old };
    let written = serde_json::to_value(&new).expect("encodes");
    assert_eq!(written["origins"], serde_json::json!({"shop/db": 8, "TCPRoute/shop/db": 1}));
    assert_eq!(serde_json::from_value::<LiveSessions>(written).expect("decodes"), new);
}

#[test]
fn the_lag_of_durable_listeners_is_told_only_between_peers_that_know_of_it() {
    let selection = Selection { lag: true, ..Selection::default() };
    let inquiry = Inquiry { id: 7, selection };
    let written = serde_json::to_value(&inquiry).expect("encodes");
    assert_eq!(written, serde_json::json!({"id": 7, "lag": true, "limit": 0}), "an older proxy lists no session");
    assert_eq!(serde_json::from_value::<Inquiry>(written).expect("decodes"), inquiry);

    let old: LiveSessions = serde_json::from_str(r#"{"total": 9}"#).expect("decodes");
    assert!(old.lag.is_none() && serde_json::to_value(&old).expect("encodes").get("lag").is_none());
    let newer =
        r#"{"total": 1, "lag": [{"listener": "shop/shop-db/pg", "delivery": "Napping", "backlog": 3, "mood": 1}]}"#;
    let new: LiveSessions = serde_json::from_str(newer).expect("decodes");
    let lag = new.lag.as_deref().expect("durable listeners");
    assert_eq!((lag[0].delivery, lag[0].backlog, lag[0].error.as_str()), (Delivery::Unknown, 3, ""));
    let written = serde_json::to_value(&new).expect("encodes");
    assert_eq!(serde_json::from_value::<LiveSessions>(written).expect("decodes"), new);
    let none: LiveSessions = serde_json::from_str(r#"{"lag": []}"#).expect("decodes");
    let written = serde_json::to_value(&none).expect("encodes");
    assert_eq!(written["lag"], serde_json::json!([]), "a proxy without durable listeners is no older one");
}

#[test]
fn what_is_no_configuration_is_refused_and_not_taken_for_an_empty_one() {
    for (text, expected) in [
        ("{}", "listeners"),
        ("contract: 1\n", "listeners"),
        ("foo: 1\n", "listeners"),
        ("contract: 2\nlisteners: {}\n", "upgrade the proxy"),
        ("apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nspec: {}\n", "portlane translate"),
    ] {
        let error = Configuration::decode(text.as_bytes()).expect_err(text);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {cause}").contains(expected), "{text}: {error} {cause}");
    }
    assert_eq!(Configuration::decode(b"listeners: {}").expect("an empty one").listeners.len(), 0);
}

#[test]
fn decoding_is_bounded() {
    let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert!(Configuration::decode(&large).is_err());
    assert!(Configuration::decode(b" \n").is_err(), "a half-written file is not an empty configuration");
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nlisteners: {a/b/c: *g}\n";
    assert!(Configuration::decode(bomb.as_bytes()).is_err(), "alias expansion is bounded");
}

#[test]
fn an_older_number_is_refused_and_another_epoch_needs_a_new_stream() {
    let current = v1();
    let older = Configuration { version: Version { epoch: "lease-7".into(), number: 41 }, ..v1() };
    let other = Configuration { version: Version { epoch: "lease-8".into(), number: 1 }, ..v1() };
    let part =
        |configuration: &Configuration| configuration.changes_from(&current.held(), &BTreeSet::new(), 8).remove(0);
    let mut stream = Assembler::default();
    assert!(matches!(stream.take(&current, part(&older)), Err(ChangeError::Stale { .. })));
    assert!(stream.take(&current, part(&other)).expect("a new epoch is accepted first on a stream").is_some());
    assert!(matches!(stream.take(&current, part(&other)), Err(ChangeError::Stale { .. })), "not in mid-stream");
}

fn configurations() -> impl Strategy<Value = Configuration> {
    let agents = proptest::collection::btree_map(0_u8..8, 0_u32..3, 0..8);
    let peers = proptest::collection::btree_map(0_u8..8, 1_u8..3, 0..8);
    let sidecars = proptest::collection::btree_map(0_u8..8, 1_u8..3, 0..8);
    let all = (proptest::collection::btree_map(0_u8..20, 0_u8..3, 0..20), agents, peers, sidecars);
    all.prop_map(|(listeners, agents, peers, sidecars)| {
        let template = v1().supported().next().expect("one").1.clone();
        let mut configuration = Configuration::default();
        for (name, variant) in listeners {
            let mut listener = template.clone();
            listener.socket.port = 1000 + u16::from(variant);
            let id = format!("ns/forward/l{name}").parse().expect("id");
            configuration.listeners.insert(id, listener.sealed().into());
            configuration.endpoints.insert(format!("set{}", name % 5), EndpointSet::default());
        }
        let peer = |(id, last): (u8, u8)| (format!("p{id}"), [10, 0, 0, last].into());
        configuration.tunnels.peers = peers.into_iter().map(peer).collect();
        let sidecar = |(id, last): (u8, u8)| {
            let agents = (0..last).map(|uid| format!("u{uid}")).collect();
            (format!("s{id}"), Sidecar { address: [10, 0, 0, last].into(), agents })
        };
        configuration.tunnels.sidecars = sidecars.into_iter().map(sidecar).collect();
        configuration.agents = agents.into_iter().map(|(uid, rotation)| (format!("u{uid}"), agent(rotation))).collect();
        configuration
    })
}

/// An agent with this rotation.
fn agent(rotation: u32) -> Agent {
    let agent = serde_json::json!({"namespace": "shop", "name": "home", "rotation": rotation, "maxInstances": 1});
    serde_json::from_value(agent).expect("an agent")
}

proptest! {
    #[test]
    fn changes_lead_from_any_configuration_to_any_other(
        old in configurations(), mut new in configurations(), per_part in 1_usize..7,
    ) {
        new.version.number = 1;
        let mut stream = Assembler::default();
        let parts = new.changes_from(&old.held(), &BTreeSet::new(), per_part);
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            let size = part.upserts.len() + part.removals.len() + part.endpoints.len() + part.endpoint_removals.len();
            let size = size + part.agents.len() + part.agent_removals.len();
            let size = size + part.sidecars.len() + part.sidecar_removals.len();
            prop_assert!(size + part.peers.len() + part.peer_removals.len() <= per_part);
            let json = serde_json::to_vec(&part).expect("encodes");
            let part = serde_json::from_slice(&json).expect("decodes");
            match stream.take(&old, part).expect("taken") {
                Some(reached) => {
                    prop_assert_eq!(at, last);
                    prop_assert_eq!(stream.digest(), reached.digest());
                    prop_assert_eq!(&reached, &new);
                    let differ = old.agents != new.agents || old.tunnels != new.tunnels;
                    prop_assert_eq!(stream.take_named().tunnels, differ);
                }
                None => prop_assert!(at < last, "no configuration before the commit"),
            }
        }
    }

    #[test]
    fn a_proxy_that_holds_everything_is_sent_nothing(configuration in configurations()) {
        let parts = configuration.changes_from(&configuration.held(), &BTreeSet::new(), 4);
        prop_assert_eq!(parts.len(), 1);
        let Change { upserts, removals, agents, agent_removals, commit, .. } = &parts[0];
        prop_assert!(parts[0].peers.is_empty() && parts[0].peer_removals.is_empty());
        prop_assert!(parts[0].sidecars.is_empty() && parts[0].sidecar_removals.is_empty());
        prop_assert!(upserts.is_empty() && removals.is_empty() && agents.is_empty() && agent_removals.is_empty());
        prop_assert!(*commit);
        let whole = configuration.changes_from(&Held::default(), &BTreeSet::new(), usize::MAX);
        prop_assert_eq!(whole[0].upserts.len(), configuration.listeners.len());
        prop_assert_eq!(&whole[0].agents, &configuration.agents);
        prop_assert_eq!(&whole[0].peers, &configuration.tunnels.peers);
        prop_assert_eq!(&whole[0].sidecars, &configuration.tunnels.sidecars);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Configuration::decode(&bytes);
    }
}
