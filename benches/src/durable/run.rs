//! Measures one row with one forwarder.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{until, until_within};

use crate::{
    load,
    measure::{Meter, Processes, Usage, status_bytes},
    namespace::Cpus,
    peers::Programs,
    poll::rest,
    rows::{Kind, Quantity, Row},
    sink::{Heard, Sink},
    sockets::unread,
    subject::Subject,
};

/// Most bytes of one measurement, except of a backlog.
const MOST: u64 = 1 << 30;
/// Messages of a backlog that is synced: a forwarder may take about a minute to sync each of them.
const SYNCED: u64 = 50_000;
/// Longest time until the first message is delivered. A forwarder may wait for a while before it tries again.
const FIRST: Duration = Duration::from_secs(60);
/// Time without a message after which no more come.
const QUIET: Duration = Duration::from_secs(3);
/// Longest time of a delivery.
const DELIVERY: Duration = Duration::from_secs(300);
/// Longest time until a backlog is there.
const FILL: Duration = Duration::from_secs(1800);
/// Time for a process to finish what it does at first.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause between two looks at the memory of a process.
const LOOK: Duration = Duration::from_millis(20);

/// What is the same for all rows.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) cpus: Cpus,
    /// Time for which messages are sent.
    pub(crate) length: Duration,
    /// Bytes of messages that wait at a start.
    pub(crate) backlog: u64,
    /// The folder for logs.
    pub(crate) folder: PathBuf,
}

/// What was taken while the sink was away.
struct Intake {
    /// Bytes that were sent.
    sent: u64,
    /// Bytes that the forwarder has read in the time of `usage`.
    read: u64,
    usage: Usage,
}

impl Bench {
    /// Starts a forwarder and measures a row with it.
    ///
    /// # Panics
    /// The forwarder failed.
    pub(crate) fn measure(&self, kind: Kind, row: Row) -> Vec<(Quantity, f64)> {
        // Nobody pays for what another one has written.
        rustix::fs::sync();
        let mut subject = Subject::new(kind, row, &self.programs, self.cpus, &self.folder);
        subject.start();
        subject.until_ready();
        let found = if row == Row::Start { self.start(&mut subject) } else { self.pass(&mut subject, kind, row) };
        found.into_iter().filter(|(it, _)| row.quantities().contains(it) && it.suits(row, kind)).collect()
    }

    /// Has messages taken while the sink is away, and delivered once it is there.
    fn pass(&self, subject: &mut Subject, kind: Kind, row: Row) -> Vec<(Quantity, f64)> {
        let Intake { sent, read, usage } = self.intake(subject, row);
        let wire = row.wire() as f64;
        if kind.syncs_at_once() && !row.is_udp() && row != Row::Synced {
            // What the forwarder has not read yet would take minutes.
            return taken(read as f64 / wire, usage);
        }
        until("all messages are read", || unread(subject.input()) == 0);
        let (messages, disk) = (sent as f64 / wire, subject.log_bytes() as f64);
        if row == Row::Synced {
            // All forwarders begin to deliver with the same promise.
            rustix::fs::sync();
        }
        let processes = Processes { forwarder: vec![subject.id()], servers: Vec::new() };
        let meter = Meter::start(&processes);
        let sink = Sink::start(subject.sink(), row);
        let heard = delivered(subject, &sink, sent / row.wire() as u64);
        let used = meter.stop().forwarder;
        let came = heard.messages as f64;
        // What a forwarder dropped after it was read is seen only here.
        let mut found = taken(if row.is_udp() { came } else { read as f64 / wire }, usage);
        found.extend([
            (Quantity::Disk, disk / (messages * row.size() as f64)),
            (Quantity::Lost, ((messages.floor() - came) / messages).max(0.0)),
            (Quantity::DeliveredCpu, used / came),
        ]);
        let seconds = heard.last.zip(heard.first).map_or(0.0, |(last, first)| span(first, last));
        found.extend((seconds > 0.0).then_some((Quantity::Delivered, came / seconds)));
        found
    }

    /// Sends for a while, or until a backlog is there. Datagrams that were sent are gone unless they are read, so those
    /// that wait count too.
    fn intake(&self, subject: &Subject, row: Row) -> Intake {
        let (port, processes) = (subject.input(), Processes { forwarder: vec![subject.id()], servers: Vec::new() });
        let meter = Meter::start(&processes);
        let (length, most) = if row == Row::Synced { (FILL, SYNCED * row.wire() as u64) } else { (self.length, MOST) };
        let sent = load::send(row, port, Instant::now() + length, most);
        if row.is_udp() {
            until("all datagrams are read", || unread(port) == 0);
        }
        let left = unread(port);
        Intake { sent, read: sent.saturating_sub(left), usage: meter.stop() }
    }

    /// Ends the forwarder with a backlog and starts it again, with the sink there.
    fn start(&self, subject: &mut Subject) -> Vec<(Quantity, f64)> {
        let (row, port) = (Row::Start, subject.input());
        rest(SETTLE);
        let idle = status_bytes(subject.id(), "RssAnon");
        let sent = load::send(row, port, Instant::now() + FILL, self.backlog);
        assert!(sent >= self.backlog, "the backlog was not there within {FILL:?}");
        until("all messages are read", || unread(port) == 0);
        subject.end();
        let sink = Sink::start(subject.sink(), row);
        let began = Instant::now();
        subject.start();
        let mut most = 0.0_f64;
        until_within(FIRST, "the first message is delivered", || {
            subject.check();
            most = most.max(status_bytes(subject.id(), "RssAnon"));
            sink.heard().first.is_some()
        });
        let first = sink.heard().first.map_or(0.0, |first| span(began, first));
        let end = Instant::now() + self.length;
        while Instant::now() < end {
            most = most.max(status_bytes(subject.id(), "RssAnon"));
            rest(LOOK);
        }
        vec![(Quantity::First, first), (Quantity::Memory, (most - idle).max(0.0))]
    }
}

fn span(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// How so many messages were taken.
fn taken(messages: f64, usage: Usage) -> Vec<(Quantity, f64)> {
    assert!(messages >= 1.0, "nothing was taken");
    vec![
        (Quantity::Taken, messages / usage.seconds),
        (Quantity::TakenCpu, usage.forwarder / messages),
        (Quantity::Busy, usage.forwarder / usage.seconds),
    ]
}

/// Waits until this many messages are delivered, or no more come.
fn delivered(subject: &mut Subject, sink: &Sink, expected: u64) -> Heard {
    let began = Instant::now();
    until_within(DELIVERY, "the messages are delivered", || {
        subject.check();
        let heard = sink.heard();
        assert!(heard.first.is_some() || began.elapsed() < FIRST, "no message is delivered");
        heard.messages >= expected || heard.last.is_some_and(|last| last.elapsed() >= QUIET)
    });
    sink.heard()
}
