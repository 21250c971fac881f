//! What a program of a test printed, and whether it succeeded.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longest run of a program.
const PROGRAM: Duration = Duration::from_secs(580);

/// Output of a program, and whether the program succeeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether the exit status was 0.
    pub success: bool,
}

impl CommandOutput {
    /// Runs a command with a text on its standard input.
    pub fn of(command: &mut Command, input: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", command.get_program().display()));
        let mut pipe = child.stdin.take().expect("piped");
        let ended = AtomicBool::new(false);
        let process = Pid::from_child(&child);
        let output = std::thread::scope(|scope| {
            // A program may end before it has read all of its input.
            scope.spawn(move || drop(pipe.write_all(input.as_bytes())));
            let watch = scope.spawn(|| {
                let deadline = Instant::now() + PROGRAM;
                while !ended.load(Relaxed) && Instant::now() < deadline {
                    std::thread::park_timeout(PROGRAM);
                }
                if !ended.load(Relaxed) {
                    let _ = kill_process(process, Signal::KILL);
                }
            });
            let output = child.wait_with_output().expect("output");
            ended.store(true, Relaxed);
            watch.thread().unpark();
            output
        });
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        }
    }

    /// Standard output of a program that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "the program failed:\n{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a program that must fail.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.success, "the program succeeded:\n{}{}", self.stdout, self.stderr);
        self.stderr
    }
}
