//! Agents in documents, updates, digests and held revisions, and beside peers that know none or more of them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use ends::{
    AGENTS, V1, decode, digest, held_by_an_old_proxy, led, left_by_an_old_operator, taken, told_by_an_old_operator,
};
use proxy_api::{
    Agent, Assembler, Change, ChangeError, Configuration, Digest, Enrolment, Held, MAX_AGENTS, MAX_DOCUMENT_BYTES,
    MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_TARGET_BYTES, MAX_TARGETS, PARTS, Revision, ToProxy,
};
use serde_json::{Value, json};

/// The digest of version 1, and that of the document with the agent.
const DIGESTS: [&str; 2] = ["6a1e943d50f0098cb887bce1836c77dd", "2b6059bae0c335fa49389f248c8618f7"];

/// An agent with this many targets, all of this length.
fn agent(targets: usize, bytes: usize) -> Agent {
    Agent {
        namespace: "shop".to_owned(),
        name: "home".to_owned(),
        rotation: 0,
        suspended: false,
        is_newer: false,
        max_instances: 4,
        targets: vec!["t".repeat(bytes); targets],
        enrolment: None,
        gateway: None,
    }
}

/// A configuration of agents alone, by uid, with their numbers of targets.
fn configuration(agents: &[(&str, usize)]) -> Configuration {
    let agents = agents.iter().map(|(uid, targets)| ((*uid).to_owned(), agent(*targets, 9))).collect();
    Configuration { agents, ..Configuration::default() }
}

fn changes(next: &Configuration, held: &Held, per_part: usize) -> Vec<Change> {
    next.changes_from(held, &BTreeSet::new(), per_part)
}

fn uids(parts: &[Change]) -> Vec<String> {
    parts.iter().map(|part| part.agents.keys().map(String::as_str).collect()).collect()
}

#[test]
fn a_document_with_agents_is_the_same_in_every_release_and_after_a_restart() {
    let configuration = decode(AGENTS);
    assert_eq!(configuration.agents["uid-1"].revision(), Revision("85294ad0482816fb".into()));
    assert_eq!(configuration.agents["uid-1"].targets, ["127.0.0.1:5432", "udp/[fd00::/8]:1-9"]);
    assert_eq!(configuration.digest(), digest(DIGESTS[1]));
    let kept = Configuration::decode(&configuration.encode().expect("encodes")).expect("decodes");
    assert_eq!((&kept, kept.held()), (&configuration, configuration.held()));
    assert_eq!(decode(&configuration.to_yaml().expect("encodes")), configuration);
}

#[test]
fn nothing_about_agents_is_written_where_there_are_none() {
    let v1 = decode(V1);
    assert_eq!(v1.digest(), digest(DIGESTS[0]));
    assert_eq!(Configuration { agents: BTreeMap::new(), ..decode(AGENTS) }, v1);
    let update = serde_json::to_string(&changes(&v1, &Held::default(), PARTS)).expect("encodes");
    let held = serde_json::to_string(&v1.held()).expect("encodes");
    let document = String::from_utf8(v1.encode().expect("encodes")).expect("JSON");
    assert!([update, held, document].iter().all(|text| !text.contains("agent")));
}

#[test]
fn every_field_of_an_agent_and_its_uid_are_part_of_the_digest() {
    let plain = decode(AGENTS).agents["uid-1"].clone();
    let all = [
        plain.clone(),
        Agent { namespace: "other".to_owned(), ..plain.clone() },
        Agent { name: "other".to_owned(), ..plain.clone() },
        Agent { rotation: 3, ..plain.clone() },
        Agent { suspended: true, ..plain.clone() },
        Agent { max_instances: 5, ..plain.clone() },
        Agent { targets: Vec::new(), ..plain.clone() },
        Agent { enrolment: None, ..plain.clone() },
        Agent { enrolment: Some(Enrolment { redemptions: 2, expire_seconds: 3600 }), ..plain.clone() },
        Agent { enrolment: Some(Enrolment { redemptions: 1, expire_seconds: 300 }), ..plain.clone() },
        Agent { gateway: Some("g-1".to_owned()), ..plain.clone() },
        Agent { gateway: Some("g-2".to_owned()), ..plain },
    ];
    let of = |uid: &str, agent: &Agent| {
        let agents = [(uid.to_owned(), agent.clone())].into();
        Configuration { agents, ..Configuration::default() }.digest().0
    };
    let digests: BTreeSet<String> = all.iter().map(|agent| of("u", agent)).chain([of("v", &all[0])]).collect();
    assert_eq!(digests.len(), all.len() + 1);
}

#[test]
fn an_update_holds_new_changed_and_removed_agents_and_no_others() {
    let old = configuration(&[("gone", 1), ("kept", 1), ("changed", 1)]);
    let new = configuration(&[("kept", 1), ("changed", 2), ("new", 1)]);
    let parts = changes(&new, &old.held(), PARTS);
    assert_eq!(uids(&parts), ["changednew"]);
    assert_eq!(parts[0].agent_removals, BTreeSet::from(["gone".to_owned()]));
    assert_eq!(taken(&old, &parts[0]), (new.clone(), new.digest(), 4));
}

#[test]
fn an_agent_counts_as_one_item_more_for_each_4_of_its_targets() {
    let new = configuration(&[("a", 3), ("b", 4), ("c", 8)]);
    let parts = |per_part| uids(&changes(&new, &Held::default(), per_part));
    assert_eq!(parts(6), ["abc"]);
    assert_eq!(parts(5), ["ab", "c"]);
    assert_eq!(parts(2), ["a", "b", "c"], "an agent that is too large for a part has one of its own");
}

#[test]
fn the_largest_agents_fit_into_messages_and_into_what_a_proxy_keeps() {
    let name = || "n".repeat(MAX_NAME_BYTES);
    let largest = |targets| Agent { namespace: name(), name: name(), ..agent(targets, MAX_TARGET_BYTES) };
    let uid = |at: usize| format!("{at:0MAX_NAME_BYTES$}");
    for (count, targets) in [(PARTS, 3), (100, MAX_TARGETS)] {
        let agents = (0..count).map(|at| (uid(at), largest(targets))).collect();
        for change in changes(&Configuration { agents, ..Configuration::default() }, &Held::default(), PARTS) {
            let bytes = serde_json::to_vec(&ToProxy { change: Some(change), ..ToProxy::default() }).expect("encodes");
            assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
        }
    }
    let one = Configuration { agents: [(uid(0), largest(MAX_TARGETS))].into(), ..Configuration::default() };
    let bytes = |configuration: &Configuration| configuration.encode().expect("encodes").len();
    let each = bytes(&one) - bytes(&Configuration::default());
    assert!(each * MAX_AGENTS <= MAX_DOCUMENT_BYTES, "{each} bytes each");
}

#[test]
fn an_update_to_more_agents_than_a_proxy_accepts_is_refused_and_a_full_proxy_has_room_for_others() {
    let full = |start: &str, count: usize| {
        let agents = (0..count).map(|at| (format!("{start}{at}"), agent(0, 0))).collect();
        Configuration { agents, ..Configuration::default() }
    };
    let too_many = changes(&full("a", MAX_AGENTS + 1), &Held::default(), usize::MAX).remove(0);
    let refused = Assembler::default().take(&Configuration::default(), too_many);
    assert_eq!(refused, Err(ChangeError::TooManyAgents));
    let others = full("b", MAX_AGENTS);
    assert_eq!(led(full("a", MAX_AGENTS), &others), others);
}

/// Why these agents are refused in a document and in an update.
fn refusals(agents: &Value) -> [Option<String>; 2] {
    let document = serde_json::from_value::<Configuration>(json!({"listeners": {}, "agents": agents}));
    let update = serde_json::from_value::<ToProxy>(json!({"change": {"agents": agents}}));
    [document.err(), update.err()].map(|error| error.map(|error| error.to_string()))
}

/// The bound holds for agents that are made from a length: the longest are read, longer ones are refused.
fn holds(most: usize, agents: impl Fn(usize) -> Value) {
    assert_eq!(refusals(&agents(most)), [None, None]);
    for refused in refusals(&agents(most + 1)) {
        let error = refused.expect("beyond the bound");
        assert!(error.contains(&most.to_string()), "the bound is named: {error}");
    }
}

/// An agent with this field.
fn with(field: &str, value: Value) -> Value {
    let mut agent = json!({"namespace": "shop", "name": "home", "rotation": 7, "maxInstances": 4});
    agent[field] = value;
    agent
}

#[test]
fn texts_and_items_of_agents_are_bounded() {
    let text = |bytes: usize| Value::from("x".repeat(bytes));
    for field in ["namespace", "name"] {
        holds(MAX_NAME_BYTES, |bytes| json!({"u": with(field, text(bytes))}));
    }
    holds(MAX_TARGET_BYTES, |bytes| json!({"u": with("targets", json!([text(bytes)]))}));
    holds(MAX_TARGETS, |items| json!({"u": with("targets", vec![text(1); items].into())}));
    holds(MAX_NAME_BYTES, |bytes| [("u".repeat(bytes), with("rotation", json!(1)))].into_iter().collect());
    holds(MAX_AGENTS, |items| (0..items).map(|at| (at.to_string(), with("rotation", json!(1)))).collect());
    let removals = |removals: Value| serde_json::from_value::<ToProxy>(json!({"change": {"agentRemovals": removals}}));
    assert!(removals(json!([text(MAX_NAME_BYTES)])).is_ok() && removals(json!([text(MAX_NAME_BYTES + 1)])).is_err());
    assert!(removals((0..=MAX_AGENTS).map(|at| at.to_string()).collect()).is_err());
}

#[test]
fn old_proxy_new_operator_an_unknown_field_of_an_agent_suspends_that_agent_only() {
    let enrolment = json!({"redemptions": 1, "expireSeconds": 300, "approval": "Manual"});
    for newer in [with("sources", json!(["192.0.2.0/24"])), with("enrolment", enrolment)] {
        let message = json!({"change": {"agents": {"new": newer, "old": with("targets", json!(["db:1"]))}}});
        let message: ToProxy = serde_json::from_value(message).expect("decodes");
        let agents = message.change.expect("a change").agents;
        assert_eq!(agents["new"], Agent { rotation: 7, suspended: true, is_newer: true, ..agent(0, 0) });
        assert_eq!(agents["old"], Agent { rotation: 7, targets: vec!["db:1".to_owned()], ..agent(0, 0) });
    }
}

#[test]
fn a_damaged_agent_is_no_newer_one_and_refuses_the_document() {
    for damaged in [with("rotation", json!("seven")), with("targets", json!("db:1")), json!({"name": "home"})] {
        assert!(refusals(&json!({"u": damaged})).iter().all(Option::is_some), "{damaged}");
    }
}

#[test]
fn old_proxy_new_operator_a_proxy_that_knows_no_agents_is_sent_nothing_else_again() {
    let parts = changes(&decode(AGENTS), &held_by_an_old_proxy(), PARTS);
    assert_eq!((parts.len(), uids(&parts)), (1, vec!["uid-1".to_owned()]));
    assert_eq!((parts[0].upserts.len(), parts[0].endpoints.len(), parts[0].agent_removals.len()), (0, 0, 0));
}

#[test]
fn new_proxy_old_operator_an_operator_that_knows_no_agents_leaves_a_proxy_none() {
    let current = decode(AGENTS);
    let told = |digest: Option<Digest>| {
        let (reached, named) = told_by_an_old_operator(&current, digest);
        assert_eq!(named.tunnels, reached.agents != current.agents, "also what no part names");
        reached
    };
    assert_eq!(told(Some(digest(DIGESTS[0]))), left_by_an_old_operator(decode(V1)));
    for same in [None, Some(digest(DIGESTS[1])), Some(digest("00000000000000000000000000000000"))] {
        assert_eq!(told(same.clone()), left_by_an_old_operator(decode(AGENTS)), "{same:?}");
    }
}
