//! What a term decides: which streams are led where and end, which reports count, and that nobody who is silent is
//! waited for without end.

use std::time::Duration;

use operator_core::{
    Group, Touched,
    live_api::api::Of,
    publish::{
        leadership::{Leadership, Publication},
        publisher::Step,
        reports::Heard,
    },
    schedule::debounce::Debounce,
    status::{instances::Report, proxies::GRACE},
    world::{
        objects::{Object, PodInfo},
        watched::Kind,
    },
};
use proxy_api::{
    AgentsReport, BackendHealth, ConnectedInstance, Failure, FailureReason, ListenerReport, ListenerState, Load,
    Origin, ReportPart, Work,
};

use crate::scene::{News, Scene, app_pod, fleet_pod, forward, key, keys, ms, proxy, side, unreadable_forward, web};

/// A cluster, and what its leader knows.
struct Term {
    scene: Scene,
    known: Leadership,
}

impl Term {
    /// A leader whose caches are synced.
    fn new(scene: Scene) -> Self {
        Self { scene, known: Leadership::new("term".to_owned()) }
    }

    /// A leader that has published at one second.
    fn published(scene: Scene) -> Self {
        let mut term = Self::new(scene);
        term.look(Touched::default(), ms(1000));
        term
    }

    /// Translates and publishes.
    fn look(&mut self, touched: Touched, now: Duration) -> Publication {
        let (known, cache) = (&mut self.known, &self.scene.cache);
        let touched = known.covered(touched, cache);
        let update = known.translate(&touched, cache);
        let publication = known.publish(&touched, &update, cache, now);
        known.note_published(now);
        publication
    }

    /// The watches show something.
    fn see(&mut self, news: impl FnOnce(&mut Scene) -> News, now: Duration) -> Vec<String> {
        let News { touched, .. } = news(&mut self.scene);
        told(&self.look(touched, now).steps)
    }

    /// The load that counts of a proxy.
    fn load(&self, pod: &str, now: Duration) -> Option<u64> {
        self.known.proxies.last_load(&proxy(pod), now).map(|load| load.sum.connections)
    }
}

fn load(connections: u64) -> Load {
    Load { sum: Work { connections, ..Work::default() }, ..Load::default() }
}

/// The steps as text: the name of the pod, and the number that its stream leads to.
fn told(steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Lead(proxy, to) => format!("{} to {}", proxy.name(), to.version.number),
        Step::End(proxy) => format!("{} ends", proxy.name()),
    };
    steps.iter().map(name).collect()
}

#[test]
fn the_first_translation_of_a_term_covers_everything_and_begins_it() {
    let mut term = Term::new(Scene::with_web());
    assert_eq!((term.known.began(), term.known.group_of(&proxy("p1"))), (None, None));
    assert!(term.known.runs(&proxy("p1")).is_none());
    assert_eq!(term.look(Touched::default(), ms(1000)).snapshots, 1);
    assert_eq!(term.known.group_of(&proxy("p1")), Some(&Group::Gateway(key("edge"))));
    assert_eq!(term.known.runs(&proxy("p1")).map(|runs| runs.listeners.len()), Some(1));
    assert_eq!(term.look(Touched::default(), ms(2000)).snapshots, 0, "nothing changed");
    assert_eq!(term.known.began(), Some(ms(1000)));
}

#[test]
fn a_stream_is_led_to_each_snapshot_of_its_group_and_ends_with_its_pod() {
    let mut term = Term::published(Scene::with_web());
    let begins = term.known.connect(&proxy("p1"), 1, keys(&[]), ms(1000));
    assert_eq!((begins.version.number, begins.listeners.len()), (2, 1));
    assert_eq!(term.see(|scene| scene.see(forward(web("web", 81, 2))), ms(2000)), ["p1 to 3"]);
    term.known.loaded(&proxy("p1"), 1, load(7));
    let told = term.see(|scene| scene.gone(Kind::ProxyPods, "p1"), ms(3000));
    assert_eq!(told.last().map(String::as_str), Some("p1 ends"));
    assert_eq!(term.load("p1", ms(3000)), None, "the load of a pod goes with the pod");
    let again = term.known.connect(&proxy("p1"), 2, keys(&[]), ms(4000));
    assert!(again.listeners.is_empty() && again.version.number == 1, "another pod of the same name has no number yet");
}

#[test]
fn a_proxy_connects_again_once_a_forward_that_it_kept_can_be_read() {
    let mut scene = Scene::with_web();
    scene.see(unreadable_forward("new", 1));
    let mut term = Term::published(scene);
    for (name, exempt) in [("p1", keys(&["new"])), ("p2", keys(&[]))] {
        term.see(|scene| scene.see(Object::ProxyPod(key(name), fleet_pod(name, true))), ms(1000));
        term.known.connect(&proxy(name), 1, exempt, ms(1000));
        term.known.loaded(&proxy(name), 1, load(7));
    }
    assert!(term.look(Touched::default(), ms(2000)).steps.is_empty(), "it cannot be read yet");
    let told = term.see(|scene| scene.see(forward(web("new", 81, 2))), ms(3000));
    assert_eq!(told.iter().filter(|step| step.ends_with("ends")).collect::<Vec<_>>(), ["p1 ends"]);
    assert!(!term.known.publisher.is_newest(&proxy("p1"), 1) && term.known.publisher.is_newest(&proxy("p2"), 1));
    assert!(term.look(Touched::default(), ms(4000)).steps.is_empty(), "it ends once");
    // A proxy that stays silent counts as it was for a while, and then no more.
    assert_eq!(term.load("p1", ms(2999) + GRACE), Some(7));
    assert_eq!(term.load("p1", ms(3000) + GRACE), None);
    assert_eq!(term.load("p2", ms(3000) + GRACE), Some(7), "its stream is open");
}

#[test]
fn a_stream_that_keeps_no_forward_stays_open_whatever_the_one_before_it_kept() {
    let mut scene = Scene::with_web();
    scene.see(unreadable_forward("new", 1));
    let mut term = Term::published(scene);
    term.known.connect(&proxy("p1"), 1, keys(&["new"]), ms(1000));
    // The forward can be read, and no translation covers it yet.
    let News { touched, .. } = term.scene.see(forward(web("new", 81, 2)));
    term.known.connect(&proxy("p1"), 2, keys(&[]), ms(2000));
    let told = told(&term.look(touched, ms(3000)).steps);
    assert!(!told.is_empty() && !told.contains(&"p1 ends".to_owned()), "{told:?}");
    assert!(term.known.publisher.is_newest(&proxy("p1"), 2));
}

#[test]
fn only_the_end_of_the_newest_stream_is_the_end_of_a_proxy() {
    let (mut term, mut steps) = (Term::published(Scene::with_web()), Vec::new());
    term.known.connect(&proxy("p1"), 1, keys(&[]), ms(1000));
    term.known.loaded(&proxy("p1"), 1, load(7));
    term.known.connect(&proxy("p1"), 2, keys(&[]), ms(2000));
    assert_eq!(term.load("p1", ms(2000)), Some(7), "its last load counts until it reports");
    assert!(!term.known.disconnect(&proxy("p1"), 1, ms(3000), &mut steps) && steps.is_empty());
    assert_eq!(term.known.proxies.connected_count(), 1);
    assert!(term.known.disconnect(&proxy("p1"), 2, ms(3000), &mut steps));
    assert_eq!((told(&steps), term.known.proxies.connected_count()), (vec!["p1 ends".to_owned()], 0));
}

#[test]
fn reports_over_an_older_stream_say_nothing() {
    let mut term = Term::published(Scene::with_web());
    term.known.connect(&proxy("p1"), 1, keys(&[]), ms(1000));
    let runs = term.known.connect(&proxy("p1"), 2, keys(&[]), ms(1000));
    let failed = ListenerReport {
        revision: runs.listeners.values().next().expect("a listener").offer.revision().clone(),
        state: ListenerState::Failed,
        failure: Some(Failure {
            reason: FailureReason::AddressInUse,
            message: "address in use".to_owned(),
            serving: None,
        }),
        backends: BackendHealth::All,
        reached: None,
        looped: false,
        delivery: None,
    };
    let part = || ReportPart {
        version: runs.version.clone(),
        listeners: runs.listeners.keys().map(|id| (id.clone(), failed.clone())).collect(),
        commit: true,
        ..ReportPart::default()
    };
    let (pod, group) = (proxy("p1"), Group::Gateway(key("edge")));
    assert_eq!(term.known.reported(&pod, 1, part(), true), None);
    let expected = Heard { group: Some(&group), forwards: keys(&["web"]), is_whole: true };
    assert_eq!(term.known.reported(&pod, 2, part(), true), Some(expected));
    term.known.loaded(&pod, 1, load(1));
    assert_eq!(term.load("p1", ms(1000)), None);
    term.known.loaded(&pod, 2, load(2));
    assert_eq!(term.load("p1", ms(1000)), Some(2));
    assert_eq!((term.known.drained(&pod, 1, ms(1000)), term.known.drained(&pod, 2, ms(1000))), (None, Some(true)));
}

#[test]
fn a_pod_that_leaves_has_live_sessions_until_its_stream_ends() {
    let (mut term, mut steps) = (Term::published(Scene::with_web()), Vec::new());
    term.see(|scene| scene.see(Object::ProxyPod(key("p2"), fleet_pod("p2", true))), ms(1000));
    let web = Of::Forward(Origin::port_forward("ns", "web"));
    let live = |term: &Term, of: &Of| {
        let live = term.known.live(&term.scene.cache, of)?;
        Some(live.keys().map(|proxy| proxy.name().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(live(&term, &web), Some(vec!["p1".to_owned(), "p2".to_owned()]), "both may have some");
    term.known.connect(&proxy("p1"), 1, keys(&[]), ms(1000));
    let leaves = PodInfo { leaving: true, ..fleet_pod("p1", true) };
    term.see(|scene| scene.see(Object::ProxyPod(key("p1"), leaves)), ms(2000));
    assert_eq!(live(&term, &web), Some(vec!["p1".to_owned(), "p2".to_owned()]), "its stream is open");
    let together = term.known.live_together(Some("ns"));
    assert_eq!(together.proxies.keys().collect::<Vec<_>>(), [&proxy("p1"), &proxy("p2")]);
    term.known.disconnect(&proxy("p1"), 1, ms(3000), &mut steps);
    assert_eq!(live(&term, &web), Some(vec!["p2".to_owned()]));
    assert_eq!(live(&term, &Of::Pod(key("p1"))), Some(vec!["p1".to_owned()]), "a request for the pod may try");
    assert_eq!(live(&term, &Of::Pod(key("absent"))), None);
    assert_eq!(live(&term, &Of::Forward(Origin::port_forward("ns", "absent"))), None);
}

#[test]
fn the_configuration_of_a_proxy_is_that_of_its_stream_or_of_its_group() {
    let mut term = Term::published(Scene::with_web());
    let of = |term: &Term, pod: &str| {
        let configured = term.known.configured(&term.scene.cache, key(pod))?;
        Some((configured.snapshot.listeners.len(), configured.state.is_some()))
    };
    assert_eq!((of(&term, "p1"), of(&term, "other")), (Some((1, false)), None));
    for pod in ["p1", "other"] {
        term.known.connect(&proxy(pod), 1, keys(&[]), ms(1000));
    }
    assert_eq!((of(&term, "p1"), of(&term, "other")), (Some((1, true)), Some((0, true))));
}

#[test]
fn a_silent_fleet_delays_a_publication_and_does_not_keep_it() {
    let mut term = Term::published(Scene::with_web());
    term.known.connect(&proxy("p1"), 1, keys(&[]), ms(1000));
    let (mut debounce, is_behind) = (Debounce::default(), term.known.publisher.is_behind(&term.known.proxies));
    assert!(is_behind, "the only proxy has not reported");
    debounce.touch(ms(2000));
    assert!(!debounce.take(is_behind, ms(2020)) && !debounce.take(is_behind, ms(2499)));
    assert!(debounce.take(is_behind, ms(2500)));
}

#[test]
fn the_agents_of_a_gateway_count_and_those_of_a_sidecar_up_to_its_configuration() {
    let mut scene = Scene::with_web();
    scene.see(forward(side("db", 5432)));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let mut term = Term::published(scene);
    let instance = ConnectedInstance { instance: "a".to_owned(), version: "1".to_owned() };
    let report = || AgentsReport { agents: [("uid".to_owned(), vec![instance.clone()])].into() };
    for pod in ["p1", "app", "other"] {
        term.known.connect(&proxy(pod), 2, keys(&[]), ms(1000));
        assert_eq!(term.known.agents(&proxy(pod), 1, report()), None, "over an older stream of {pod}");
    }
    let known: Report = [("uid".to_owned(), [("a".to_owned(), "1".to_owned())].into())].into();
    assert_eq!(term.known.agents(&proxy("p1"), 2, report()), Some(known));
    let none = term.known.agents(&proxy("app"), 2, report());
    assert!(none.is_some_and(|none| none.is_empty()), "its configuration has no agent");
    assert_eq!(term.known.agents(&proxy("other"), 2, report()), None, "it is in no group");
    assert_eq!(term.known.agents(&proxy("silent"), 2, report()), None, "it has no stream");
}
