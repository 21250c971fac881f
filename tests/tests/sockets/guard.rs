//! Limits and access lists, observed from outside.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use harness::{
    Backend, Behaviour, Listener, PATIENCE, Program, UdpEcho, assert_reset, connect, forward, free_port, http_get,
    metric, round_trip, until,
};
use socket2::{Domain, Socket, Type};

/// A forward with one TCP listener to an echo server.
struct Guarded {
    program: Program,
    backend: Backend,
    port: u16,
    health: u16,
}

impl Guarded {
    fn start(spec: &str) -> Self {
        let (backend, port, health) = (Backend::start(Behaviour::Echo), free_port(), free_port());
        let manifest = forward("f", spec, &[Listener::tcp("l", port).to(backend.port)]);
        Self { program: Program::run(&manifest, health, &[]), backend, port, health }
    }

    fn edit(&self, spec: &str) {
        let manifest = forward("f", spec, &[Listener::tcp("l", self.port).to(self.backend.port)]);
        self.program.edit_and_wait(&manifest, "swapped", "f/l");
    }

    fn session(&self) -> TcpStream {
        let mut stream = connect(self.port).expect("connect");
        round_trip(&mut stream, b"hello").expect("served");
        stream
    }

    #[track_caller]
    fn until_closed(&self, reason: &str, count: f64) {
        until(&format!("{count} closed by {reason}"), || closed(self.health, "l", reason) == Some(count));
    }

    #[track_caller]
    fn until_queued(&self, count: f64) {
        until(&format!("{count} queued"), || {
            let (_, text) = http_get(self.health, "/metrics").expect("metrics");
            metric(&text, "portlane_connections_queued{kind=\"PortForward\",namespace=\"default\",forward=\"f\"}")
                == Some(count)
        });
    }
}

fn closed(health: u16, listener: &str, reason: &str) -> Option<f64> {
    count(
        health,
        &format!(
            "portlane_connections_closed_total{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"{listener}\",reason=\"{reason}\"}}"
        ),
    )
}

fn dropped(health: u16, reason: &str) -> Option<f64> {
    count(
        health,
        &format!(
            "portlane_datagrams_dropped_total{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"u\",reason=\"{reason}\"}}"
        ),
    )
}

fn count(health: u16, series: &str) -> Option<f64> {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    metric(&text, series)
}

/// Connects from another local address.
fn connect_from(ip: [u8; 4], port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((ip, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn a_queue_serves_in_order_and_drops_clients_that_waited_too_long_or_left() {
    let guarded = Guarded::start("limits: {maxConnections: 2, maxQueued: 2, queueSeconds: 30}");
    let (one, two) = (guarded.session(), guarded.session());
    let mut third = connect(guarded.port).expect("accepted");
    third.write_all(b"third").expect("accepted by the kernel");
    guarded.until_queued(1.0);
    let leaver = connect(guarded.port).expect("accepted");
    guarded.until_queued(2.0);
    assert_reset(connect(guarded.port), b"x");
    guarded.until_closed("QueueFull", 1.0);
    assert_eq!(guarded.backend.count(), 2, "queued clients are not connected to the backend");
    drop(leaver);
    guarded.until_closed("ClientLeft", 1.0);
    guarded.until_queued(1.0);
    drop(one);
    let mut answer = [0; 5];
    third.read_exact(&mut answer).expect("served in turn");
    assert_eq!(&answer, b"third");
    guarded.edit("limits: {maxConnections: 2, queueSeconds: 1}");
    assert_reset(connect(guarded.port), b"x");
    guarded.until_closed("QueueTimeout", 1.0);
    drop((two, third));
    drop((guarded.session(), guarded.session()));
}

#[test]
fn a_limit_holds_over_all_listeners_and_a_lower_one_cuts_nobody() {
    let backend = Backend::start(Behaviour::Echo);
    let (one, two, health) = (free_port(), free_port(), free_port());
    let manifest = |most: usize| {
        let spec = format!("limits: {{maxConnections: {most}, onLimit: Reject}}");
        forward("f", &spec, &[Listener::tcp("l", one).to(backend.port), Listener::tcp("m", two).to(backend.port)])
    };
    let program = Program::run(&manifest(4), health, &[]);
    let served = |port| {
        let mut stream = connect(port).expect("connect");
        round_trip(&mut stream, b"hello").map(|_| stream)
    };
    let mut sessions: Vec<TcpStream> =
        [one, two, one, two].into_iter().map(|port| served(port).expect("served")).collect();
    assert_reset(connect(one), b"x");
    assert_reset(connect(two), b"x");
    until("both resets are counted", || {
        closed(health, "l", "ConnectionLimit") == Some(1.0) && closed(health, "m", "ConnectionLimit") == Some(1.0)
    });
    program.edit_and_wait(&manifest(2), "swapped", "f/l");
    for session in &mut sessions {
        round_trip(session, b"still here").expect("a lower limit cuts no session");
    }
    sessions.truncate(2);
    until("two sessions have ended", || active(health) == (Some(1.0), Some(1.0)));
    assert_reset(connect(one), b"x");
    sessions.truncate(1);
    until("another session has ended", || active(health) == (Some(1.0), Some(0.0)));
    served(two).expect("there is room again");
}

/// Live sessions of both listeners.
fn active(health: u16) -> (Option<f64>, Option<f64>) {
    let of = |listener: &str| {
        let series = format!(
            "portlane_connections_active{{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"{listener}\"}}"
        );
        count(health, &series)
    };
    (of("l"), of("m"))
}

#[test]
fn a_source_has_its_own_limit() {
    let guarded = Guarded::start("limits: {maxConnectionsPerSource: 1}");
    let one = guarded.session();
    assert_reset(connect(guarded.port), b"x");
    let mut other = connect_from([127, 0, 0, 2], guarded.port).expect("connect");
    round_trip(&mut other, b"hello").expect("another source");
    guarded.until_closed("SourceLimit", 1.0);
    drop(one);
    until("the first source has room again", || {
        connect(guarded.port).and_then(|mut stream| round_trip(&mut stream, b"x")).is_ok()
    });
}

#[test]
fn new_connections_a_second_are_bounded() {
    let guarded = Guarded::start("limits: {newConnectionsPerSecond: 3}");
    let began = Instant::now();
    let served = (0..40).filter(|_| connect(guarded.port).and_then(|mut it| round_trip(&mut it, b"x")).is_ok()).count();
    let most = 3.0 + 3.0 * began.elapsed().as_secs_f64() + 1.0;
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let as_number = served as f64;
    assert!(served >= 3 && as_number <= most, "{served} served, at most {most}");
    assert!(closed(guarded.health, "l", "RateLimit").expect("a series") >= 1.0);
}

#[test]
fn bytes_a_second_are_bounded_over_both_directions_and_the_limit_can_be_lifted() {
    const BYTES: usize = 600_000;
    let guarded = Guarded::start("limits: {bytesPerSecond: 400000}");
    let transfer = || {
        let began = Instant::now();
        let mut reader = connect(guarded.port).expect("connect");
        let mut writer = reader.try_clone().expect("clone");
        let writing = std::thread::spawn(move || writer.write_all(&vec![5; BYTES]));
        let mut answer = vec![0; BYTES];
        reader.read_exact(&mut answer).expect("the whole answer");
        assert!(answer.iter().all(|byte| *byte == 5));
        writing.join().expect("writer").expect("written");
        began.elapsed()
    };
    // 1.2 MB in total, of which the burst of a quarter second is free.
    let slow = transfer();
    assert!(slow >= Duration::from_millis(2700), "{slow:?}");
    guarded.edit("limits: {maxConnections: 1000}");
    let fast = transfer();
    assert!(fast < slow, "{fast:?}");
}

#[test]
fn access_lists_admit_clients_and_a_change_ends_the_sessions_of_refused_clients() {
    let policy = "sessions: {onUpdate: Close}";
    let guarded =
        Guarded::start(&format!("{policy}\naccess: {{allowCIDRs: [127.0.0.0/8], denyCIDRs: [127.0.0.3/32]}}"));
    assert_reset(connect_from([127, 0, 0, 3], guarded.port), b"x");
    guarded.until_closed("AccessDenied", 1.0);
    let mut own = guarded.session();
    let mut other = connect_from([127, 0, 0, 2], guarded.port).expect("connect");
    round_trip(&mut other, b"hello").expect("allowed");
    let checks = |result: &str| {
        let series =
            "portlane_access_checks_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\"";
        count(guarded.health, &format!("{series},result=\"{result}\"}}"))
    };
    until("the checks are counted", || (checks("allowed"), checks("denied")) == (Some(2.0), Some(1.0)));
    guarded.edit(&format!("{policy}\naccess: {{denyCIDRs: [127.0.0.2/31]}}"));
    assert_reset(Ok(other), b"x");
    round_trip(&mut own, b"still here").expect("its client is still allowed");
    assert_reset(connect_from([127, 0, 0, 2], guarded.port), b"x");
}

#[test]
fn a_session_ends_after_its_time_however_busy_it_is() {
    let guarded = Guarded::start("timeouts: {maxSessionSeconds: 1}");
    let mut stream = guarded.session();
    until("the session is cut", || round_trip(&mut stream, b"busy").is_err());
    guarded.until_closed("MaxSession", 1.0);
}

#[test]
fn flows_have_limits_of_their_own_and_the_quiet_one_makes_room() {
    let (server, port, health) = (UdpEcho::start(), free_port(), free_port());
    let spec = "limits: {maxFlows: 2}\naccess: {denyCIDRs: [127.0.0.3/32]}";
    let manifest = forward("f", spec, &[Listener::udp("u", port).to(server.port)]);
    let _program = Program::run(&manifest, health, &[]);
    let client = |ip: [u8; 4]| {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).expect("bind");
        socket.connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        socket
    };
    let echo = |socket: &UdpSocket| socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8]));
    let (one, two, three) = (client([127, 0, 0, 1]), client([127, 0, 0, 1]), client([127, 0, 0, 1]));
    echo(&one).expect("the first flow");
    echo(&two).expect("the second flow");
    // Both flows are in use, so the third gets no slot before one of them has been idle for a second.
    three.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    until("an idle flow makes room", || echo(&three).is_ok());
    until("the eviction is counted", || closed(health, "u", "Evicted").is_some_and(|count| count >= 1.0));
    let denied = client([127, 0, 0, 3]);
    denied.send(b"x").expect("send");
    until("the drop is counted", || dropped(health, "AccessDenied") == Some(1.0));
}

#[test]
fn the_flow_that_makes_room_is_the_quietest_of_the_forward_whatever_its_socket_or_worker() {
    let (server, health) = (UdpEcho::start(), free_port());
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let listeners: Vec<Listener> =
        ports.iter().map(|port| Listener::udp(&format!("u{port}"), *port).to(server.port)).collect();
    let manifest = forward("f", "limits: {maxFlows: 3}", &listeners);
    let _program = Program::run(&manifest, health, &["--workers", "3"]);
    let client = |port: u16| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        socket
    };
    let echoes = |socket: &UdpSocket| socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8])).is_ok();
    let (first, second, third) = (client(ports[0]), client(ports[1]), client(ports[2]));
    assert!(echoes(&first) && echoes(&second) && echoes(&third));
    let newcomer = client(ports[3]);
    newcomer.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    until("the idle flow makes room for a flow of another listener", || {
        assert!(echoes(&first) && echoes(&third), "active flows stay");
        echoes(&newcomer)
    });
    let evicted = |port: u16| closed(health, &format!("u{port}"), "Evicted");
    until("the eviction is counted", || evicted(ports[1]) == Some(1.0));
    assert_eq!((evicted(ports[0]), evicted(ports[2]), evicted(ports[3])), (Some(0.0), Some(0.0), Some(0.0)));
    second.set_read_timeout(Some(Duration::from_millis(100))).expect("option");
    until("the evicted flow returns in the slot of the next idle one", || echoes(&second));
}

#[test]
fn datagrams_beyond_the_bytes_a_second_are_dropped_and_counted() {
    let (server, port, health) = (UdpEcho::start(), free_port(), free_port());
    let manifest = forward("f", "limits: {bytesPerSecond: 4000}", &[Listener::udp("u", port).to(server.port)]);
    let _program = Program::run(&manifest, health, &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.connect(("127.0.0.1", port)).expect("connect");
    for _ in 0..20 {
        socket.send(&[0; 1000]).expect("send");
    }
    until("the drops are counted", || dropped(health, "Bandwidth").is_some_and(|count| count >= 10.0));
}

#[test]
fn a_storm_of_clients_that_come_wait_and_leave_loses_no_place() {
    let guarded =
        Guarded::start("limits: {maxConnections: 3, maxQueued: 20, queueSeconds: 2}\naccessLog: {mode: Disabled}");
    let port = guarded.port;
    let clients: Vec<_> = (0..16_u32)
        .map(|client| {
            std::thread::spawn(move || {
                for step in 0..40 {
                    let Ok(mut stream) = connect(port) else { continue };
                    match (client + step) % 4 {
                        0 => drop(stream),
                        1 => drop(stream.write_all(b"and gone")),
                        _ => drop(round_trip(&mut stream, b"x")),
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("client");
    }
    guarded.until_queued(0.0);
    let sessions: Vec<TcpStream> = (0..3).map(|_| guarded.session()).collect();
    let fourth = connect(port).expect("accepted");
    guarded.until_queued(1.0);
    drop((sessions, fourth));
}
