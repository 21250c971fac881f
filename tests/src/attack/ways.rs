//! What a hostile client does with its connection.

use std::{io, iter::repeat_n, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink, split},
    net::TcpStream,
    time::sleep,
};

use super::{Speaks, tls::Tls, words};

/// Pause of a slow client between two bytes, and of a client that does not read between two writes.
const SLOW: Duration = Duration::from_secs(1);
/// Pause of a flooding client between two blocks. A client without pauses would measure the machine, not the doors.
const FLOOD: Duration = Duration::from_millis(100);
/// Receive buffer of a client that does not read, bytes.
const NARROW: usize = 4096;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Says nothing.
    Silent,
    /// Begins well, with one byte a second.
    Slow,
    /// Says nothing after the TLS handshake, or after half of what is expected.
    HalfOpen,
    /// Says what makes no sense.
    Garbage,
    /// Begins well and says too much.
    Oversized,
    /// Asks and sends without end.
    Flood,
    /// Asks without end and reads nothing.
    Unread,
    /// Leaves at once.
    Churn,
}

impl Way {
    /// Parts of a crowd, in twentieths.
    const PARTS: [(Self, usize); 8] = [
        (Self::Silent, 8),
        (Self::Slow, 3),
        (Self::HalfOpen, 3),
        (Self::Garbage, 1),
        (Self::Oversized, 1),
        (Self::Flood, 1),
        (Self::Unread, 2),
        (Self::Churn, 1),
    ];

    /// The ways of so many clients, at least one of each.
    pub(super) fn of_crowd(clients: usize) -> impl Iterator<Item = Self> {
        Self::PARTS.into_iter().flat_map(move |(way, part)| repeat_n(way, (clients * part / 20).max(1)))
    }
}

/// Misbehaves until the server closes the connection, or for as long as the caller waits.
pub(super) async fn misbehave(way: Way, speaks: Speaks, stream: TcpStream, tls: &Tls) -> io::Result<()> {
    if way == Way::Unread {
        SockRef::from(&stream).set_recv_buffer_size(NARROW)?;
    }
    match way {
        Way::Churn => Ok(()),
        Way::Silent => idle(stream).await,
        Way::Slow => drip(stream, &words::opening(speaks)).await,
        Way::Garbage => say(stream, &words::garbage()).await,
        Way::HalfOpen | Way::Oversized | Way::Flood | Way::Unread => match speaks {
            Speaks::Http2 => inside(way, speaks, tls.http2(stream).await?).await,
            Speaks::Https => inside(way, speaks, tls.http1(stream).await?).await,
            Speaks::Http | Speaks::Header | Speaks::ServerName | Speaks::Bytes | Speaks::Datagrams => {
                inside(way, speaks, stream).await
            }
        },
    }
}

/// Misbehaves where the server reads: inside of TLS, if the door has TLS.
async fn inside(way: Way, speaks: Speaks, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    match way {
        Way::Oversized => say(stream, &words::oversized(speaks)).await,
        Way::Flood => {
            let (first, again) = words::flood(speaks);
            flood(stream, &first, &again).await
        }
        Way::Unread => {
            let (first, again) = words::unread(speaks);
            repeat(stream, &first, &again, SLOW).await
        }
        Way::Silent | Way::Slow | Way::HalfOpen | Way::Garbage | Way::Churn => say(stream, &words::half(speaks)).await,
    }
}

/// Reads until the server closes the connection.
async fn idle(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    copy(&mut stream, &mut sink()).await.map(drop)
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.flush().await?;
    idle(stream).await
}

async fn drip(mut stream: TcpStream, words: &[u8]) -> io::Result<()> {
    for byte in words {
        stream.write_all(&[*byte]).await?;
        sleep(SLOW).await;
    }
    idle(stream).await
}

async fn flood(stream: impl AsyncRead + AsyncWrite + Unpin, first: &[u8], again: &[u8]) -> io::Result<()> {
    let (read, write) = split(stream);
    tokio::select! {
        ended = repeat(write, first, again, FLOOD) => ended,
        ended = idle(read) => ended,
    }
}

/// Writes without end.
async fn repeat(mut write: impl AsyncWrite + Unpin, first: &[u8], again: &[u8], pause: Duration) -> io::Result<()> {
    write.write_all(first).await?;
    loop {
        write.write_all(again).await?;
        write.flush().await?;
        sleep(pause).await;
    }
}
