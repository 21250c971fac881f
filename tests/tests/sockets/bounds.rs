//! Many connections, slow readers and exhausted file descriptors: resources stay bounded and are released.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, connect, echoes, forward, free_port, http_get, metric,
    raise_file_limit, round_trip, until,
};
use socket2::{Domain, Socket, Type};

const MANY: usize = 2000;

fn held(health: u16) -> f64 {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, "portlane_held_bytes").expect("metric")
}

#[test]
fn two_thousand_idle_connections_stay_open_and_cost_little() {
    raise_file_limit();
    let backend = Backend::start(Behaviour::Run(std::sync::Arc::new(|mut stream: TcpStream| {
        // One thread per connection, blocked in a read.
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            if std::io::Write::write_all(&mut stream, &byte).is_err() {
                return;
            }
        }
    })));
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "accessLog: {mode: Disabled}", &[Listener::tcp("idle", port).to(backend.port)]);
    let program = Program::run(&manifest, health, &[]);
    let before = program.resident_bytes();
    let mut clients: Vec<TcpStream> = (0..MANY).map(|_| connect(port).expect("connect")).collect();
    for client in &mut clients {
        round_trip(client, b"x").expect("echo");
    }
    if let (Some(before), Some(after)) = (before, program.resident_bytes()) {
        let each = after.saturating_sub(before) / MANY as u64;
        println!("{each} bytes of resident memory for each of {MANY} idle connections (debug build)");
        assert!(each < 16 * 1024, "{each} bytes each: connections must not hold a buffer");
    }
    for client in &mut clients {
        round_trip(client, b"y").expect("still open");
    }
}

#[test]
fn two_thousand_stalled_readers_stay_within_the_budget_and_stop_nobody_else() {
    const BUDGET: usize = 8 << 20;
    raise_file_limit();
    let (source, echo) = (Backend::start(Behaviour::SendAndHold(1 << 20)), Backend::start(Behaviour::Echo));
    let (slow, quick, health) = (free_port(), free_port(), free_port());
    let listeners = [Listener::tcp("slow", slow).to(source.port), Listener::tcp("quick", quick).to(echo.port)];
    let manifest = forward("f", "accessLog: {mode: Disabled}", &listeners);
    let program = Program::run(&manifest, health, &["--held-bytes", &BUDGET.to_string()]);
    let stalled: Vec<TcpStream> = (0..MANY).map(|_| narrow(slow)).collect();
    until("all are connected", || source.count() >= MANY);
    let mut client = connect(quick).expect("connect");
    let message = vec![5; 300_000];
    for _ in 0..20 {
        assert_eq!(round_trip(&mut client, &message).expect("another session keeps running").len(), message.len());
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let budget = BUDGET as f64;
        assert!(held(health) <= budget, "{} bytes held", held(health));
    }
    until("the readers stall", || held(health) > 0.0);
    if let Some(resident) = program.resident_bytes() {
        assert!(resident < (BUDGET + (96 << 20)) as u64, "{resident} bytes resident");
    }
    drop(stalled);
    until("all memory is released", || held(health) == 0.0);
}

/// A client with a small receive buffer that it never reads.
fn narrow(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(4096).expect("option");
    socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)).into(), PATIENCE).expect("connect");
    socket.into()
}

#[test]
fn at_the_file_limit_health_answers_and_traffic_comes_back() {
    let backend = Backend::start(Behaviour::Echo);
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "accessLog: {mode: Disabled}", &[Listener::tcp("l", port).to(backend.port)]);
    let program = Program::run_limited(&manifest, health, &[], Some(200));
    // Needs far more than 200 descriptors. The rest waits in the accept queue, neither accepted nor refused.
    let clients: Vec<TcpStream> = (0..150).map(|_| connect(port).expect("accepted by the kernel")).collect();
    until("accepting pauses", || {
        let (_, text) = http_get(health, "/metrics").expect("metrics at the limit");
        metric(&text, "portlane_accept_paused_total").is_some_and(|paused| paused > 0.0)
    });
    assert_eq!(http_get(health, "/livez").expect("livez at the limit").0, 200);
    let mut last = connect(port).expect("connect");
    last.set_read_timeout(Some(Duration::from_millis(200))).expect("option");
    round_trip(&mut last, b"x").expect_err("it waits for a file descriptor");
    drop(clients);
    drop(last);
    round_trip(&mut connect(port).expect("connect"), b"back").expect("traffic resumes");
    program.wait("files", "process");
    let errors: Vec<_> = program.events().into_iter().filter(|line| line["level"] == "error").collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn listeners_beyond_the_file_limit_are_refused_while_health_answers_and_the_others_serve() {
    let backend = Backend::start(Behaviour::Echo);
    let (health, admin, mut ports) = (free_port(), free_port(), [0; 150].map(|_: u16| free_port()));
    // The order in which they are bound.
    ports.sort_unstable();
    let [first, .., last] = ports;
    let one = |port: &u16| forward(&format!("f{port}"), "", &[Listener::tcp("l", *port).to(backend.port)]);
    let of = |ports: &[u16]| ports.iter().map(one).collect::<String>();
    let address = format!("127.0.0.1:{admin}");
    let arguments = ["--workers", "1", "--admin-address", &address];
    let program = Program::run_limited(&of(&ports), health, &arguments, Some(128));
    let failed = program.wait("failed", &format!("f{last}/l"));
    let message = failed["message"].as_str().expect("a message");
    assert!(message.contains("too many open files: the limit is 128") && message.contains("ulimit -n"), "{message}");
    let (_, listeners) = http_get(admin, "/listeners").expect("the listeners at the limit");
    assert!(listeners.contains("\"FileLimit\""), "{listeners}");
    assert_eq!(http_get(health, "/livez").expect("livez at the limit").0, 200);
    let (_, text) = http_get(health, "/metrics").expect("metrics at the limit");
    let value = |name| metric(&text, name).expect("a metric");
    assert!(value("portlane_files") <= value("portlane_files_limit"), "some are left to sessions, and the reserve");
    assert!(value("portlane_sockets_refused_total") >= value("portlane_listeners_failed"), "{text}");
    assert!(value("portlane_listeners_failed") > 0.0 && value("portlane_listeners_failed") < 150.0, "{text}");
    connect(last).expect_err("not bound");
    round_trip(&mut connect(first).expect("connect"), b"x").expect("a listener that is bound serves");
    // The manifest can be read. The files of the others are free only after they are closed, so this needs a retry.
    program.edit(&of(&[first, last]));
    until("the listener that was refused serves", || echoes(last));
    assert!(echoes(first));
}

#[test]
fn a_file_limit_that_leaves_no_room_for_sessions_is_told_at_the_start() {
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::tcp("l", port).to(9)]);
    let program = Program::run_limited(&manifest, health, &["--workers", "1"], Some(64));
    let told = program.wait("file_limit", "process");
    assert_eq!(told["level"], "warn");
    let message = told["message"].as_str().expect("a message");
    assert!(message.contains("no room for sessions") && message.contains("ulimit -n"), "{message}");
    let failed = program.wait("failed", "f/l");
    assert!(failed["message"].as_str().is_some_and(|message| message.contains("too many open files")), "{failed:#}");
}

#[test]
fn udp_flows_are_bounded_and_the_oldest_quiet_one_makes_room() {
    let server = harness::UdpEcho::start();
    let (port, health) = (free_port(), free_port());
    let manifest = forward("f", "", &[Listener::udp("u", port).to(server.port)]);
    let program = Program::run(&manifest, health, &["--max-flows", "4"]);
    let flow = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        socket
    };
    let sockets: Vec<_> = (0..4).map(|_| flow()).collect();
    let mut answer = [0; 8];
    for socket in &sockets {
        socket.send(b"x").expect("send");
        socket.recv(&mut answer).expect("answer");
    }
    let fifth = flow();
    fifth.set_read_timeout(Some(Duration::from_millis(50))).expect("option");
    until("an idle flow makes room", || {
        fifth.send(b"x").expect("send");
        fifth.recv(&mut answer).is_ok()
    });
    assert_eq!(program.wait("session_closed", "u")["reason"], "Evicted");
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let dropped = "portlane_datagrams_dropped_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\",reason=\"TableFull\"}";
    assert!(metric(&text, dropped).is_some_and(|count| count > 0.0), "drops are counted while all flows are in use");
}

#[test]
fn a_hot_listener_is_accepted_by_every_worker_and_refuses_nobody() {
    let backend = Backend::start(Behaviour::Run(std::sync::Arc::new(drop)));
    let port = free_port();
    let manifest = |extra: &[Listener]| {
        let mut listeners = vec![Listener::tcp("hot", port).to(backend.port)];
        listeners.extend_from_slice(extra);
        forward("f", "accessLog: {mode: Disabled}", &listeners)
    };
    let program = Program::run(&manifest(&[]), free_port(), &["--workers", "2"]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let knocking: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut stream = connect(port).expect("never refused");
                    // The backend closes at once; the client sees a FIN or a reset, whichever comes first.
                    let _ = stream.read(&mut [0]);
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            })
        })
        .collect();
    program.wait("sharded", "f/hot");
    // Change another listener and back, while both sockets accept.
    program.edit_and_wait(&manifest(&[Listener::tcp("other", free_port()).to(backend.port)]), "bound", "f/other");
    program.edit_and_wait(&manifest(&[]), "removed", "f/other");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in knocking {
        client.join().expect("no connection was refused");
    }
}
