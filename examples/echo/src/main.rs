//! What the examples and tests forward to: sends back what it is sent, on TCP and UDP; calls others, as `nc` would.

use std::{
    io::{self, Error, ErrorKind},
    net::IpAddr,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, join, stdin, stdout},
    net::{TcpListener, TcpStream, UdpSocket, lookup_host},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// Longest call, unless it reads standard input.
const PATIENCE: Duration = Duration::from_secs(5);
/// A datagram may be lost, so it is sent again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// Sends back what it is sent. Without a command: serves on 127.0.0.1:7777.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves on TCP and UDP until SIGTERM or SIGINT.
    Serve {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1")]
        address: IpAddr,
        /// Port, for both.
        #[arg(long, default_value_t = 7777)]
        port: u16,
        /// Written before what is sent back, so that a caller sees who answered.
        #[arg(long, default_value = "", env = "ECHO_NAME")]
        name: String,
    },
    /// Sends a text and prints the answer. Without a text: joins standard input and output to a TCP connection.
    Call {
        protocol: Protocol,
        /// HOST:PORT.
        to: String,
        text: Option<String>,
    },
    /// Does nothing until SIGTERM: holds the namespaces of a Pod.
    Pause,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let command = Args::parse().command;
    let work = async {
        match command {
            None => serve(IpAddr::from([127, 0, 0, 1]), 7777, String::new()).await,
            Some(Command::Serve { address, port, name }) => serve(address, port, name).await,
            Some(Command::Call { protocol, to, text }) => call(protocol, &to, text).await,
            Some(Command::Pause) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // A thread that reads standard input cannot be interrupted: nothing waits for it.
    if let Err(error) = &result {
        eprintln!("error: {error}");
    }
    std::process::exit(i32::from(result.is_err()))
}

async fn serve(address: IpAddr, port: u16, name: String) -> io::Result<()> {
    let (tcp, udp) = (TcpListener::bind((address, port)).await?, UdpSocket::bind((address, port)).await?);
    println!("echo on {address}:{port}, TCP and UDP");
    let streams = async {
        loop {
            let (stream, _) = tcp.accept().await?;
            tokio::spawn(answer(stream, name.clone()));
        }
    };
    let datagrams = async {
        let mut datagram = vec![0; 65_536];
        loop {
            let (length, from) = udp.recv_from(&mut datagram).await?;
            let answer = [name.as_bytes(), &datagram[..length]].concat();
            let _ = udp.send_to(&answer, from).await;
        }
    };
    tokio::select! {
        result = streams => result,
        result = datagrams => result,
    }
}

async fn answer(mut stream: TcpStream, name: String) -> io::Result<()> {
    stream.write_all(name.as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    copy(&mut read, &mut write).await?;
    write.shutdown().await
}

async fn call(protocol: Protocol, to: &str, text: Option<String>) -> io::Result<()> {
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
