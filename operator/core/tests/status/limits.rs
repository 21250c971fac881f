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
fn a_forward_says_where_a_loop_was_seen_until_it_is_gone_and_stays_ready() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    let usual = scene.status(1);
    scene.looped = true;
    scene.report("p2", &[]);
    let looped = scene.status(2);
    assert_eq!(condition(&looped, "LimitReached"), pair("True", "Loop"));
    assert_eq!(condition(&looped, "Ready"), pair("True", "Ready"));
    let message = limit_message(&looped);
    assert!(message.contains("in listener 'a' of pod p2, ") && !message.contains("p1"), "{message}");
    assert!(message.contains("name the real server"), "{message}");
    assert!(same_but_for_counts(&usual, &looped), "traffic is no transition");
    scene.reached = Some(ReachedLimit::Tenant);
    scene.report("p2", &[]);
    let both = scene.status(3);
    assert_eq!(condition(&both, "LimitReached"), pair("True", "Loop"), "it may be what uses up the share");
    let message = limit_message(&both);
    assert!(message.contains("a loop is likely") && message.contains("the proxy of p2 refuses"), "{message}");
    (scene.looped, scene.reached) = (false, None);
    scene.report("p2", &[]);
    assert_eq!(condition(&scene.status(4), "LimitReached"), pair("", ""));
}

#[test]
fn a_forward_says_where_one_source_has_its_share_of_the_sessions_and_stays_ready() {
    let mut scene = Scene::new(WORLD, &["p1", "p2"]);
    scene.report("p1", &[]);
    scene.reached = Some(ReachedLimit::Source);
    scene.report("p2", &[]);
    let limited = scene.status(1);
    assert_eq!(condition(&limited, "LimitReached"), pair("True", "SourceShare"));
    assert_eq!(condition(&limited, "Ready"), pair("True", "Ready"));
    let message = limit_message(&limited);
    assert!(message.contains("in listener 'a' of pod p2, ") && !message.contains("p1"), "{message}");
    assert!(message.contains("send PROXY headers"), "{message}");
    scene.reached = Some(ReachedLimit::Lookups);
    scene.report("p1", &[]);
    assert_eq!(condition(&scene.status(2), "LimitReached"), pair("True", "SourceShare"), "a refused session is worse");
    scene.reached = None;
    scene.report("p1", &[]);
    scene.report("p2", &[]);
    assert_eq!(condition(&scene.status(3), "LimitReached"), pair("", ""));
}

#[test]
fn eight_listeners_with_a_loop_are_named() {
    let pods = ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];
    let mut scene = Scene::new(WORLD, &pods);
    scene.looped = true;
    for pod in pods {
        scene.report(pod, &[]);
    }
    let status = scene.status(1);
    let message = limit_message(&status);
    assert_eq!(message.matches("listener '").count(), 8, "{message}");
    assert!(message.contains(", …: name the real server"), "{message}");
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
