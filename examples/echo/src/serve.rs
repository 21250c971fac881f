//! The echo server on TCP, TLS and UDP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use clap::Args;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpListener, UdpSocket},
};

/// Options of the server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to listen on, for TCP and UDP.
    #[arg(long, default_value_t = 7777)]
    port: u16,
    /// Prefix of every answer, so that a caller sees which server answered.
    #[arg(long, default_value = "", env = "ECHO_NAME")]
    name: String,
    /// Print the text of every datagram.
    #[arg(long)]
    print: bool,
    /// Serve TLS on TCP, with a self-signed certificate for this host that is generated at the start.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "HOST")]
    tls: Option<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 7777,
            name: String::new(),
            print: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Server {
    /// Serves until a socket fails.
    pub(crate) async fn run(self) -> io::Result<()> {
        let at = (self.address, self.port);
        let (tcp, udp) = (TcpListener::bind(at).await?, UdpSocket::bind(at).await?);
        println!("echo on {}:{}, TCP and UDP", self.address, self.port);
        tokio::select! {
            result = self.streams(&tcp) => result,
            result = self.datagrams(&udp) => result,
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn streams(&self, tcp: &TcpListener) -> io::Result<()> {
        loop {
            let (stream, _) = tcp.accept().await?;
            tokio::spawn(answer(stream, self.name.clone()));
        }
    }

    #[cfg(feature = "tls")]
    async fn streams(&self, tcp: &TcpListener) -> io::Result<()> {
        let tls = self.tls.as_deref().map(crate::tls::acceptor).transpose()?;
        loop {
            let (stream, _) = tcp.accept().await?;
            let (tls, name) = (tls.clone(), self.name.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => answer(tls.accept(stream).await?, name).await,
                    None => answer(stream, name).await,
                }
            });
        }
    }

    async fn datagrams(&self, udp: &UdpSocket) -> io::Result<()> {
        let mut datagram = vec![0; 65_536];
        loop {
            let (length, from) = udp.recv_from(&mut datagram).await?;
            if self.print {
                println!("{}", String::from_utf8_lossy(&datagram[..length]));
            }
            let answer = [self.name.as_bytes(), &datagram[..length]].concat();
            let _ = udp.send_to(&answer, from).await;
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite>(stream: S, name: String) -> io::Result<()> {
    let (mut read, mut write) = split(stream);
    write.write_all(name.as_bytes()).await?;
    // TLS buffers until it is flushed.
    write.flush().await?;
    copy(&mut read, &mut write).await?;
    write.shutdown().await
}
