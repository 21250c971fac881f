//! The servers behind the forward under test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
};

use harness::{Backend, Behaviour};

/// A server that greets with its name, one byte, and then echoes.
pub(super) fn named(name: u8) -> Backend {
    named_at([0, 0, 0, 0], 0, name)
}

/// Such a server on this address.
pub(super) fn named_at(ip: [u8; 4], port: u16, name: u8) -> Backend {
    let serve = move |mut stream: TcpStream| {
        let mut buffer = [0; 16_384];
        let mut sent = stream.write_all(&[name]);
        while sent.is_ok() {
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => sent = stream.write_all(&buffer[..read]),
                _ => return,
            }
        }
    };
    Backend::start_at(SocketAddr::from((ip, port)), Behaviour::Run(Arc::new(serve)))
}

/// An HTTP server that answers 200 on `/good` and 503 elsewhere.
pub(super) fn judge() -> Backend {
    Backend::http(SocketAddr::from(([0, 0, 0, 0], 0)), |path| if path == "/good" { 200 } else { 503 })
}

/// Port of a UDP echo server on all addresses, which runs as long as the tests do.
pub(super) fn udp_echo() -> u16 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let port = socket.local_addr().expect("address").port();
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
    port
}

/// A server whose accept queue is full: a new connection is not answered.
pub(super) struct Stuck {
    pub(super) port: u16,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Stuck {
    pub(super) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).expect("bind");
        socket.listen(0).expect("listen");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("address");
        let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
        let short = std::time::Duration::from_millis(300);
        let queued = (0..8).map_while(|_| TcpStream::connect_timeout(&local, short).ok()).collect();
        Self { port: address.port(), _listener: listener, _queued: queued }
    }
}
