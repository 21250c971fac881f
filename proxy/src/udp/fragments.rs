//! Whether a socket sends large datagrams in fragments. A socket that sends trains forbids them, so that the datagrams of
//! a train are marked as those that are sent alone; one that is asked for a large datagram allows them again.

use std::{cell::Cell, io, os::fd::AsFd};

use crate::sys;

/// Setting of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Setting {
    /// Fragments are allowed, as a new socket has it.
    #[default]
    Allowed,
    /// Fragments are forbidden.
    Forbidden,
    /// The system marks no datagram of this socket, however it is sent.
    Unmarked,
}

/// Keeps track of the setting of a socket.
#[derive(Debug, Default)]
pub(super) struct Fragments(Cell<Setting>);

impl Fragments {
    /// Sends by `send` with the setting that a train, or a datagram alone, needs.
    pub(super) fn send(&self, socket: &impl AsFd, is_train: bool, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
        if is_train && self.0.get() == Setting::Allowed {
            let is_forbidden = sys::forbid_fragments(socket);
            self.0.set(if is_forbidden { Setting::Forbidden } else { Setting::Unmarked });
        }
        match send() {
            Err(error) if !is_train && self.0.get() == Setting::Forbidden && quinn_udp::is_msg_size_err(&error) => {
                sys::allow_fragments(socket);
                self.0.set(Setting::Allowed);
                send()
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_large_datagram_after_a_train_is_sent_in_fragments() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        sys::datagrams(&socket).expect("a state");
        let (fragments, calls) = (Fragments::default(), Cell::new(0));
        fragments.send(&socket, true, || Ok(())).expect("a train");
        let is_too_large = || -> io::Result<()> {
            calls.set(calls.get() + 1);
            // As the system refuses a datagram that the path does not take in one piece.
            if fragments.0.get() == Setting::Forbidden { Err(rustix::io::Errno::MSGSIZE.into()) } else { Ok(()) }
        };
        fragments.send(&socket, false, is_too_large).expect("a datagram");
        let expected = if cfg!(target_os = "linux") { (2, Setting::Allowed) } else { (1, Setting::Unmarked) };
        assert_eq!((calls.get(), fragments.0.get()), expected);
    }

    #[test]
    fn a_datagram_that_no_setting_makes_fit_is_tried_once() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let calls = Cell::new(0);
        let sent = Fragments::default().send(&socket, false, || {
            calls.set(calls.get() + 1);
            Err(rustix::io::Errno::MSGSIZE.into())
        });
        assert!(sent.is_err_and(|error| quinn_udp::is_msg_size_err(&error)));
        assert_eq!(calls.get(), 1);
    }
}
