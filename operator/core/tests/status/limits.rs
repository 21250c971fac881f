//! What a status says of a namespace that has used up its share of a proxy.

use crds::PortForwardStatus;
use operator_core::same_but_for_counts;
use proxy_api::ReachedLimit;

use super::{Scene, WORLD, condition, pair};

fn limit_message(status: &PortForwardStatus) -> &str {
    let limit = status.conditions.iter().find(|condition| condition.type_ == "LimitReached");
    &limit.expect("the condition").message
}

#[test]
fn a_forward_says_which_proxies_refuse_sessions_for_its_share_and_stays_ready() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    let usual = scene.status(1);
    assert_eq!(condition(&usual, "LimitReached"), pair("", ""));
    scene.reached = Some(ReachedLimit::Tenant);
    scene.report("p2", &[]);
    let limited = scene.status(2);
    assert_eq!(condition(&limited, "LimitReached"), pair("True", "TenantLimit"));
    assert_eq!(condition(&limited, "Ready"), pair("True", "Ready"));
    let message = limit_message(&limited);
    assert!(message.contains("p2") && !message.contains("p1"), "{message}");
    assert!(same_but_for_counts(&usual, &limited), "load is no transition");
    scene.reached = None;
    scene.report("p2", &[]);
    assert_eq!(condition(&scene.status(3), "LimitReached"), pair("", ""));
}

#[test]
fn a_forward_says_in_which_proxies_its_names_wait_for_the_lookups_of_its_namespace_and_stays_ready() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    let usual = scene.status(1);
    scene.reached = Some(ReachedLimit::Lookups);
    scene.report("p2", &[]);
    let delayed = scene.status(2);
    assert_eq!(condition(&delayed, "LimitReached"), pair("True", "LookupLimit"));
    assert_eq!(condition(&delayed, "Ready"), pair("True", "Ready"));
    let message = limit_message(&delayed);
    assert!(message.contains("the proxy of p2 delays lookups") && !message.contains("refuses"), "{message}");
    assert!(same_but_for_counts(&usual, &delayed), "load is no transition");
    scene.reached = Some(ReachedLimit::Tenant);
    scene.report("p1", &[]);
    let both = scene.status(3);
    assert_eq!(condition(&both, "LimitReached"), pair("True", "TenantLimit"), "refused sessions are worse");
    let message = limit_message(&both);
    assert!(message.contains("the proxy of p1 refuses") && message.contains("the proxy of p2 delays"), "{message}");
}

#[test]
fn a_limit_of_a_newer_proxy_is_not_told() {
    let mut scene = Scene::new(WORLD, &["p1"]);
    scene.reached = Some(ReachedLimit::Unknown);
    scene.report("p1", &[]);
    assert_eq!(condition(&scene.status(1), "LimitReached"), pair("", ""));
}

#[test]
fn eight_proxies_that_refuse_sessions_are_named() {
    let message = |pods: &[&str]| {
        let mut scene = Scene::new(WORLD, pods);
        scene.reached = Some(ReachedLimit::Tenant);
        for pod in pods {
            scene.report(pod, &[]);
        }
        limit_message(&scene.status(1)).to_owned()
    };
    assert!(message(&["p1", "p2"]).contains("p1, p2 refuses"), "{}", message(&["p1", "p2"]));
    let nine = message(&["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"]);
    assert!(nine.contains("p7, p8, … refuses"), "{nine}");
}
