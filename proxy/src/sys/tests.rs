//! Tests of the system calls.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
};

use super::*;

#[allow(clippy::expect_used, reason = "a test helper")]
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (client, accept(&listener).expect("accept").0)
}

#[test]
fn unacknowledged_counts_what_the_peer_has_not_taken_and_falls_to_zero() {
    let (mut client, server) = pair();
    client.set_nonblocking(true).expect("nonblocking");
    let chunk = vec![7_u8; 65536];
    let mut written = 0;
    while let Ok(n) = client.write(&chunk) {
        written += n;
    }
    assert!(unacknowledged(&client) > 0);
    server.set_nonblocking(false).expect("blocking");
    let mut server = server;
    let mut sink = vec![0; 65536];
    let mut read = 0;
    while read < written {
        read += server.read(&mut sink).expect("read");
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while unacknowledged(&client) > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn what_a_socket_buffers_counts_with_what_the_system_needs_around_it_until_it_is_read() {
    let (mut client, mut server) = pair();
    server.set_nonblocking(false).expect("blocking");
    server.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("option");
    assert_eq!(buffered(&client) + buffered(&server), 0);
    client.set_nonblocking(true).expect("nonblocking");
    let mut written = 0;
    while let Ok(n) = client.write(&[7; 8192]) {
        written += n;
    }
    let held = buffered(&client) + buffered(&server);
    assert!(held >= written as u64 && buffered(&server) > 0, "{held} bytes for {written}");
    let mut sink = vec![0; 65536];
    let mut read = 0;
    while read < written {
        read += server.read(&mut sink).expect("read");
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while buffered(&client) + buffered(&server) > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn bytes_pass_through_a_pipe() {
    let (mut client, server) = pair();
    let (mut far, near) = pair();
    let pipe = Pipe::new(65536).expect("pipe");
    client.write_all(b"hello").expect("write");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let moved = loop {
        match splice_in(&server, &pipe, usize::MAX) {
            Ok(n) => break n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(std::time::Instant::now() < deadline);
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(moved, 5);
    assert_eq!(splice_out(&pipe, &near, 5).expect("out"), 5);
    let mut got = [0; 5];
    far.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"hello");
}

fn option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> libc::c_int {
    let (mut value, mut length) = (-1, 4);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; the system writes one c_int.
    #[allow(unsafe_code, reason = "reads an option that libraries do not know")]
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

fn set_option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; the system reads one c_int.
    #[allow(unsafe_code, reason = "sets an option that libraries do not know")]
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_socket_tells_local_addresses_and_has_no_option_that_costs_the_node() {
    // D15
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(socket) = UdpSocket::bind(address) else { continue };
        datagrams(&socket).expect("a state");
        assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), 0);
        let (level, told, class) = if address.starts_with('[') {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS)
        } else {
            assert_eq!(option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_WANT);
            (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVTOS)
        };
        assert_eq!((option(&socket, level, told), option(&socket, level, class)), (1, 0), "{address}");
    }
}

#[test]
fn what_the_system_does_not_tell_is_no_number() {
    let file = std::fs::File::open("/dev/null").expect("open");
    assert_eq!((dropped(&file), buffered(&file)), (None, 0));
}

#[test]
fn datagrams_that_a_full_buffer_cannot_take_are_counted() {
    // D14
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    assert_eq!(dropped(&server), Some(0));
    socket2::SockRef::from(&server).set_recv_buffer_size(4096).expect("option");
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let to = server.local_addr().expect("address");
    for _ in 0..100 {
        client.send_to(&[0; 1000], to).expect("send");
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while dropped(&server) <= Some(50) {
        assert!(std::time::Instant::now() < deadline, "{:?}", dropped(&server));
        std::thread::yield_now();
    }
}

#[test]
fn errors_are_reported_and_leave_the_queue() {
    use rustix::{
        io::Errno,
        net::{RecvFlags, recv},
    };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        // Nobody listens on the port of a socket that is connected to another.
        let Ok(gone) = UdpSocket::bind(address) else { continue };
        gone.connect(gone.local_addr().expect("address")).expect("connect");
        let socket = UdpSocket::bind(address).expect("bind");
        socket.connect(gone.local_addr().expect("address")).expect("connect");
        report_errors(&socket);
        socket.send(b"question").expect("send");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("option");
        let error = socket.recv(&mut [0; 8]).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
        drop_errors(&socket);
        let queued = recv(&socket, &mut [0_u8; 8], RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT);
        assert_eq!(queued.expect_err("an empty queue"), Errno::AGAIN, "{address}");
    }
}

/// A connected socket that sends, and one that receives.
#[allow(clippy::expect_used, reason = "a test helper")]
fn datagram_pair(address: &str) -> Option<(UdpSocket, UdpSocket)> {
    let receiver = UdpSocket::bind(address).ok()?;
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("option");
    let sender = UdpSocket::bind(address).expect("bind");
    sender.connect(receiver.local_addr().expect("address")).expect("connect");
    Some((sender, receiver))
}

#[test]
fn a_train_arrives_as_the_datagrams_it_is_made_of() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some((sender, receiver)) = datagram_pair(address) else { continue };
        if datagrams(&receiver).expect("a state").max_gso_segments() < 2 {
            continue;
        }
        // Without a place for the size of the datagrams, joined ones would arrive as one.
        set_option(&receiver, libc::SOL_UDP, libc::UDP_GRO, 0);
        send_train(&sender, b"abcdefgh", 3).expect("send");
        let arrived = [(); 3].map(|()| {
            let mut bytes = [0; 16];
            let length = receiver.recv(&mut bytes).expect("a datagram");
            bytes[..length].to_vec()
        });
        assert_eq!(arrived, [&b"abc"[..], b"def", b"gh"], "{address}");
    }
}

#[test]
fn a_train_is_received_with_the_size_of_its_datagrams() {
    let (sender, receiver) = datagram_pair("127.0.0.1:0").expect("loopback");
    let state = datagrams(&receiver).expect("a state");
    if state.max_gso_segments() < 2 || state.gro_segments() < 2 {
        return;
    }
    send_train(&sender, &[7; 250], 100).expect("send");
    let (count, entry) = next(&state, &receiver);
    assert_eq!((count, entry.len, entry.stride), (1, 250, 100));
}

/// The number of entries of the next batch, and the first of them.
#[allow(clippy::expect_used, reason = "a test helper")]
fn next(state: &UdpSocketState, receiver: &UdpSocket) -> (usize, Received) {
    let (mut buffer, mut entries) = ([0; 1000], [Received::default()]);
    let count = receive(state, receiver, &mut [IoSliceMut::new(&mut buffer)], &mut entries).expect("a datagram");
    (count, entries[0])
}

#[test]
fn each_datagram_is_received_with_its_addresses_and_its_hop_limit_on_sockets_of_both_families_too() {
    for (server, client) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::]:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")] {
        let (Ok(receiver), Ok(sender)) = (UdpSocket::bind(server), UdpSocket::bind(client)) else { continue };
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("option");
        let state = datagrams(&receiver).expect("a state");
        let from = sender.local_addr().expect("address");
        let to = SocketAddr::new(from.ip(), receiver.local_addr().expect("address").port());
        for hops in [1, 9, 255] {
            crate::net::set_hop_limit(&sender, to.ip(), hops).expect("option");
            sender.send_to(b"abc", to).expect("send");
            let (count, entry) = next(&state, &receiver);
            assert_eq!((count, entry.len, entry.stride, entry.hop_limit), (1, 3, 3, Some(hops)), "{server}, {client}");
            assert_eq!((entry.from.ip().to_canonical(), entry.from.port()), (from.ip(), from.port()));
            assert_eq!(entry.local.map(|ip: IpAddr| ip.to_canonical()), Some(to.ip()), "{server}, {client}");
        }
    }
}

#[test]
fn fragments_are_forbidden_and_allowed_again_except_where_the_system_never_forbids_them() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let discovery = || option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
    datagrams(&socket).expect("a state");
    assert!(forbid_fragments(&socket));
    assert_eq!(discovery(), libc::IP_PMTUDISC_DO);
    allow_fragments(&socket);
    assert_eq!(discovery(), libc::IP_PMTUDISC_WANT);
    set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT);
    assert!(!forbid_fragments(&socket));
    assert_eq!(discovery(), libc::IP_PMTUDISC_DONT);
}

#[test]
fn the_system_begins_to_write_a_file_and_refuses_what_is_none() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&[7; 8192]).expect("written");
    for count in [0, 4096, 1 << 30] {
        begin_write_back(&file, count).expect("a file system of a disk, or one in memory");
    }
    let device = File::open("/dev/null").expect("open");
    begin_write_back(&device, 4096).expect_err("a device of bytes");
}
