//! New connections beside long streams: from the start of a connect until the answer to the first byte, or until the
//! forwarder has refused the client, for which it only has to accept the connection.

use std::{
    io::{self, ErrorKind, Read},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use harness::{connect, round_trip};
use socket2::SockRef;

use super::{Bulk, Done, Load};
use crate::{poll::rest, process::prefer_this_thread};

/// Pause between two connections.
const PAUSE: Duration = Duration::from_millis(2);

/// Connects to a port and waits for what should come. Returns the stream if it was not reset.
type Visit = fn(u16) -> io::Result<Option<TcpStream>>;

/// Streams, and a client beside them.
pub(crate) struct Accepts {
    bulk: Bulk,
    port: u16,
    visit: Visit,
}

impl Accepts {
    /// `port`: of the echo server.
    pub(crate) fn answered(bulk: Bulk, port: u16) -> Self {
        Self { bulk, port, visit: answer }
    }

    /// `port`: where every client is refused.
    pub(crate) fn refused(bulk: Bulk, port: u16) -> Self {
        Self { bulk, port, visit: refusal }
    }
}

impl Load for Accepts {
    fn run(&mut self, until: Instant) -> Done {
        let (port, visit) = (self.port, self.visit);
        thread::scope(|scope| {
            let client = scope.spawn(move || knock(port, visit, until));
            let _ = self.bulk.run(until);
            client.join().expect("the client ends")
        })
    }
}

fn knock(port: u16, visit: Visit, until: Instant) -> Done {
    prefer_this_thread();
    let mut done = Done::default();
    while Instant::now() < until {
        let began = Instant::now();
        match visit(port) {
            Ok(stream) => {
                done.complete(began.elapsed());
                if let Some(stream) = stream {
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
            Err(_) => done.lost += 1,
        }
        rest(PAUSE);
    }
    done
}

fn answer(port: u16) -> io::Result<Option<TcpStream>> {
    let mut stream = connect(port)?;
    round_trip(&mut stream, b"x")?;
    Ok(Some(stream))
}

/// A forwarder refuses by a reset, also before `connect(2)` has returned, or by an end.
fn refusal(port: u16) -> io::Result<Option<TcpStream>> {
    let read = connect(port).and_then(|mut stream| Ok((stream.read(&mut [0])?, stream)));
    match read {
        Ok((0, stream)) => Ok(Some(stream)),
        Ok(_) => Err(ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;

    /// What a client finds who waits to be refused by this peer.
    fn found(peer: impl FnOnce(TcpStream) + Send) -> io::Result<Option<TcpStream>> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        thread::scope(|scope| {
            scope.spawn(|| peer(listener.accept().expect("a connection").0));
            refusal(port)
        })
    }

    #[test]
    fn a_client_is_refused_by_an_end_or_a_reset_and_by_nothing_else() {
        assert!(found(drop).is_ok_and(|stream| stream.is_some()), "an end");
        let reset = |stream: TcpStream| SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("option");
        assert!(found(reset).is_ok_and(|stream| stream.is_none()), "a reset");
        assert!(found(|mut stream| stream.write_all(b"x").expect("write")).is_err(), "a byte");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        assert!(refusal(port).is_err(), "no listener");
    }
}
