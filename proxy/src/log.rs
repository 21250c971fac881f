//! Log records pass through a bounded queue to one writer thread, so that a full pipe never stops traffic.

mod gather;
mod json;
mod recent;
mod subject;
mod text;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use anstream::{AutoStream, ColorChoice};
use proxy_api::{ListenerId, SessionId, Transport};
use serde::Serialize;

use self::{gather::Gather, recent::Recent, text::Grid};
pub use self::{
    recent::Recorded,
    subject::Subject,
    text::{PrintableJson, printable},
};
use crate::{
    core::{backends::address::Address, sessions::end::EndReason},
    lives::Guard,
};

/// Longest wait for the last records when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most records that are written at once.
const BATCH: u64 = 256;
/// Size of a batch, in bytes, from which no record is added.
const BATCH_BYTES: usize = 64 << 10;

/// Format of log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// The same with colours, for a terminal.
    Coloured,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Selects text for standard output: with colours if it is a terminal that has them. `NO_COLOR`, `CLICOLOR`,
    /// `CLICOLOR_FORCE` and `TERM=dumb` have their usual meaning.
    #[must_use]
    pub fn text() -> Self {
        if AutoStream::choice(&io::stdout()) == ColorChoice::Never { Self::Text } else { Self::Coloured }
    }
}

/// A log record.
#[derive(Debug)]
pub enum Event {
    /// About a session.
    Session(Box<SessionRecord>),
    /// About anything else.
    Notice(Notice),
    /// Lines for people, written verbatim. A log in JSON omits them.
    Lines(String),
}

/// Severity of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Normal operation.
    #[default]
    Info,
    /// Needs attention.
    Warn,
    /// Something does not work.
    Error,
}

/// An event of the process or of a listener.
#[derive(Debug)]
pub struct Notice {
    /// Severity.
    pub level: Level,
    /// Kind of event, one word.
    pub event: &'static str,
    /// Object the event is about.
    pub subject: Subject,
    /// The event, and the remedy.
    pub message: String,
}

/// One record of the access log.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Identity of the session.
    pub session: SessionId,
    /// `opened`, `open` (still live) or `closed`.
    pub phase: &'static str,
    /// The session's listener.
    pub listener: ListenerId,
    /// TCP or UDP.
    pub transport: Transport,
    /// Client address.
    pub client: SocketAddr,
    /// Backend entry, once chosen.
    pub backend: Option<Arc<str>>,
    /// Endpoint, once chosen.
    pub endpoint: Option<Address>,
    /// Server name from the client's `ClientHello`.
    pub name: Option<Box<str>>,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// Age of the session.
    pub duration: Duration,
    /// With `closed`: why the session ended.
    pub reason: Option<EndReason>,
    /// The error behind the reason.
    pub cause: Option<String>,
}

/// Sends records to the writer thread.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<(SystemTime, Event)>,
    gather: Arc<Gather>,
    least: Level,
    dropped: Arc<AtomicU64>,
    recent: Arc<Recent>,
}

impl Log {
    /// Starts the writer thread, which ends when the last handle is dropped; `guard` reports a panic.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        format: LogFormat,
        least: Level,
        queue: usize,
        output: Box<dyn Write + Send>,
        guard: Guard,
    ) -> io::Result<(Self, LogWriter)> {
        let (sender, receiver) = sync_channel(queue.max(1));
        let (ended, end) = sync_channel(1);
        let gather = Arc::new(Gather::new(queue));
        let dropped: Arc<AtomicU64> = Arc::default();
        let (gathered, unwritten) = (gather.clone(), dropped.clone());
        thread::Builder::new().name("log".into()).spawn(move || {
            let _guard = guard;
            write_all(format, &receiver, &gathered, output, &unwritten);
            // The sender is dropped with this thread, which `finish` waits for.
            drop(ended);
        })?;
        let writer = LogWriter { end, gather: gather.clone() };
        Ok((Self { queue: sender, gather, least, dropped, recent: Arc::default() }, writer))
    }

    /// Queues a record; drops and counts it if the queue is full.
    pub fn emit(&self, event: Event) {
        let now = SystemTime::now();
        if let Event::Notice(notice) = &event {
            self.recent.keep(now, notice);
        }
        let weight = self.gather.weight_of(&event);
        let wakes = self.gather.announce(weight);
        if self.queue.try_send((now, event)).is_err() {
            self.gather.take_back(weight);
            self.dropped.fetch_add(1, Relaxed);
        }
        if wakes {
            self.gather.wake();
        }
    }

    /// Queues a notice.
    pub fn notice(&self, level: Level, event: &'static str, subject: impl Into<Subject>, message: impl Into<String>) {
        if level >= self.least {
            self.emit(Event::Notice(Notice { level, event, subject: subject.into(), message: message.into() }));
        }
    }

    /// Queues lines for people.
    pub fn lines(&self, text: String) {
        self.emit(Event::Lines(text));
    }

    /// The latest notices, oldest first, including those that were dropped.
    #[must_use]
    pub fn recent(&self) -> Vec<Recorded> {
        self.recent.all()
    }

    /// Number of the last notice; 0: there was none.
    #[must_use]
    pub fn last_notice(&self) -> u64 {
        self.recent.number()
    }

    /// Number of records that were dropped, because the queue was full or the output failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct LogWriter {
    end: Receiver<()>,
    gather: Arc<Gather>,
}

impl LogWriter {
    /// Waits until all records are written, but no longer than a second in case the output is not read. Call after the
    /// last [`Log`] is dropped.
    pub fn finish(self) {
        self.gather.close();
        let _ = self.end.recv_timeout(LAST_WORDS);
    }
}

/// However the owner ends, even in a panic, no record waits for others any more.
impl Drop for LogWriter {
    fn drop(&mut self) {
        self.gather.close();
    }
}

fn write_all(
    format: LogFormat,
    records: &Receiver<(SystemTime, Event)>,
    gather: &Gather,
    mut output: Box<dyn Write + Send>,
    dropped: &AtomicU64,
) {
    let (mut text, mut lines) = (String::new(), Vec::new());
    let mut grid = Grid::new(format == LogFormat::Coloured);
    let mut has_room = true;
    while let Ok(first) = records.recv() {
        // Records for which the last batch had no room have waited already.
        if has_room {
            gather.wait();
        }
        text.clear();
        lines.clear();
        let (mut batch, mut weight) = (0, 0);
        let mut next = Some(first);
        while let Some((time, event)) = next {
            batch += 1;
            weight += gather.weight_of(&event);
            match format {
                LogFormat::Text | LogFormat::Coloured => grid.write(&mut text, time, &event),
                LogFormat::Json => json::write(&mut lines, time, &event),
            }
            has_room = batch < BATCH && text.len() + lines.len() < BATCH_BYTES;
            next = if has_room { records.try_recv().ok() } else { None };
        }
        gather.take_back(weight);
        let written = output.write_all(text.as_bytes()).and_then(|()| output.write_all(&lines));
        // An error of the log could be reported nowhere else, so the records are only counted.
        if written.and_then(|()| output.flush()).is_err() {
            dropped.fetch_add(batch, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
