//! Backend servers for the tests.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::PATIENCE;

/// What a server does with each connection.
#[derive(Clone)]
pub enum Behaviour {
    /// Echoes everything, then closes.
    Echo,
    /// Sends this many bytes at once, then resets.
    SendAndReset(usize),
    /// Sends as many of these bytes as the peer accepts, then holds the connection.
    SendAndHold(usize),
    /// Holds the connection without reading.
    Hold,
    /// Runs this function.
    Run(Arc<dyn Fn(TcpStream) + Send + Sync>),
}

/// Live connections, by number.
type Held = Arc<Mutex<HashMap<usize, TcpStream>>>;

/// A TCP server on loopback. Dropping it closes everything.
pub struct Backend {
    /// Port of the server.
    pub port: u16,
    address: SocketAddr,
    /// Number of connections accepted so far.
    pub accepted: Arc<AtomicUsize>,
    held: Held,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Backend {
    /// Starts a server on a port chosen by the system.
    #[must_use]
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_on(0, behaviour)
    }

    /// Starts a server on this port.
    #[must_use]
    pub fn start_on(port: u16, behaviour: Behaviour) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], port)), behaviour)
    }

    /// Starts a server on all local addresses, on a port chosen by the system.
    #[must_use]
    pub fn reachable(behaviour: Behaviour) -> Self {
        Self::start_at(SocketAddr::from(([0, 0, 0, 0], 0)), behaviour)
    }

    /// Starts a server on this address.
    #[must_use]
    pub fn start_at(address: SocketAddr, behaviour: Behaviour) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
        socket.set_reuse_address(true).expect("option");
        socket.bind(&address.into()).expect("bind");
        socket.listen(4096).expect("listen");
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().expect("address").port();
        let (accepted, held, stop) = (Arc::default(), Arc::default(), Arc::default());
        let server = Server { behaviour, accepted: Arc::clone(&accepted), held: Arc::clone(&held) };
        let stopped: Arc<AtomicBool> = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                server.take(stream);
            }
        });
        let address = SocketAddr::new(address.ip(), port);
        Self { port, address, accepted, held, stop, thread: Some(thread) }
    }

    /// Starts a small HTTP server on this address that answers each path with a status.
    #[must_use]
    pub fn http(address: SocketAddr, status_of: impl Fn(&str) -> u16 + Send + Sync + 'static) -> Self {
        let answer = move |mut stream: TcpStream| {
            let mut request = Vec::new();
            let mut buffer = [0; 512];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => return,
                }
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let status = status_of(path);
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        Self::start_at(address, Behaviour::Run(Arc::new(answer)))
    }

    /// Number of connections accepted so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.accepted.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for (_, stream) in self.held.lock().expect("unpoisoned").drain() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

struct Server {
    behaviour: Behaviour,
    accepted: Arc<AtomicUsize>,
    held: Held,
}

impl Server {
    fn take(&self, mut stream: TcpStream) {
        let number = self.accepted.fetch_add(1, Relaxed);
        let keep = |stream: &TcpStream| {
            let clone = stream.try_clone().expect("clone");
            self.held.lock().expect("unpoisoned").insert(number, clone);
        };
        match self.behaviour.clone() {
            Behaviour::Echo => {
                keep(&stream);
                let held = self.held.clone();
                thread::spawn(move || {
                    echo(stream);
                    held.lock().expect("unpoisoned").remove(&number);
                });
            }
            Behaviour::SendAndReset(bytes) => {
                thread::spawn(move || {
                    stream.set_write_timeout(Some(PATIENCE)).expect("option");
                    let _ = stream.write_all(&vec![7; bytes]);
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                });
            }
            Behaviour::SendAndHold(bytes) => {
                // Sends what the kernel and the proxy accept at once; the rest is never sent.
                stream.set_nonblocking(true).expect("option");
                let chunk = vec![7; bytes];
                let _ = stream.write(&chunk);
                keep(&stream);
            }
            Behaviour::Hold => keep(&stream),
            Behaviour::Run(run) => {
                thread::spawn(move || run(stream));
            }
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
        }
    }
    // The test holds a clone to cut the connection, so dropping this one does not close it.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// A UDP server on loopback that sends every datagram back.
pub struct UdpEcho {
    /// Port of the server.
    pub port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts a server on a port chosen by the system.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(0)
    }

    /// Starts a server on this port.
    #[must_use]
    pub fn start_on(port: u16) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("option");
        let port = socket.local_addr().expect("address").port();
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
