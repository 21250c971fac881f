//! Port ranges, with backend ports that follow by offset.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, connect, forward, free_port, free_range, round_trip,
    until,
};

#[test]
fn a_session_on_the_nth_port_goes_to_the_nth_port_of_the_backend() {
    let (first, to) = (free_range(3), free_range(3));
    let backends: Vec<Backend> = (0..3).map(|at| Backend::start_on(to + at, Behaviour::Echo)).collect();
    let echo = UdpEcho::start_on(to + 2);
    let end = format!("endPort: {}", first + 2);
    let listeners = [Listener::tcp("data", first).to(to).with(&end), Listener::udp("flows", first).to(to).with(&end)];
    let program = Program::run(&forward("f", "", &listeners), free_port(), &[]);
    for at in 0..3 {
        let mut stream = connect(first + at).expect("connect");
        round_trip(&mut stream, b"x").expect("served");
        let counts: Vec<usize> = backends.iter().map(Backend::count).collect();
        assert_eq!(counts, (0..3).map(|other| usize::from(other <= at)).collect::<Vec<_>>());
    }
    let endpoint = format!("127.0.0.1:{}", to + 1);
    until("the backend port is logged", || program.events().iter().any(|event| event["endpoint"] == endpoint.as_str()));
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    client.connect(("127.0.0.1", first + 2)).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("option");
    client.send(b"rtp").expect("send");
    assert_eq!(client.recv(&mut [0; 8]).expect("an answer"), 3);
    drop(echo);
}

#[test]
fn a_range_is_bound_whole_or_failed_with_its_ports_named_and_heals() {
    let first = free_range(4);
    let backend = Backend::start(Behaviour::Echo);
    let taken = [TcpListener::bind(("127.0.0.1", first + 1)), TcpListener::bind(("127.0.0.1", first + 3))];
    let manifest =
        forward("f", "", &[Listener::tcp("data", first).to(backend.port).with(&format!("endPort: {}", first + 3))]);
    let other = forward("g", "", &[Listener::tcp("l", free_port()).to(backend.port)]);
    let program = Program::run(&format!("{manifest}{other}"), free_port(), &[]);
    let failed = program.wait("failed", "f/data");
    let message = failed["message"].as_str().expect("a message").to_owned();
    assert!(message.contains(&format!("{}", first + 1)) && message.contains(&format!("{}", first + 3)), "{message}");
    assert!(message.contains("address in use"), "{message}");
    // The bind is retried every second; meanwhile the free ports of the range must not accept.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        let error = connect(first).expect_err("an incomplete range must not serve");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    drop(taken);
    let bound = program.wait("bound", "f/data");
    let place = format!("127.0.0.1:{first}-{}/TCP", first + 3);
    assert!(bound["message"].as_str().is_some_and(|it| it.starts_with(&place)), "{bound}");
    until("every port accepts", || (0..4).all(|at| connect(first + at).is_ok()));
}

#[test]
fn a_range_that_grows_and_shrinks_touches_only_the_ports_that_come_and_go() {
    let (first, to) = (free_range(3), free_range(3));
    let _backends: Vec<Backend> = (0..3).map(|at| Backend::start_on(to + at, Behaviour::Echo)).collect();
    let with = |last: u16| {
        let listener = Listener::tcp("data", first).to(to).with(&format!("endPort: {}", first + last));
        forward("f", "sessions: {onUpdate: Close}", &[listener])
    };
    let program = Program::run(&with(1), free_port(), &[]);
    let session = |at: u16| {
        let mut stream = connect(first + at).expect("connect");
        round_trip(&mut stream, b"x").expect("served");
        stream
    };
    let (mut zero, mut one) = (session(0), session(1));
    program.edit_and_wait(&with(2), "swapped", "f/data");
    let mut two = session(2);
    round_trip(&mut one, b"x").expect("growing a range concerns no session");
    program.edit_and_wait(&with(0), "swapped", "f/data");
    until("sessions on removed ports end", || {
        round_trip(&mut one, b"x").is_err() && round_trip(&mut two, b"x").is_err()
    });
    round_trip(&mut zero, b"x").expect("its port remains");
    until("the ports are closed", || connect(first + 1).is_err() && connect(first + 2).is_err());
}
