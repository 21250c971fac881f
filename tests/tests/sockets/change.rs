//! Manifests that change under load: unaffected sessions and listeners must not notice.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Backend, Behaviour, Listener, Program, connect, forward, free_port, round_trip, until};

/// Clients that run until stopped and record every failure.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn fail(&self, what: String) {
        self.failures.lock().expect("unpoisoned").push(what);
    }

    /// Runs one session for the whole test.
    fn hold(&self, name: &'static str, port: u16) -> thread::JoinHandle<()> {
        let load = self.clone();
        let mut stream = connect(port).expect("connect");
        thread::spawn(move || {
            while !load.stop.load(Relaxed) {
                if let Err(error) = round_trip(&mut stream, b"0123456789") {
                    return load.fail(format!("session on {name}: {error}"));
                }
                load.done.fetch_add(1, Relaxed);
            }
        })
    }

    /// Opens one connection after another.
    fn knock(&self, name: &'static str, port: u16) -> thread::JoinHandle<()> {
        let load = self.clone();
        thread::spawn(move || {
            while !load.stop.load(Relaxed) {
                let result = connect(port).and_then(|mut stream| round_trip(&mut stream, b"x"));
                if let Err(error) = result {
                    load.fail(format!("new connection on {name}: {error}"));
                }
                load.done.fetch_add(1, Relaxed);
            }
        })
    }
}

#[test]
fn two_hundred_edits_under_load_break_and_refuse_nothing() {
    const EDITS: usize = 200;
    let (one, two) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let [stay, flip, left, right, wide, extra] = std::array::from_fn(|_| free_port());
    let manifest = |step: usize| {
        let swapped = step % 4 >= 2;
        let target = if step.is_multiple_of(2) { one.port } else { two.port };
        let mut listeners = vec![
            Listener::tcp("stay", stay).to(one.port),
            Listener::tcp("flip", flip).to(target),
            Listener::tcp("left", if swapped { right } else { left }).to(one.port),
            Listener::tcp("right", if swapped { left } else { right }).to(two.port),
            Listener::tcp("wide", wide).to(one.port).with(if step % 8 >= 4 { "bind: All" } else { "bind: Loopback" }),
        ];
        if step % 3 == 1 {
            listeners.push(Listener::tcp(&format!("extra-{step}"), extra).to(two.port));
        }
        forward("load", "accessLog: {mode: Disabled}", &listeners)
    };
    let program = Program::run(&manifest(0), free_port(), &[]);
    let load = Load::default();
    let mut clients: Vec<_> = (0..8).map(|_| load.hold("stay", stay)).collect();
    for (name, port) in [("flip", flip), ("left", left), ("right", right), ("wide", wide)] {
        clients.push(load.hold(name, port));
        clients.push(load.knock(name, port));
    }
    clients.push(load.knock("stay", stay));
    for step in 1..=EDITS {
        program.edit_and_wait(&manifest(step), "swapped", "load/flip");
    }
    let before = load.done.load(Relaxed);
    until("the load continues", || load.done.load(Relaxed) > before + 1000);
    load.stop.store(true, Relaxed);
    for client in clients {
        client.join().expect("a client should end");
    }
    let failures = load.failures.lock().expect("unpoisoned");
    assert!(failures.is_empty(), "{} broken or refused: {:#?}", failures.len(), failures.iter().take(5));
    let failed: Vec<_> = program.events().into_iter().filter(|line| line["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_bad_edit_leaves_everything_running_and_reports_what_is_wrong() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, taken) = (free_port(), Backend::start(Behaviour::Hold));
    let good = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let with = |from: &str, to: &str| good.replace(from, to);
    let port_text = format!("port: {port}");
    let program = Program::run(&good, free_port(), &[]);
    let mut session = connect(port).expect("connect");
    let large = format!("{good}# {}\n", "x".repeat(9 << 20));
    let bomb: String = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
        let alias = format!("*a{}", n - 1);
        text + &format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 9].join(","))
    });
    let cases: [(String, &str, &str); 15] = [
        (with("protocol", "protokol"), "refused", "unknown field; did you mean 'protocol'?"),
        (with(&port_text, "port: 'http'"), "refused", "must be an integer, but is the string 'http'"),
        (with(&port_text, "port: 65536"), "refused", "must be at most 65535"),
        (with("protocol: TCP", "protocol: on"), "refused", "YAML reads on, off"),
        (with("name: l,", "name:,"), "refused", "name: is required"),
        (format!("{good}{}", &good[good.find("  - {name").expect("item")..]), "refused", "same name"),
        (format!("{good}{good}"), "refused", "remove one of them"),
        ("a: [".to_owned(), "refused", "not valid YAML"),
        (String::from_utf8_lossy(&[0x61, 0x3a, 0x20, 0x00]).into_owned(), "refused", "YAML"),
        (large, "refused", "larger than"),
        (bomb, "refused", "aliases"),
        (with(&format!("port: {}", backend.port), &port_text), "refused", "name the port of the real server"),
        (with("{address: {host: 127.0.0.1,", "{service: {name: pg,"), "refused", "--resolve pg.default=HOST[:PORT]"),
        (with("PortForward", "PortForwrd"), "refused", "unknown kind PortForwrd"),
        (with(&port_text, &format!("port: {}", taken.port)), "failed", "address in use"),
    ];
    for (bad, event, message) in cases {
        let seen = program.events().len();
        program.edit(&bad);
        until(&format!("{event}: {message}"), || {
            program.events().iter().skip(seen).any(|line| {
                line["event"] == event && line["message"].as_str().is_some_and(|text| text.contains(message))
            })
        });
        assert_eq!(round_trip(&mut session, b"still").expect("the session"), b"still", "{message}");
        let mut new = connect(port).expect("the listener");
        assert_eq!(round_trip(&mut new, b"new").expect("a new session"), b"new", "{message}");
        settle(&program, &good, port, backend.port);
    }
}

/// Waits until the program runs `good` again, using a probe listener to observe progress.
fn settle(program: &Program, good: &str, port: u16, backend: u16) {
    let probe = Listener::tcp("probe", free_port()).to(backend);
    let text = forward("probe", "", &[probe]);
    let seen = program.events().len();
    program.edit(&format!("{good}{text}"));
    program.wait_after(seen, "bound", "probe");
    program.edit(good);
    program.wait_after(seen, "removed", "probe");
    connect(port).expect("the listener is back");
}

#[test]
fn a_name_that_does_not_resolve_is_reported_and_stops_nothing() {
    let backend = Backend::start(Behaviour::Echo);
    let (good, lost) = (free_port(), free_port());
    let nowhere = Listener::tcp("lost", lost).backend("address: {host: nowhere.invalid, port: 1}");
    let manifest = forward("f", "retry: {attempts: 1}", &[Listener::tcp("good", good).to(backend.port), nowhere]);
    let program = Program::run(&manifest, free_port(), &[]);
    program.wait("unresolved", "nowhere.invalid");
    round_trip(&mut connect(good).expect("connect"), b"x").expect("echo");
    connect(lost).and_then(|mut stream| stream.read(&mut [0])).expect_err("reset");
}

#[test]
fn a_listener_whose_port_is_taken_comes_up_when_the_port_is_free() {
    let backend = Backend::start(Behaviour::Echo);
    let holder = Backend::start(Behaviour::Hold);
    let port = holder.port;
    let other = free_port();
    let manifest =
        forward("f", "", &[Listener::tcp("late", port).to(backend.port), Listener::tcp("now", other).to(backend.port)]);
    let program = Program::run(&manifest, free_port(), &[]);
    program.wait("failed", "late");
    round_trip(&mut connect(other).expect("the other listener serves"), b"x").expect("echo");
    drop(holder);
    program.wait("bound", "late");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
}

#[test]
fn on_update_decides_what_happens_to_sessions_of_a_backend_that_is_gone() {
    let (one, two) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let port = free_port();
    let manifest = |policy: &str, target: &Backend, port| {
        forward(
            "f",
            &format!("sessions: {{onUpdate: {policy}, drainSeconds: 2}}"),
            &[Listener::tcp("l", port).to(target.port)],
        )
    };
    let program = Program::run(&manifest("Keep", &one, port), free_port(), &[]);
    let open = || {
        let mut stream = connect(port).expect("connect");
        round_trip(&mut stream, b"x").expect("echo");
        stream
    };
    let mut kept = open();
    program.edit_and_wait(&manifest("Keep", &two, port), "swapped", "f/l");
    round_trip(&mut kept, b"x").expect("Keep: the session stays on the old backend");
    let mut closed = open();
    program.edit_and_wait(&manifest("Close", &one, port), "swapped", "f/l");
    closed.read(&mut [0]).expect_err("Close: reset");
    round_trip(&mut kept, b"x").expect("its backend is back, so the change does not concern it");
    let mut drained: Vec<_> = (0..4).map(|_| open()).collect();
    let began = Instant::now();
    program.edit_and_wait(&manifest("Drain", &two, port), "swapped", "f/l");
    round_trip(&mut drained[3], b"x").expect("Drain: not reset at once");
    for stream in &mut drained {
        stream.read(&mut [0]).expect_err("Drain: reset in the end");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn suspend_unbinds_and_resume_binds_again() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest =
        |suspend: &str| forward("f", &format!("suspend: {suspend}"), &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest("false"), free_port(), &[]);
    let mut session = connect(port).expect("connect");
    program.edit_and_wait(&manifest("true"), "removed", "f/l");
    round_trip(&mut session, b"x").expect("Keep is the default");
    until("the port is closed", || connect(port).is_err());
    let seen = program.events().len();
    program.edit(&manifest("false"));
    until("the listener is bound again", || program.events().len() > seen);
    until("the listener serves", || connect(port).and_then(|mut stream| round_trip(&mut stream, b"x")).is_ok());
}

#[test]
fn a_file_that_vanishes_counts_as_removed_after_a_second() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest, free_port(), &[]);
    std::fs::remove_file(program.path("forwards.yaml")).expect("remove");
    let gone = Instant::now();
    program.wait("removed", "f/l");
    assert!(gone.elapsed() >= Duration::from_millis(900), "a file is briefly missing while it is replaced");
    program.edit(&manifest);
    program.wait("bound", "f/l");
}

#[test]
fn sessions_of_a_listener_that_moved_still_follow_its_policy() {
    let backend = Backend::start(Behaviour::Echo);
    let (first, second) = (free_port(), free_port());
    let manifest = |policy: &str, port: u16| {
        forward("f", &format!("sessions: {{onUpdate: {policy}}}"), &[Listener::tcp("l", port).to(backend.port)])
    };
    let program = Program::run(&manifest("Keep", first), free_port(), &[]);
    let mut session = connect(first).expect("connect");
    round_trip(&mut session, b"x").expect("echo");
    program.edit_and_wait(&manifest("Keep", second), "swapped", "f/l");
    round_trip(&mut session, b"x").expect("Keep");
    let mut newer = connect(second).expect("connect");
    round_trip(&mut newer, b"x").expect("echo");
    let seen = program.events().len();
    program.edit(&manifest("Close", second));
    program.wait_after(seen, "swapped", "f/l");
    session.read(&mut [0]).expect_err("the move was a change, and its policy is Close now");
    round_trip(&mut newer, b"x").expect("a new policy alone closes nothing");
    std::fs::remove_file(program.path("forwards.yaml")).expect("remove");
    newer.read(&mut [0]).expect_err("removal follows the last known policy");
}

#[test]
fn a_file_that_comes_later_does_not_take_a_port_that_serves() {
    let (one, two) = (Backend::start(Behaviour::Echo), Backend::start(Behaviour::Echo));
    let port = free_port();
    let program = Program::run(&forward("b", "", &[Listener::tcp("l", port).to(one.port)]), free_port(), &[]);
    let both = forward("a", "", &[Listener::tcp("l", port).to(two.port)])
        + &forward("b", "", &[Listener::tcp("l", port).to(one.port)]);
    let event = program.edit_and_wait(&both, "refused", "");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("held by default/b")), "{event}");
    round_trip(&mut connect(port).expect("connect"), b"x").expect("echo");
    assert_eq!((one.count(), two.count()), (1, 0));
}

#[test]
fn a_pipe_in_the_place_of_a_manifest_stops_no_following() {
    let backend = Backend::start(Behaviour::Echo);
    let port = free_port();
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run(&manifest, free_port(), &[]);
    let path = program.path("forwards.yaml");
    std::fs::remove_file(&path).expect("remove");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let event = program.wait("refused", "forwards.yaml");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("not a regular file")), "{event}");
    round_trip(&mut connect(port).expect("the last good manifest keeps serving"), b"x").expect("echo");
    let moved = free_port();
    program.edit_and_wait(&manifest.replace(&port.to_string(), &moved.to_string()), "swapped", "f/l");
    program.wait("accepted", "forwards.yaml");
}
