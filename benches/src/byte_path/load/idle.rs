//! What idle connections cost: memory and files while they are there, after a burst on each, and after their end.

use std::{
    io::{Read, Write},
    iter,
    net::TcpStream,
    time::Duration,
};

use harness::{connect, round_trip, until};
use socket2::SockRef;

use crate::{
    cpu::children,
    measure::{files, status_bytes},
    poll::rest,
    rows::Quantity,
    subject::{Kind, Subject},
};

/// Connections at the same time. Forwarders with two files for each stay below a limit of 20,000 files.
const COUNT: usize = 5_000;
/// The same for models of I/O, some of which have six files or two threads for each, or try all of them all the time.
const COUNT_OF_MODELS: usize = 1_000;
/// The same where each has a process.
const COUNT_OF_PROCESSES: usize = 100;
/// Bytes that each connection has echoed before it is idle.
const FIRST: usize = 100;
/// Bytes of the burst on each connection.
const BURST: usize = 64 << 10;
/// Connections with a burst at the same time.
const AT_ONCE: usize = 100;
/// Time for a forwarder to give memory back.
const SETTLE: Duration = Duration::from_millis(1500);
/// Files that a forwarder may keep when all connections have ended.
const KEPT_FILES: usize = 64;

/// Memory and files of connections without traffic.
pub(crate) fn idle_connections(subject: &Subject) -> Vec<(Quantity, f64)> {
    let count = match subject.kind {
        kind if kind.forks() => COUNT_OF_PROCESSES,
        Kind::Model(_) => COUNT_OF_MODELS,
        _ => COUNT,
    };
    let processes = || subject.ids().flat_map(|pid| iter::once(pid).chain(children(pid)));
    let memory = || {
        rest(SETTLE);
        processes().map(|pid| status_bytes(pid, "RssAnon")).sum::<f64>()
    };
    let open_files = || processes().map(files).sum::<usize>();
    let (before, files_before) = (memory(), open_files());
    let each = |after: f64| (after - before) / count as f64;
    let mut streams: Vec<TcpStream> = (0..count).map(|_| open(subject.ports.echo)).collect();
    let cold = each(memory());
    let files = open_files().saturating_sub(files_before) as f64 / count as f64;
    streams.chunks_mut(AT_ONCE).for_each(burst);
    let warm = each(memory());
    for stream in streams {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("option");
    }
    until("the forwarder has closed all connections", || open_files() <= files_before + KEPT_FILES);
    let left = each(memory());
    vec![(Quantity::Cold, cold), (Quantity::Warm, warm), (Quantity::Left, left), (Quantity::Files, files)]
}

fn open(port: u16) -> TcpStream {
    let mut stream = connect(port).expect("connect");
    round_trip(&mut stream, &[9; FIRST]).expect("echo");
    stream
}

/// Echoes many bytes on several connections at the same time.
fn burst(streams: &mut [TcpStream]) {
    let mut block = vec![9; BURST];
    for stream in &mut *streams {
        stream.write_all(&block).expect("write");
    }
    for stream in streams {
        stream.read_exact(&mut block).expect("echo");
    }
}
