//! Processes that the bench starts, and the priority of threads.

use std::{
    io,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::{
    process::{Pid, Signal, kill_process, setpriority_process},
    thread::gettid,
};

/// Priority over what has the usual one, as `nice`.
const PROMPT: i32 = -20;
/// The usual priority.
const USUAL: i32 = 0;

/// Ends this process when its standard input does, so with the bench.
pub(crate) fn end_with_input() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
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
