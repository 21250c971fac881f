//! A server to forward to: sends back whatever it is sent, on TCP and UDP of 127.0.0.1.
//!
//! `cargo run --example echo` listens on 7777; `cargo run --example echo -- 8888` on 8888.

use std::{
    env, io,
    net::{TcpListener, UdpSocket},
    thread,
};

fn main() -> io::Result<()> {
    let port: u16 = env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(7777);
    let (tcp, udp) = (TcpListener::bind(("127.0.0.1", port))?, UdpSocket::bind(("127.0.0.1", port))?);
    println!("echo on 127.0.0.1:{port}, TCP and UDP");
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = udp.recv_from(&mut datagram) {
            let _ = udp.send_to(&datagram[..length], from);
        }
    });
    for stream in tcp.incoming() {
        let stream = stream?;
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    }
    Ok(())
}
