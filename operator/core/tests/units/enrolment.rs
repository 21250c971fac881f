//! Enrolment of agents in a cluster: what their Secrets offer, who gets a certificate, and when Secrets are checked.

use std::time::Duration;

use operator_core::{
    enrolment::{Case, Kept, NoAddress, Offer, Offered, Wanted, endpoint_id, judge, offer, redeem, wanted},
    schedule::{Effect, enrolments::Enrolments},
    status::agent::Enrolment,
    world::{
        followers::Applicant as Proxy,
        objects::{Object, PodInfo, ServiceInfo},
        watched::Kind,
    },
};
use proxy_api::{Applicant, SignReason, SignRefusal};
use serde_json::{Value, json};
use tunnel_core::{
    identity::Fingerprint,
    join::{JoinString, Token},
};

use crate::scene::{Scene, fleet_pod, gateway, key, ms};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000a";

/// The agent `home` of the gateway `edge`.
fn agent(spec: &Value) -> Object {
    let mut manifest = json!({
        "metadata": {"name": "home", "namespace": "ns", "uid": "uid-home", "generation": 1, "resourceVersion": "1"},
        "spec": {"gateway": {"name": "edge"}, "targets": [{"host": "127.0.0.1", "port": 5432}]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        manifest["spec"][field] = value.clone();
    }
    Object::Agent(key("home"), Box::new(Ok(serde_json::from_value(manifest).expect("an agent"))))
}

/// A proxy of the gateway `edge`.
fn pod() -> PodInfo {
    let labels = [("portlane.dev/proxy".to_owned(), "gateway".to_owned())].into();
    PodInfo { uid: UID.to_owned(), labels, ..fleet_pod("p1", true) }
}

/// The gateway `edge` with these tunnels, its proxy `p1` and the agent `home`.
fn scene(tunnels: &Value) -> Scene {
    let mut scene = Scene::new();
    scene.see(gateway(&json!({"tunnels": tunnels})));
    scene.see(Object::ProxyPod(key("p1"), pod()));
    scene.see(agent(&json!({})));
    scene
}

fn home(scene: &Scene) -> Wanted {
    wanted(&scene.cache, &key("home")).expect("the agent is accepted")
}

fn addresses(scene: &Scene) -> Vec<String> {
    home(scene).addresses.expect("known").iter().map(ToString::to_string).collect()
}

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

fn token(number: u8) -> Token {
    Token::new([number; 32])
}

/// The contents of the Secret after an offer that is written.
fn written(kept: &Kept, wanted: &Wanted, number: u8, now: u64) -> Kept {
    offer(kept, wanted, print("root"), &token(number), now).write.expect("something to write")
}

fn join(kept: &Kept) -> JoinString {
    JoinString::parse(kept.join.as_deref().expect("a join string")).expect("whole")
}

#[test]
fn agents_reach_what_the_gateway_advertises_or_its_load_balancer_or_its_service() {
    let mut scene = scene(&json!({}));
    assert_eq!(addresses(&scene), ["edge.ns.svc:7443"]);
    let addresses_of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect()
    };
    let service = |is_balanced, addresses| {
        let gateway = Some("edge".to_owned());
        Object::Service(key("edge"), ServiceInfo { gateway, is_balanced, addresses, ..ServiceInfo::default() })
    };
    scene.see(service(false, addresses_of(&[("IPAddress", "10.0.0.1")])));
    assert_eq!(addresses(&scene), ["edge.ns.svc:7443"], "an address of the cluster may change, its name does not");
    let pairs = [("IPAddress", "192.0.2.7"), ("IPAddress", "2001:db8::7"), ("Hostname", "lb.example.org")];
    let news = scene.see(service(true, addresses_of(&pairs)));
    assert!(news.touched.gateways.contains(&key("edge")), "the agents of the gateway are evaluated");
    assert_eq!(addresses(&scene), ["192.0.2.7:7443", "[2001:db8::7]:7443", "lb.example.org:7443"]);
    scene.see(gateway(&json!({"tunnels": {"port": 443, "advertise": ["t.example.org:7000"]}})));
    assert_eq!(addresses(&scene), ["t.example.org:7000"]);
    scene.see(gateway(&json!({"tunnels": {"port": 443}})));
    assert_eq!(addresses(&scene).first().map(String::as_str), Some("192.0.2.7:443"));
    scene.see(gateway(&json!({"tunnels": {"advertise": ["t.example.org"]}})));
    let Err(NoAddress::Missing(why)) = home(&scene).addresses else { panic!("no port") };
    assert!(why.contains("spec.tunnels.advertise of ForwardGateway ns/edge") && why.contains("host:port"), "{why}");
    scene.see(gateway(&json!({})));
    assert_eq!(wanted(&scene.cache, &key("home")), None, "nobody may enrol where there are no tunnels");
}

#[test]
fn a_join_string_waits_for_the_address_of_the_load_balancer() {
    let mut scene = scene(&json!({}));
    let of_type = |name: &str| gateway(&json!({"service": {"type": name}, "tunnels": {}}));
    let held_back = |scene: &Scene| {
        let offer = offer(&Kept::default(), &home(scene), print("root"), &token(1), NOW);
        assert!(offer.write.is_none() && offer.enrolment.secret.is_none());
        offer.enrolment
    };
    scene.see(of_type("LoadBalancer"));
    let awaited = held_back(&scene).awaited.expect("for the status");
    assert!(awaited.contains("the load balancer of ForwardGateway ns/edge") && awaited.contains("advertise"));
    let service = |addresses: &[(&str, &str)]| {
        let addresses: Vec<_> =
            addresses.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect();
        let (gateway, is_balanced) = (Some("edge".to_owned()), !addresses.is_empty());
        Object::Service(key("edge"), ServiceInfo { gateway, is_balanced, addresses, ..ServiceInfo::default() })
    };
    scene.see(service(&[]));
    assert_eq!(held_back(&scene).awaited, Some(awaited), "a Service without an address");
    scene.see(service(&[("IPAddress", "192.0.2.7")]));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW);
    assert_eq!(join(&kept).addresses()[0].to_string(), "192.0.2.7:7443");

    scene.see(of_type("None"));
    scene.gone(Kind::Services, "edge");
    assert!(held_back(&scene).failure.is_some_and(|why| why.contains("ForwardGateway ns/edge has no Service")));
    for name in ["NodePort", "ClusterIP"] {
        scene.see(of_type(name));
        assert_eq!(addresses(&scene), ["edge.ns.svc:7443"]);
    }
}

#[test]
fn a_secret_has_a_join_string_until_everybody_has_enrolled() {
    let mut scene = scene(&json!({"advertise": ["t.example.org:7443"]}));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW);
    let first = join(&kept);
    assert_eq!((first.token(), first.root(), first.expires()), (&token(1), print("root"), NOW + HOUR));
    assert_eq!(first.addresses()[0].to_string(), "t.example.org:7443");
    let Offer { write, enrolment, again } = offer(&kept, &home(&scene), print("root"), &token(2), NOW + 60);
    assert!(write.is_none(), "one that counts stays");
    let secret = Some("home-enrolment".to_owned());
    assert_eq!((enrolment, again), (Enrolment { secret, left: 1, ..Enrolment::default() }, Some(HOUR - 60)));

    let (ledger, identity) = redeem(&kept.ledger, &home(&scene), &token(1), &print("key"), NOW).expect("granted");
    assert_eq!((identity.uid(), identity.rotation()), ("uid-home", 0));
    let used = Kept { ledger: ledger.expect("it is remembered"), ..kept };
    let Offer { write, enrolment, again } = offer(&used, &home(&scene), print("root"), &token(2), NOW);
    let done = write.expect("the join string goes");
    assert!(done.join.is_none() && done.ledger == used.ledger && again.is_none());
    assert_eq!(enrolment, Enrolment { enrolled: 1, ..Enrolment::default() });
    assert!(offer(&done, &home(&scene), print("root"), &token(2), NOW).write.is_none());

    scene.see(agent(&json!({"enrolment": {"rotation": 1}})));
    let rotated = written(&done, &home(&scene), 3, NOW);
    let (_, identity) = redeem(&rotated.ledger, &home(&scene), &token(3), &print("key"), NOW).expect("granted");
    assert_eq!(identity.rotation(), 1);
    let old = redeem(&rotated.ledger, &home(&scene), &token(1), &print("key"), NOW).expect_err("revoked");
    assert_eq!(old.reason, SignReason::Agent);
    assert!(old.detail.contains("rotation 0 and was revoked by rotation 1"), "{}", old.detail);
}

#[test]
fn a_join_string_is_replaced_when_it_expires_or_leads_elsewhere_or_is_damaged() {
    let mut scene = scene(&json!({"advertise": ["a.example.org:1"]}));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW);
    assert_eq!(*join(&written(&kept, &home(&scene), 2, NOW + HOUR)).token(), token(2));
    let other_root = offer(&kept, &home(&scene), print("other root"), &token(3), NOW).write.expect("replaced");
    assert_eq!(join(&other_root).root(), print("other root"));
    let damaged = Kept { join: Some("portlane-join-1.x".to_owned()), ledger: kept.ledger.clone() };
    assert_eq!(*join(&written(&damaged, &home(&scene), 4, NOW)).token(), token(4));
    let lost = Kept { join: kept.join.clone(), ..Kept::default() };
    assert_eq!(*join(&written(&lost, &home(&scene), 5, NOW)).token(), token(5), "no ledger knows the token");

    scene.see(gateway(&json!({"tunnels": {"advertise": ["b.example.org:1"]}})));
    let moved = written(&kept, &home(&scene), 6, NOW);
    assert_eq!(join(&moved).addresses()[0].to_string(), "b.example.org:1");
    // Both tokens are valid, and together they enrol one instance.
    let (ledger, _) = redeem(&moved.ledger, &home(&scene), &token(1), &print("key"), NOW).expect("granted");
    let ledger = ledger.expect("it is remembered");
    let second = redeem(&ledger, &home(&scene), &token(6), &print("other key"), NOW).expect_err("used up");
    assert!(second.reason == SignReason::Token && second.detail.contains("redeemed before"), "{second:?}");
    let again = redeem(&ledger, &home(&scene), &token(1), &print("key"), NOW).expect("the same key");
    assert!(again.0.is_none(), "nothing is to be kept");
}

#[test]
fn after_another_root_was_made_those_who_had_enrolled_enrol_again() {
    let scene = scene(&json!({}));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW);
    let (ledger, _) = redeem(&kept.ledger, &home(&scene), &token(1), &print("key"), NOW).expect("granted");
    let used = Kept { join: None, ledger: ledger.expect("it is remembered") };
    let Offer { write, enrolment, .. } = offer(&used, &home(&scene), print("root"), &token(2), NOW);
    assert!(write.is_none() && enrolment.left == 0, "everybody has enrolled");
    let Offer { write, enrolment, .. } = offer(&used, &home(&scene), print("other root"), &token(2), NOW);
    let next = write.expect("a join string of the other root");
    assert_eq!((join(&next).root(), enrolment.enrolled, enrolment.left), (print("other root"), 0, 1));
    redeem(&next.ledger, &home(&scene), &token(2), &print("key"), NOW).expect("granted");
    let restored = offer(&next, &home(&scene), print("root"), &token(3), NOW);
    assert!(restored.write.is_some_and(|kept| kept.join.is_none()), "those who had enrolled need no join string");
}

#[test]
fn a_join_string_of_a_clock_that_was_ahead_is_replaced() {
    let scene = scene(&json!({}));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW + 30 * 24 * HOUR);
    let next = written(&kept, &home(&scene), 2, NOW);
    assert_eq!(join(&next).expires(), NOW + HOUR);
    assert!(redeem(&next.ledger, &home(&scene), &token(1), &print("key"), NOW).is_err());
}

#[test]
fn the_join_string_of_an_agent_has_the_root_of_the_gateway_that_takes_it() {
    let mut scene = scene(&json!({}));
    assert_eq!(home(&scene).gateway_uid, "uid-edge");
    let uid = |uid: &str| {
        let metadata = json!({"name": "edge", "namespace": "ns", "uid": uid, "generation": 1});
        let gateway = json!({"metadata": metadata, "spec": {"tunnels": {}}});
        Object::Gateway(key("edge"), Box::new(Ok(serde_json::from_value(gateway).expect("a gateway"))))
    };
    scene.see(uid("uid-edge-2"));
    assert_eq!(home(&scene).gateway_uid, "uid-edge-2", "one that was made again has another root");
}

#[test]
fn a_gateway_without_an_address_is_a_failure_that_keeps_the_join_string() {
    let mut scene = scene(&json!({}));
    let kept = written(&Kept::default(), &home(&scene), 1, NOW);
    scene.see(gateway(&json!({"tunnels": {"advertise": ["nowhere"]}})));
    let offer = offer(&kept, &home(&scene), print("root"), &token(2), NOW);
    assert!(offer.write.is_none() && offer.again.is_none());
    assert!(offer.enrolment.failure.is_some_and(|why| why.contains("nowhere")));
}

/// The outcome of a request at the proxy `p1`.
fn judged(scene: &Scene, applicant: &Applicant) -> Result<Case, SignRefusal> {
    let proxy = Proxy { pod: &key("p1"), uid: UID, service_account: "edge" };
    let judged = judge(&scene.cache, proxy, applicant, None)?;
    assert_eq!(judged.gateway_uid, "uid-edge", "the root of the gateway of the proxy signs");
    Ok(judged.case)
}

fn with_token() -> Applicant {
    Applicant::Token { namespace: "ns".to_owned(), name: "home".to_owned(), token: token(1).to_text() }
}

fn with_certificate(uid: &str, rotation: u32) -> Applicant {
    Applicant::Agent { namespace: "ns".to_owned(), name: "home".to_owned(), uid: uid.to_owned(), rotation }
}

fn detail(judged: Result<Case, SignRefusal>) -> String {
    let refused = judged.expect_err("refused");
    assert_eq!(refused.reason, SignReason::Agent, "an agent asks again later");
    refused.detail
}

#[test]
fn a_proxy_of_a_gateway_with_tunnels_is_an_endpoint_by_the_uid_of_its_pod() {
    let mut scene = scene(&json!({}));
    let Ok(Case::Endpoint(id)) = judged(&scene, &Applicant::Endpoint) else { panic!("an endpoint") };
    assert_eq!((id.as_str(), endpoint_id(UID)), ("0a1b2c3d00004000800000000000000a", id.to_string()));
    scene.see(gateway(&json!({})));
    let why = detail(judged(&scene, &Applicant::Endpoint));
    assert!(why.contains("ForwardGateway ns/edge has no spec.tunnels"), "{why}");
    for (uid, service_account) in [("another", "edge"), (UID, "default")] {
        let proxy = Proxy { pod: &key("p1"), uid, service_account };
        assert!(judge(&scene.cache, proxy, &Applicant::Endpoint, None).is_err());
    }
    let at_gateway = Applicant::Sidecar { gateway: "uid-edge".to_owned() };
    assert!(detail(judged(&scene, &at_gateway)).contains("no spec.tunnels"));
    scene.see(gateway(&json!({"tunnels": {}})));
    assert!(detail(judged(&scene, &at_gateway)).contains("is not a sidecar"));
}

#[test]
fn a_renewal_has_the_present_rotation_and_no_other() {
    let mut scene = scene(&json!({}));
    scene.see(agent(&json!({"suspend": true, "enrolment": {"rotation": 3}})));
    for claimed in [3, 4, u32::MAX] {
        let Ok(Case::Agent(identity)) = judged(&scene, &with_certificate("uid-home", claimed)) else {
            panic!("an agent, although it is suspended")
        };
        assert_eq!((identity.uid(), identity.rotation()), ("uid-home", 3));
    }
    assert!(detail(judged(&scene, &with_certificate("uid-home", 2))).contains("revoked by rotation 3"));
    assert!(detail(judged(&scene, &with_certificate("uid-old", 3))).contains("enrol again"));
    scene.see(agent(&json!({"gateway": {"name": "other"}})));
    assert!(
        detail(judged(&scene, &with_certificate("uid-home", 3))).contains("ForwardGateway ns/other does not exist")
    );
    let elsewhere = detail(judged(&scene, &with_certificate("uid-guessed", 3)));
    scene.gone(Kind::Agents, "home");
    assert_eq!(detail(judged(&scene, &with_certificate("uid-guessed", 3))), elsewhere, "there may be one elsewhere");
    assert!(detail(judged(&scene, &with_certificate("uid-home", 3))).contains("there is no agent ns/home"));
}

#[test]
fn a_client_without_a_certificate_does_not_hear_which_agents_there_are() {
    let mut scene = scene(&json!({}));
    let Ok(Case::Token { wanted, token: found }) = judged(&scene, &with_token()) else { panic!("a token") };
    assert_eq!((wanted.as_ref(), found), (&home(&scene), token(1)));
    scene.see(agent(&json!({"gateway": {"name": "other"}})));
    let elsewhere = detail(judged(&scene, &with_token()));
    scene.gone(Kind::Agents, "home");
    assert_eq!(detail(judged(&scene, &with_token())), elsewhere);
    let wrong = Applicant::Token { namespace: "ns".to_owned(), name: "home".to_owned(), token: "x".to_owned() };
    assert!(judged(&scene, &wrong).is_err_and(|refused| refused.reason == SignReason::Token));
    assert!(judged(&scene, &Applicant::Unknown).is_err());
}

/// The agents whose Secrets are checked.
fn looked(enrolments: &mut Enrolments, scene: &Scene, now: Duration) -> Vec<Wanted> {
    let wanted = |effect| match effect {
        Effect::OfferEnrolment(wanted) => *wanted,
        other => panic!("a look at a Secret: {other:?}"),
    };
    enrolments.tick(&scene.cache, now).into_iter().map(wanted).collect()
}

fn ended(result: Result<(Enrolment, Option<u64>), String>) -> Offered {
    Offered { key: key("home"), uid: "uid-home".to_owned(), result }
}

#[test]
fn a_secret_is_looked_at_when_it_should_offer_something_else_or_time_is_over() {
    let mut scene = scene(&json!({}));
    let mut enrolments = Enrolments::default();
    enrolments.gateway(&key("edge"), &scene.cache.world);
    assert_eq!(looked(&mut enrolments, &scene, ms(0)), [home(&scene)]);
    enrolments.gateway(&key("edge"), &scene.cache.world);
    assert!(looked(&mut enrolments, &scene, ms(1)).is_empty(), "one look at a time");
    let known = Enrolment { left: 1, ..Enrolment::default() };
    let told = enrolments.offered(ended(Ok((known.clone(), Some(300)))), ms(2));
    assert_eq!(told, Some((key("home"), known)));
    enrolments.gateway(&key("edge"), &scene.cache.world);
    assert!(looked(&mut enrolments, &scene, ms(3)).is_empty(), "nothing changed");
    assert!(looked(&mut enrolments, &scene, ms(300_001)).is_empty());
    assert_eq!(looked(&mut enrolments, &scene, ms(300_002)).len(), 1, "the join string expires");
    let _ = enrolments.offered(ended(Ok((Enrolment::default(), None))), ms(300_002));
    let news = scene.see(agent(&json!({"enrolment": {"rotation": 1}})));
    enrolments.translated(&news.touched.changes, &scene.cache.world);
    assert_eq!(looked(&mut enrolments, &scene, ms(300_003))[0].identity.rotation(), 1);
    let _ = enrolments.offered(ended(Ok((Enrolment::default(), None))), ms(300_004));
    enrolments.redeemed(&key("home"));
    assert_eq!(looked(&mut enrolments, &scene, ms(300_005)).len(), 1, "a token was redeemed");
}

#[test]
fn a_look_that_failed_is_repeated_with_pauses_that_grow_and_the_status_says_why() {
    let scene = scene(&json!({}));
    let mut enrolments = Enrolments::default();
    enrolments.gateway(&key("edge"), &scene.cache.world);
    let mut now = ms(0);
    for pause in [2000, 4000, 8000] {
        assert_eq!(looked(&mut enrolments, &scene, now).len(), 1);
        let told = enrolments.offered(ended(Err("forbidden".to_owned())), now).expect("for the status");
        assert_eq!(told.1.failure.as_deref(), Some("forbidden"));
        assert!(looked(&mut enrolments, &scene, now + ms(pause - 1)).is_empty());
        now += ms(pause);
    }
}

#[test]
fn an_agent_that_is_gone_is_looked_at_no_more() {
    let mut scene = scene(&json!({}));
    let mut enrolments = Enrolments::default();
    enrolments.gateway(&key("edge"), &scene.cache.world);
    assert_eq!(looked(&mut enrolments, &scene, ms(0)).len(), 1);
    let _ = enrolments.offered(ended(Ok((Enrolment::default(), Some(60)))), ms(0));
    let news = scene.gone(Kind::Agents, "home");
    enrolments.translated(&news.touched.changes, &scene.cache.world);
    assert!(looked(&mut enrolments, &scene, ms(1)).is_empty());
    assert!(looked(&mut enrolments, &scene, ms(60_000)).is_empty());
}
