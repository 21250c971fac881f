//! syslog-ng: one destination with a reliable disk buffer. Messages are not parsed, which is the least work.

use std::process::Command;

use super::{LOG, Place};
use crate::peers::SyslogNg;

/// The command of a forwarder.
pub(super) fn command(place: &Place, program: &SyslogNg) -> Command {
    let mut command = program.command();
    command.args(["--foreground", "--no-caps", "-f"]).arg(place.write(&configuration(place, &program.version)));
    for (option, name) in [("-R", "persist"), ("-p", "pid"), ("-c", "control")] {
        command.arg(option).arg(place.path(name));
    }
    command
}

fn configuration(place: &Place, version: &str) -> String {
    let (folder, input, sink) = (place.logs(), place.input, place.sink);
    // Clients over TCP wait for the disk; datagrams cannot.
    let (transport, flags) = if place.row.is_udp() { ("udp", "") } else { ("tcp", " flags(flow-control);") };
    format!(
        "@version: {version}\n\
         options {{ use-dns(no); stats-freq(0); time-reopen(1); }};\n\
         source s_in {{ network(ip(\"127.0.0.1\") port({input}) transport(\"{transport}\") flags(no-parse)); }};\n\
         destination d_out {{ network(\"127.0.0.1\" port({sink}) transport(\"tcp\") template(\"$MSG\\n\") \
         disk-buffer(reliable(yes) disk-buf-size({LOG}) dir(\"{folder}\"))); }};\n\
         log {{ source(s_in); destination(d_out);{flags} }};\n",
        folder = folder.display(),
    )
}
