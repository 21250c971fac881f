//! One active check of one endpoint: a TCP connect or an HTTP request.

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
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::{core::proxy_header, net};

/// Keepalive idle time, longer than any check lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Runs one check. If backends expect PROXY headers, the check first sends one that marks the connection as local.
///
/// # Errors
/// Human-readable cause of the failure.
pub async fn run(endpoint: SocketAddr, check: &HealthCheck, send: SendHeader) -> Result<(), String> {
    let to = SocketAddr::new(endpoint.ip(), check.port.unwrap_or(endpoint.port()));
    let mut stream = connect(to).await.map_err(|error| format!("cannot connect to {to}: {error}"))?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    if stream.local_addr().ok() == Some(to) {
        return Err(format!("nothing listens on {to}: the connection reached itself"));
    }
    let header = proxy_header::encode(send, None);
    stream.write_all(&header).await.map_err(|error| format!("{to}: {error}"))?;
    match &check.probe {
        Probe::Tcp => Ok(()),
        Probe::Http { path } => get(stream, to, path).await,
    }
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = net::upstream_tcp(to, u32::try_from(KEEPALIVE.as_secs()).unwrap_or(u32::MAX))?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
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
