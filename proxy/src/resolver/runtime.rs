//! Sockets for questions to name servers.
//!
//! A UDP socket is connected to its server, so that a server which does not run fails at once instead of after the
//! timeout, and so that the zone of a link-local server counts: `hickory` passes addresses without zones.

use std::{
    fs, io,
    net::{SocketAddr, SocketAddrV6},
    pin::Pin,
    time::Duration,
};

use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::UdpSocket;

use crate::core::dns::resolv_conf::Server;

/// How long a server may leave bytes unacknowledged before its connection counts as dead. Shorter than the wait for an
/// answer, which ends without a word to the connection: without this bound, each question would use it again.
#[cfg(target_os = "linux")]
const GONE: Duration = Duration::from_secs(4);

/// Opens the sockets for one server.
#[derive(Clone, Default)]
pub(super) struct Runtime {
    tokio: TokioRuntimeProvider,
    /// Interface of a link-local server; 0 if there is none.
    zone: u32,
}

impl Runtime {
    /// Sockets for this server.
    pub(super) fn new(server: &Server) -> Self {
        let zone = server.zone.as_deref().and_then(interface).unwrap_or_default();
        Self { tokio: TokioRuntimeProvider::default(), zone }
    }

    fn with_zone(&self, server: SocketAddr) -> SocketAddr {
        match server {
            SocketAddr::V6(six) => SocketAddrV6::new(*six.ip(), six.port(), six.flowinfo(), self.zone).into(),
            four @ SocketAddr::V4(_) => four,
        }
    }
}

/// The number of an interface, from its name or its number.
fn interface(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number);
    }
    let is_plain = !zone.contains('/') && zone != "." && zone != "..";
    let text = fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok().filter(|_| is_plain)?;
    text.trim().parse().ok()
}

impl RuntimeProvider for Runtime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Tcp, io::Error>>>> {
        let connecting = self.tokio.connect_tcp(self.with_zone(server), bind, wait);
        Box::pin(async move {
            let stream = connecting.await?;
            #[cfg(target_os = "linux")]
            SockRef::from(&stream.0).set_tcp_user_timeout(Some(GONE))?;
            Ok(stream)
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Udp, io::Error>>>> {
        let server = self.with_zone(server);
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            // Elsewhere a connected socket cannot send to an address, which hickory does.
            if cfg!(target_os = "linux") {
                socket.connect(server).await?;
            }
            Ok(socket)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_zone_of_a_server_is_a_name_or_a_number() {
        let of = |zone: &str| {
            let server = Server { ip: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), zone: Some(zone.to_owned()) };
            Runtime::new(&server).zone
        };
        assert_eq!((of("7"), of("no-such-interface"), of("../net")), (7, 0, 0));
        let six = Runtime { zone: 7, ..Runtime::default() }.with_zone("[fe80::1]:53".parse().expect("an address"));
        assert_eq!(six.to_string(), "[fe80::1%7]:53");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_that_a_server_no_longer_acknowledges_ends() {
        let server = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = server.local_addr().expect("an address");
        let stream = Runtime::default().connect_tcp(address, None, None).await.expect("a connection");
        let bound = SockRef::from(&stream.0).tcp_user_timeout().expect("read");
        assert_eq!(bound, Some(GONE));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_server_that_does_not_run_is_noticed_at_once() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let server = taken.local_addr().expect("an address");
        drop(taken);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = Runtime::default().bind_udp(any, server).await.expect("a socket");
        socket.send_to(b"x", server).await.expect("sent");
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut [0])).await.expect("at once");
        assert_eq!(received.expect_err("nobody").kind(), io::ErrorKind::ConnectionRefused);
    }
}
