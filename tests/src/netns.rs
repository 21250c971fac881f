//! Sockets in the network namespace of another process.
//!
//! A socket stays in the namespace where it was created, whichever thread uses it. So a thread enters the namespace,
//! creates the socket, and ends.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    panic::resume_unwind,
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longest attempt to connect into a namespace.
const CONNECT: Duration = Duration::from_secs(5);

/// Runs `work` in the network namespace of a process.
///
/// # Errors
/// The process is gone, this process may not enter the namespace, or `work` failed.
pub(crate) fn within<T: Send>(process: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(format!("/proc/{process}/ns/net"))?;
    thread::scope(|scope| {
        let visit = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        visit.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Relays connections of `listener` to an address in the namespace of a process, for as long as this process lives.
pub(crate) fn relay(listener: TcpListener, process: u32, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                // A connection that fails is closed, which its client notices.
                if let Ok(server) = within(process, || TcpStream::connect_timeout(&to, CONNECT)) {
                    pass(&client, &server);
                }
            });
        }
    });
}

fn pass(a: &TcpStream, b: &TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(a, b));
        copy(b, a);
    });
}
