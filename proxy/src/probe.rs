//! One active check of one endpoint: a TCP connect, an HTTP request, or a dialogue.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use proxy_api::{HealthCheck, Probe, SendHeader};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
};

use crate::{
    agents::{Agents, Link},
    core::{
        backends::{
            address::Address,
            checks::{Dialogue, Step},
        },
        sessions::proxy_header,
    },
    deadline::within,
    net,
};

/// Size of a dialogue's reads, in bytes: more than databases send at a time, as closing a connection with unread bytes
/// resets it. Small, because the buffer is part of each of many tasks.
const BUFFER: usize = 1024;

/// Runs one check, no longer than its timeout. If backends expect PROXY headers, the check first sends one that marks
/// the connection as local.
///
/// # Errors
/// Human-readable cause of the failure.
pub async fn run(agents: &Agents, address: &Address, check: &HealthCheck, send: SendHeader) -> Result<(), String> {
    let to = address.with_port(check.port.unwrap_or(address.port()));
    let seconds = check.timeout_seconds;
    let mut dialogue = Dialogue::of(&check.probe);
    // The state reached by then is part of the cause.
    let mut is_open = false;
    let answered = {
        let mut asked = pin!(ask(agents, &to, check, send, (dialogue.as_mut(), &mut is_open)));
        within(Duration::from_secs(seconds.into()), asked.as_mut()).await
    };
    if let Some(result) = answered {
        return result;
    }
    Err(match dialogue {
        Some(dialogue) if is_open => format!("{to} {}", dialogue.late(seconds)),
        _ => format!("no answer within {seconds} s"),
    })
}

async fn ask(
    agents: &Agents,
    to: &Address,
    check: &HealthCheck,
    send: SendHeader,
    (dialogue, is_open): (Option<&mut Dialogue>, &mut bool),
) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot connect to {to}: {error}");
    match to {
        Address::Socket(at) => {
            let stream = connect(*at).await.map_err(failed)?;
            // A connect to a dead port in the ephemeral range can connect to itself.
            if stream.local_addr().ok() == Some(*at) {
                return Err(format!("nothing listens on {to}: the connection reached itself"));
            }
            *is_open = true;
            converse(stream, to, check, send, dialogue).await
        }
        Address::Agent(at) => {
            let Link { side, socket } = agents.check(at).await.map_err(failed)?;
            let stream = UnixStream::from_std(socket).map_err(failed)?;
            *is_open = true;
            let result = converse(stream, to, check, send, dialogue).await;
            side.leave(false);
            result
        }
    }
}

/// Runs a dialogue on a new connection.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: &Address,
    check: &HealthCheck,
    send: SendHeader,
    dialogue: Option<&mut Dialogue>,
) -> Result<(), String> {
    let header = proxy_header::encode(send, None, None);
    stream.write_all(&header).await.map_err(|error| format!("{to}: {error}"))?;
    match (&check.probe, dialogue) {
        (Probe::Http { path }, _) => get(stream, to, path).await,
        (_, Some(dialogue)) => talk(stream, dialogue).await.map_err(|why| format!("{to} {why}")),
        (_, None) => Ok(()),
    }
}

/// Holds a dialogue to its end.
async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, dialogue: &mut Dialogue) -> Result<(), String> {
    let broke = |error: io::Error| format!("broke the connection: {error}");
    stream.write_all(&dialogue.opening()).await.map_err(broke)?;
    let mut buffer = [0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await.map_err(broke)?;
        if count == 0 {
            return Err(dialogue.ended());
        }
        let mut received = buffer.get(..count).unwrap_or_default();
        loop {
            match dialogue.take(received) {
                Step::Read => break,
                // The received bytes may contain the next packet, too.
                Step::Send(bytes) => stream.write_all(&bytes).await.map_err(broke)?,
                Step::Failed(why) => return Err(why),
                Step::Passed(farewell) => {
                    // The verdict stands, whether the server receives the rest or not.
                    let _ = stream.write_all(&farewell).await;
                    return Ok(());
                }
            }
            received = &[];
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(net::upstream_tcp(to)?.into());
    socket.set_nodelay(true)?;
    socket.connect(to).await
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, to: &Address, path: &str) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, host(to))
        .header(USER_AGENT, "portlane-proxy")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("path '{path}': {error}"))?;
    let failed = |error: hyper::Error| format!("GET {path} from {to}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let (mut connection, mut response) = (pin!(connection), pin!(sender.send_request(request)));
    let response = tokio::select! {
        response = &mut response => response,
        ended = &mut connection => {
            ended.map_err(failed)?;
            // The connection may have ended right after the response.
            response.await
        }
    };
    let response = response.map_err(failed)?;
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("GET {path} from {to} returned {}", status.as_u16()))
}

/// The host and port of an endpoint, as a client names them.
fn host(to: &Address) -> String {
    match to {
        Address::Socket(address) => address.to_string(),
        Address::Agent(address) if address.host.contains(':') => format!("[{}]:{}", address.host, address.port),
        Address::Agent(address) => format!("{}:{}", address.host, address.port),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn packets_that_arrive_together_are_taken_one_after_the_other() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (agents, address) = (Agents::none(), Address::from(server.local_addr().expect("an address")));
        let check = HealthCheck {
            probe: Probe::Mysql { user: Some("probe".to_owned()) },
            port: None,
            interval_seconds: 10,
            timeout_seconds: 10,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
        };
        let serve = async {
            let (mut client, _) = server.accept().await.expect("a client");
            // A greeting of protocol 4.1, and directly after it the answer to the login.
            let mut packets = b"\x12\0\0\0\x0a8\0".to_vec();
            packets.extend([0; 4 + 8 + 1]);
            packets.extend(b"\0\x02\x07\0\0\x02\0\0\0\x02\0\0\0");
            client.write_all(&packets).await.expect("sent");
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let (passed, ()) = tokio::join!(run(&agents, &address, &check, SendHeader::Disabled), serve);
        assert_eq!(passed, Ok(()));
    }
}
