//! The harness of all tests: built programs on sockets, a real Kubernetes, deadlines.
//!
//! - `sockets`: the programs as a person starts them, backends, ports, manifests.
//! - `kills`: a program that is killed under load, and an oracle at its sink.
//! - `kubernetes`: a control plane or a node as a test sees it (Linux).
//! - `cluster`: the processes of a control plane or a node (Linux).
//! - `attack`: a hostile pod (Linux).
//! - `odd`: a machine with name servers and files of a test's own (Linux).
//! - `programs`: where the programs of Kubernetes come from.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test that cannot continue panics; that is its verdict"
)]

#[cfg(target_os = "linux")]
mod attack;
#[cfg(target_os = "linux")]
mod cluster;
pub mod kills;
#[cfg(target_os = "linux")]
mod kubernetes;
#[cfg(target_os = "linux")]
mod netns;
#[cfg(target_os = "linux")]
mod odd;
pub mod programs;
mod sockets;

#[cfg(target_os = "linux")]
pub use attack::{Attack, Door, Force, LYING_PROXIES, Lie, LyingProxy, Speaks, Toll, presented};
#[cfg(target_os = "linux")]
pub use cluster::{Family, Folder, main as keeper};
#[cfg(target_os = "linux")]
pub use kubernetes::{
    Argo, CHARTS, Cluster, CommandOutput, ControlPlane, Done, Fleet, FleetPod, FleetProxy, Held, Holder, Namespace,
    Namespaced, Node, OPERATOR, Operation, Operator, Outcomes, Outpost, Page, Scene, Siege, block_on, expire_lease,
    helm_command, install, kustomize, processes_of, resource_overrides, roots, scene,
};
#[cfg(target_os = "linux")]
pub use odd::{Asked, DeadMount, Dns, Kind, Machine, RecordingServer, Reply};
pub use sockets::{
    Backend, Behaviour, EARLIER_PROGRAMS, Event, FRESH_PROGRAMS, Listener, NatsAccount, NatsUser, PROGRAMS, Program,
    Terminal, UdpEcho, binary, client_hello, earlier, forward, free_port, free_range, send_relp, serve_relp,
};

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything that should happen. Machines that test are busy with other things for minutes, and only a
/// test that fails waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `condition` holds, or panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(PATIENCE, what, condition);
}

/// Waits until `condition` holds, or panics with `what` after `limit`.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "the one place that polls")]
pub fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    loop {
        let asked = Instant::now();
        if condition() {
            return;
        }
        assert!(Instant::now() < deadline, "did not happen within {limit:?}: {what}");
        // A condition that runs a program leaves half of the time to what the condition waits for.
        thread::sleep(asked.elapsed().clamp(Duration::from_millis(5), Duration::from_millis(500)));
    }
}

/// A connection whose reads and writes end after [`PATIENCE`].
///
/// # Errors
/// As `connect(2)`.
pub fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Fails unless the proxy resets the connection, before this message or after it. A proxy that refuses at once may
/// reset before `connect(2)` has returned, and the kernel reports a reset only once, to the next call.
///
/// # Panics
/// The connection was not reset.
#[track_caller]
pub fn assert_reset(stream: std::io::Result<TcpStream>, message: &[u8]) {
    let result = stream.and_then(|mut stream| {
        stream.write_all(message)?;
        stream.read(&mut [0; 1])
    });
    let kind = result.expect_err("reset").kind();
    assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
}

/// Sends `message` and reads as many bytes back.
///
/// # Errors
/// The connection broke.
pub fn round_trip(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The name that an echo server sends first; it ends with a colon and a space.
///
/// # Errors
/// The connection broke.
pub fn greeting(session: &mut TcpStream) -> std::io::Result<String> {
    let mut name = Vec::new();
    while !name.ends_with(b": ") {
        let mut byte = [0];
        session.read_exact(&mut byte)?;
        name.extend(byte);
    }
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// Whether a new session on a port of this machine is echoed.
pub fn echoes(port: u16) -> bool {
    connect(port).and_then(|mut session| round_trip(&mut session, b"x")).is_ok()
}

/// Status and body of a GET.
///
/// # Errors
/// The server did not answer.
pub fn http_get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    http_get_on(connect(port)?, path)
}

/// Status and body of a GET on this connection.
///
/// # Errors
/// The server did not answer.
pub fn http_get_on(mut stream: TcpStream, path: &str) -> std::io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// The value of a metric whose line starts with `series`.
#[must_use]
pub fn metric(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.rsplit(' ').next()?.parse().ok())
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Raises the limit of open files of this process, for tests with thousands of connections.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}
