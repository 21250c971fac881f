//! Watches the threads of the process from a thread of its own: logs those that hang, and ends the process if one dies.

use std::{
    collections::BTreeSet,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{core::workers::heartbeat::Judge, log::Level, process::Process, supervisor::Control};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// The watching thread.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Watchdog {
    /// Starts the thread. After a death it asks `control` to drain for no longer than `drain`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(process: Process, control: mpsc::Sender<Control>, drain: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("watchdog".into());
        let thread = thread.spawn(move || watch(&process, &control, drain, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // The panic was already reported.
        let _ = self.thread.join();
    }
}

fn watch(process: &Process, control: &mpsc::Sender<Control>, drain: Duration, stopped: &Receiver<()>) {
    let life = process.lives.begin("watchdog");
    let mut rounds = Rounds::default();
    let mut last = Instant::now();
    while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
        life.beat();
        let now = Instant::now();
        rounds.look(process, now.duration_since(std::mem::replace(&mut last, now)));
        if !rounds.died.is_empty() && !rounds.asked {
            // The remaining threads finish their sessions. Without a control thread, the process ends by itself.
            rounds.asked = control.try_send(Control::Drain(drain)).is_ok();
        }
    }
}

/// The state that the log already reports.
#[derive(Debug, Default)]
struct Rounds {
    hung: BTreeSet<String>,
    died: BTreeSet<String>,
    judge: Judge,
    /// Whether the drain was requested.
    asked: bool,
}

impl Rounds {
    /// Checks for deaths, which are certain however late the round is, and for silence.
    fn look(&mut self, process: &Process, after: Duration) {
        let died = process.lives.died();
        for name in died.difference(&self.died) {
            let message = "has ended unexpectedly, see standard error; live sessions finish, then the process ends";
            process.log.notice(Level::Error, "died", name, message);
        }
        self.died = died;
        if !self.judge.counts(after) {
            return;
        }
        let hung = process.lives.hung(process.clock.seconds());
        for name in hung.difference(&self.hung) {
            let message = "makes no progress; /livez fails until it does";
            process.log.notice(Level::Error, "hung", name, message);
        }
        for name in self.hung.difference(&hung) {
            process.log.notice(Level::Info, "hung", name, "makes progress again");
        }
        self.hung = hung;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures::process, settings::Settings};

    #[test]
    fn a_death_counts_also_in_a_round_that_is_late() {
        let process = process(&Settings::default(), None);
        let mut rounds = Rounds::default();
        process.lives.guard("victim").died();
        rounds.look(&process, Duration::from_secs(3600));
        assert_eq!(rounds.died, BTreeSet::from(["victim".to_owned()]));
    }
}
