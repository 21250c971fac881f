//! What each step says, by what the cluster has and what became of the connection.

use std::collections::BTreeMap;

use crds::Bind;
use k8s_openapi::api::core::v1::Pod;
use operator_core::ObjectKey;

use super::{GATEWAY, SIDECAR, forward, pod};
use crate::{
    access::{Fetched, Listed},
    check::{Check, Outcome},
    live::Session,
    logs::Record,
    trace::{Facts, Found, Probe, Target, network, steps},
};

/// A connection from the pod `client` to the listener `pg` of this forward. No proxy and no policy is known.
fn facts(spec: &str) -> Facts {
    Facts {
        forward: forward(spec),
        listener: "pg".to_owned(),
        from: (ObjectKey::new("shop", "client"), Ok(Some(pod("client", "app", "")))),
        nearest: None,
        service: None,
        proxies: Ok(Listed::default()),
        policies: BTreeMap::new(),
        probe: Probe::Skipped(String::new()),
    }
}

fn target() -> Target {
    Target { pod: ObjectKey::new("shop", "app-1"), port: 5432 }
}

/// What is said of the backend after a connection that a proxy took.
fn backend(probe: Probe, spec: &str) -> Check {
    let (_, backend) = steps::probe(&Facts { probe, ..facts(spec) });
    backend.expect("a proxy took the connection").check
}

#[test]
fn a_client_that_leaves_or_has_ended_is_told() {
    let judged = |client: Pod| {
        let from = (ObjectKey::new("shop", "client"), Ok(Some(client)));
        let check = steps::client(&Facts { from, ..facts(GATEWAY) }).check;
        (check.outcome, check.detail)
    };
    let mut leaves = pod("client", "app", "");
    leaves.metadata.deletion_timestamp = serde_yaml::from_str("2026-01-01T00:00:00Z").expect("a time");
    assert_eq!(judged(leaves), (Outcome::Warning, "pod shop/client is terminating".to_owned()));
    let ended = pod("client", "app", ", phase: Failed");
    assert_eq!(judged(ended), (Outcome::Failed, "pod shop/client has ended".to_owned()));
}

#[test]
fn sidecars_serve_their_own_pods_and_others_only_if_they_listen_on_all_addresses() {
    let address = |name: &str, bind: Bind| {
        let from = (ObjectKey::new("shop", name), Ok(Some(pod(name, "app", ""))));
        let proxies = Ok(Listed::from(vec![pod("app-1", "portlane-proxy", "")]));
        let mut facts = Facts { from, proxies, ..facts(SIDECAR) };
        facts.forward.spec.listeners[0].bind = Some(bind);
        let check = steps::address(&facts).check;
        (check.outcome, check.detail.starts_with("localhost, port 5432"))
    };
    assert_eq!(address("app-1", Bind::Loopback), (Outcome::Ok, true));
    assert_eq!(address("stranger", Bind::Loopback), (Outcome::Failed, false));
    assert_eq!(address("stranger", Bind::All), (Outcome::Ok, false));
}

#[test]
fn a_listener_is_as_well_as_the_proxies_that_run_it() {
    let outcome = |acked: u32, rejected: &str| {
        let status = format!(
            "{{listeners: [{{name: pg, protocol: TCP, port: 5432}}], dataPlane: {{acked: {acked}, total: 2, \
             summary: x, rejectedCount: 0, rejected: [{rejected}]}}}}"
        );
        let mut facts = facts(GATEWAY);
        facts.forward.status = serde_yaml::from_str(&status).expect("a status");
        steps::listener(&facts).check.outcome
    };
    assert_eq!([0, 1, 2].map(|acked| outcome(acked, "")), [Outcome::Failed, Outcome::Warning, Outcome::Ok]);
    let rejected = |listener: &str| format!("{{pod: edge-2, listener: {listener}, reason: taken}}");
    assert_eq!(outcome(2, &rejected("pg")), Outcome::Warning);
    assert_eq!(outcome(2, &rejected("other")), Outcome::Ok, "another listener is rejected");
}

#[test]
fn bytes_of_the_backend_show_that_it_is_reached_whatever_the_live_api_lists() {
    let said = |session: Fetched<Found<Box<Session>>>, has_bytes: bool| {
        let check = backend(Probe::Open { target: target(), has_bytes, session }, SIDECAR);
        (check.outcome, check.detail == "the backend has sent bytes")
    };
    let sessions: [(Found<Box<Session>>, Outcome); 3] = [
        (Found::One(Box::default()), Outcome::Failed),
        (Found::Several(2), Outcome::Unknown),
        (Found::Nothing, Outcome::Warning),
    ];
    for (session, silent) in sessions {
        assert_eq!(said(Ok(session.clone()), true), (Outcome::Ok, true));
        assert_eq!(said(Ok(session), false), (silent, false));
    }
}

#[test]
fn a_connection_may_wait_for_its_turn_only_where_a_limit_queues_connections() {
    let may_wait = |limits: &str| {
        let session = Ok(Found::One(Box::default()));
        let probe = Probe::Open { target: target(), has_bytes: false, session };
        let hint = backend(probe, &format!("limits: {limits}, {SIDECAR}")).hint.unwrap_or_default();
        hint.contains("spec.limits.maxConnections")
    };
    let limits = ["{maxConnections: 1}", "{maxConnections: 1, onLimit: Reject}", "{maxConnectionsPerSource: 1}"];
    assert_eq!(limits.map(may_wait), [true, false, false]);
}

#[test]
fn a_connection_that_a_backend_ended_has_reached_it() {
    let ended = |reason: &str, endpoint: &str| {
        let line = format!(
            r#"{{"event":"session_closed","namespace":"shop","forward":"db","listener":"pg","reason":"{reason}","endpoint":{endpoint}}}"#
        );
        let record = Record::parse("app-1", &line, &ObjectKey::new("shop", "db")).expect("a record");
        let check = backend(Probe::Ended { target: target(), record: Found::One(record) }, SIDECAR);
        (check.outcome, check.detail)
    };
    let (endpoint, failed) = (r#""10.0.0.9:5432""#, |detail: &str| (Outcome::Failed, detail.to_owned()));
    let reached = (Outcome::Ok, "10.0.0.9:5432 took the connection and ended it".to_owned());
    assert_eq!(ended("Finished", endpoint), reached);
    assert_eq!(ended("Finished", "null"), failed("Finished: the proxy reached no endpoint"));
    assert_eq!(ended("ConnectionLimit", "null"), failed("ConnectionLimit: the proxy refused the client"));
    assert_eq!(ended("BackendReset", endpoint), failed("BackendReset at 10.0.0.9:5432"));
}

#[test]
fn an_address_is_admitted_as_the_pod_has_it_or_as_a_proxy_header_names_it() {
    let spec = format!("access: {{allowCIDRs: [10.0.0.0/8]}}, {GATEWAY}");
    let access =
        |listener: &str| network::access(&Facts { listener: listener.to_owned(), ..facts(&spec) }).check.detail;
    assert_eq!(access("pg"), "10.0.0.7 is admitted, unless something translates it on the way");
    assert_eq!(access("lb"), "10.0.0.7 is admitted; with a PROXY header, the address in it counts");
    let mut early = facts(&spec);
    early.from.1 = Ok(Some(Pod::default()));
    let check = network::access(&early).check;
    assert_eq!((check.outcome, check.detail.as_str()), (Outcome::Warning, "the address of the client is not known"));
}
