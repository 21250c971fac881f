//! Sends one query to one name server.
//!
//! Each query has a socket of its own, so that answers do not mix and the system picks a port that nobody can guess. A
//! UDP socket is connected to its server and reports every ICMP error, as with glibc: a server that is not running or
//! unreachable fails at once instead of after the timeout, and datagrams of others do not arrive.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    pin::pin,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpStream, UdpSocket},
    task::yield_now,
    time::Instant,
};

use crate::{
    core::resolution::dns::{
        answer::Answer,
        exchange::{Judgement, Question, Via},
        resolv_conf::{Flag, ResolvConf, Server},
    },
    deadline::within,
    sys,
};

/// Port of name servers.
const PORT: u16 = 53;
/// Longest datagram, in bytes. A server may exceed the allowed size, and glibc accepts that.
const LONGEST: usize = 65_535;
/// Events to wait for at a UDP socket: an ICMP error alone does not make it readable.
const ANSWERS: Interest = Interest::READABLE.add(Interest::ERROR);

/// A name server, and how to query it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameServer {
    address: SocketAddr,
    /// Whether no query is sent over UDP.
    is_tcp_only: bool,
}

impl NameServer {
    /// Creates a name server with these settings.
    pub(super) fn new(server: &Server, conf: &ResolvConf) -> Self {
        let zone = server.zone.as_deref().and_then(interface).unwrap_or_default();
        let address = match SocketAddr::new(server.ip, PORT) {
            SocketAddr::V6(six) => SocketAddrV6::new(*six.ip(), six.port(), six.flowinfo(), zone).into(),
            four @ SocketAddr::V4(_) => four,
        };
        Self { address, is_tcp_only: conf.has(Flag::UseVc) }
    }

    /// Queries the server, over TCP if UDP is not enough. Each query has `time` for an answer, but none lasts beyond
    /// `end`.
    ///
    /// # Errors
    /// The failure of the server, for which the next one is queried.
    pub(super) async fn ask(self, question: &Question, time: Duration, end: Instant) -> Result<Answer, Answer> {
        let judgement =
            if self.is_tcp_only { Ok(Judgement::OverTcp) } else { in_time(time, end, self.by_udp(question)).await };
        let judgement = match judgement {
            Ok(Judgement::OverTcp) => in_time(time, end, self.by_tcp(question)).await,
            judgement => judgement,
        };
        match judgement {
            Ok(Judgement::Definite(answer)) => Ok(answer),
            Ok(Judgement::NextServer(failure)) => Err(failure),
            Ok(Judgement::OverTcp | Judgement::Ignored) => Err(failed("no answer over TCP")),
            // A datagram has no such end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(failed(&format!("{} closed the TCP connection before its answer", self.address.ip())))
            }
            Err(error) => Err(failed(&error.to_string())),
        }
    }

    async fn by_udp(self, question: &Question) -> io::Result<Judgement> {
        let any = match self.address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        sys::report_errors(&socket);
        socket.connect(self.address).await?;
        let id = random_id()?;
        socket.send(&question.encode(id)).await?;
        loop {
            let ready = socket.ready(ANSWERS).await?;
            // `try_io` accepts one interest at a time.
            let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            // Allocated only now, so that a silent server costs no memory.
            let mut message = vec![0; LONGEST];
            let received = socket.try_io(interest, || io::Read::read(&mut &*SockRef::from(&socket), &mut message));
            let judgement = match received {
                Ok(length) => question.judge(id, message.get(..length).unwrap_or_default(), Via::Udp),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            if judgement != Judgement::Ignored {
                return Ok(judgement);
            }
            // Other tasks get their turn during a flood of false answers.
            yield_now().await;
        }
    }

    async fn by_tcp(self, question: &Question) -> io::Result<Judgement> {
        let mut stream = TcpStream::connect(self.address).await?;
        let id = random_id()?;
        let message = question.encode(id);
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut message = vec![0; length.into()];
            stream.read_exact(&mut message).await?;
            let judgement = question.judge(id, &message, Via::Tcp);
            if judgement != Judgement::Ignored {
                return Ok(judgement);
            }
        }
    }
}

/// The judgement over one transport, unless its time is up.
async fn in_time(
    time: Duration,
    end: Instant,
    asked: impl Future<Output = io::Result<Judgement>>,
) -> io::Result<Judgement> {
    let limit = time.min(end.saturating_duration_since(Instant::now()));
    let said = within(limit, pin!(asked)).await;
    said.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, "lookup timed out")))
}

/// An id that nobody can guess.
fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u16::from_ne_bytes(id))
}

fn failed(why: &str) -> Answer {
    Answer::Failed { why: why.to_owned(), is_servfail: false }
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

#[cfg(test)]
mod tests {
    use std::{future::pending, net::IpAddr};

    use tokio::net::TcpListener;

    use super::*;
    use crate::core::resolution::dns::answer::Family;

    const LIMIT: Duration = Duration::from_secs(30);

    fn question() -> Question {
        Question::new("a.test.", Family::Four, false).expect("a name")
    }

    fn server(address: SocketAddr) -> NameServer {
        NameServer { address, is_tcp_only: false }
    }

    async fn asked(address: SocketAddr) -> Result<Answer, Answer> {
        server(address).ask(&question(), LIMIT, Instant::now() + LIMIT).await
    }

    /// Builds the answer to a query: these bits, and an address of the name if there are none.
    fn answer(question: &[u8], bits: u16) -> Vec<u8> {
        let has_address = bits == 0;
        let mut message = question[..2].to_vec();
        let words = [0x8180 | bits, 1, u16::from(has_address), 0, 0];
        message.extend(words.into_iter().flat_map(u16::to_be_bytes));
        message.extend(&question[12..]);
        if has_address {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
        message
    }

    fn found() -> Answer {
        Answer::Addresses { ips: vec![IpAddr::from([192, 0, 2, 1])], ttl: Duration::from_secs(60) }
    }

    #[test]
    fn the_zone_of_a_server_is_a_name_or_a_number() {
        let of = |zone: &str| {
            let server = Server { ip: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), zone: Some(zone.to_owned()) };
            NameServer::new(&server, &ResolvConf::parse(b"", "")).address.to_string()
        };
        assert_eq!(of("7"), "[fe80::1%7]:53");
        assert_eq!([of("no-such-interface"), of("../net")], ["[fe80::1]:53", "[fe80::1]:53"]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_server_that_does_not_run_is_noticed_at_once() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = taken.local_addr().expect("an address");
        drop(taken);
        let failure = asked(address).await.expect_err("nobody");
        assert!(matches!(&failure, Answer::Failed { why, .. } if why.contains("refused")), "{failure:?}");
    }

    #[tokio::test]
    async fn datagrams_that_are_no_answer_are_passed_over() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let serve = async {
            let mut question = [0; 512];
            let (length, client) = socket.recv_from(&mut question).await.expect("a question");
            let truth = answer(&question[..length], 0);
            let mut other_id = truth.clone();
            other_id[0] ^= 1;
            for message in [vec![0], other_id, truth] {
                socket.send_to(&message, client).await.expect("sent");
            }
        };
        let (said, ()) = tokio::join!(asked(address), serve);
        assert_eq!(said, Ok(found()));
    }

    #[tokio::test]
    async fn after_a_cut_datagram_the_same_server_is_asked_over_tcp() {
        let (tcp, udp, address) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = tcp.local_addr().expect("an address");
            // Another process may have the port.
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp, address);
            }
        };
        let serve = async {
            let mut question = [0; 512];
            let (length, client) = udp.recv_from(&mut question).await.expect("a question");
            udp.send_to(&answer(&question[..length], 0x0200), client).await.expect("sent");
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            let mut question = vec![0; stream.read_u16().await.expect("a length").into()];
            stream.read_exact(&mut question).await.expect("a question");
            let whole = answer(&question, 0);
            stream.write_u16(u16::try_from(whole.len()).expect("short")).await.expect("sent");
            stream.write_all(&whole).await.expect("sent");
        };
        let (said, ()) = tokio::join!(asked(address), serve);
        assert_eq!(said, Ok(found()));
    }

    #[tokio::test]
    async fn a_server_that_closes_its_connection_is_named() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        let question = question();
        let serve = async {
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            // Closing with unread bytes would reset the connection.
            let mut question = vec![0; stream.read_u16().await.expect("a length").into()];
            stream.read_exact(&mut question).await.expect("a question");
        };
        let server = NameServer { address, is_tcp_only: true };
        let (said, ()) = tokio::join!(server.ask(&question, LIMIT, Instant::now() + LIMIT), serve);
        assert_eq!(said, Err(failed("127.0.0.1 closed the TCP connection before its answer")));
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_has_its_own_time_but_none_beyond_the_end_of_the_question() {
        let seconds = Duration::from_secs;
        let end = Instant::now() + seconds(5);
        for passed in [2, 4, 5] {
            let error = in_time(seconds(2), end, pending()).await.expect_err("silence");
            assert_eq!((error.to_string().as_str(), error.kind()), ("lookup timed out", io::ErrorKind::TimedOut));
            let left = end.saturating_duration_since(Instant::now());
            assert!(left.abs_diff(seconds(5 - passed)) < seconds(1), "{passed}: {left:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_fails_is_left_for_the_next_one() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let serve = async {
            let mut question = [0; 512];
            let (length, client) = socket.recv_from(&mut question).await.expect("a question");
            socket.send_to(&answer(&question[..length], 2), client).await.expect("sent");
        };
        let (said, ()) = tokio::join!(asked(address), serve);
        assert!(matches!(said, Err(Answer::Failed { is_servfail: true, .. })), "{said:?}");
    }
}
