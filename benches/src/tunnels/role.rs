//! The servers behind every tunnel, in processes of their own, so that their CPU can be counted.

use std::{env, process::Command};

use clap::Subcommand;
use harness::{connect, until};

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
}

impl Role {
    /// Plays the role until standard input ends.
    pub(crate) fn play(self) {
        end_with_input();
        harness::raise_file_limit();
        match self {
            Self::Echo => servers::echo(),
            Self::Sink => servers::sink(),
        }
    }

    /// Starts a process with this role.
    fn start(self) -> Process {
        let mut command = Command::new(env::current_exe().expect("own path"));
        command.arg(if self == Self::Echo { "echo" } else { "sink" });
        Process::start(&mut command).expect("this program starts")
    }
}

/// The servers that agents lead to.
pub(crate) struct Servers {
    echo: Process,
    sink: Process,
}

impl Servers {
    /// Starts them on this thread's CPU.
    pub(crate) fn start() -> Self {
        let servers = Self { echo: Role::Echo.start(), sink: Role::Sink.start() };
        for port in [port::ECHO, port::SINK, port::BOTH] {
            until("the servers listen", || connect(port).is_ok());
        }
        servers
    }

    /// Ids of their processes.
    pub(crate) fn ids(&self) -> Vec<u32> {
        vec![self.echo.id(), self.sink.id()]
    }
}
