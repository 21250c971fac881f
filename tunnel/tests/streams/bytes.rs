//! What goes through streams, and what comes out.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::task::JoinSet;
use tunnel_core::Protocol;

use super::pair::{Pair, request};

pub(crate) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let tile: Vec<u8> = (0..4099u64).map(|at| (at.wrapping_mul(131 + 2 * seed) ^ (at >> 8)).to_le_bytes()[0]).collect();
    let mut bytes = tile.repeat(count.div_ceil(tile.len()));
    bytes.truncate(count);
    bytes
}

/// Writes a pattern, reads what the other end writes, and returns the hashes of both.
pub(crate) async fn exchange(stream: impl AsyncRead + AsyncWrite, seed: u64, count: usize) -> [Vec<u8>; 2] {
    let (mut reader, mut writer) = split(stream);
    let own = pattern(seed, count);
    let mut theirs = Vec::new();
    let write = async {
        writer.write_all(&own).await.expect("the peer takes all bytes");
        writer.shutdown().await.expect("and the end");
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut theirs), write);
    read.expect("the peer finishes");
    [Sha256::digest(&own).to_vec(), Sha256::digest(&theirs).to_vec()]
}

/// A stream for each port, opened by both ends in turn, with `count` bytes in both directions.
pub(crate) async fn exchange_all(pair: &Pair, ports: RangeInclusive<u16>, count: usize) {
    let mut tasks = JoinSet::new();
    for port in ports.clone() {
        let (from, to) = match port % 2 {
            0 => (pair.dialler.clone(), pair.listener.clone()),
            _ => (pair.listener.clone(), pair.dialler.clone()),
        };
        tasks.spawn_local(async move {
            let stream = from.open(request(Protocol::Tcp, port)).await.expect("a stream");
            ((port, true), exchange(stream, 2 * u64::from(port), count).await)
        });
        tasks.spawn_local(async move {
            let incoming = to.accept().await.expect("a request");
            let port = incoming.request().target.port;
            ((port, false), exchange(incoming.accept(), 2 * u64::from(port) + 1, count).await)
        });
    }
    let mut hashes = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (end, hash) = done.expect("no panic");
        hashes.insert(end, hash);
    }
    for port in ports {
        let [near, far] = [true, false].map(|is_opener| &hashes[&(port, is_opener)]);
        assert_eq!((&near[0], &near[1]), (&far[1], &far[0]), "what is read is what was written");
        assert_ne!(near[0], near[1], "both ends wrote bytes of their own");
    }
}

/// Reads to the end: all bytes, and the error after them, if any.
pub(crate) async fn read_out(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.err();
    (bytes, error.map(|error| error.kind()))
}
