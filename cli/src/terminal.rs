//! The terminal on which the program runs, if there is one.

use std::io::{self, IsTerminal};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::getpgrp,
    termios::{tcgetpgrp, tcgetwinsize},
};

/// Most bytes of typed input that are read at once.
const TYPED: usize = 1024;

/// Columns of the terminal at standard output; `None` if there is none.
pub(crate) fn width() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// The keyboard of a terminal. A line arrives when Enter is pressed: the terminal stays in its usual mode.
#[derive(Debug)]
pub(crate) struct Keyboard {
    stdin: io::Stdin,
}

impl Keyboard {
    /// The keyboard at standard input, if there is one.
    pub(crate) fn find() -> Option<Self> {
        let stdin = io::stdin();
        stdin.is_terminal().then_some(Self { stdin })
    }

    /// Whether Enter was pressed since the last call. Never waits. A program in the background reads nothing: the keys
    /// belong to another program, and the system would stop this one.
    pub(crate) fn was_pressed(&self) -> bool {
        let mut ready = [PollFd::new(&self.stdin, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut ready, Some(&at_once)) != Ok(1) || !ready[0].revents().contains(PollFlags::IN) {
            return false;
        }
        // A terminal that does not control this process sends no SIGTTIN and has no foreground group.
        if tcgetpgrp(&self.stdin).is_ok_and(|group| group != getpgrp()) {
            return false;
        }
        rustix::io::read(&self.stdin, &mut [0_u8; TYPED]).is_ok_and(|count| count > 0)
    }
}
