//! `HAProxy`.

use std::{fmt::Write as _, process::Command};

use tempfile::TempDir;

use super::{Ports, port, write};

/// The command of a forwarder that copies, or one that always splices.
pub(super) fn command(ports: Ports, folder: &TempDir, splice: bool) -> Command {
    let (pipes, options) = if splice {
        ("  maxpipes 200\n  tune.pipesize 1048576\n", "  option splice-request\n  option splice-response\n")
    } else {
        ("", "")
    };
    let mut text = format!(
        "global\n  maxconn 9000\n  nbthread 1\n{pipes}defaults\n  mode tcp\n{options}  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\n"
    );
    for (from, to) in ports.tcp() {
        let _ = writeln!(text, "listen l{from}\n  bind 127.0.0.1:{from} backlog 4096\n  server s 127.0.0.1:{to}");
    }
    let (denied, to) = (ports.denied, port::ECHO);
    let _ = writeln!(
        text,
        "listen l{denied}\n  bind 127.0.0.1:{denied} backlog 4096\n  tcp-request connection reject\n  \
         server s 127.0.0.1:{to}"
    );
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(write(folder, "haproxy.cfg", &text));
    command
}
