//! The server that examples and tests forward to: sends back what it receives on TCP and UDP. It is also a client, like
//! `nc`.

mod call;
mod serve;
#[cfg(feature = "tls")]
mod tls;

use std::{io, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// Longest duration of a call that does not read standard input.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before an attempt is repeated; datagrams can get lost.
const AGAIN: Duration = Duration::from_millis(500);

/// Echo server. Without a command: serves on 127.0.0.1:7777.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve on TCP and UDP until SIGTERM or SIGINT.
    Serve(serve::Server),
    /// Send a text and print the answer. Without a text: connect standard input and output to a TCP connection.
    Call {
        protocol: Protocol,
        /// Server to connect to, HOST:PORT.
        to: String,
        text: Option<String>,
    },
    /// Open TCP sessions and hold them until SIGTERM; a session that ends is opened again.
    Hold {
        /// Server to connect to, HOST:PORT.
        to: String,
        /// Number of sessions.
        #[arg(long, default_value_t = 1)]
        sessions: usize,
    },
    /// Do nothing until SIGTERM, to hold the namespaces of a Pod.
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
            None => serve::Server::default().run().await,
            Some(Command::Serve(server)) => server.run().await,
            Some(Command::Call { protocol, to, text }) => call::once(protocol, &to, text).await,
            Some(Command::Hold { to, sessions }) => call::hold(&to, sessions).await,
            Some(Command::Pause) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // Exit without waiting: the thread that reads standard input cannot be interrupted.
    if let Err(error) = &result {
        eprintln!("error: {error}");
    }
    std::process::exit(i32::from(result.is_err()))
}
