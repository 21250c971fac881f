//! The page of the admin address: its files, and the stream of states that it follows.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Instant,
};

use harness::{
    Backend, Behaviour, Event, Listener, PATIENCE, Program, connect, forward, free_port, http_get, metric, round_trip,
    until,
};

/// Pages that may follow at a time.
const FOLLOWERS: usize = 4;

/// The head and the body of the response to a GET with these header lines.
fn get(port: u16, path: &str, headers: &str) -> (String, String) {
    let mut stream = connect(port).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("response");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// A page that follows.
struct Follower(BufReader<TcpStream>);

impl Follower {
    /// Follows; the error is the head of another response than 200.
    fn start(admin: u16) -> Result<Self, String> {
        let mut stream = connect(admin).expect("connect");
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("request");
        let mut follower = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(follower.0.read_line(&mut head).expect("a head") > 0, "the stream ends: {head}");
        }
        if head.starts_with("HTTP/1.1 200") { Ok(follower) } else { Err(head.to_ascii_lowercase()) }
    }

    /// The data of the next event with this name.
    fn next(&mut self, name: &str) -> Event {
        let deadline = Instant::now() + PATIENCE;
        let mut event = String::new();
        loop {
            assert!(Instant::now() < deadline, "no event {name}");
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the stream ends");
            if let Some(of) = line.strip_prefix("event: ") {
                of.trim().clone_into(&mut event);
            }
            if let Some(data) = line.strip_prefix("data: ").filter(|_| event == name) {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }
}

/// `portlane run` of a forward to an echo server.
struct Followed {
    _backend: Backend,
    _program: Program,
    port: u16,
    health: u16,
    admin: u16,
}

impl Followed {
    fn start() -> Self {
        let backend = Backend::start(Behaviour::Echo);
        let (port, health, admin) = (free_port(), free_port(), free_port());
        let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
        let program = Program::run(&manifest, health, &["--admin-address", &format!("127.0.0.1:{admin}")]);
        Self { _backend: backend, _program: program, port, health, admin }
    }

    fn closed(&self, reason: &str) -> Option<f64> {
        let (_, text) = http_get(self.health, "/metrics").expect("metrics");
        metric(&text, &format!("portlane_http_connections_closed_total{{door=\"events\",reason=\"{reason}\"}}"))
    }
}

#[test]
fn the_admin_address_serves_a_page_that_loads_only_its_own_files() {
    let followed = Followed::start();
    for (path, content_type) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let (head, body) = get(followed.admin, path, "Host: localhost\r\n");
        assert!(head.starts_with("http/1.1 200") && !body.is_empty(), "{path}: {head}");
        for header in [content_type, "content-security-policy: default-src 'none';", "x-content-type-options: nosniff"]
        {
            assert!(head.contains(header), "{path} lacks {header}: {head}");
        }
        let (head, _) = get(followed.admin, path, "Host: evil.example\r\n");
        assert!(head.starts_with("http/1.1 403"), "{path}: {head}");
        assert_eq!(http_get(followed.health, path).expect("an answer").0, 404, "the health address has no page");
    }
}

#[test]
fn a_follower_sees_the_bytes_of_a_session_and_the_events() {
    let followed = Followed::start();
    let mut follower = Follower::start(followed.admin).expect("followed");
    let notices = follower.next("notices");
    assert!(notices["notices"].is_array(), "{notices}");
    let mut session = connect(followed.port).expect("connect");
    round_trip(&mut session, b"hello").expect("echo");
    let mut state = Event::Null;
    until("the state has the session and its bytes", || {
        state = follower.next("state");
        state["totals"]["live"] == 1 && state["totals"]["up"] == 5 && state["totals"]["down"] == 5
    });
    let forward = &state["forwards"][0];
    let listener = &forward["listeners"][0];
    assert!(forward["name"] == "default/f" && listener["name"] == "l", "{state}");
    assert!(listener["state"] == "Bound" && listener["counts"]["opened"] == 1, "{state}");
    let backend = &listener["backends"][0];
    assert!(backend["healthy"] == 1 && backend["listed"][0]["live"] == 1, "{state}");
    let (_, sessions) = http_get(followed.admin, "/conns?limit=1").expect("sessions");
    assert!(sessions.contains("\"bytesUp\""), "{sessions}");
    assert_eq!(http_get(followed.admin, "/conns?limit=x").expect("an answer").0, 400);
    drop(session);
    until("the session has ended", || follower.next("state")["totals"]["live"] == 0);
}

#[test]
fn followers_beyond_the_bound_are_refused_and_counted_and_leave_room_for_requests() {
    let followed = Followed::start();
    let mut all: Vec<Follower> = (0..FOLLOWERS).map(|_| Follower::start(followed.admin).expect("followed")).collect();
    let head = Follower::start(followed.admin).err().expect("refused");
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: "), "{head}");
    let refused = ["full", "source_full"].iter().filter_map(|reason| followed.closed(reason)).sum::<f64>();
    assert!(refused >= 1.0, "{refused}");
    assert_eq!(http_get(followed.admin, "/listeners").expect("an answer").0, 200);
    for follower in &mut all {
        assert_eq!(follower.next("state")["listeners"]["bound"], 1, "the others are still served");
    }
    all.pop();
    until("the place of one that has left is free", || Follower::start(followed.admin).is_ok());
}

#[test]
fn a_web_page_of_another_host_cannot_follow() {
    let followed = Followed::start();
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
    ] {
        let (head, _) = get(followed.admin, "/events", headers);
        assert!(head.starts_with("http/1.1 403"), "{headers}: {head}");
    }
    let (head, body) = get(followed.health, "/events", "Host: localhost\r\n");
    assert!(head.starts_with("http/1.1 404"), "{head}: {body}");
}
