//! Sidecars of agents in updates, digests and held revisions, and beside peers that know none of them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use ends::{
    AGENTS, V1, decode, digest, held_by_an_old_proxy, led, left_by_an_old_operator, taken, told_by_an_old_operator,
};
use proxy_api::{
    Assembler, Change, ChangeError, Configuration, Digest, Held, MAX_AGENTS, MAX_ENDPOINT_ID_BYTES, MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES, MAX_SIDECAR_AGENTS, MAX_SIDECARS, PARTS, Revision, Sidecar, ToProxy, Tunnels,
};
use serde_json::{Value, json};

/// The digest of version 1, that of the first sidecar alone, and that of version 1 with both.
const DIGESTS: [&str; 3] =
    ["6a1e943d50f0098cb887bce1836c77dd", "c44e2aa5b8236bfaf5a388ad3bfa33c6", "7032f18f5fb13357507cbec53ab5e32c"];

fn sidecar(address: &str, agents: &[&str]) -> Sidecar {
    let agents = agents.iter().map(|uid| (*uid).to_owned()).collect();
    Sidecar { address: address.parse().expect("an address"), agents }
}

fn two() -> [(&'static str, Sidecar); 2] {
    [("5c1d", sidecar("10.0.0.1", &["u-1", "u-2"])), ("77bc", sidecar("2001:db8::1", &["u-1"]))]
}

fn with(sidecars: &[(&str, Sidecar)], configuration: Configuration) -> Configuration {
    let sidecars = sidecars.iter().map(|(id, sidecar)| ((*id).to_owned(), sidecar.clone())).collect();
    Configuration { tunnels: Tunnels { sidecars, ..configuration.tunnels.clone() }, ..configuration }
}

fn changes(next: &Configuration, held: &Held) -> Vec<Change> {
    next.changes_from(held, &BTreeSet::new(), PARTS)
}

#[test]
fn the_digest_of_sidecars_is_the_same_in_every_release_and_without_sidecars_as_it_was() {
    assert_eq!(two()[0].1.revision(), Revision("81a08f995438d685".into()));
    assert_eq!(decode(V1).digest(), digest(DIGESTS[0]));
    assert_eq!(with(&two()[..1], Configuration::default()).digest(), digest(DIGESTS[1]));
    let configuration = with(&two(), decode(V1));
    assert_eq!(configuration.digest(), digest(DIGESTS[2]));
    let kept = Configuration::decode(&configuration.encode().expect("encodes")).expect("decodes");
    assert_eq!((&kept, kept.held()), (&configuration, configuration.held()));
}

#[test]
fn nothing_about_sidecars_is_written_where_there_are_none() {
    let agents = decode(AGENTS);
    let update = serde_json::to_string(&changes(&agents, &Held::default())).expect("encodes");
    let held = serde_json::to_string(&agents.held()).expect("encodes");
    let document = String::from_utf8(agents.encode().expect("encodes")).expect("JSON");
    let says = |text: &String| ["sidecar", "tunnels", "gateway"].iter().any(|word| text.contains(word));
    assert!(![update, held, document].iter().any(says));
}

#[test]
fn an_update_holds_new_changed_and_removed_sidecars_and_no_others() {
    let of = |sidecars: &[(&str, Sidecar)]| with(sidecars, Configuration::default());
    let (one, other) = (sidecar("10.0.0.1", &["u-1"]), sidecar("10.0.0.1", &["u-2"]));
    let old = of(&[("changed", one.clone()), ("gone", one.clone()), ("kept", one.clone())]);
    let new = of(&[("changed", other), ("kept", one.clone()), ("new", one)]);
    let part = changes(&new, &old.held()).remove(0);
    assert_eq!(part.sidecars.keys().collect::<Vec<_>>(), ["changed", "new"]);
    assert_eq!(part.sidecar_removals, BTreeSet::from(["gone".to_owned()]));
    assert_eq!(taken(&old, &part), (new.clone(), new.digest(), 4));
    assert_eq!(changes(&new, &new.held()), changes(&Configuration::default(), &Held::default()));
    let parts: Vec<usize> = new.held().into_parts(2).iter().map(|part| part.sidecars.len()).collect();
    assert_eq!(parts, [2, 1]);
}

/// Whether these sidecars are read in a document, and in an update.
fn reads(sidecars: &Value) -> [bool; 2] {
    let document = json!({"listeners": {}, "tunnels": {"sidecars": sidecars}});
    let update = json!({"change": {"sidecars": sidecars}});
    [serde_json::from_value::<Configuration>(document).is_ok(), serde_json::from_value::<ToProxy>(update).is_ok()]
}

#[test]
fn sidecars_are_bounded() {
    let entry = |agents: &[String]| json!({"address": "10.0.0.1", "agents": agents});
    let all = |count: usize| -> Value { (0..count).map(|at| (at.to_string(), entry(&[]))).collect() };
    assert_eq!((reads(&all(MAX_SIDECARS)), reads(&all(MAX_SIDECARS + 1))), ([true; 2], [false; 2]));
    let long = |bytes: usize| -> Value { [("e".repeat(bytes), entry(&[]))].into_iter().collect() };
    assert_eq!(reads(&long(MAX_ENDPOINT_ID_BYTES)), [true; 2]);
    assert_eq!(reads(&long(MAX_ENDPOINT_ID_BYTES + 1)), [false; 2]);
    let uids = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
    assert_eq!(reads(&json!({"e": entry(&uids(MAX_AGENTS))})), [true; 2]);
    assert_eq!(reads(&json!({"e": entry(&uids(MAX_AGENTS + 1))})), [false; 2]);
    assert_eq!(reads(&json!({"e": entry(&["u".repeat(MAX_NAME_BYTES + 1)])})), [false; 2]);
    assert_eq!(reads(&json!({"e": {"address": "edge.example.org", "agents": []}})), [false; 2], "no name");
    let removals =
        |count: usize| serde_json::from_value::<ToProxy>(json!({"change": {"sidecarRemovals": uids(count)}})).is_ok();
    assert!(removals(MAX_SIDECARS) && !removals(MAX_SIDECARS + 1));
}

#[test]
fn a_sidecar_counts_as_one_item_more_for_each_4_of_its_agents_and_the_largest_fit_into_a_message() {
    let uid = |at: usize| format!("{at:0MAX_NAME_BYTES$}");
    let with_agents = |count: usize| Sidecar { agents: (0..count).map(uid).collect(), ..sidecar("10.0.0.1", &[]) };
    let of = |sizes: &[usize]| {
        let sidecars = sizes.iter().enumerate().map(|(at, size)| (at.to_string(), with_agents(*size))).collect();
        Configuration { tunnels: Tunnels { sidecars, ..Tunnels::default() }, ..Configuration::default() }
    };
    let counts = |configuration: &Configuration, per_part: usize| -> Vec<usize> {
        let parts = configuration.changes_from(&Held::default(), &BTreeSet::new(), per_part);
        parts.iter().map(|part| part.sidecars.len()).collect()
    };
    assert_eq!((counts(&of(&[3, 4, 8]), 6), counts(&of(&[3, 4, 8]), 5)), (vec![3], vec![2, 1]));
    for change in changes(&of(&[MAX_AGENTS, MAX_AGENTS]), &Held::default()) {
        let bytes = serde_json::to_vec(&ToProxy { change: Some(change), ..ToProxy::default() }).expect("encodes");
        assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
    }
}

#[test]
fn an_update_to_more_sidecars_or_agents_of_them_than_a_proxy_knows_is_refused_and_a_full_proxy_has_room_for_others() {
    let full = |start: &str, count: usize, agents: usize| {
        let agents: BTreeSet<String> = (0..agents).map(|at| at.to_string()).collect();
        let of = |at: usize| (format!("{start}{at}"), Sidecar { agents: agents.clone(), ..sidecar("10.0.0.1", &[]) });
        let sidecars = (0..count).map(of).collect();
        Configuration { tunnels: Tunnels { sidecars, ..Tunnels::default() }, ..Configuration::default() }
    };
    let of_each = MAX_SIDECAR_AGENTS / MAX_SIDECARS;
    for too_many in [full("a", MAX_SIDECARS + 1, 1), full("a", MAX_SIDECARS, of_each + 1)] {
        let part = too_many.changes_from(&Held::default(), &BTreeSet::new(), usize::MAX).remove(0);
        let refused = Assembler::default().take(&Configuration::default(), part);
        assert_eq!(refused, Err(ChangeError::TooManySidecars));
    }
    let others = full("b", MAX_SIDECARS, of_each);
    assert_eq!(led(full("a", MAX_SIDECARS, of_each), &others), others);
}

#[test]
fn old_proxy_new_operator_a_proxy_that_knows_no_sidecars_is_sent_nothing_else_again() {
    let parts = changes(&with(&two(), decode(V1)), &held_by_an_old_proxy());
    assert_eq!((parts.len(), parts[0].sidecars.len(), parts[0].upserts.len()), (1, 2, 0));
}

#[test]
fn new_proxy_old_operator_an_operator_that_knows_no_sidecars_leaves_a_proxy_none() {
    let with_peer = || {
        let peers = BTreeMap::from([("0f3a".to_owned(), [10, 0, 0, 1].into())]);
        Configuration { tunnels: Tunnels { peers, ..Tunnels::default() }, ..decode(AGENTS) }
    };
    let current = with(&two(), with_peer());
    let told = |digest: Option<Digest>| told_by_an_old_operator(&current, digest).0;
    for known in [with_peer(), decode(AGENTS), decode(V1)] {
        assert_eq!(told(Some(known.digest())), left_by_an_old_operator(known));
    }
    for same in [None, Some(current.digest()), Some(digest("00000000000000000000000000000000"))] {
        assert_eq!(told(same.clone()), left_by_an_old_operator(current.clone()), "{same:?}");
    }
}
