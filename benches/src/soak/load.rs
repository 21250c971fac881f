//! The mixed load: kinds of clients, each with a number of places. A place has one client after the other.

use std::{
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use crate::{
    exchange::{Exchange, Fault, ended, finish, late, open},
    proxy::{IDLE, Ports, UDP_IDLE},
    random::{Pattern, Random},
    shared::Shared,
    weather::Expected,
};

/// Most bytes of one direction of a bulk stream.
const BULK: u64 = 16 << 20;
/// Bytes for a client that stops reading: more than fit into the buffers of the system.
const STALLED: u64 = 16 << 20;
/// Most bytes of a short connection.
const SHORT: u64 = 4096;
/// Pieces that come after a client has finished, and the milliseconds between them.
const PIECES: u64 = 8;
const PACE: u64 = 300;
/// Most bytes of a datagram.
const DATAGRAM: u64 = 1400;
/// A datagram without an answer for this long is lost.
const LOST: Duration = Duration::from_secs(2);
/// How much later than due the proxy may end an idle session.
const LATE: Duration = Duration::from_secs(30);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Many bytes both ways.
    Bulk,
    /// A few bytes, and an end by FIN.
    Finished,
    /// A few bytes, and an end by a reset.
    Reset,
    /// The client finishes, and then the backend sends for seconds.
    HalfClosed,
    /// Nothing for seconds between two exchanges.
    Idle,
    /// Nothing until the proxy ends the session.
    IdledOut,
    /// Does not read for seconds. Then half of them read, and half of them reset.
    Stalled,
    /// A session to the backend that is down again and again.
    Failing,
    /// A UDP flow.
    Flow,
}

impl Kind {
    /// The kinds, and how many places each has.
    pub(crate) const ALL: [(Self, u64); 9] = [
        (Self::Bulk, 3),
        (Self::Finished, 6),
        (Self::Reset, 6),
        (Self::HalfClosed, 10),
        (Self::Idle, 60),
        (Self::IdledOut, 20),
        (Self::Stalled, 10),
        (Self::Failing, 4),
        (Self::Flow, 20),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bulk => "a bulk stream",
            Self::Finished => "a short connection that ends by FIN",
            Self::Reset => "a short connection that ends by a reset",
            Self::HalfClosed => "a connection that is half closed",
            Self::Idle => "an idle connection",
            Self::IdledOut => "a connection that is idle for too long",
            Self::Stalled => "a client that stops reading",
            Self::Failing => "a connection to the failing backend",
            Self::Flow => "a UDP flow",
        }
    }

    /// Milliseconds between two clients of a place: from, to.
    fn pause(self) -> (u64, u64) {
        match self {
            Self::Finished | Self::Reset => (20, 100),
            _ => (100, 1000),
        }
    }

    /// Runs one client after the other until the load stops.
    pub(crate) async fn run(self, ports: Ports, shared: Arc<Shared>, mut random: Random) {
        while !shared.is_stopped() {
            let began = Instant::now();
            let done = match self {
                Self::Flow => flow(ports.datagrams, &shared, &mut random).await,
                _ => self.session(ports, &mut random).await,
            };
            shared.sessions.fetch_add(1, Relaxed);
            let expected = if self == Self::Failing { shared.weather.expected(began) } else { Expected::Served };
            match (done, expected) {
                (Ok(()), Expected::Refused) => shared.fault(self.name(), &"served although its backend was down"),
                (Err(fault), _) if expected == Expected::Served || fault.is_late() || matches!(fault, Fault::Wrong) => {
                    shared.fault(self.name(), &fault);
                }
                _ => {}
            }
            let (least, end) = self.pause();
            sleep(random.millis(least, end)).await;
        }
    }

    async fn session(self, ports: Ports, random: &mut Random) -> Result<(), Fault> {
        let port = match self {
            Self::Failing => ports.failing,
            _ if random.coin() => ports.steady,
            _ => ports.replaced,
        };
        let mut stream = open(port).await?;
        let (up, down) = self.bytes(random);
        let pause = if self == Self::HalfClosed { PACE } else { 0 };
        let exchange = Exchange { seed: random.number(), up, down, pause };
        match self {
            Self::Stalled => return stalled(stream, exchange, random).await,
            Self::HalfClosed => {
                exchange.run(&mut stream, true).await?;
                return ended(&mut stream, LATE).await;
            }
            _ => exchange.run(&mut stream, false).await?,
        };
        match self {
            Self::Reset => reset(&stream),
            Self::IdledOut => ended(&mut stream, IDLE + LATE).await,
            Self::Idle => {
                sleep(random.millis(2_000, 20_000)).await;
                exchange.run(&mut stream, false).await?;
                finish(stream).await
            }
            _ => finish(stream).await,
        }
    }

    /// Bytes of both directions.
    fn bytes(self, random: &mut Random) -> (u64, u64) {
        match self {
            Self::Bulk => (random.below(BULK), random.below(BULK)),
            Self::HalfClosed => (random.below(SHORT), PIECES * crate::exchange::PIECE as u64),
            Self::Stalled => (0, STALLED),
            _ => (random.below(SHORT), random.below(SHORT)),
        }
    }
}

/// A client that asks for many bytes and does not read them for a while.
async fn stalled(mut stream: TcpStream, exchange: Exchange, random: &mut Random) -> Result<(), Fault> {
    exchange.ask(&mut stream).await?;
    sleep(random.millis(5_000, 15_000)).await;
    if random.coin() {
        return reset(&stream);
    }
    timeout(LATE, exchange.answer(&mut stream)).await.map_err(|_| late())??;
    finish(stream).await
}

/// Lets the end of this stream be a reset.
fn reset(stream: &TcpStream) -> Result<(), Fault> {
    Ok(SockRef::from(stream).set_linger(Some(Duration::ZERO))?)
}

/// A flow: one datagram after the other, each echoed. After some pauses the proxy has ended the flow, and begins another.
async fn flow(port: u16, shared: &Shared, random: &mut Random) -> Result<(), Fault> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut answer = [0; 2048];
    for _ in 0..=random.below(40) {
        let mut datagram = vec![0; usize::try_from(1 + random.below(DATAGRAM)).unwrap_or(1)];
        Pattern::new(random.number()).fill(&mut datagram);
        shared.datagrams.fetch_add(1, Relaxed);
        socket.send(&datagram).await?;
        let Ok(length) = timeout(LOST, socket.recv(&mut answer)).await else {
            // Its answer may still come, so that this socket is used no more.
            shared.lost.fetch_add(1, Relaxed);
            return Ok(());
        };
        if answer.get(..length?) != Some(&datagram[..]) {
            return Err(Fault::Wrong);
        }
        let pause = if random.below(20) == 0 { UDP_IDLE * 2 } else { random.millis(1, 100) };
        sleep(pause).await;
    }
    Ok(())
}
