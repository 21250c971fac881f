//! A build that runs beside tests.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::error::TaskError;

/// A priority that leaves nine tenths of a core to a test, and a tenth to the build beside other load. With a quarter,
/// API servers missed deadlines of kubectl; with the lowest one, a build would not end on a busy machine.
const NICENESS: i32 = 10;

/// A build that runs beside tests, and gets the CPU time that they leave. What it starts as [`images::tied`] ends with
/// this process.
#[derive(Debug)]
pub(crate) struct Background(JoinHandle<Result<Duration, TaskError>>);

impl Background {
    /// Builds while the caller continues.
    pub(crate) fn start(build: impl FnOnce() -> Result<(), TaskError> + Send + 'static) -> Self {
        Self(thread::spawn(move || {
            // Linux lowers the priority of this thread and of the programs that it starts. Other systems would lower
            // that of the tests, too.
            if cfg!(target_os = "linux") {
                let own = rustix::process::getpriority_process(None).unwrap_or_default();
                let _ = rustix::process::setpriority_process(None, own.max(NICENESS));
            }
            let started = Instant::now();
            build().map(|()| started.elapsed())
        }))
    }

    /// Waits for the end of the build. Returns how long the build took.
    pub(crate) fn wait(self) -> Result<Duration, TaskError> {
        self.0.join().map_err(|_| TaskError::Builder)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_programs_of_a_build_have_the_lowest_priority_and_the_tests_keep_theirs() {
        use std::{process::Command, sync::mpsc};

        let niceness = || rustix::process::getpriority_process(None).expect("a niceness");
        let before = niceness();
        let (sender, seen) = mpsc::channel();
        let background = Background::start(move || {
            // Without arguments it prints its niceness.
            let nice = Command::new("nice").output().expect("nice");
            sender.send(String::from_utf8_lossy(&nice.stdout).trim().to_owned()).expect("a receiver");
            Ok(())
        });
        background.wait().expect("the build succeeds");
        assert_eq!(seen.recv().expect("a niceness"), before.max(NICENESS).to_string());
        assert_eq!(niceness(), before);
    }

    #[test]
    fn a_build_that_fails_or_panics_fails_the_run() {
        let failed = Background::start(|| Err(TaskError::Program("portlane"))).wait();
        assert!(matches!(failed, Err(TaskError::Program("portlane"))), "{failed:?}");
        let panicked = Background::start(|| panic!("the build panics")).wait();
        assert!(matches!(panicked, Err(TaskError::Builder)), "{panicked:?}");
    }
}
