//! Messages that a stream has dropped, or never had, are counted by their reason.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path};

use harness::{Listener, connect, forward, free_port, http_get, send_relp, until};

use super::{WINDOW, framed, nats, run, sink};
use crate::server::open_folder;

/// Messages of 4 KB that are far more than the stream and the proxy have room for.
const MANY: u64 = 12_000;
/// The most messages of this length that the stream has, and that the proxy holds for the sink.
const ROOM: u64 = (16 << 20) / 4000 + (18 << 20) / 4000;

/// A counter of the listener at the metrics page. `reason` is the end of its labels.
fn counted(health: u16, name: &str, reason: &str) -> u64 {
    let labels = format!("kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l\"{reason}");
    let series = format!("portlane_durable_{name}_total{{{labels}}} ");
    let Ok((_, page)) = http_get(health, "/metrics") else { return 0 };
    let mut values = page.lines().filter_map(|line| line.strip_prefix(&series)?.split('.').next()?.trim().parse().ok());
    values.next().unwrap_or(0)
}

fn dropped(health: u16, reason: &str) -> u64 {
    counted(health, "dropped", &format!(",reason=\"{reason}\""))
}

#[test]
fn each_message_that_the_server_drops_before_it_is_read_is_counted_while_nothing_is_read() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, away, health) = (free_port(), free_port(), free_port(), free_port());
    let _server = nats(folder.path(), back);
    let store = format!("{{jetStream: {{url: 'nats://127.0.0.1:{back}', maxBytes: 16777216}}}}");
    let durable = format!("durable: {{framing: Relp, whenFull: DropOldest, send: {{relp: {{}}}}, store: {store}}}");
    let manifests = forward("f", "", &[Listener::tcp("l", port).to(away).with(&durable)]);
    let program = run(&manifests, health, data.path());
    program.wait("bound", "default/f/l");
    let filler = "x".repeat(4000);
    let next = |number: u64| (number < MANY).then(|| format!("<13>{number} {filler}"));
    send_relp(connect(port).expect("a connection"), WINDOW, 0, next, |_| {}).expect("the proxy answers");
    until("what there is no room for is counted", || dropped(health, "Full") >= MANY - ROOM);
    let (_sink, taken) = sink(away);
    let arrived = || -> u64 {
        let taken = taken.lock().expect("unpoisoned");
        taken.iter().filter_map(|message| message.split(' ').next()).collect::<BTreeSet<_>>().len() as u64
    };
    until("each message has arrived or is counted", || arrived() + dropped(health, "Full") == MANY);
    assert_eq!(dropped(health, "StreamLost"), 0);
}

#[test]
fn messages_that_never_reach_the_former_stream_of_a_removed_listener_are_told() {
    let (folder, data) = (open_folder(), tempfile::tempdir().expect("a folder"));
    let (back, port, away, health) = (free_port(), free_port(), free_port(), free_port());
    let mut server = nats(folder.path(), back);
    let program = run(&framed("Newline", port, back, away), health, data.path());
    program.wait("bound", "default/f/l");
    server.crash();
    let mut client = connect(port).expect("a connection");
    client.write_all(b"<13>one\n<13>two\n<13>three\n").expect("it is sent");
    until("the proxy has the messages", || counted(health, "received", "") == 3);
    let durable = "durable: {framing: Newline, send: {relp: {}}, store: {disk: {maxBytes: 16777216}}}";
    let on_disk = Listener::tcp("l", port).to(away).with(durable);
    program.edit(&forward("f", "sessions: {drainSeconds: 1}", &[on_disk]));
    until("messages are kept on the disk", || holds_log(data.path()));
    let other = Listener::tcp("other", free_port()).to(away);
    program.edit(&forward("f", "sessions: {drainSeconds: 1}", &[other]));
    let (lost, all) =
        ("lost 3 messages that had not reached the stream portlane__default__f__l", "the sink has all messages");
    let told = |text: &str| program.events().iter().any(|event| event.to_string().contains(text));
    until("what the stream lacks is told", || told(lost));
    assert!(!told(all));
}

/// Whether a log in this folder, or in one within it, is open.
fn holds_log(folder: &Path) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.any(|path| path.ends_with("LOCK") || holds_log(&path))
}
