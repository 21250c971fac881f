//! Other proxies of a gateway in updates, digests and held revisions, and beside peers that know none of them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use ends::{
    AGENTS, V1, decode, digest, held_by_an_old_proxy, led, left_by_an_old_operator, taken, told_by_an_old_operator,
};
use proxy_api::{
    Assembler, Change, ChangeError, Configuration, Digest, Held, MAX_ENDPOINT_ID_BYTES, MAX_PEERS, PARTS, ToProxy,
    Tunnels,
};
use serde_json::{Value, json};

/// The digest of version 1, and that of the same with the two peers.
const DIGESTS: [&str; 2] = ["6a1e943d50f0098cb887bce1836c77dd", "c4d1715bc490fcbce8b7762ad78facdd"];
const TWO: [(&str, &str); 2] = [("0f3a", "10.0.0.1"), ("77bc", "2001:db8::1")];

fn tunnels(peers: &[(&str, &str)]) -> Tunnels {
    let peer = |(id, address): &(&str, &str)| ((*id).to_owned(), address.parse().expect("an address"));
    Tunnels { peers: peers.iter().map(peer).collect(), ..Tunnels::default() }
}

fn with(peers: &[(&str, &str)], configuration: Configuration) -> Configuration {
    Configuration { tunnels: tunnels(peers), ..configuration }
}

fn changes(next: &Configuration, held: &Held) -> Vec<Change> {
    next.changes_from(held, &BTreeSet::new(), PARTS)
}

#[test]
fn the_digest_of_peers_is_the_same_in_every_release_and_without_peers_as_it_was() {
    assert_eq!(decode(V1).digest(), digest(DIGESTS[0]));
    let configuration = with(&TWO, decode(V1));
    assert_eq!(configuration.digest(), digest(DIGESTS[1]));
    let kept = Configuration::decode(&configuration.encode().expect("encodes")).expect("decodes");
    assert_eq!((&kept, kept.held()), (&configuration, configuration.held()));
    let one = |peers: &[(&str, &str)]| with(peers, Configuration::default()).digest();
    assert_eq!(one(&TWO[..1]), Digest("c9f60cd2e59b249f9e8e633489dc4a43".to_owned()));
    assert_ne!(one(&TWO[..1]), one(&[("0f3a", "10.0.0.2")]));
    assert_ne!(one(&TWO[..1]), one(&[("0f3b", "10.0.0.1")]));
}

#[test]
fn nothing_about_peers_is_written_where_there_are_none() {
    let v1 = decode(V1);
    let update = serde_json::to_string(&changes(&v1, &Held::default())).expect("encodes");
    let held = serde_json::to_string(&v1.held()).expect("encodes");
    let document = String::from_utf8(v1.encode().expect("encodes")).expect("JSON");
    assert!([update, held, document].iter().all(|text| !text.contains("peer") && !text.contains("tunnels")));
}

#[test]
fn an_update_holds_new_changed_and_removed_peers_and_no_others() {
    let of = |peers: &[(&str, &str)]| with(peers, Configuration::default());
    let old = of(&[("changed", "10.0.0.1"), ("gone", "10.0.0.2"), ("kept", "10.0.0.3")]);
    let new = of(&[("changed", "10.0.0.9"), ("kept", "10.0.0.3"), ("new", "10.0.0.4")]);
    let part = changes(&new, &old.held()).remove(0);
    assert_eq!(part.peers.keys().collect::<Vec<_>>(), ["changed", "new"]);
    assert_eq!(part.peer_removals, BTreeSet::from(["gone".to_owned()]));
    assert_eq!(taken(&old, &part), (new.clone(), new.digest(), 4));
    assert_eq!(changes(&new, &new.held()), changes(&Configuration::default(), &Held::default()));
    let parts: Vec<usize> = new.held().into_parts(2).iter().map(|part| part.peers.len()).collect();
    assert_eq!(parts, [2, 1]);
}

/// Whether these peers are read in a document, and in an update.
fn reads(peers: &Value) -> [bool; 2] {
    let document = json!({"listeners": {}, "tunnels": {"peers": peers}});
    let update = json!({"change": {"peers": peers}});
    [serde_json::from_value::<Configuration>(document).is_ok(), serde_json::from_value::<ToProxy>(update).is_ok()]
}

#[test]
fn peers_are_bounded() {
    let all = |count: usize| -> Value { (0..count).map(|at| (at.to_string(), json!("10.0.0.1"))).collect() };
    assert_eq!((reads(&all(MAX_PEERS)), reads(&all(MAX_PEERS + 1))), ([true; 2], [false; 2]));
    let long = |bytes: usize| -> Value { [("e".repeat(bytes), json!("10.0.0.1"))].into_iter().collect() };
    assert_eq!(reads(&long(MAX_ENDPOINT_ID_BYTES)), [true; 2]);
    assert_eq!(reads(&long(MAX_ENDPOINT_ID_BYTES + 1)), [false; 2]);
    assert_eq!(reads(&json!({"e": "edge.example.org"})), [false; 2], "no name");
    let removals = |count: usize| {
        let ids: Vec<String> = (0..count).map(|at| at.to_string()).collect();
        serde_json::from_value::<ToProxy>(json!({"change": {"peerRemovals": ids}})).is_ok()
    };
    assert!(removals(MAX_PEERS) && !removals(MAX_PEERS + 1));
}

#[test]
fn an_update_to_more_peers_than_a_proxy_knows_is_refused_and_a_full_proxy_has_room_for_others() {
    let full = |start: &str, count: usize| {
        let peers: BTreeMap<_, _> =
            (0..count).map(|at| (format!("{start}{at}"), "10.0.0.1".parse().expect("an address"))).collect();
        Configuration { tunnels: Tunnels { peers, ..Tunnels::default() }, ..Configuration::default() }
    };
    let too_many = full("a", MAX_PEERS + 1).changes_from(&Held::default(), &BTreeSet::new(), usize::MAX).remove(0);
    let refused = Assembler::default().take(&Configuration::default(), too_many);
    assert_eq!(refused, Err(ChangeError::TooManyPeers));
    let others = full("b", MAX_PEERS);
    assert_eq!(led(full("a", MAX_PEERS), &others), others);
}

#[test]
fn old_proxy_new_operator_a_proxy_that_knows_no_peers_is_sent_nothing_else_again() {
    let parts = changes(&with(&TWO, decode(V1)), &held_by_an_old_proxy());
    assert_eq!((parts.len(), parts[0].peers.len(), parts[0].upserts.len()), (1, 2, 0));
}

#[test]
fn new_proxy_old_operator_an_operator_that_knows_no_peers_leaves_a_proxy_none() {
    let current = with(&TWO, decode(AGENTS));
    let told = |digest: Option<Digest>| told_by_an_old_operator(&current, digest).0;
    assert_eq!(told(Some(decode(AGENTS).digest())), left_by_an_old_operator(decode(AGENTS)), "it knows agents");
    assert_eq!(told(Some(digest(DIGESTS[0]))), left_by_an_old_operator(decode(V1)), "it knows neither");
    for same in [None, Some(current.digest()), Some(digest("00000000000000000000000000000000"))] {
        assert_eq!(told(same.clone()), left_by_an_old_operator(current.clone()), "{same:?}");
    }
}
