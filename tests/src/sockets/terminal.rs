//! A program on a terminal, as a person sees it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::until;

/// Rows of every terminal.
const ROWS: u16 = 50;

/// A terminal with a program on it, which is killed on drop.
pub struct Terminal {
    child: Child,
    keys: File,
    /// The side of the program, kept open for its size.
    theirs: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command on a terminal with so many columns. Standard error stays that of the test.
    #[must_use]
    pub fn start(mut command: Command, columns: u16) -> Self {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        fcntl_setfd(&own, FdFlags::CLOEXEC).expect("flag");
        grantpt(&own).expect("grant");
        unlockpt(&own).expect("unlock");
        let name = ptsname(&own, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("open");
        tcsetwinsize(&theirs, size(columns)).expect("size");
        let copy = || theirs.try_clone().expect("copy");
        let child = command.stdin(copy()).stdout(copy()).spawn().expect("starts");
        let keys = File::from(own);
        let mut output = keys.try_clone().expect("copy");
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = screen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when program and test have closed the program's side.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                kept.lock().expect("unpoisoned").extend(&bytes[..count]);
            }
        });
        Self { child, keys, theirs, screen }
    }

    /// Everything that the program has written so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("unpoisoned")).into_owned()
    }

    /// Waits until the program has written these words so many times, and gives everything that it has written.
    #[track_caller]
    pub fn wait(&self, words: &str, times: usize) -> String {
        until(&format!("{words:?} is shown {times} times"), || self.text().matches(words).count() >= times);
        self.text()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("the terminal takes keys");
    }

    /// Gives the terminal another width. The kernel signals that to the program whose terminal this is.
    pub fn resize(&self, columns: u16) {
        tcsetwinsize(&self.theirs, size(columns)).expect("size");
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the program runs");
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the program ends", || {
            ended = self.child.try_wait().expect("its state");
            ended.is_some()
        });
        ended.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = writeln!(std::io::stderr().lock(), "{}", self.text());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The size of a terminal with so many columns.
fn size(columns: u16) -> Winsize {
    Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
