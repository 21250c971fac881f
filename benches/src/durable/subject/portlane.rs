//! Portlane: `portlane run` of one durable listener.

use std::{path::Path, process::Command};

use super::{LOG, Place};
use crate::rows::{Row, Syncs};

/// The command of a forwarder with one worker and no log lines.
pub(super) fn command(place: &Place, program: &Path, syncs: Syncs) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "--quiet", "--workers", "1", "-f"]).arg(place.write(&manifest(place, syncs)));
    command.arg("--data").arg(place.logs());
    command
}

fn manifest(place: &Place, syncs: Syncs) -> String {
    let (protocol, framing, full) =
        if place.row.is_udp() { ("UDP", "Datagram", "DropNewest") } else { ("TCP", "Newline", "Block") };
    let send = if place.row == Row::Relp { "relp: {}" } else { "tcp: {framing: Newline}" };
    let millis = match syncs {
        Syncs::Later => 500,
        Syncs::AtOnce => 0,
    };
    format!(
        "apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {{name: bench}}\nspec:\n  \
         placement: {{sidecar: {{selector: {{}}}}}}\n  listeners:\n  - name: in\n    protocol: {protocol}\n    \
         port: {input}\n    durable:\n      framing: {framing}\n      whenFull: {full}\n      syncMillis: {millis}\n      \
         store: {{disk: {{maxBytes: {LOG}}}}}\n      send: {{{send}}}\n    \
         backends: [{{address: {{host: 127.0.0.1, port: {sink}}}}}]\n",
        input = place.input,
        sink = place.sink,
    )
}
