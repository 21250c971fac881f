//! socat, a process for each connection.

use std::process::Command;

use super::Ports;

/// The commands, one for each port.
pub(super) fn commands(ports: Ports) -> [Command; 3] {
    ports.tcp().map(|(from, to)| {
        let mut command = Command::new("socat");
        // By default socat gives the other side half a second after one side has finished.
        command.args(["-t", "60"]);
        command.arg(format!("TCP-LISTEN:{from},bind=127.0.0.1,fork,reuseaddr,backlog=1024"));
        command.arg(format!("TCP:127.0.0.1:{to}"));
        command
    })
}
