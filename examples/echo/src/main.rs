//! What the examples and tests forward to: sends back what it is sent, on TCP and UDP; calls others, as `nc` would.

mod call;
mod serve;
#[cfg(feature = "tls")]
mod tls;

use std::{io, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

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
    Serve(serve::Server),
    /// Sends a text and prints the answer. Without a text: joins standard input and output to a TCP connection.
    Call {
        protocol: Protocol,
        /// HOST:PORT.
        to: String,
        text: Option<String>,
    },
    /// Opens TCP sessions and holds them until SIGTERM; one that ends is opened again.
    Hold {
        /// HOST:PORT.
        to: String,
        /// How many.
        #[arg(long, default_value_t = 1)]
        sessions: usize,
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
    // A thread that reads standard input cannot be interrupted: nothing waits for it.
    if let Err(error) = &result {
        eprintln!("error: {error}");
    }
    std::process::exit(i32::from(result.is_err()))
}
