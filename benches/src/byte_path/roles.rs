//! What this program is in processes of its own, so that their CPU can be counted: the servers behind every forwarder,
//! and the forwarder in plain tokio. Each ends when its standard input does, so with the bench.

mod servers;
mod tokio_forwarder;

use std::{
    env, io,
    process::{Child, Command, Stdio},
    thread,
};

use clap::Subcommand;
use rustix::{
    process::{Pid, Signal, kill_process, setpriority_process},
    thread::gettid,
};

/// Priority over what has the usual one, as `nice`.
const PROMPT: i32 = -20;
/// The usual priority.
const USUAL: i32 = 0;

/// Ports of the servers, on loopback.
pub(crate) mod port {
    /// Echoes bytes, and datagrams.
    pub(crate) const ECHO: u16 = 7001;
    /// Discards bytes.
    pub(crate) const SINK: u16 = 7002;
    /// Discards bytes, and sends as many as the peer takes.
    pub(crate) const BOTH: u16 = 7003;
    /// Answers each byte with the next one, so that a client sees which server it has reached.
    pub(crate) const NEXT: u16 = 7004;
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
        thread::spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(0);
        });
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

/// A process, killed on drop.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program without output. `Err`: it cannot be started.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.0), signal);
    }

    /// Gives the first thread of the process priority over others on its CPU, until the value is dropped.
    pub(crate) fn prefer(&self) -> Preferred {
        prefer(Pid::from_child(&self.0), PROMPT);
        Preferred(Pid::from_child(&self.0))
    }

    /// Waits for the end of a process that was asked to end.
    pub(crate) fn wait(&mut self) {
        let _ = self.0.wait();
    }
}

/// A process with priority.
pub(crate) struct Preferred(Pid);

impl Drop for Preferred {
    fn drop(&mut self) {
        prefer(self.0, USUAL);
    }
}

/// Gives this thread priority over others on its CPU, so that the wait in the forwarder is what is measured.
pub(crate) fn prefer_this_thread() {
    prefer(gettid(), PROMPT);
}

fn prefer(thread: Pid, nice: i32) {
    if let Err(error) = setpriority_process(Some(thread), nice) {
        eprintln!("the priority of a thread stays: {error}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
