//! From a client's socket through a tunnel to a target's socket.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tunnel::{RelayEnd, Relayed, Socket, relay};
use tunnel_core::{Limits, MAX_PAYLOAD};

use super::bytes::{exchange, read_out};
use super::pair::{Carrier, Pair, stream, until, within};

/// A socket, and the relay between it and its end of the stream.
struct Side {
    socket: TcpStream,
    relay: JoinHandle<Relayed>,
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("a connection"), far.expect("the same").0)
}

/// A client and its target, with everything between them.
async fn path() -> (Pair, Carrier, [Side; 2]) {
    let pair = Pair::new(&Limits::default());
    let carrier = pair.connect();
    let (outer, inner) = stream(&pair.listener, &pair.dialler).await;
    let (visitor, accepted) = sockets().await;
    let (target, dialled) = sockets().await;
    let visitor = Side { socket: visitor, relay: spawn_local(relay(outer, accepted, |_| 0)) };
    let target = Side { socket: target, relay: spawn_local(relay(inner, dialled, |_| 0)) };
    (pair, carrier, [visitor, target])
}

#[tokio::test]
async fn a_relay_moves_all_bytes_both_ways_and_then_the_ends() {
    const BYTES: usize = 3_000_000;
    within(30, async {
        let (pair, _carrier, [visitor, target]) = path().await;
        let (near, far) = tokio::join!(exchange(visitor.socket, 1, BYTES), exchange(target.socket, 2, BYTES));
        assert_eq!((&near[0], &near[1]), (&far[1], &far[0]));
        let expected = Relayed { to_socket: 3_000_000, from_socket: 3_000_000, end: RelayEnd::Finished };
        for relay in [visitor.relay, target.relay] {
            assert_eq!(relay.await.expect("no panic"), expected);
        }
        pair.drained().await;
    })
    .await;
}

/// A socket that knows how much it took at once.
struct Measured {
    tcp: TcpStream,
    largest: Rc<Cell<usize>>,
}

impl Socket for Measured {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.tcp.try_read(into)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = Socket::try_write(&self.tcp, pieces)?;
        self.largest.set(self.largest.get().max(count));
        Ok(count)
    }

    fn finish(&self) -> io::Result<()> {
        Socket::finish(&self.tcp)
    }

    fn is_reset(&self) -> bool {
        Socket::is_reset(&self.tcp)
    }

    fn gone(&self) -> impl Future<Output = ()> {
        Socket::gone(&self.tcp)
    }

    fn reset(&self) {
        Socket::reset(&self.tcp);
    }
}

#[tokio::test]
async fn a_relay_writes_what_several_frames_brought_at_once() {
    const BYTES: usize = 3 * MAX_PAYLOAD;
    within(30, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let (mut outer, inner) = stream(&pair.listener, &pair.dialler).await;
        outer.write_all(&vec![7; BYTES]).await.expect("a window takes them");
        let come = || inner.peek_all(|pieces| pieces.iter().map(|piece| piece.len()).sum::<usize>());
        until("all bytes have come", || come() == BYTES).await;
        let (mut target, tcp) = sockets().await;
        let largest = Rc::new(Cell::new(0));
        let relay = spawn_local(relay(inner, Measured { tcp, largest: largest.clone() }, |_| 0));
        let mut read = vec![0; BYTES];
        target.read_exact(&mut read).await.expect("bytes");
        assert!(read.iter().all(|byte| *byte == 7));
        assert!(largest.get() > MAX_PAYLOAD, "{} bytes at once", largest.get());
        relay.abort();
    })
    .await;
}

#[tokio::test]
async fn a_relay_keeps_a_half_close() {
    within(30, async {
        let (pair, _carrier, [mut visitor, mut target]) = path().await;
        visitor.socket.write_all(b"question").await.expect("a write");
        visitor.socket.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut target.socket).await, (b"question".to_vec(), None));
        target.socket.write_all(b"answer").await.expect("the other direction continues");
        target.socket.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut visitor.socket).await, (b"answer".to_vec(), None));
        pair.drained().await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_either_socket_is_a_reset_of_the_other_also_without_a_carrier() {
    within(30, async {
        for is_visitor in [true, false] {
            for is_cut in [false, true] {
                let (pair, mut carrier, [visitor, target]) = path().await;
                let (mut loser, mut other) = if is_visitor { (visitor, target) } else { (target, visitor) };
                loser.socket.write_all(b"last words").await.expect("a write");
                let mut words = [0; 10];
                other.socket.read_exact(&mut words).await.expect("bytes");
                assert_eq!(&words, b"last words");
                if is_cut {
                    carrier.cut().await;
                }
                loser.socket.set_zero_linger().expect("an option");
                drop(loser.socket);
                assert_eq!(loser.relay.await.expect("no panic").end, RelayEnd::SocketReset);
                if is_cut {
                    carrier = pair.connect();
                }
                assert_eq!(read_out(&mut other.socket).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
                assert_eq!(other.relay.await.expect("no panic").end, RelayEnd::StreamReset);
                pair.drained().await;
                carrier.cut().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_is_reset_after_its_end_resets_the_stream() {
    within(30, async {
        let (pair, _carrier, [mut visitor, mut target]) = path().await;
        visitor.socket.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut target.socket).await, (Vec::new(), None));
        visitor.socket.set_zero_linger().expect("an option");
        drop(visitor.socket);
        assert_eq!(visitor.relay.await.expect("no panic").end, RelayEnd::SocketReset);
        assert_eq!(target.relay.await.expect("no panic").end, RelayEnd::StreamReset);
        assert!(target.socket.write_all(b"anybody?").await.is_err(), "the target is reset");
        pair.drained().await;
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_is_dropped_resets_both_sides() {
    within(30, async {
        let (pair, _carrier, [mut visitor, mut target]) = path().await;
        visitor.relay.abort();
        assert_eq!(read_out(&mut visitor.socket).await.1, Some(ErrorKind::ConnectionReset));
        assert_eq!(read_out(&mut target.socket).await.1, Some(ErrorKind::ConnectionReset));
        pair.drained().await;
    })
    .await;
}
