//! The frames on a new connection before those of the session: a HELLO and its answer.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tunnel_core::hello::{Answer, Denied, Hello, Welcome};
use tunnel_core::{HEADER, Violation};

/// How long an end waits for the first frame of the other, and for the other to take its own.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why no session begins or resumes.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The other end was silent.
    #[error(
        "the other end sent no handshake within {} seconds: check that the address is that of a tunnel port",
        PATIENCE.as_secs()
    )]
    TimedOut,
    /// The other end closed the connection.
    #[error("the other end closed the connection before it identified itself")]
    Closed,
    /// The connection failed.
    #[error("the connection failed before the other end identified itself")]
    Io(#[source] io::Error),
    /// The other end violated the protocol.
    #[error(
        "the other end does not speak the tunnel protocol: check that agent and server run compatible versions, and \
         that nothing else answers or uses the port"
    )]
    Protocol(#[from] Violation),
    /// The endpoint speaks a version that the agent did not offer.
    #[error(
        "the endpoint speaks version {spoken} of the tunnel protocol, which the agent did not offer: upgrade the \
         {older}"
    )]
    Version {
        /// The version.
        spoken: u16,
        /// The end with the older program.
        older: &'static str,
    },
    /// The endpoint does not admit the agent.
    #[error("the endpoint refused: {0}")]
    Denied(Denied),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// The agent's side: sends [`Hello`], and waits for the answer.
pub async fn greet(io: &mut (impl AsyncRead + AsyncWrite + Unpin), hello: &Hello) -> Result<Welcome, HandshakeError> {
    let talk = async {
        write(io, &hello.frame()).await?;
        read(io, Answer::read).await
    };
    match timeout(PATIENCE, talk).await.map_err(|_| HandshakeError::TimedOut)?? {
        Answer::Denied(denied) => Err(HandshakeError::Denied(denied)),
        Answer::Welcome(welcome) if hello.versions.contains(&welcome.version) => Ok(welcome),
        Answer::Welcome(Welcome { version: spoken, .. }) => {
            let older = if spoken > *hello.versions.end() { "agent" } else { "endpoint" };
            Err(HandshakeError::Version { spoken, older })
        }
    }
}

/// The endpoint's side: waits for the [`Hello`] of an agent.
pub async fn hear(io: &mut (impl AsyncRead + Unpin)) -> Result<Hello, HandshakeError> {
    timeout(PATIENCE, read(io, Hello::read)).await.map_err(|_| HandshakeError::TimedOut)?
}

/// The endpoint's side: sends the answer.
pub async fn answer(io: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> Result<(), HandshakeError> {
    let frame = answer.frame();
    timeout(PATIENCE, write(io, &frame)).await.map_err(|_| HandshakeError::TimedOut)?
}

pub(crate) async fn write(io: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), HandshakeError> {
    io.write_all(frame).await?;
    io.flush().await?;
    Ok(())
}

/// Reads one frame and nothing after it. A frame of the wrong kind or length is refused by its header.
pub(crate) async fn read<T>(
    io: &mut (impl AsyncRead + Unpin),
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Violation>,
) -> Result<T, HandshakeError> {
    let mut frame = vec![0; HEADER];
    io.read_exact(&mut frame).await?;
    if let Some((value, _)) = decode(&frame)? {
        return Ok(value);
    }
    let length = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    frame.resize(HEADER + length, 0);
    io.read_exact(&mut frame[HEADER..]).await?;
    decode(&frame)?.map(|(value, _)| value).ok_or(HandshakeError::Closed)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tunnel_core::hello::{Boot, Denial, Instance, Named, VERSIONS};
    use tunnel_core::identity::EndpointId;

    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: VERSIONS,
            boot: Boot([1; 16]),
            epoch: 1,
            instance: Instance::new("pi4").expect("an instance"),
            program: "0.9.0".to_owned(),
            sessions: Vec::new(),
        }
    }

    fn welcome(version: u16) -> Welcome {
        let endpoint = EndpointId::new("edge-0").expect("an id");
        Welcome { version, endpoint, boot: Boot([2; 16]), resumed: false, heartbeat: 5, named: Named::default() }
    }

    #[tokio::test]
    async fn both_ends_read_their_frame_and_nothing_of_what_follows() {
        let (mut agent, mut endpoint) = duplex(64);
        let endpoint_side = async {
            let heard = hear(&mut endpoint).await.expect("a hello");
            answer(&mut endpoint, &Answer::Welcome(welcome(1))).await.expect("an answer");
            endpoint.write_all(b"frames").await.expect("written");
            heard
        };
        let agent_side = async {
            let welcome = greet(&mut agent, &hello()).await.expect("welcome");
            let mut rest = [0; 6];
            agent.read_exact(&mut rest).await.expect("the rest");
            (welcome, rest)
        };
        let (heard, (welcomed, rest)) = tokio::join!(endpoint_side, agent_side);
        assert_eq!((heard, welcomed, &rest), (hello(), welcome(1), b"frames"));
    }

    #[tokio::test]
    async fn a_refusal_and_a_version_that_was_not_offered_are_told_with_the_end_to_upgrade() {
        let denied = Denied { reason: Denial::Suspended, detail: "suspended".to_owned() };
        let other = |version, older| {
            format!(
                "the endpoint speaks version {version} of the tunnel protocol, which the agent did not offer: upgrade \
                 the {older}"
            )
        };
        for (says, expected) in [
            (Answer::Denied(denied), "the endpoint refused: suspended".to_owned()),
            (Answer::Welcome(welcome(9)), other(9, "agent")),
            (Answer::Welcome(welcome(0)), other(0, "endpoint")),
        ] {
            let (mut agent, mut endpoint) = duplex(64);
            let endpoint_side = async {
                hear(&mut endpoint).await.expect("a hello");
                answer(&mut endpoint, &says).await.expect("an answer");
            };
            let hello = hello();
            let (greeted, ()) = tokio::join!(greet(&mut agent, &hello), endpoint_side);
            let error = greeted.expect_err("refused").to_string();
            assert_eq!(error, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_and_one_of_another_protocol_are_given_up() {
        let (mut silent, _peer) = duplex(64);
        assert!(matches!(hear(&mut silent).await, Err(HandshakeError::TimedOut)));
        let (mut ours, mut theirs) = duplex(64);
        theirs.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let heard = hear(&mut ours).await.expect_err("another protocol");
        assert!(
            matches!(heard, HandshakeError::Protocol(_)) && heard.to_string().contains("compatible versions"),
            "{heard}"
        );
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert!(matches!(hear(&mut ours).await, Err(HandshakeError::Closed)));
    }
}
