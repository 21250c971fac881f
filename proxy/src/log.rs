//! Log records go through a bounded queue to one writer thread: a full pipe never stops traffic.

use std::{
    fmt::Display,
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

use proxy_api::{ListenerId, Transport};
use serde_json::{Value, json};

use crate::core::end::EndReason;

/// Longest wait for the last records at the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Form of log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object for a machine.
    Json,
}

/// Something to be written.
#[derive(Debug)]
pub enum Event {
    /// About a session.
    Session(Box<SessionRecord>),
    /// About anything else.
    Notice(Notice),
}

/// How important a notice is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As expected.
    #[default]
    Info,
    /// Somebody should look.
    Warn,
    /// Something does not work.
    Error,
}

/// An event of the process or of a listener.
#[derive(Debug)]
pub struct Notice {
    /// Its importance.
    pub level: Level,
    /// One word for the kind of event.
    pub event: &'static str,
    /// The object it is about.
    pub subject: String,
    /// What happened and what to do.
    pub message: String,
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// `opened`, `open` (still) or `closed`.
    pub phase: &'static str,
    /// The listener.
    pub listener: Arc<ListenerId>,
    /// TCP or UDP.
    pub transport: Transport,
    /// The client.
    pub client: SocketAddr,
    /// The backend entry, once there is one.
    pub backend: Option<Arc<str>>,
    /// The endpoint, once there is one.
    pub endpoint: Option<SocketAddr>,
    /// The server name that the client asked for.
    pub name: Option<Box<str>>,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// How long it has lived.
    pub duration: Duration,
    /// Why it ended, with `closed`.
    pub reason: Option<EndReason>,
    /// What was behind the reason.
    pub cause: Option<String>,
}

/// Hands records to the writer.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<(SystemTime, Event)>,
    least: Level,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writer, which ends when the last handle is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        format: LogFormat,
        least: Level,
        queue: usize,
        output: Box<dyn Write + Send>,
    ) -> io::Result<(Self, LogWriter)> {
        let (sender, receiver) = sync_channel(queue.max(1));
        let (ended, end) = sync_channel(1);
        thread::Builder::new().name("log".into()).spawn(move || {
            write_all(format, &receiver, output);
            // The sender is dropped with this thread, which is what `finish` waits for.
            drop(ended);
        })?;
        Ok((Self { queue: sender, least, dropped: Arc::default() }, LogWriter(end)))
    }

    /// Queues a record, or drops and counts it.
    pub fn emit(&self, event: Event) {
        if self.queue.try_send((SystemTime::now(), event)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Queues a notice.
    pub fn notice(&self, level: Level, event: &'static str, subject: impl Display, message: impl Into<String>) {
        if level >= self.least {
            self.emit(Event::Notice(Notice { level, event, subject: subject.to_string(), message: message.into() }));
        }
    }

    /// Records that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct LogWriter(Receiver<()>);

impl LogWriter {
    /// Waits until everything is written, but not for a reader that does not read; call after the last [`Log`] is
    /// dropped.
    pub fn finish(self) {
        let _ = self.0.recv_timeout(LAST_WORDS);
    }
}

fn write_all(format: LogFormat, records: &Receiver<(SystemTime, Event)>, mut output: Box<dyn Write + Send>) {
    let mut buffer = String::new();
    while let Ok(first) = records.recv() {
        buffer.clear();
        // What waits is written together, up to a bound.
        for (time, event) in std::iter::once(first).chain(records.try_iter().take(256)) {
            match format {
                LogFormat::Text => text(&mut buffer, time, &event),
                LogFormat::Json => {
                    buffer.push_str(&json_record(time, &event).to_string());
                    buffer.push('\n');
                }
            }
        }
        // Nobody reads any more: there is nowhere to say so.
        let _ = output.write_all(buffer.as_bytes()).and_then(|()| output.flush());
    }
}

fn text(buffer: &mut String, time: SystemTime, event: &Event) {
    use std::fmt::Write as _;
    let stamp = humantime::format_rfc3339_seconds(time).to_string();
    let clock = stamp.get(11..19).unwrap_or(&stamp);
    let _ = match event {
        Event::Notice(notice) => {
            let mark = match notice.level {
                Level::Info => "",
                Level::Warn => "warning: ",
                Level::Error => "error: ",
            };
            writeln!(buffer, "{clock}  {:<10} {:<28} {mark}{}", notice.event, notice.subject, notice.message)
        }
        Event::Session(record) => {
            let to = record.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
            let _ = write!(buffer, "{clock}  {:<10} {:<28} {} -> {to}", record.phase, record.listener, record.client);
            match (record.phase, record.reason) {
                ("opened", _) => writeln!(buffer),
                (_, reason) => writeln!(
                    buffer,
                    ", {} B up, {} B down, {:.3} s{}{}{}",
                    record.up,
                    record.down,
                    record.duration.as_secs_f64(),
                    if reason.is_some() { ", " } else { "" },
                    reason.map_or("", EndReason::as_str),
                    record.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
                ),
            }
        }
    };
}

fn json_record(time: SystemTime, event: &Event) -> Value {
    let time = humantime::format_rfc3339_millis(time).to_string();
    match event {
        Event::Notice(notice) => json!({
            "time": time,
            "level": match notice.level { Level::Info => "info", Level::Warn => "warn", Level::Error => "error" },
            "event": notice.event,
            "subject": notice.subject,
            "message": notice.message,
        }),
        Event::Session(record) => session_json(&time, record),
    }
}

fn session_json(time: &str, record: &SessionRecord) -> Value {
    let mut line = json!({
        "time": time,
        "level": "info",
        "event": format!("session_{}", record.phase),
        "namespace": record.listener.namespace,
        "forward": record.listener.forward,
        "listener": record.listener.listener,
        "protocol": record.transport.to_string(),
        "client": record.client.to_string(),
        "backend": record.backend.as_deref(),
        "endpoint": record.endpoint.map(|endpoint| endpoint.to_string()),
        "bytesUp": record.up,
        "bytesDown": record.down,
        "durationSeconds": record.duration.as_secs_f64(),
        "reason": record.reason.map(EndReason::as_str),
        "cause": record.cause,
    });
    if let Some(name) = &record.name {
        line["serverName"] = json!(name);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_does_not_wait() {
        let (queue, _receiver) = sync_channel(1);
        let log = Log { queue, least: Level::Info, dropped: Arc::default() };
        log.notice(Level::Info, "a", "b", "c");
        log.notice(Level::Info, "a", "b", "c");
        assert_eq!(log.dropped(), 1);
    }
}
