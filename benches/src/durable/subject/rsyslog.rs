//! rsyslog: one action with a disk-assisted queue, as its manual has it for a sink that may be away. Where messages are
//! synced at once it has a disk queue, as no sync reaches those in memory.

use std::process::Command;

use super::Place;
use crate::{
    peers::RSYSLOG,
    rows::{Row, Syncs},
};

/// The command of a forwarder.
pub(super) fn command(place: &Place, syncs: Syncs) -> Command {
    let mut command = Command::new(RSYSLOG);
    command.args(["-n", "-i", "NONE", "-f"]).arg(place.write(&configuration(place, syncs)));
    command
}

/// The program's own messages do not come to the ruleset. The file with the queue's state is written after each 1,000
/// messages, as without one a crash loses the queue. With a sync of each write it is written after each message. A queue
/// with the default light delay mark takes one message a second until it begins to use the disk, and so it has none. One
/// of the default size, 1,000 messages, stands still for minutes when messages come faster than they go to disk.
fn configuration(place: &Place, syncs: Syncs) -> String {
    let (folder, input, sink) = (place.logs(), place.input, place.sink);
    let module = if place.row.is_udp() { "imudp" } else { "imptcp" };
    let output = if place.row == Row::Relp { "omrelp" } else { "omfwd" };
    // omfwd is part of the program.
    let load = if place.row == Row::Relp { "module(load=\"omrelp\")\n" } else { "" };
    let protocol = if place.row == Row::Relp { "" } else { "protocol=\"tcp\" " };
    let (queue, sync, checkpoint) = match syncs {
        Syncs::Later => ("LinkedList", "off", 1000),
        Syncs::AtOnce => ("Disk", "on", 1),
    };
    format!(
        "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\")\n\
         main_queue(queue.type=\"Direct\")\n\
         module(load=\"{module}\")\n{load}\
         template(name=\"raw\" type=\"string\" string=\"%rawmsg%\")\n\
         input(type=\"{module}\" address=\"127.0.0.1\" port=\"{input}\" ruleset=\"bench\")\n\
         ruleset(name=\"bench\") {{ action(type=\"{output}\" target=\"127.0.0.1\" port=\"{sink}\" {protocol}template=\"raw\" \
         action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" queue.type=\"{queue}\" \
         queue.filename=\"queue\" queue.size=\"100000\" queue.dequeueBatchSize=\"1024\" queue.lightDelayMark=\"0\" queue.maxFileSize=\"64m\" queue.saveOnShutdown=\"on\" \
         queue.checkpointInterval=\"{checkpoint}\" queue.syncQueueFiles=\"{sync}\") }}\n",
        folder = folder.display(),
    )
}
