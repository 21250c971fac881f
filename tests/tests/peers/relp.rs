//! Syslog over RELP: rsyslog on both sides of a durable listener, one of which, or portlane itself, is killed.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{fs, io::Write, net::TcpStream, ops::Range, path::Path};

use harness::{Listener, Program, connect, forward, free_port, until};
use tempfile::TempDir;

use crate::server::{Server, listens, open_folder};

/// Messages of a test. The second half is sent while something is dead.
const ALL: usize = 4_000;
const HALF: usize = ALL / 2;
/// So many messages have arrived when something is killed.
const SOME: usize = 200;
/// Messages without an answer, of rsyslog and of portlane.
const WINDOW: usize = 32;

/// rsyslog with imtcp and omrelp, portlane, and rsyslog with imrelp, which writes what it receives to a file.
struct Chain {
    _client: Server,
    sink: Server,
    /// One connection, as there is no order between two.
    inlet: TcpStream,
    _client_folder: TempDir,
    sink_folder: TempDir,
    manifests: String,
    data: TempDir,
}

impl Chain {
    fn start() -> Self {
        let (inlet, port, back) = (free_port(), free_port(), free_port());
        let durable = format!(
            "durable: {{framing: Relp, syncMillis: 0, store: {{disk: {{maxBytes: 16777216}}}}, send: {{relp: \
             {{windowMessages: {WINDOW}}}}}}}"
        );
        let manifests = forward("f", "", &[Listener::tcp("l", port).to(back).with(&durable)]);
        let (client_folder, sink_folder) = (open_folder(), open_folder());
        let sink = start(sink_folder.path(), &sink_configuration(sink_folder.path(), back), back);
        let client = start(client_folder.path(), &client_configuration(client_folder.path(), inlet, port), inlet);
        let inlet = connect(inlet).expect("a connection");
        let data = tempfile::tempdir().expect("folder");
        Self { _client: client, sink, inlet, _client_folder: client_folder, sink_folder, manifests, data }
    }

    fn portlane(&self) -> Program {
        Program::run(&self.manifests, free_port(), &["--data", self.data.path().to_str().expect("UTF-8")])
    }

    /// Gives messages to the first rsyslog, which keeps in memory what it cannot send on.
    fn send(&self, numbers: Range<usize>) {
        let line = |number: usize| format!("<13>Nov 28 10:00:00 host test: message {number}\n");
        let lines: Vec<String> = numbers.map(line).collect();
        (&self.inlet).write_all(lines.concat().as_bytes()).expect("it is sent");
    }

    /// The messages that the last rsyslog wrote, in order.
    fn written(&self) -> Vec<usize> {
        let text = fs::read_to_string(self.sink_folder.path().join("messages")).unwrap_or_default();
        // The last line may be half written.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().filter_map(|line| line.trim().strip_prefix("message ")?.parse().ok()).collect()
    }

    /// Waits until the last message is written. Every message was, in order; returns how many were written again.
    fn finish(&self) -> usize {
        until("the last message is written", || self.written().contains(&(ALL - 1)));
        let (mut next, mut again) = (0, 0);
        for number in self.written() {
            assert!(number <= next, "message {next} is passed over by {number}");
            again += usize::from(number < next);
            next = next.max(number + 1);
        }
        assert_eq!(next, ALL);
        again
    }
}

fn start(folder: &Path, configuration: &str, port: u16) -> Server {
    fs::write(folder.join("rsyslog.conf"), configuration).expect("write");
    Server::start(folder, &format!("rsyslogd -n -f {}/rsyslog.conf -i NONE", folder.display()), listens(port))
}

fn client_configuration(folder: &Path, inlet: u16, port: u16) -> String {
    format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imtcp\")\nmodule(load=\"omrelp\")\ninput(type=\"imtcp\" \
         address=\"127.0.0.1\" port=\"{inlet}\")\naction(type=\"omrelp\" target=\"127.0.0.1\" port=\"{port}\" \
         windowSize=\"{WINDOW}\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\")\n",
        folder.display()
    )
}

/// A queue of its own that is none: it answers a message after it has written it.
fn sink_configuration(folder: &Path, port: u16) -> String {
    format!(
        "global(workDirectory=\"{place}\")\nmodule(load=\"imrelp\" ruleset=\"kept\")\ntemplate(name=\"message\" \
         type=\"string\" string=\"%msg%\\n\")\nruleset(name=\"kept\" queue.type=\"Direct\") {{\n  \
         action(type=\"omfile\" file=\"{place}/messages\" template=\"message\")\n}}\ninput(type=\"imrelp\" \
         address=\"127.0.0.1\" port=\"{port}\")\n",
        place = folder.display()
    )
}

#[test]
fn rsyslog_loses_nothing_over_relp_when_portlane_is_killed() {
    let chain = Chain::start();
    let program = chain.portlane();
    chain.send(0..HALF);
    until("some messages are written", || chain.written().len() >= SOME);
    drop(program.kill());
    chain.send(HALF..ALL);
    let _program = chain.portlane();
    chain.finish();
}

#[test]
fn rsyslog_loses_nothing_over_relp_when_the_sink_is_killed_and_writes_no_more_than_the_window_again() {
    let mut chain = Chain::start();
    let _program = chain.portlane();
    chain.send(0..HALF);
    until("some messages are written", || chain.written().len() >= SOME);
    chain.sink.crash();
    chain.send(HALF..ALL);
    chain.sink.come_back();
    let again = chain.finish();
    assert!(again <= WINDOW, "{again} messages were written again");
}
