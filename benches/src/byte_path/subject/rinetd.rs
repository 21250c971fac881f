//! rinetd.

use std::{fmt::Write as _, process::Command};

use tempfile::TempDir;

use super::{Ports, write};

/// The command of a forwarder without a log.
pub(super) fn command(ports: Ports, folder: &TempDir) -> Command {
    let text = ports.tcp().iter().fold(String::new(), |mut text, (from, to)| {
        let _ = writeln!(text, "127.0.0.1 {from} 127.0.0.1 {to}");
        text
    });
    let mut command = Command::new("rinetd");
    command.args(["-f", "-c"]).arg(write(folder, "rinetd.conf", &text));
    command
}
