//! rinetd.

use std::{fmt::Write as _, process::Command};

use tempfile::TempDir;

use super::{Ports, port, write};

/// The command of a forwarder without a log.
pub(super) fn command(ports: Ports, folder: &TempDir) -> Command {
    let mut text = ports.tcp().iter().fold(String::new(), |mut text, (from, to)| {
        let _ = writeln!(text, "127.0.0.1 {from} 127.0.0.1 {to}");
        text
    });
    // A rule applies to the port before it.
    let _ = writeln!(text, "127.0.0.1 {} 127.0.0.1 {}\ndeny 127.0.0.1", ports.denied, port::ECHO);
    let mut command = Command::new("rinetd");
    command.args(["-f", "-c"]).arg(write(folder, "rinetd.conf", &text));
    command
}
