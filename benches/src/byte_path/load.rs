//! The load that every subject is measured with.

use std::{
    io::{IoSlice, Read, Write},
    net::{Shutdown, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use harness::{PATIENCE, connect};
use socket2::{MsgHdr, SockRef};

use super::{
    subject::Subject,
    usage::{cpu_seconds, memory_bytes},
};

/// Longest wait for one answer.
const LIMIT: Duration = PATIENCE;
const GIB: f64 = (1_u64 << 30) as f64;
/// Datagrams of a burst, few enough for every buffer on the way.
const BURST: usize = 20;
/// Size of the datagrams of a burst, in bytes.
const BURST_BYTES: u16 = 1200;
/// Level and type of the control message with the size of the datagrams of a train (`linux/udp.h`).
const SEGMENT: [i32; 2] = [17, 103];

/// A measured quantity: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    BulkRate,
    BulkCpu,
    RoundTripCpu,
    RoundTrip,
    ConnectionRate,
    ConnectionCpu,
    IdleMemory,
    DatagramCpu,
    Datagram,
    BurstCpu,
    TrainCpu,
}

impl Measure {
    pub(crate) const ALL: [Self; 11] = [
        Self::BulkRate,
        Self::BulkCpu,
        Self::RoundTrip,
        Self::RoundTripCpu,
        Self::ConnectionRate,
        Self::ConnectionCpu,
        Self::IdleMemory,
        Self::Datagram,
        Self::DatagramCpu,
        Self::BurstCpu,
        Self::TrainCpu,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BulkRate => "bytes, one connection: GiB per second",
            Self::BulkCpu => "bytes: CPU seconds per GiB",
            Self::RoundTrip => "round trip of 64 bytes",
            Self::RoundTripCpu => "round trip: CPU",
            Self::ConnectionRate => "connections per second",
            Self::ConnectionCpu => "connection: CPU",
            Self::IdleMemory => "idle connection: memory",
            Self::Datagram => "datagram of 512 bytes: round trip",
            Self::DatagramCpu => "datagram round trip: CPU",
            Self::BurstCpu => "datagram of 1200 bytes, in bursts of 20: CPU",
            Self::TrainCpu => "datagram of 1200 bytes, in trains of 20: CPU",
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::BulkRate | Self::BulkCpu => format!("{value:.2}"),
            Self::ConnectionRate => format!("{value:.0}"),
            Self::IdleMemory => format!("{:.1} KiB", value / 1024.0),
            Self::RoundTrip
            | Self::RoundTripCpu
            | Self::ConnectionCpu
            | Self::Datagram
            | Self::DatagramCpu
            | Self::BurstCpu
            | Self::TrainCpu => format!("{value:.1} µs"),
        }
    }
}

/// Puts load on one subject.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) subject: &'a Subject,
}

impl Load<'_> {
    /// Sends bytes over one connection until the server has received all of them.
    pub(crate) fn bulk(self, mebibytes: usize) -> Vec<(Measure, f64)> {
        let block = vec![7; 1 << 20];
        let (seconds, cpu) = self.measured(|| {
            let mut stream = connect(self.subject.ports.sink).expect("connect");
            (0..mebibytes).for_each(|_| stream.write_all(&block).expect("write"));
            stream.shutdown(Shutdown::Write).expect("finish");
            stream.read_exact(&mut [0]).expect("the server has all");
        });
        let gib = (mebibytes << 20) as f64 / GIB;
        vec![(Measure::BulkRate, gib / seconds), (Measure::BulkCpu, cpu / gib)]
    }

    pub(crate) fn round_trips(self, count: usize) -> Vec<(Measure, f64)> {
        let mut stream = connect(self.subject.ports.echo).expect("connect");
        stream.set_nodelay(true).expect("option");
        let mut buffer = [5; 64];
        let (seconds, cpu) = self.measured(|| {
            for _ in 0..count {
                stream.write_all(&buffer).expect("write");
                stream.read_exact(&mut buffer).expect("echo");
            }
        });
        vec![(Measure::RoundTrip, micros(seconds, count)), (Measure::RoundTripCpu, micros(cpu, count))]
    }

    /// Connections that echo one byte and are reset, so that no port stays in `TIME_WAIT`.
    pub(crate) fn connections(self, count: usize) -> Vec<(Measure, f64)> {
        let (seconds, cpu) = self.measured(|| {
            for _ in 0..count {
                let mut stream = connect(self.subject.ports.echo).expect("connect");
                stream.write_all(b"x").expect("write");
                stream.read_exact(&mut [0]).expect("echo");
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("option");
            }
        });
        vec![(Measure::ConnectionRate, count as f64 / seconds), (Measure::ConnectionCpu, micros(cpu, count))]
    }

    /// Connections that have echoed 100 bytes and are idle.
    pub(crate) fn idle(self, count: usize) -> Vec<(Measure, f64)> {
        let memory = || self.subject.ids().map(memory_bytes).sum::<f64>();
        let before = memory();
        let idle: Vec<TcpStream> = (0..count)
            .map(|_| {
                let mut stream = connect(self.subject.ports.echo).expect("connect");
                stream.write_all(&[9; 100]).expect("write");
                stream.read_exact(&mut [0; 100]).expect("echo");
                stream
            })
            .collect();
        let each = (memory() - before) / count as f64;
        drop(idle);
        vec![(Measure::IdleMemory, each)]
    }

    /// Datagrams of one client, each sent after the answer to the previous one.
    pub(crate) fn datagrams(self, count: usize) -> Vec<(Measure, f64)> {
        let Some(port) = self.subject.ports.udp else { return Vec::new() };
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.connect(("127.0.0.1", port)).expect("connect");
        client.set_read_timeout(Some(LIMIT)).expect("option");
        let mut datagram = [3; 512];
        let (seconds, cpu) = self.measured(|| {
            for _ in 0..count {
                client.send(&datagram).expect("send");
                client.recv(&mut datagram).expect("echo");
            }
        });
        vec![(Measure::Datagram, micros(seconds, count)), (Measure::DatagramCpu, micros(cpu, count))]
    }

    /// Bursts of datagrams of one client, each sent after the answers to the previous one: datagram by datagram, or as a
    /// train that the system parts.
    pub(crate) fn bursts(self, datagrams: usize, measure: Measure) -> Vec<(Measure, f64)> {
        let Some(port) = self.subject.ports.udp else { return Vec::new() };
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.connect(("127.0.0.1", port)).expect("connect");
        client.set_read_timeout(Some(LIMIT)).expect("option");
        let burst = vec![3; BURST * usize::from(BURST_BYTES)];
        let mut answer = vec![0; usize::from(BURST_BYTES)];
        let bursts = datagrams.div_ceil(BURST);
        let (_, cpu) = self.measured(|| {
            for _ in 0..bursts {
                if measure == Measure::TrainCpu {
                    send_train(&client, &burst);
                } else {
                    burst.chunks(usize::from(BURST_BYTES)).for_each(|datagram| {
                        client.send(datagram).expect("send");
                    });
                }
                for _ in 0..BURST {
                    client.recv(&mut answer).expect("echo");
                }
            }
        });
        vec![(measure, micros(cpu, bursts * BURST))]
    }

    /// Returns the seconds that the work took, and the CPU seconds of the subject.
    fn measured(self, work: impl FnOnce()) -> (f64, f64) {
        let cpu = || self.subject.ids().map(cpu_seconds).sum::<f64>();
        let (before, began) = (cpu(), Instant::now());
        work();
        (began.elapsed().as_secs_f64(), cpu() - before)
    }
}

fn micros(seconds: f64, count: usize) -> f64 {
    seconds * 1e6 / count as f64
}

/// Sends datagrams of [`BURST_BYTES`] in one call.
fn send_train(client: &UdpSocket, burst: &[u8]) {
    // A control message as in cmsg(3): its length, level, type and value, padded to a word.
    let [level, kind] = SEGMENT.map(i32::to_ne_bytes);
    let header = size_of::<usize>() + size_of::<[i32; 2]>();
    let mut control = (header + size_of_val(&BURST_BYTES)).to_ne_bytes().to_vec();
    control.extend(level.into_iter().chain(kind).chain(BURST_BYTES.to_ne_bytes()));
    control.resize(header + size_of::<usize>(), 0);
    let parts = [IoSlice::new(burst)];
    let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
    SockRef::from(client).sendmsg(&message, 0).expect("send");
}
