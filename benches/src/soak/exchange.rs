//! What a client and a backend say to each other: each knows the bytes that the other should send, and checks them.
//!
//! The client sends a header and as many bytes as it says. The backend sends its name and as many bytes as the header
//! asks for, both at the same time, and last whether the bytes of the client were right. A connection has any number of
//! exchanges, one after the other.

use std::{fmt, io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::random::Pattern;

/// Bytes of one call, and between two pauses.
pub(crate) const PIECE: usize = 64 << 10;
/// Longest time for an exchange, and for the end of a connection.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of a header.
const HEADER: usize = 32;
/// What a backend says of the bytes of its client.
const RIGHT: u8 = b'r';
const WRONG: u8 = b'w';

/// What went wrong with a connection that should go well.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No connection came about.
    Refused(io::Error),
    /// The connection broke, or nothing came in time.
    Broken(io::Error),
    /// Bytes were not those that were sent.
    Wrong,
}

impl Fault {
    /// Whether something hung.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Refused(error) | Self::Broken(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Broken(error) => write!(f, "broken: {error}"),
            Self::Wrong => f.write_str("wrong bytes"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// An exchange that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Decides the bytes of both sides.
    pub(crate) seed: u64,
    /// Bytes from the client.
    pub(crate) up: u64,
    /// Bytes from the backend.
    pub(crate) down: u64,
    /// Milliseconds between two pieces from the backend.
    pub(crate) pause: u64,
}

impl Exchange {
    fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let numbers = [self.seed, self.up, self.down, self.pause];
        for (place, number) in header.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        header
    }

    fn of_header(header: [u8; HEADER]) -> Self {
        let mut numbers = [0; 4];
        for (number, place) in numbers.iter_mut().zip(header.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(place);
            *number = u64::from_le_bytes(bytes);
        }
        let [seed, up, down, pause] = numbers;
        Self { seed, up, down, pause }
    }

    /// The seed of the bytes of the backend.
    fn seed_down(self) -> u64 {
        !self.seed
    }

    /// Asks and takes the answer. The name of the backend. `finish`: the client has nothing more to send, and says so before
    /// it has the answer.
    pub(crate) async fn run(self, stream: &mut TcpStream, finish: bool) -> Result<u8, Fault> {
        let (mut reader, mut writer) = stream.split();
        let sends = async {
            self.ask(&mut writer).await?;
            if finish {
                writer.shutdown().await?;
            }
            Ok::<(), Fault>(())
        };
        let both = async { tokio::try_join!(sends, self.answer(&mut reader)) };
        timeout(DEADLINE, both).await.map_err(|_| late())?.map(|((), name)| name)
    }

    /// Sends the header and the bytes of the client.
    pub(crate) async fn ask(self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), Fault> {
        writer.write_all(&self.header()).await?;
        Ok(send(writer, self.seed, self.up, 0).await?)
    }

    /// Takes and checks the answer of the backend. Its name.
    pub(crate) async fn answer(self, reader: &mut (impl AsyncRead + Unpin)) -> Result<u8, Fault> {
        let name = reader.read_u8().await?;
        let right = are_right(reader, self.seed_down(), self.down).await?;
        let word = reader.read_u8().await?;
        if right && word == RIGHT { Ok(name) } else { Err(Fault::Wrong) }
    }

    /// The next exchange that a client asks for. `None`: it has finished.
    async fn next(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let (first, rest) = header.split_at_mut(1);
        if reader.read(first).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(rest).await?;
        Ok(Some(Self::of_header(header)))
    }

    /// Serves the exchanges of a connection until the client has finished.
    ///
    /// # Errors
    /// The connection broke, which a client may do on purpose. It is the client who tells a fault.
    pub(crate) async fn serve(mut stream: TcpStream, name: u8) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        while let Some(exchange) = Self::next(&mut reader).await? {
            let takes = are_right(&mut reader, exchange.seed, exchange.up);
            let gives = async {
                writer.write_all(&[name]).await?;
                send(&mut writer, exchange.seed_down(), exchange.down, exchange.pause).await
            };
            let (right, ()) = tokio::try_join!(takes, gives)?;
            writer.write_all(&[if right { RIGHT } else { WRONG }]).await?;
        }
        writer.shutdown().await
    }
}

/// Connects to a port of this machine.
pub(crate) async fn open(port: u16) -> Result<TcpStream, Fault> {
    match timeout(DEADLINE, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Fault::Refused(error)),
        Err(_) => Err(Fault::Refused(io::ErrorKind::TimedOut.into())),
    }
}

/// Ends a connection as both sides should: this side finishes, and then the other one.
pub(crate) async fn finish(mut stream: TcpStream) -> Result<(), Fault> {
    stream.shutdown().await?;
    ended(&mut stream, DEADLINE).await
}

/// Waits until the other side has finished. A byte is wrong.
pub(crate) async fn ended(stream: &mut TcpStream, within: Duration) -> Result<(), Fault> {
    match timeout(within, stream.read(&mut [0; 1])).await.map_err(|_| late())?? {
        0 => Ok(()),
        _ => Err(Fault::Wrong),
    }
}

/// Nothing came in time.
pub(crate) fn late() -> Fault {
    Fault::Broken(io::ErrorKind::TimedOut.into())
}

/// Sends the bytes of a seed, with a pause of so many milliseconds after each piece.
async fn send(writer: &mut (impl AsyncWrite + Unpin), seed: u64, bytes: u64, pause: u64) -> io::Result<()> {
    let (mut pattern, mut buffer, mut left) = (Pattern::new(seed), vec![0; PIECE], bytes);
    while left > 0 {
        let piece = &mut buffer[..piece(left)];
        pattern.fill(piece);
        writer.write_all(piece).await?;
        left -= piece.len() as u64;
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
    }
    Ok(())
}

/// Whether so many bytes are those of a seed.
async fn are_right(reader: &mut (impl AsyncRead + Unpin), seed: u64, bytes: u64) -> io::Result<bool> {
    let (mut pattern, mut buffer, mut left) = (Pattern::new(seed), vec![0; PIECE], bytes);
    let mut right = true;
    while left > 0 {
        let read = reader.read(&mut buffer[..piece(left)]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        right &= pattern.matches(&buffer[..read]);
        left -= read as u64;
    }
    Ok(right)
}

/// Bytes of the next call.
fn piece(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE).min(PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_the_same_to_both() {
        let exchange = Exchange { seed: u64::MAX - 1, up: 1, down: 1 << 40, pause: 300 };
        assert_eq!(Exchange::of_header(exchange.header()), exchange);
    }

    /// The answer of a backend to these bytes of a client.
    fn answer(exchange: Exchange, sent: &[u8]) -> Result<u8, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.expect("a client");
                Exchange::serve(stream, b'a').await
            });
            let mut stream = TcpStream::connect(address).await.expect("connect");
            stream.write_all(sent).await.expect("send");
            exchange.answer(&mut stream).await
        })
    }

    #[test]
    fn a_wrong_byte_of_the_client_is_told() {
        let exchange = Exchange { seed: 5, up: 100, down: 200, pause: 0 };
        let mut sent = exchange.header().to_vec();
        let mut bytes = [0; 100];
        Pattern::new(5).fill(&mut bytes);
        sent.extend(bytes);
        assert!(matches!(answer(exchange, &sent), Ok(b'a')));
        sent[HEADER + 99] ^= 1;
        assert!(matches!(answer(exchange, &sent), Err(Fault::Wrong)));
    }

    #[test]
    fn a_wrong_byte_of_the_backend_is_noticed() {
        let exchange = Exchange { seed: 5, up: 0, down: 200, pause: 0 };
        let other = Exchange { seed: 6, ..exchange };
        assert!(matches!(answer(exchange, &other.header()), Err(Fault::Wrong)));
    }
}
