//! The queue of the log and its writer.

use std::sync::mpsc;

use super::*;
use crate::{clock::Clock, lives::Lives};

/// An output without space, as `/dev/full`.
struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log without a writer, and its queue.
fn unwritten(places: usize) -> (Log, Receiver<(SystemTime, Event)>) {
    let (queue, receiver) = sync_channel(places);
    let gather = Arc::new(Gather::new(places));
    (Log { queue, gather, least: Level::Info, dropped: Arc::default(), recent: Arc::default() }, receiver)
}

/// Passes on what is written at once.
struct Writes(mpsc::Sender<Vec<u8>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log in JSON with this number of places in its queue, its writer, and what is written.
fn written(places: usize) -> (Log, LogWriter, mpsc::Receiver<Vec<u8>>) {
    let (sender, pieces) = mpsc::channel();
    let guard = Lives::new(Clock::start()).guard("log");
    let log = Log::start(LogFormat::Json, Level::Info, places, Box::new(Writes(sender)), guard);
    let (log, writer) = log.expect("a thread");
    (log, writer, pieces)
}

/// A record of a session that is distinguished from others by its bytes.
fn session(bytes: u64) -> Event {
    Event::Session(Box::new(SessionRecord {
        session: SessionId(1),
        phase: "closed",
        listener: "TCPRoute/ns/f/l".parse().expect("an id"),
        transport: Transport::Tcp,
        client: SocketAddr::from(([192, 0, 2, 1], 1)),
        backend: None,
        endpoint: None,
        name: None,
        up: bytes,
        down: 0,
        duration: Duration::ZERO,
        reason: None,
        cause: None,
    }))
}

/// The bytes of the sessions in these lines; 0: a notice.
fn told(lines: &[u8]) -> Vec<u64> {
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let text = std::str::from_utf8(lines).expect("text");
    text.lines().map(|text| line(text)["bytesUp"].as_u64().unwrap_or(0)).collect()
}

#[test]
fn records_of_sessions_are_written_together_and_all_of_them_in_order() {
    let (log, writer, pieces) = written(4096);
    let all: Vec<u64> = (1..=1000).collect();
    for bytes in &all {
        log.emit(session(*bytes));
    }
    assert_eq!(log.dropped(), 0);
    drop(log);
    writer.finish();
    let pieces: Vec<Vec<u8>> = pieces.try_iter().filter(|bytes| !bytes.is_empty()).collect();
    assert_eq!(told(&pieces.concat()), all);
    assert!(pieces.len() < all.len() / 4, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|bytes| bytes.len() < BATCH_BYTES + 1024), "a write is bounded");
}

#[test]
fn a_record_is_written_although_no_other_follows() {
    let (log, _writer, pieces) = written(4096);
    log.emit(session(7));
    let lines = pieces.recv_timeout(Duration::from_secs(20)).expect("a write");
    assert_eq!(told(&lines), [7]);
    drop(log);
}

#[test]
fn a_notice_is_written_behind_the_records_before_it() {
    let (log, writer, pieces) = written(4096);
    log.emit(session(7));
    log.notice(Level::Info, "a", "b", "c");
    log.emit(session(8));
    drop(log);
    writer.finish();
    assert_eq!(told(&pieces.try_iter().collect::<Vec<_>>().concat()), [7, 0, 8]);
}

#[test]
fn every_record_gives_its_weight_back_written_or_dropped() {
    let (log, receiver) = unwritten(2);
    log.notice(Level::Info, "a", "b", "c");
    for bytes in 1..4 {
        log.emit(session(bytes));
    }
    assert_eq!(log.dropped(), 2);
    let gather = log.gather.clone();
    drop(log);
    write_all(LogFormat::Json, &receiver, &gather, Box::new(io::sink()), &AtomicU64::new(0));
    assert_eq!(gather.weight(), 0);
}

#[test]
fn records_that_the_output_does_not_take_are_counted() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let (log, receiver) = unwritten(2);
        log.notice(Level::Info, "a", "b", "c");
        log.notice(Level::Info, "a", "b", "c");
        let (gather, dropped) = (log.gather.clone(), log.dropped.clone());
        drop(log);
        write_all(format, &receiver, &gather, Box::new(Full), &dropped);
        assert_eq!(dropped.load(Relaxed), 2, "{format:?}");
    }
}

#[test]
fn a_full_queue_drops_and_counts_and_does_not_wait() {
    let (log, _receiver) = unwritten(1);
    log.notice(Level::Info, "a", "b", "c");
    log.notice(Level::Info, "a", "b", "c");
    assert_eq!((log.dropped(), log.last_notice()), (1, 2), "the page shows what the output does not take");
}
