use super::*;

/// One server, with the sessions that it has.
#[derive(Default)]
struct Scene {
    attendance: Attendance,
    sessions: BTreeMap<Key, (Duration, bool)>,
}

fn key(uid: &str, instance: &str) -> Key {
    Key { uid: uid.to_owned(), instance: Instance::new(instance).expect("a name") }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Scene {
    /// An instance is admitted, with a session that began at this second.
    fn admit(&mut self, key: &Key, port: u16, since: u64) {
        let agent = AgentName::new("infra", "home").expect("names");
        self.attendance.admitted(key, &agent, SocketAddr::from(([192, 0, 2, 7], port)));
        self.sessions.insert(key.clone(), (seconds(since), true));
    }

    /// The connection of an instance ends, and its session waits.
    fn cut(&mut self, key: &Key) {
        self.attendance.ended(key, "cut".to_owned());
        self.sessions.get_mut(key).expect("a session").1 = false;
    }

    /// The session of an instance ends.
    fn leave(&mut self, key: &Key, why: &str) {
        self.attendance.ended(key, why.to_owned());
        self.sessions.remove(key);
    }

    /// Kinds and messages of the lines that are due at this second.
    fn lines(&mut self, now: u64) -> Vec<(&'static str, String)> {
        let seen =
            self.sessions.iter().map(|(key, (since, attached))| Seen { key, since: *since, attached: *attached });
        let notices = self.attendance.observe(seen, seconds(now));
        notices.into_iter().map(|notice| (notice.kind, notice.message)).collect()
    }

    fn messages(&mut self, now: u64) -> Vec<String> {
        self.lines(now).into_iter().map(|(_, message)| message).collect()
    }
}

#[test]
fn an_agent_that_connects_and_one_that_is_lost_have_a_line_each() {
    let (mut scene, pi4) = (Scene::default(), key("u", "pi4"));
    scene.admit(&pi4, 1, 0);
    let connected = ("agent_connected", "instance pi4 has connected from 192.0.2.7:1".to_owned());
    assert_eq!(scene.lines(0), [connected]);
    scene.cut(&pi4);
    assert_eq!([1, 2, 3].map(|now| scene.lines(now).len()), [0, 0, 0], "it may be back");
    let lost = ("agent_lost", "instance pi4, which had connected from 192.0.2.7:1, is lost: cut".to_owned());
    assert_eq!(scene.lines(4), [lost]);
    assert!(scene.lines(5).is_empty());
    scene.admit(&pi4, 2, 0);
    assert_eq!(scene.messages(6), ["instance pi4 has connected from 192.0.2.7:2 again, and its streams continue"]);
    scene.leave(&pi4, "the agent was stopped");
    let lost = "instance pi4, which had connected from 192.0.2.7:2, is lost: the agent was stopped";
    assert_eq!(scene.messages(7), [lost], "it does not come back to its session, so the line does not wait");
}

#[test]
fn a_loss_without_a_known_reason_says_whether_the_connection_or_the_session_has_ended() {
    let (mut scene, pi4, nas) = (Scene::default(), key("u", "pi4"), key("u", "nas"));
    scene.admit(&pi4, 1, 0);
    scene.admit(&nas, 1, 0);
    assert_eq!(scene.lines(0).len(), 2);
    scene.sessions.get_mut(&pi4).expect("a session").1 = false;
    scene.sessions.remove(&nas);
    let lost = |name: &str, what: &str| {
        format!("instance {name}, which had connected from 192.0.2.7:1, is lost: its {what} has ended")
    };
    assert_eq!(scene.messages(1), [lost("nas", "session")]);
    assert_eq!(scene.messages(4), [lost("pi4", "connection")]);
}

#[test]
fn a_connection_that_is_replaced_in_time_has_no_line_and_another_session_has_one() {
    let (mut scene, pi4) = (Scene::default(), key("u", "pi4"));
    scene.admit(&pi4, 1, 0);
    scene.lines(0);
    scene.cut(&pi4);
    assert!(scene.lines(1).is_empty());
    scene.admit(&pi4, 2, 0);
    assert!((2..10).all(|now| scene.lines(now).is_empty()));
    scene.cut(&pi4);
    scene.admit(&pi4, 3, 10);
    let expected = "instance pi4 has connected from 192.0.2.7:3 again, and its earlier streams have ended";
    assert_eq!(scene.messages(11), [expected]);
}

#[test]
fn an_instance_that_was_only_there_between_two_calls_is_lost_once() {
    let (mut scene, pi4) = (Scene::default(), key("u", "pi4"));
    scene.admit(&pi4, 1, 0);
    scene.leave(&pi4, "the agent was stopped");
    assert_eq!(scene.lines(1).len(), 1);
    assert!(scene.lines(2).is_empty());
}

#[test]
fn an_instance_that_comes_and_goes_has_four_lines_a_minute_and_then_its_latest_state() {
    let (mut scene, pi4) = (Scene::default(), key("u", "pi4"));
    let mut count = 0;
    for now in 0..60_u64 {
        if now.is_multiple_of(2) {
            scene.admit(&pi4, 1, now);
        } else {
            scene.leave(&pi4, "stopped");
        }
        count += scene.lines(now).len();
    }
    assert_eq!(count, MOST_OF_ONE);
    scene.admit(&pi4, 9, 60);
    let later: Vec<String> = (60..200).flat_map(|now| scene.messages(now)).collect();
    let expected = "instance pi4 has connected from 192.0.2.7:9 again, and its earlier streams have ended";
    assert_eq!(later, [expected]);
}

#[test]
fn a_thousand_agents_have_64_lines_and_one_with_the_number_of_the_others() {
    let mut scene = Scene::default();
    for at in 0..1000 {
        scene.admit(&key(&format!("u{at}"), "one"), 1, 0);
    }
    assert_eq!(scene.lines(0).len(), 64);
    assert!((1..60).all(|now| scene.lines(now).is_empty()));
    let (kind, message) = scene.lines(60).remove(0);
    let expected = "936 more lines about agents that connected or were lost were left out; 1000 instances are \
                    connected now";
    assert_eq!((kind, message.as_str()), ("agents_left_out", expected));
    assert!((61..300).all(|now| scene.lines(now).is_empty()));
}

#[test]
fn instances_that_are_gone_are_forgotten_and_those_that_come_unseen_are_bounded() {
    let mut scene = Scene::default();
    for at in 0..10_000 {
        let one = key("u", &format!("i{at}"));
        scene.admit(&one, 1, 0);
        scene.leave(&one, "stopped");
    }
    assert_eq!(scene.attendance.instances.len(), FOLLOWED);
    assert_eq!(scene.lines(0).len(), 64);
    assert_eq!(scene.attendance.instances.len(), 64, "those with lines that count");
    let message = scene.messages(60).remove(0);
    assert!(message.starts_with("9936 more lines"), "{message}");
    assert!(scene.attendance.instances.is_empty());
}
