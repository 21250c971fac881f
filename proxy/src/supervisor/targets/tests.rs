//! Tests of what becomes an endpoint of a listener, and what of it is kept.

use proxy_api::{Destinations, HealthCheck, Outlier, Probe, Transport};

use super::*;
use crate::{
    core::{
        backends::{endpoint::Counted, instances::OfAgent},
        resolution::dns::families::Resolution,
    },
    supervisor::fixtures::{id, listener, socket},
};

static NO_AGENTS: BTreeMap<String, Agent> = BTreeMap::new();
static NO_INSTANCES: Instances = Instances(BTreeMap::new());

fn addresses(ports: &[u16]) -> BTreeMap<String, EndpointSet> {
    let addresses = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
    BTreeMap::from([("b".to_owned(), addresses.collect())])
}

fn live() -> ById {
    ById::from([(id("a"), Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default()))])
}

fn of<'a>(
    endpoints: &'a BTreeMap<String, EndpointSet>,
    sockets: &'a BTreeMap<SocketKey, BTreeSet<ListenerId>>,
    names: &'a Names,
    (surroundings, own): (&'a Arc<Surroundings>, &'a RefCell<OwnAddresses>),
) -> Sources<'a> {
    let (agents, instances) = (&NO_AGENTS, &NO_INSTANCES);
    Sources { endpoints, sockets, names, agents, instances, surroundings, own, now: 0 }
}

#[test]
fn targets_that_are_unchanged_are_not_replaced_and_known_endpoints_stay() {
    let (names, sockets, live) = (Names::without_receiver(), BTreeMap::new(), live());
    let refresh = |ports: &[u16]| {
        let endpoints = addresses(ports);
        let (around, own) = (Arc::default(), RefCell::default());
        let sources = of(&endpoints, &sockets, &names, (&around, &own));
        let refusals = sources.refresh(&live);
        assert!(refusals.is_empty(), "{refusals:?}");
        live[&id("a")].targets.load_full()
    };
    let first = refresh(&[10]);
    assert!(Arc::ptr_eq(&first, &refresh(&[10])));
    let second = refresh(&[10, 11]);
    assert_eq!(second.entries[0].endpoints.len(), 2);
    assert!(Arc::ptr_eq(&first.entries[0].endpoints[0], &second.entries[0].endpoints[0]));
    assert!(Arc::ptr_eq(&first.entries[0].stats, &second.entries[0].stats));
}

#[test]
fn an_endpoint_that_returns_has_its_sessions_and_its_ejection_and_no_old_check() {
    let (names, sockets, live) = (Names::without_receiver(), BTreeMap::new(), live());
    let refresh = |ports: &[u16], now: u64| {
        let endpoints = addresses(ports);
        let (around, own) = (Arc::default(), RefCell::default());
        Sources { now, ..of(&endpoints, &sockets, &names, (&around, &own)) }.refresh(&live);
        live[&id("a")].targets.load().entries[0].endpoints.clone()
    };
    let first = refresh(&[10, 11, 12], 0);
    let session = Counted::new(first[0].clone());
    first[0].set_checked(Checked::Down);
    first[1].failed(Outlier { consecutive_failures: 1, eject_seconds: 10 }, 0);
    refresh(&[], 1);
    refresh(&[13], 2);
    let back = refresh(&[10, 11, 12, 13], 3);
    let is_kept: Vec<bool> = first.iter().zip(&back).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(is_kept, [true, true, false]);
    assert_eq!(back[0].checked(), Checked::Not, "the checks of an absent endpoint have stopped");
    drop(session);
    refresh(&[13], 4);
    let later = refresh(&[10, 11, 13], 5);
    assert!(!Arc::ptr_eq(&first[0], &later[0]), "nothing is known of an endpoint without sessions");
    assert!(Arc::ptr_eq(&first[1], &later[1]), "the ejection lasts");
}

#[tokio::test]
async fn a_session_waits_for_the_first_answer_to_a_name_and_no_longer() {
    let (mut names, sockets, endpoints) = (Names::without_receiver(), BTreeMap::new(), BTreeMap::new());
    let template = (*listener(1, "b")).clone();
    let target = Target::Address { host: "db.test".to_owned(), port: 80 };
    let backends = vec![Backend { target, ..template.backends[0].clone() }];
    let spec = Arc::new(Listener { backends, ..template }.sealed());
    names.set(&id("a"), Some(&spec));
    let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
    let live = ById::from([(id("a"), shared.clone())]);
    let (around, own) = (Arc::default(), RefCell::default());
    let waits = |names: &Names| {
        of(&endpoints, &sockets, names, (&around, &own)).refresh(&live);
        shared.first_answer.is_needed(&shared.targets.load())
    };
    assert!(waits(&names));
    names.learn("db.test", Resolution { failure: Some("timeout".to_owned()), ..Resolution::default() }, 0);
    assert!(!waits(&names));
}

#[test]
fn a_listener_of_the_same_proxy_is_no_target() {
    let (names, live, endpoints) = (Names::without_receiver(), live(), addresses(&[10, 11]));
    let sockets = BTreeMap::from([(socket(11), BTreeSet::from([id("other")]))]);
    let (around, own) = (Arc::default(), RefCell::default());
    let sources = of(&endpoints, &sockets, &names, (&around, &own));
    let refusals = sources.refresh(&live);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 11));
    assert_eq!(refusals, [Refusal { listener: id("a"), address, why: Denial::Loop }]);
    let targets = live[&id("a")].targets.load();
    assert_eq!(targets.entries[0].endpoints.len(), 1);
}

fn set(texts: &[&str]) -> EndpointSet {
    texts.iter().map(|text| text.parse::<SocketAddr>().expect("an address")).collect()
}

#[test]
fn an_address_that_leads_back_to_the_fleet_is_no_target_on_a_port_on_which_the_fleet_listens() {
    let (names, live) = (Names::without_receiver(), live());
    let endpoints = BTreeMap::from([
        ("b".to_owned(), set(&["192.0.2.1:11", "192.0.2.1:12", "192.0.2.7:80", "192.0.2.9:11"])),
        ("fleet".to_owned(), set(&["192.0.2.1:0"])),
        ("fronts".to_owned(), set(&["192.0.2.7:80"])),
    ]);
    let all = SocketKey { bind: Bind::All, ..socket(11) };
    let sockets = BTreeMap::from([(all, BTreeSet::from([id("other")]))]);
    let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
    let sources = of(&endpoints, &sockets, &names, (&around, &own));
    let refused: Vec<String> = sources.refresh(&live).iter().map(|it| it.address.to_string()).collect();
    assert_eq!(refused, ["192.0.2.1:11", "192.0.2.7:80"]);
    let shared = &live[&id("a")];
    let used: Vec<String> =
        shared.targets.load().entries[0].endpoints.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(used, ["192.0.2.1:12", "192.0.2.9:11"]);
    assert_eq!(shared.counters.refused[Denial::Loop.index()].load(Relaxed), 2);
    let pod = IpAddr::from([192, 0, 2, 1]);
    assert!(shared.returns(pod) && !shared.returns(IpAddr::from([192, 0, 2, 7])), "a client in the fleet came back");
}

// D6
#[test]
fn the_system_is_not_asked_again_whether_an_address_is_its_own() {
    let (names, live) = (Names::without_receiver(), live());
    let endpoints = BTreeMap::from([("b".to_owned(), set(&["203.0.113.1:11", "203.0.113.2:11"]))]);
    let all = SocketKey { bind: Bind::All, ..socket(11) };
    let sockets = BTreeMap::from([(all, BTreeSet::from([id("other")]))]);
    let (around, mut known) = (Arc::default(), OwnAddresses::default());
    // No system has it: only what is known says so.
    known.is_own(IpAddr::from([203, 0, 113, 1]), |_| true);
    let own = RefCell::new(known);
    let refused: Vec<String> = of(&endpoints, &sockets, &names, (&around, &own))
        .refresh(&live)
        .iter()
        .map(|it| it.address.to_string())
        .collect();
    assert_eq!(refused, ["203.0.113.1:11"]);
    assert!(
        !own.into_inner().is_own(IpAddr::from([203, 0, 113, 2]), |_| true),
        "the answer of the system is known now"
    );
}

#[test]
fn nodes_and_addresses_that_the_operator_protects_are_no_targets_unless_the_gateway_names_them() {
    let (names, sockets) = (Names::without_receiver(), BTreeMap::new());
    let endpoints = BTreeMap::from([
        ("protected".to_owned(), set(&["192.0.2.5:0"])),
        ("protected-networks".to_owned(), set(&["203.0.113.0:24"])),
    ]);
    let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
    let sources = of(&endpoints, &sockets, &names, (&around, &own));
    let refused = |host: &str, cidrs: &[&str]| -> Vec<Denial> {
        let template = (*listener(1, "b")).clone();
        let target = Target::Address { host: host.to_owned(), port: 80 };
        let backends = vec![Backend { target, ..template.backends[0].clone() }];
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect();
        let destinations = Destinations { refuse_local: true, cidrs };
        let spec = Arc::new(Listener { backends, destinations, ..template }.sealed());
        let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
        sources.refresh(&ById::from([(id("a"), shared)])).iter().map(|it| it.why).collect()
    };
    for (host, around, itself) in
        [("192.0.2.5", "192.0.2.0/24", "192.0.2.5/32"), ("203.0.113.7", "203.0.113.0/24", "203.0.113.7/32")]
    {
        assert_eq!(refused(host, &[]), [Denial::Cluster], "{host}");
        assert_eq!(refused(host, &[around]), [Denial::Cluster], "{host}");
        assert!(refused(host, &[itself]).is_empty(), "{host}");
    }
}

#[test]
fn an_address_is_no_target_if_its_checks_would_go_to_a_port_that_is_refused() {
    let (names, sockets) = (Names::without_receiver(), BTreeMap::new());
    let endpoints = BTreeMap::from([("protected".to_owned(), set(&["192.0.2.6:6443"]))]);
    let (around, own) = (Arc::new(Surroundings::of(&endpoints)), RefCell::default());
    let sources = of(&endpoints, &sockets, &names, (&around, &own));
    let refused = |port: Option<u16>, check_port: Option<u16>| -> Vec<Denial> {
        let template = (*listener(1, "b")).clone();
        let target = Target::Address { host: "192.0.2.6".to_owned(), port: 80 };
        let backends = vec![Backend { target, check_port, ..template.backends[0].clone() }];
        let destinations = Destinations { refuse_local: true, ..Destinations::default() };
        let check = HealthCheck {
            probe: Probe::Tcp,
            port,
            interval_seconds: 10,
            timeout_seconds: 1,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
        };
        let health_check = Some(Box::new(check));
        let spec = Arc::new(Listener { backends, destinations, health_check, ..template }.sealed());
        let shared = Shared::new(id("a"), spec, Arc::default(), Arc::default());
        sources.refresh(&ById::from([(id("a"), shared)])).iter().map(|it| it.why).collect()
    };
    assert!(refused(None, None).is_empty() && refused(Some(8080), None).is_empty());
    assert_eq!(refused(Some(10_250), None), [Denial::Kubelet]);
    assert_eq!(refused(Some(6443), None), [Denial::Cluster]);
    assert_eq!(refused(Some(8080), Some(6443)), [Denial::Cluster]);
    assert!(refused(Some(6443), Some(8080)).is_empty(), "the port of the entry comes first");
}

/// As [`live`], with this transport and a backend behind the agent `u`, at a port that this proxy has too.
fn live_behind_agent(transport: Transport) -> ById {
    let template = (*listener(1, "b")).clone();
    let target = Target::Tunnel { agent: "u".to_owned(), host: "127.0.0.1".to_owned(), port: 11 };
    let backends = vec![Backend { target, ..template.backends[0].clone() }];
    let socket = SocketKey { transport, ..template.socket };
    let destinations = Destinations { refuse_local: true, ..Destinations::default() };
    let spec = Arc::new(Listener { backends, socket, destinations, ..template }.sealed());
    ById::from([(id("a"), Shared::new(id("a"), spec, Arc::default(), Arc::default()))])
}

#[test]
fn what_is_behind_an_agent_is_no_loop_and_no_destination_of_this_proxy() {
    let (names, endpoints) = (Names::without_receiver(), BTreeMap::new());
    let sockets = BTreeMap::from([(socket(11), BTreeSet::from([id("other")]))]);
    let (around, own) = (Arc::default(), RefCell::default());
    let home = Agent {
        namespace: "shop".to_owned(),
        name: "home".to_owned(),
        rotation: 0,
        suspended: false,
        is_newer: false,
        max_instances: 1,
        targets: Vec::new(),
        enrolment: None,
        gateway: None,
    };
    let agents = BTreeMap::from([("u".to_owned(), home)]);
    let pi4 = OfAgent { names: BTreeSet::from([Arc::from("pi4")]), detached: false };
    let instances = Instances(BTreeMap::from([(Arc::from("u"), pi4)]));
    let sources =
        Sources { agents: &agents, instances: &instances, ..of(&endpoints, &sockets, &names, (&around, &own)) };
    let used = |transport: Transport| -> Vec<String> {
        let live = live_behind_agent(transport);
        assert!(sources.refresh(&live).is_empty());
        live[&id("a")].targets.load().entries[0].endpoints.iter().map(|it| it.address.to_string()).collect()
    };
    for transport in [Transport::Tcp, Transport::Udp] {
        assert_eq!(used(transport), ["agent/shop/home/pi4/127.0.0.1:11"], "{transport}");
    }
}
