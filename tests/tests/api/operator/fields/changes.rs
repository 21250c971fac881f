//! The changes, by topic. Each is observed by what a client meets, or by how sessions end.

use std::{
    io::{ErrorKind, Read, Write as _},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use harness::{Listener, PATIENCE, client_hello, connect, free_port, free_range, until};

use super::{TestBed, Write, connect_outside, servers, session_at};

/// Failures eject no endpoint.
const PATIENT: &str = "outlier: {consecutiveFailures: 1000}";

pub(super) fn balancing(bed: &TestBed<'_>) {
    bed.keep();
    bed.set("", bed.tcp().on(&bed.b));
    until("backends: another backend", || bed.visit() == Some(b'b'));
    bed.set("", bed.tcp().at(bed.a.port, ", weight: 3").on(&bed.b));
    let of_a = || bed.visits(8).iter().filter(|greeted| **greeted == Some(b'a')).count();
    until("weight: three to one", || of_a() == 6);
    bed.set("", bed.tcp().at(bed.a.port, ", weight: 1").at(bed.b.port, ", weight: 3"));
    until("weight: one to three", || of_a() == 2);
    let both = |policy: &str| {
        bed.set("", bed.tcp().on(&bed.a).on(&bed.b).with(&format!("loadBalancing: {{policy: {policy}}}")));
    };
    both("SourceHash");
    until("policy: the same backend for one source", || matches!(of_a(), 0 | 8));
    both("RoundRobin");
    until("policy: in turn", || of_a() == 4);
    both("Random");
    until("policy: at random", || bed.visits(8).windows(2).any(|pair| pair[0] == pair[1]));
    both("LeastConnections");
    // The kept session is at A, and it counted while A was no backend. A visit counts until the proxy has ended it.
    until("policy: to the one with fewer live sessions", || {
        (0..4).all(|_| {
            let ended = bed.closed("Finished");
            let greeted = bed.visit();
            until("the visit has ended", || bed.closed("Finished") > ended);
            greeted == Some(b'b')
        })
    });
    endpoints(bed);
    bed.is_kept();
}

/// The policies among the endpoints of one backend.
fn endpoints(bed: &TestBed<'_>) {
    let Some((_servers, backend)) = bed.place.pair() else {
        eprintln!("left out: policies among the endpoints of a name, which need a mount namespace for a hosts file");
        return;
    };
    let among = |policy: &str| {
        bed.set("", bed.tcp().backend(&backend).with(&format!("loadBalancing: {{policy: {policy}}}")));
    };
    let greeted = || bed.visits(12);
    let alternates = |greeted: &[Option<u8>]| greeted.windows(2).all(|pair| pair[0] != pair[1]);
    among("Random");
    until("policy: an endpoint at random", || {
        let greeted = greeted();
        !alternates(&greeted) && greeted.iter().any(|name| *name != greeted[0])
    });
    among("RoundRobin");
    until("policy: one endpoint after the other", || alternates(&greeted()));
    among("LeastConnections");
    until("policy: the endpoint with fewer sessions", || {
        let ended = bed.closed("Finished");
        let all: Vec<_> = (0..16).filter_map(|_| bed.session()).collect();
        let (stay, leave): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, name)| *name == b'p');
        let left = leave.len();
        drop(leave);
        until("the sessions of one endpoint have ended", || {
            bed.closed("Finished") >= ended + f64::from(u32::try_from(left).unwrap_or(0))
        });
        let new: Vec<_> = stay.iter().filter_map(|_| bed.session()).collect();
        stay.len() > 4 && new.len() == stay.len() && new.iter().all(|(_, name)| *name == b'q')
    });
    among("SourceHash");
    until("policy: one endpoint for one source", || {
        let Some((_held, name)) = bed.session() else { return false };
        greeted().iter().all(|other| *other == Some(name))
    });
}

pub(super) fn limits(bed: &TestBed<'_>) {
    bed.set("", bed.tcp().on(&bed.a));
    bed.keep();
    let limits = |limits: &str| bed.set(&format!("limits: {{{limits}}}"), bed.tcp().on(&bed.a));
    limits("maxConnections: 1, onLimit: Reject");
    bed.until_closed("ConnectionLimit", || bed.visit());
    limits("maxConnections: 1, onLimit: Queue, maxQueued: 1, queueSeconds: 1");
    bed.until_closed("QueueTimeout", || bed.visit());
    // The default is five seconds.
    until("queueSeconds: one second in the queue", || {
        let began = Instant::now();
        bed.visit().is_none()
            && began.elapsed() > Duration::from_millis(900)
            && began.elapsed() < Duration::from_secs(4)
    });
    limits("maxConnections: 1, maxQueued: 1, queueSeconds: 20");
    let mut waiting = queued(bed);
    bed.until_closed("QueueFull", || connect(bed.port).map(|mut it| it.read(&mut [0])));
    limits("maxConnections: 100");
    waiting.read_exact(&mut [0]).expect("a higher limit admits queued sessions");
    limits("maxConnectionsPerSource: 1");
    bed.until_closed("SourceLimit", || bed.visit());
    limits("newConnectionsPerSecond: 1");
    bed.until_closed("RateLimit", || bed.visits(4));
    limits("bytesPerSecond: 20000");
    until("bytesPerSecond: slow", || bed.visit().is_some() && bed.visit().is_some() && !transfer(bed));
    bed.set("access: {denyCIDRs: [127.0.0.0/8]}", bed.tcp().on(&bed.a));
    bed.until_closed("AccessDenied", || bed.visit());
    bed.set("access: {denyCIDRs: [127.0.0.0/8], allowCIDRs: [127.0.0.0/8]}", bed.tcp().on(&bed.a));
    until("access: deny wins over allow", || bed.visit().is_none());
    bed.set("access: {allowCIDRs: [127.0.0.0/8]}", bed.tcp().on(&bed.a));
    until("access: allowed", || bed.visit().is_some());
    bed.set("access: {allowCIDRs: [10.99.0.0/16]}", bed.tcp().on(&bed.a));
    until("access: not allowed", || bed.visit().is_none());
    bed.set("", bed.tcp().on(&bed.a));
    until("without limits bytes are fast", || transfer(bed));
    bed.is_kept();
}

/// A session that is queued for more than two seconds. Until such a limit has arrived, sessions are reset after one.
fn queued(bed: &TestBed<'_>) -> TcpStream {
    let mut waiting = None;
    until("queueSeconds: more than two seconds in the queue", || {
        let Ok(mut session) = connect(bed.port) else { return false };
        let _ = session.set_read_timeout(Some(Duration::from_secs(2)));
        let end = session.read(&mut [0]);
        let waits = end.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        waiting = waits.then_some(session);
        waits
    });
    let waiting = waiting.expect("the session is queued");
    let _ = waiting.set_read_timeout(Some(PATIENCE));
    waiting
}

/// Whether bytes that take ten seconds at the limit are echoed in less than two.
fn transfer(bed: &TestBed<'_>) -> bool {
    let Some((mut reader, _)) = bed.session() else { return false };
    let _ = reader.set_read_timeout(Some(Duration::from_secs(2)));
    let mut writer = reader.try_clone().expect("clone");
    // Bytes that are not read at once are read, or reset, when the session ends.
    let writing = std::thread::spawn(move || writer.write_all(&vec![5; 100_000]));
    let (began, mut left) = (Instant::now(), 100_000);
    while left > 0 && began.elapsed() < Duration::from_secs(2) {
        match reader.read(&mut [0; 16_384]) {
            Ok(read) if read > 0 => left -= read,
            _ => break,
        }
    }
    let _ = reader.shutdown(std::net::Shutdown::Both);
    drop(reader);
    let _ = writing.join();
    left == 0
}

pub(super) fn peers(bed: &TestBed<'_>) {
    bed.keep();
    let header = |fields: &str| bed.set("", bed.tcp().on(&bed.a).with(&format!("proxyProtocol: {{{fields}}}")));
    let greets = |expected: &[u8]| {
        let Ok(mut stream) = connect(bed.port) else { return false };
        let mut answer = vec![0; expected.len()];
        // Until the change has arrived, the backend sends only its greeting.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
        stream.read_exact(&mut answer).is_ok() && answer == expected
    };
    header("send: V1");
    until("send: a header of version 1", || greets(b"aPROXY TCP4 127.0.0.1 127.0.0.1 "));
    header("send: V2");
    until("send: a header of version 2", || greets(b"a\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1f"));
    // A proxy that accepts headers echoes "x"; any other echoes the header itself.
    let says = || {
        let mut stream = connect(bed.port).ok()?;
        stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\nx").ok()?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).ok().map(|()| answer)
    };
    header("accept: Required, trustedCIDRs: [127.0.0.0/8]");
    until("accept: headers are removed", || says() == Some(*b"ax"));
    header("accept: Required, trustedCIDRs: [10.99.0.0/16]");
    bed.until_closed("UntrustedPeer", says);
    header("accept: Optional, trustedCIDRs: [10.99.0.0/16]");
    until("accept: a header of an untrusted peer is data", || says() == Some(*b"aP"));
    header("accept: Optional, trustedCIDRs: [127.0.0.0/8]");
    until("accept: headers are removed again", || says() == Some(*b"ax"));
    bed.set("", bed.tcp().on(&bed.a));
    until("no headers", || says() == Some(*b"aP"));
    bed.is_kept();
}

pub(super) fn health(bed: &TestBed<'_>) {
    bed.keep();
    let beside = |dead: u16, attempts: u8, more: &str| {
        let retry = format!("retry: {{attempts: {attempts}, initialBackoffMillis: 1, maxBackoffMillis: 2}}");
        bed.set(&retry, bed.tcp().at(dead, "").on(&bed.a).with(more));
    };
    let (dead, silent) = (free_port(), free_port());
    let retry = |attempts: u8, more: &str| beside(dead, attempts, more);
    retry(1, PATIENT);
    bed.until_closed("NoBackend", || bed.visits(2));
    retry(3, PATIENT);
    until("attempts: the next attempt goes to the other backend", || bed.all_are(b'a'));
    let ejections = || bed.place.metric("portlane_endpoint_ejections_total", "");
    retry(1, "outlier: {consecutiveFailures: 1, ejectSeconds: 1}");
    until("outlier: ejected at a failure, and again when ejectSeconds are over", || {
        bed.visits(2);
        ejections() > 1.0
    });
    retry(1, "outlier: {consecutiveFailures: 1, ejectSeconds: 300}");
    until("outlier: ejected for long", || bed.all_are(b'a') && bed.all_are(b'a'));
    let check =
        "healthCheck: {tcp: {}, intervalSeconds: 1, timeoutSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}";
    beside(silent, 1, PATIENT);
    bed.until_closed("NoBackend", || bed.visits(2));
    beside(silent, 1, &format!("{PATIENT}, {check}"));
    until("healthCheck: an endpoint that does not answer gets no session", || bed.all_are(b'a'));

    let judge = servers::judge();
    let unhealthy = || bed.place.metric("portlane_backend_endpoints_unhealthy", "");
    let asks = |path: &str, more: &str| {
        let http = format!("http: {{port: {}, path: {path}}}", judge.port);
        let check = format!("healthCheck: {{{http}, intervalSeconds: 1, unhealthyThreshold: 1, healthyThreshold: 1}}");
        bed.set(more, bed.tcp().on(&bed.a).with(&check));
    };
    asks("/bad", "");
    until("healthCheck: a path that fails", || unhealthy() >= 1.0);
    asks("/good", "");
    until("healthCheck: a path that succeeds", || unhealthy() < 1.0 && bed.visit() == Some(b'a'));
    bed.is_kept();
    let (_session, before) = (bed.session().expect("a session"), bed.closed("BackendUnhealthy"));
    asks("/bad", "sessions: {onUnhealthy: Close}");
    until("onUnhealthy: the session is closed", || bed.closed("BackendUnhealthy") > before);

    let standby = |a: &str, b: &str| bed.set("", bed.tcp().at(bed.a.port, a).at(bed.b.port, b));
    standby(", priority: 1", "");
    until("priority: the first", || bed.all_are(b'b'));
    standby("", ", priority: 1");
    until("priority: the other backend is now the first", || bed.all_are(b'a'));
}

pub(super) fn names(bed: &TestBed<'_>) {
    bed.set("", bed.tcp().on(&bed.a));
    bed.keep();
    let named = |names: &str| {
        bed.set("", Listener::tls("l", bed.port).on(&bed.a).with(&format!("tls: {{hostnames: [{names}]}}")));
    };
    // The backend's greeting, and the first byte of the TLS record, which arrives unchanged.
    let asks = |name: &str| {
        let mut stream = connect(bed.port).ok()?;
        stream.write_all(&client_hello(name.as_bytes())).ok()?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).ok().map(|()| answer)
    };
    named("one.example");
    until("hostnames: only this name", || asks("one.example") == Some([b'a', 22]) && asks("two.example").is_none());
    named("'*.example'");
    until("hostnames: a wildcard", || {
        asks("two.example") == Some([b'a', 22]) && asks("example").is_none() && bed.closed("Finished") > 0.0
    });
    bed.set("", bed.tcp().on(&bed.a));
    until("protocol: any bytes", || asks("example") == Some([b'a', 22]));
    bed.is_kept();
}

pub(super) fn ports(bed: &TestBed<'_>) {
    bed.keep();
    let greeted = |port: u16| session_at(port).map(|(_, name)| name);
    let other = free_port();
    bed.set("", Listener::tcp("l", other).on(&bed.a));
    until("port: another port", || greeted(other) == Some(b'a') && connect(bed.port).is_err());
    let first = free_range(2);
    bed.set("", Listener::tcp("l", first).at(bed.a.port, "").with(&format!("endPort: {}", first + 1)));
    // The second port of the range leads to the port after the backend's, where nothing listens.
    until("endPort: a range", || greeted(first) == Some(b'a') && connect(first + 1).is_ok());
    assert_eq!(greeted(first + 1), None, "the second port of the range leads to another port");
    bed.set("", bed.tcp().on(&bed.a).with("bind: All"));
    until("bind: reachable from outside", || connect_outside(bed.port).is_ok());
    bed.set("", bed.tcp().on(&bed.a).with("bind: Loopback"));
    until("bind: reachable from loopback only", || connect_outside(bed.port).is_err() && connect(bed.port).is_ok());
    bed.is_kept();

    let udp = |more: &str| bed.set(more, Listener::udp("l", bed.port).at(servers::udp_echo(), ""));
    udp("");
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(("127.0.0.1", bed.port)).expect("connect");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("option");
        socket
    };
    let echoes = |socket: &UdpSocket| socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8])).is_ok();
    let socket = client();
    until("protocol: datagrams", || echoes(&socket));
    udp("timeouts: {udpIdleSeconds: 1}");
    bed.until_closed("FlowIdle", || echoes(&client()));
    udp("limits: {maxFlows: 1}");
    bed.until_closed("Evicted", || echoes(&client()));
    bed.set("", bed.tcp().on(&bed.a));
    until("protocol: connections again", || bed.visit() == Some(b'a'));
}

pub(super) fn switches(bed: &TestBed<'_>) {
    let logs = |log: &str| bed.set(&format!("accessLog: {{{log}}}"), bed.tcp().on(&bed.a));
    let logged = |event: &str, work: &dyn Fn()| {
        let before = bed.place.logged(event);
        until(event, || {
            work();
            bed.place.logged(event) > before
        });
    };
    bed.keep();
    logged("session_closed", &|| assert!(bed.visit().is_some()));
    assert_eq!(bed.place.logged("session_opened"), 0, "only ends are logged");
    logs("mode: OpenAndClose");
    logged("session_opened", &|| assert!(bed.visit().is_some()));
    logs("intervalSeconds: 1");
    logged("session_open", &|| bed.is_kept());
    logs("mode: Disabled");
    until("accessLog: nothing is logged", || {
        let (before, ended) = (bed.place.logged("session_closed"), bed.closed("Finished"));
        bed.visits(4);
        until("the sessions have ended", || bed.closed("Finished") > ended + 3.0);
        bed.place.logged("session_closed") == before
    });
    bed.is_kept();
    bed.set("suspend: true", bed.tcp().on(&bed.a));
    until("suspend: the port is closed", || connect(bed.port).is_err());
    bed.set("suspend: false", bed.tcp().on(&bed.a));
    until("suspend: the forward serves again", || bed.visit() == Some(b'a'));
    bed.is_kept();
}
