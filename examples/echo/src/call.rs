//! Client: single calls, and sessions that are held open.

use std::{
    io::{self, Error, ErrorKind},
    net::IpAddr,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, join, stdin, stdout},
    net::{TcpStream, UdpSocket, lookup_host},
    task::JoinSet,
    time::timeout,
};

use crate::{AGAIN, PATIENCE, Protocol};

/// Sends a text and prints the answer, or connects standard input and output to a TCP connection.
pub(crate) async fn once(protocol: Protocol, to: &str, text: Option<String>) -> io::Result<()> {
    let late = |_| Error::new(ErrorKind::TimedOut, format!("no answer from {to} within {PATIENCE:?}"));
    let answer = match (protocol, text) {
        (Protocol::Tcp, None) => {
            let mut stream = timeout(PATIENCE, TcpStream::connect(to)).await.map_err(late)??;
            copy_bidirectional(&mut stream, &mut join(stdin(), stdout())).await?;
            return Ok(());
        }
        (Protocol::Tcp, Some(text)) => timeout(PATIENCE, call_tcp(to, &text)).await.map_err(late)??,
        (Protocol::Udp, text) => timeout(PATIENCE, call_udp(to, &text.unwrap_or_default())).await.map_err(late)??,
    };
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn call_tcp(to: &str, text: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn call_udp(to: &str, text: &str) -> io::Result<Vec<u8>> {
    let peer = lookup_host(to).await?.next().ok_or(ErrorKind::NotFound)?;
    let own: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(peer).await?;
    let mut answer = vec![0; 65_536];
    loop {
        let _ = socket.send(text.as_bytes()).await;
        if let Ok(Ok(length)) = timeout(AGAIN, socket.recv(&mut answer)).await {
            answer.truncate(length);
            return Ok(answer);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Holds a number of sessions, each of which is opened again when it ends.
pub(crate) async fn hold(to: &str, sessions: usize) -> io::Result<()> {
    println!("holding {sessions} sessions to {to}");
    let mut all = JoinSet::new();
    for _ in 0..sessions {
        let to = to.to_owned();
        all.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(&to).await {
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    Ok(())
}
