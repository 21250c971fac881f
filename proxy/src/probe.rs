//! One active check of one endpoint: a TCP connect, an HTTP request, or a dialogue.

use std::{net::SocketAddr, pin::pin, time::Duration};

use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use proxy_api::{HealthCheck, Probe, SendHeader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    core::{
        checks::{Dialogue, Step},
        proxy_header,
    },
    deadline::within,
    net,
};

/// Bytes that a dialogue reads at once: more than databases say at a time, as a connection that ends with bytes unread
/// is reset. Small, because the buffer is part of each of many tasks.
const BUFFER: usize = 1024;

/// Runs one check, no longer than its timeout. If backends expect PROXY headers, the check first sends one that marks
/// the connection as local.
///
/// # Errors
/// Human-readable cause of the failure.
pub async fn run(endpoint: SocketAddr, check: &HealthCheck, send: SendHeader) -> Result<(), String> {
    let to = SocketAddr::new(endpoint.ip(), check.port.unwrap_or(endpoint.port()));
    let seconds = check.timeout_seconds;
    let mut dialogue = Dialogue::of(&check.probe);
    // What was said until then is part of the cause.
    let mut is_open = false;
    let answered = {
        let mut asked = pin!(ask(to, check, send, dialogue.as_mut(), &mut is_open));
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
    to: SocketAddr,
    check: &HealthCheck,
    send: SendHeader,
    dialogue: Option<&mut Dialogue>,
    is_open: &mut bool,
) -> Result<(), String> {
    let mut stream = connect(to).await.map_err(|error| format!("cannot connect to {to}: {error}"))?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    if stream.local_addr().ok() == Some(to) {
        return Err(format!("nothing listens on {to}: the connection reached itself"));
    }
    *is_open = true;
    let header = proxy_header::encode(send, None, None);
    stream.write_all(&header).await.map_err(|error| format!("{to}: {error}"))?;
    match (&check.probe, dialogue) {
        (Probe::Http { path }, _) => get(stream, to, path).await,
        (_, Some(dialogue)) => talk(stream, dialogue).await.map_err(|why| format!("{to} {why}")),
        (_, None) => Ok(()),
    }
}

/// Holds a dialogue to its end.
async fn talk(mut stream: TcpStream, dialogue: &mut Dialogue) -> Result<(), String> {
    let broke = |error: std::io::Error| format!("broke the connection: {error}");
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
                // What arrived may hold the next packet too.
                Step::Send(bytes) => stream.write_all(&bytes).await.map_err(broke)?,
                Step::Failed(why) => return Err(why),
                Step::Passed(farewell) => {
                    // The verdict stands, whether the server hears the rest or not.
                    let _ = stream.write_all(&farewell).await;
                    return Ok(());
                }
            }
            received = &[];
        }
    }
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpSocket::from_std_stream(net::upstream_tcp(to)?.into()).connect(to).await
}

async fn get(stream: TcpStream, to: SocketAddr, path: &str) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, to.to_string())
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn packets_that_arrive_together_are_taken_one_after_the_other() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = server.local_addr().expect("an address");
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
            // A greeting of protocol 4.1, and at once the answer to the login.
            let mut packets = b"\x12\0\0\0\x0a8\0".to_vec();
            packets.extend([0; 4 + 8 + 1]);
            packets.extend(b"\0\x02\x07\0\0\x02\0\0\0\x02\0\0\0");
            client.write_all(&packets).await.expect("sent");
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let (passed, ()) = tokio::join!(run(address, &check, SendHeader::Disabled), serve);
        assert_eq!(passed, Ok(()));
    }
}
