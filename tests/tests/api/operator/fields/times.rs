//! Changes of the session policy, of timeouts and of retries.

use std::{
    fs,
    io::{Read, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use harness::{connect, free_port, round_trip, until};

use super::{TestBed, Write, servers};

/// The defaults end sessions too, but later than this.
const SOON: Duration = Duration::from_secs(4);

/// Whether the peer has ended the stream. Bytes that arrived before are discarded.
fn is_over(stream: &mut TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

pub(super) fn sessions(bed: &TestBed<'_>) {
    let policy = |policy: &str, to: &harness::Backend| bed.set(&format!("sessions: {{{policy}}}"), bed.tcp().on(to));
    policy("onUpdate: Keep", &bed.a);
    until("the forward serves", || bed.visit() == Some(b'a'));
    bed.keep();
    policy("onUpdate: Keep", &bed.b);
    until("onUpdate: new sessions go to the other backend", || bed.visit() == Some(b'b'));
    bed.is_kept();
    let (mut session, _) = bed.session().expect("a session");
    policy("onUpdate: Close", &bed.a);
    until("onUpdate: a session ends with its backend", || is_over(&mut session));
    until("the forward serves", || bed.visit() == Some(b'a'));
    let (mut session, _) = bed.session().expect("a session");
    policy("onUpdate: Drain, drainSeconds: 600", &bed.b);
    until("onUpdate: new sessions go to the other backend", || bed.visit() == Some(b'b'));
    round_trip(&mut session, b"x").expect("a draining session may finish");
    policy("onUpdate: Drain, drainSeconds: 1", &bed.b);
    policy("onUpdate: Drain, drainSeconds: 1", &bed.a);
    until("the forward serves", || bed.visit() == Some(b'a'));
    let (mut session, _) = bed.session().expect("a session");
    policy("onUpdate: Drain, drainSeconds: 1", &bed.b);
    until("drainSeconds: the session is closed in time", || is_over(&mut session));
}

pub(super) fn timeouts(bed: &TestBed<'_>) {
    of_sessions(bed);
    of_handshakes(bed);
    of_connects(bed);
}

fn of_sessions(bed: &TestBed<'_>) {
    let times = |times: &str| bed.set(&format!("timeouts: {{{times}}}"), bed.tcp().on(&bed.a));
    times("keepaliveSeconds: 9");
    until("keepaliveSeconds: the kernel probes that often", || {
        let _session = bed.session();
        keepalive(bed.port).is_some_and(|seconds| seconds <= 9)
    });
    times("keepaliveSeconds: 90");
    until("keepaliveSeconds: less often", || {
        let _session = bed.session();
        keepalive(bed.port).is_some_and(|seconds| seconds > 60)
    });
    times("maxSessionSeconds: 1");
    bed.until_closed("MaxSession", || {
        if let Some((mut session, _)) = bed.session() {
            until("maxSessionSeconds: a busy session ends", || round_trip(&mut session, b"busy").is_err());
        }
    });
    times("idleSeconds: 1");
    bed.until_closed("Idle", || {
        if let Some((mut session, _)) = bed.session() {
            until("idleSeconds: an idle session ends", || is_over(&mut session));
        }
    });
    let hold = harness::Backend::reachable(harness::Behaviour::Hold);
    bed.set("timeouts: {halfCloseSeconds: 1, idleSeconds: 3600}", bed.tcp().on(&hold));
    bed.until_closed("HalfClosed", || {
        let mut session = connect(bed.port).expect("connect");
        let _ = session.shutdown(Shutdown::Write);
        let _ = session.set_read_timeout(Some(Duration::from_secs(3)));
        let _ = session.read(&mut [0]);
    });
}

fn of_handshakes(bed: &TestBed<'_>) {
    let required = "proxyProtocol: {accept: Required, trustedCIDRs: [127.0.0.0/8]}";
    bed.set("timeouts: {handshakeSeconds: 1}", bed.tcp().on(&bed.a).with(required));
    bed.until_closed("HandshakeTimeout", || {
        // A session from before the change gets no answer at all.
        let mut session = connect(bed.port).expect("connect");
        let _ = session.set_read_timeout(Some(SOON));
        let _ = session.read(&mut [0]);
    });
    until("handshakeSeconds: soon", || {
        let (began, mut session) = (Instant::now(), connect(bed.port).expect("connect"));
        session.write_all(b"PROXY").and_then(|()| session.read(&mut [0])).is_err() && began.elapsed() < SOON
    });
}

/// Attempts to connect, and the pauses between them.
fn of_connects(bed: &TestBed<'_>) {
    let stuck = servers::Stuck::new();
    let fails_after = || {
        let began = Instant::now();
        bed.visit().map_or(began.elapsed(), |_| Duration::ZERO)
    };
    bed.set("timeouts: {connectSeconds: 1}\nretry: {attempts: 1}", bed.tcp().at(stuck.port, ""));
    until("connectSeconds: the attempt is given up", || (Duration::from_millis(900)..SOON).contains(&fails_after()));
    let refuses = free_port();
    let pause = |millis: u32| {
        let retry = format!("retry: {{attempts: 2, initialBackoffMillis: {millis}, maxBackoffMillis: {millis}}}");
        bed.set(&retry, bed.tcp().at(refuses, "").with("outlier: {consecutiveFailures: 1000}"));
    };
    pause(1);
    until("maxBackoffMillis: short", || bed.visit().is_none() && fails_after() < Duration::from_millis(300));
    pause(2000);
    until("initialBackoffMillis: long", || fails_after() > Duration::from_millis(600));
}

/// Seconds until the kernel's next keepalive probe of a session of this port (proc(5), `/proc/net/tcp`: state 01 is
/// ESTABLISHED, timer 2 is keepalive, in hundredths of a second). A gateway's sockets are of both families.
fn keepalive(port: u16) -> Option<u64> {
    let table = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default()).concat();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, "01", _, timer, ..] = fields[..] else { return None };
        let is_ours = local.ends_with(&format!(":{port:04X}"));
        let hundredths = timer.strip_prefix("02:").filter(|_| is_ours)?;
        u64::from_str_radix(hundredths, 16).ok().map(|hundredths| hundredths / 100)
    };
    table.lines().filter_map(of).max()
}
