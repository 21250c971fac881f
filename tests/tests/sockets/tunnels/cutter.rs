//! A bad way between an agent and its server.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use harness::{Backend, Behaviour};

/// A relay on loopback that cuts connections after some bytes of both directions together, and one after the other
/// until it has cut enough.
pub(super) struct Cutter {
    backend: Backend,
    way: Arc<Way>,
}

struct Way {
    target: AtomicU16,
    after: usize,
    cuts_left: AtomicUsize,
}

impl Cutter {
    /// Cuts so many connections, each after so many bytes.
    pub(super) fn start(cuts: usize, after: usize) -> Self {
        Self::start_with(cuts, after, |_| Ok(()))
    }

    /// As [`Cutter::start`], and each connection begins with this before it leads anywhere.
    pub(super) fn start_with(
        cuts: usize,
        after: usize,
        begin: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let way = Arc::new(Way { target: AtomicU16::new(0), after, cuts_left: AtomicUsize::new(cuts) });
        let relay = way.clone();
        let run = move |near: TcpStream| {
            if begin(&near).is_ok() {
                relay.relay(&near);
            }
        };
        Self { backend: Backend::start(Behaviour::Run(Arc::new(run))), way }
    }

    /// The port of the relay.
    pub(super) fn port(&self) -> u16 {
        self.backend.port
    }

    /// From now on connections lead to this port.
    pub(super) fn lead_to(&self, port: u16) {
        self.way.target.store(port, Relaxed);
    }

    /// Connections that are still to be cut.
    pub(super) fn cuts_left(&self) -> usize {
        self.way.cuts_left.load(Relaxed)
    }
}

impl Way {
    fn relay(&self, near: &TcpStream) {
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.target.load(Relaxed))) else {
            // The server is away.
            let _ = near.shutdown(Shutdown::Both);
            return;
        };
        let moved = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| self.pump(near, &far, &moved));
            self.pump(&far, near, &moved);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, moved: &AtomicUsize) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                break;
            }
            let before = moved.fetch_add(read, Relaxed);
            // Of the two directions exactly one comes past the mark.
            if before < self.after && before + read >= self.after && self.takes_one() {
                break;
            }
        }
        for end in [from, to] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn takes_one(&self) -> bool {
        self.cuts_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
