//! Limits of the operator's permissions: what is watched, and where fleets run.

use std::collections::BTreeSet;

use operator_core::world::{
    rights::{FleetNamespaces, Rights},
    watched::Kind,
};

fn fleets(text: &str) -> FleetNamespaces {
    text.parse().expect("every text is read")
}

fn rights(watched: &[&str], of: &str, autoscaling: bool) -> Rights {
    let watched = watched.iter().map(|name| (*name).to_owned()).collect();
    Rights { watched, fleets: fleets(of), claims: true, autoscaling }
}

fn scopes(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned())).collect()
}

fn cluster() -> Vec<Option<String>> {
    vec![None]
}

#[test]
fn an_operator_of_the_cluster_watches_everything_at_once() {
    let rights = rights(&[], "*", true);
    for kind in [Kind::Forwards, Kind::Agents, Kind::Services, Kind::Namespaces, Kind::Deployments, Kind::Scalers] {
        assert_eq!(rights.scopes(kind), cluster(), "{kind:?}");
    }
}

#[test]
fn an_operator_of_some_namespaces_watches_these_and_no_namespace_objects() {
    let rights = rights(&["a", "b"], "*", true);
    for kind in [Kind::Forwards, Kind::Services, Kind::Deployments, Kind::Scalers] {
        assert_eq!(rights.scopes(kind), scopes(&["a", "b"]), "{kind:?}");
    }
    assert!(rights.scopes(Kind::Namespaces).is_empty());
}

#[test]
fn the_service_of_the_api_server_is_watched_by_itself_if_its_namespace_is_not() {
    for kind in [Kind::ApiServer, Kind::ApiServerSlices] {
        assert_eq!(rights(&["a"], "*", true).scopes(kind), scopes(&["default"]), "{kind:?}");
        for watched in [&[][..], &["a", "default"]] {
            assert!(rights(watched, "*", true).scopes(kind).is_empty(), "{kind:?} {watched:?}");
        }
    }
}

#[test]
fn children_of_gateways_are_watched_where_fleets_run() {
    assert_eq!(rights(&[], "c,a", true).scopes(Kind::Deployments), scopes(&["a", "c"]));
    assert_eq!(rights(&["a", "b"], "c,a", true).scopes(Kind::Deployments), scopes(&["a"]));
    for kind in [Kind::Deployments, Kind::StatefulSets, Kind::Claims, Kind::Drainers] {
        assert!(rights(&["a", "b"], "", true).scopes(kind).is_empty(), "{kind:?}");
    }
    assert_eq!(rights(&[], "", true).scopes(Kind::Gateways), cluster(), "gateways without a fleet are reported");
}

#[test]
fn claims_and_their_workloads_are_not_watched_without_permission() {
    let of = |claims: bool| Rights { claims, ..rights(&[], "*", true) };
    for kind in [Kind::StatefulSets, Kind::Claims, Kind::Drainers] {
        assert_eq!((of(true).scopes(kind), of(false).scopes(kind)), (cluster(), Vec::new()), "{kind:?}");
    }
    assert_eq!(of(false).scopes(Kind::Deployments), cluster());
}

#[test]
fn autoscalers_are_not_watched_without_permission() {
    assert!(rights(&[], "*", false).scopes(Kind::Scalers).is_empty());
    assert!(rights(&["a"], "*", false).scopes(Kind::Scalers).is_empty());
}

#[test]
fn the_namespaces_of_fleets_are_a_list_or_a_star_or_nothing() {
    assert_eq!((fleets("*"), fleets(""), fleets(" , ")), (FleetNamespaces::All, FleetNamespaces::None, fleets("")));
    assert_eq!(fleets("a, b,"), FleetNamespaces::Only(BTreeSet::from(["a".to_owned(), "b".to_owned()])));
    assert_eq!(FleetNamespaces::default(), FleetNamespaces::All);
}

#[test]
fn a_gateway_without_a_fleet_names_the_chart_value_that_gives_it_one() {
    assert_eq!((fleets("*").refusal("a"), fleets("b,a").refusal("a")), (None, None));
    let elsewhere = fleets("b").refusal("a").expect("refused");
    assert!(elsewhere.contains("namespace a") && elsewhere.contains("gateways.namespaces"), "{elsewhere}");
    let off = fleets("").refusal("a").expect("refused");
    assert!(off.contains("gateways.enabled"), "{off}");
}

#[test]
fn permissions_are_given_by_namespace_where_namespaces_are_named() {
    for (watched, of, is_scoped) in
        [(&["a"][..], "*", true), (&[], "a", true), (&["a"], "a", true), (&[], "*", false), (&[], "", false)]
    {
        assert_eq!(rights(watched, of, true).is_scoped(), is_scoped, "{watched:?} {of}");
    }
}
