//! What this program is in processes of its own, so that their CPU can be counted: the servers behind every forwarder,
//! and the forwarder in plain tokio. Each ends when its standard input does, so with the bench.

mod tokio_forwarder;

use std::{env, process::Command};

use clap::Subcommand;

use crate::{
    process::{Process, end_with_input},
    servers::{self, port},
};

/// A role of a process that the bench starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Role {
    /// Serve what answers at once: echoes.
    #[command(hide = true)]
    Echo,
    /// Serve what moves many bytes.
    #[command(hide = true)]
    Sink,
    /// Forward ports on loopback with tokio's `copy_bidirectional`.
    #[command(hide = true)]
    Tokio {
        /// Port before the echo server.
        #[arg(long)]
        echo: u16,
        /// Port before the server that discards bytes.
        #[arg(long)]
        sink: u16,
        /// Port before the server that discards and sends.
        #[arg(long)]
        both: u16,
        /// UDP port before the echo server.
        #[arg(long)]
        udp: u16,
    },
}

impl Role {
    /// Plays the role until standard input ends.
    pub(crate) fn play(self) {
        end_with_input();
        harness::raise_file_limit();
        match self {
            Self::Echo => servers::echo(),
            Self::Sink => servers::sink(),
            Self::Tokio { echo, sink, both, udp } => {
                let pairs = [(echo, port::ECHO), (sink, port::SINK), (both, port::BOTH)];
                tokio_forwarder::run(&pairs, (udp, port::ECHO));
            }
        }
    }

    /// Starts a process with this role.
    pub(crate) fn start(self) -> Process {
        let mut command = Command::new(env::current_exe().expect("own path"));
        match self {
            Self::Echo => command.arg("echo"),
            Self::Sink => command.arg("sink"),
            Self::Tokio { echo, sink, both, udp } => {
                command.arg("tokio");
                for (option, port) in [("--echo", echo), ("--sink", sink), ("--both", both), ("--udp", udp)] {
                    command.arg(option).arg(port.to_string());
                }
                &mut command
            }
        };
        Process::start(&mut command).expect("this program starts")
    }
}
