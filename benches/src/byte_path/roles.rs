//! What this program is in processes of its own, so that their CPU can be counted: the servers behind every forwarder,
//! the forwarder in plain tokio, and one for each model of I/O. Each ends when its standard input does, so with the
//! bench.

mod models;
mod tokio_forwarder;

use std::{env, process::Command, thread};

use clap::Subcommand;

pub(crate) use self::models::Model;
use crate::{
    process::{Process, end_with_input},
    servers::{self, port},
    train_socket::TrainSocket,
};

/// The TCP ports of a forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct TcpPorts {
    /// Port before the echo server.
    #[arg(long)]
    pub(crate) echo: u16,
    /// Port before the server that discards bytes.
    #[arg(long)]
    pub(crate) sink: u16,
    /// Port before the server that discards and sends.
    #[arg(long)]
    pub(crate) both: u16,
}

impl TcpPorts {
    /// Each port, with that of the server behind it.
    fn pairs(self) -> [(u16, u16); 3] {
        [(self.echo, port::ECHO), (self.sink, port::SINK), (self.both, port::BOTH)]
    }

    /// The options that name the ports.
    fn options(self) -> Vec<(&'static str, u16)> {
        vec![("--echo", self.echo), ("--sink", self.sink), ("--both", self.both)]
    }
}

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
        #[command(flatten)]
        ports: TcpPorts,
        /// UDP port of the forwarder.
        #[arg(long)]
        udp: u16,
        /// Port of the server behind the UDP port.
        #[arg(long)]
        udp_server: u16,
    },
    /// Forward ports on loopback by one model of I/O.
    #[command(hide = true)]
    Model {
        /// Name of the model, as in the table.
        #[arg(long, value_parser = Model::named)]
        model: Model,
        #[command(flatten)]
        ports: TcpPorts,
    },
}

impl Role {
    /// Plays the role until standard input ends.
    pub(crate) fn play(self) {
        end_with_input();
        harness::raise_file_limit();
        match self {
            Self::Echo => {
                let trains = TrainSocket::new(servers::datagrams(port::TRAINS)).expect("a socket");
                thread::spawn(move || trains.echo());
                servers::echo();
            }
            Self::Sink => servers::sink(),
            Self::Tokio { ports, udp, udp_server } => tokio_forwarder::run(&ports.pairs(), (udp, udp_server)),
            Self::Model { model, ports } => {
                model.run(ports.pairs().map(|(from, to)| (servers::listen(from), to)).into());
            }
        }
    }

    /// Starts a process with this role.
    pub(crate) fn start(self) -> Process {
        let mut command = Command::new(env::current_exe().expect("own path"));
        let ports = match self {
            Self::Echo => {
                command.arg("echo");
                Vec::new()
            }
            Self::Sink => {
                command.arg("sink");
                Vec::new()
            }
            Self::Tokio { ports, udp, udp_server } => {
                command.arg("tokio");
                [ports.options(), vec![("--udp", udp), ("--udp-server", udp_server)]].concat()
            }
            Self::Model { model, ports } => {
                command.args(["model", "--model", &model.name()]);
                ports.options()
            }
        };
        for (option, port) in ports {
            command.arg(option).arg(port.to_string());
        }
        Process::start(&mut command).expect("this program starts")
    }
}
