//! Reports on an agent: each event is logged and counted.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use proxy::log::{Level, Log};
use tokio::time::Instant;
use tunnel::{
    CarryEnd,
    agent::{Event, place},
    enrol::Renewed,
};
use tunnel_core::{Loss, Open, Protocol, Refusal, identity::Dial};

use super::{
    counts::{Counts, word},
    damper::Damper,
};

/// The log and the counts of an agent.
pub(super) struct Teller {
    log: Log,
    counts: Rc<Counts>,
    /// The time within which streams may end.
    drain: Duration,
    start: Instant,
    damper: RefCell<Damper>,
    /// Whether the loss of the last connection was not logged, so that its return is not logged either.
    silent: Cell<bool>,
}

impl Teller {
    pub(super) fn new(log: Log, counts: Rc<Counts>, drain: Duration) -> Self {
        let (damper, silent) = (RefCell::default(), Cell::new(false));
        Self { log, counts, drain, start: Instant::now(), damper, silent }
    }

    /// Counts and logs an event.
    pub(super) fn tell(&self, event: &Event<'_>) {
        self.counts.count(event);
        match event {
            Event::Connected { endpoint, address, resumed } => {
                self.damper.borrow_mut().forget("unreached");
                if !(self.silent.take() && *resumed) {
                    let streams = if *resumed { ", and its streams continue" } else { "" };
                    self.log.notice(Level::Info, "connected", endpoint.as_str(), format!("to {address}{streams}"));
                }
            }
            Event::NotConnected { dial, kind, error, pause } => {
                // Without any connection, it is the way to the server that fails, whichever endpoint was dialled.
                let dial = if self.counts.sessions() == 0 { &Dial::Any } else { *dial };
                let place = place(dial);
                if self.tells("unreached", &format!("{place} {kind}")) {
                    let message = format!("{error}; {}", next(*pause));
                    self.log.notice(Level::Warn, "unreached", subject(place), message);
                }
            }
            Event::Disconnected { endpoint, end, pause: Some(pause) } => {
                let is_told = self.tells("lost", &format!("{endpoint} {}", kind(end)));
                self.silent.set(!is_told);
                if is_told {
                    self.log.notice(Level::Warn, "lost", endpoint.as_str(), format!("{end}; {}", next(*pause)));
                }
            }
            Event::Ended { endpoint, loss: loss @ (Loss::GraceExpired | Loss::PeerRestarted) } => {
                let message = format!("{loss}: its streams are reset");
                self.log.notice(Level::Warn, "ended", endpoint.as_str(), message);
            }
            Event::Refused { open, refusal } => self.refused(open, refusal),
            Event::Draining => {
                let seconds = self.drain.as_secs();
                let message = format!("no new streams are accepted; open streams may finish within {seconds} s");
                self.log.notice(Level::Info, "draining", "portlane", message);
            }
            Event::Cut(streams) => {
                let streams = proxy_api::count(*streams as u64, "stream");
                let message = format!("reset {streams} that did not finish in time");
                self.log.notice(Level::Warn, "cut", "portlane", message);
            }
            Event::Disconnected { pause: None, .. }
            | Event::Needed { .. }
            | Event::Ended { loss: Loss::Closed, .. }
            | Event::Opened(_)
            | Event::Moved { .. }
            | Event::Closed { .. }
            | Event::Dropped { .. } => {}
        }
    }

    /// Logs the outcome of a renewal.
    pub(super) fn renewed(&self, renewed: &Renewed<'_>) {
        match renewed {
            Renewed::Done(enrolled) => {
                let agent = enrolled.identity.agent().to_string();
                self.log.notice(Level::Info, "renewed", agent, "the certificate of this agent was renewed");
            }
            Renewed::Failed { error, left } => {
                let message = format!("the certificate was not renewed, and is valid for another {left}: {error}");
                self.log.notice(Level::Warn, "renewal", "portlane", message);
            }
        }
    }

    fn refused(&self, open: &Open, refusal: &Refusal) {
        let protocol = match open.target.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "udp/",
        };
        let target = format!("{protocol}{}", open.target);
        if self.tells("refused", &format!("{target} {}", word(refusal.reason))) {
            let source = open.source.map(|source| format!("a stream from {source}: ")).unwrap_or_default();
            self.log.notice(Level::Warn, "refused", target, format!("{source}{}", refusal.detail));
        }
    }

    fn tells(&self, kind: &'static str, reason: &str) -> bool {
        self.damper.borrow_mut().tells(kind, reason, self.start.elapsed())
    }
}

/// The dialled address as a subject.
fn subject(place: &str) -> &str {
    if place == "any" { "portlane" } else { place }
}

/// Describes the time of the next attempt.
pub(super) fn next(pause: Duration) -> String {
    // A shorter pause would be shown as 0.0 s.
    if pause < Duration::from_millis(50) {
        return "the next attempt follows at once".to_owned();
    }
    format!("the next attempt is in {:.1} s", pause.as_secs_f64())
}

/// The kind of end of a connection.
fn kind(end: &CarryEnd) -> &'static str {
    match end {
        CarryEnd::Closed => "closed",
        CarryEnd::Failed(_) => "failed",
        CarryEnd::Violation(_) => "violation",
        CarryEnd::Silent => "silent",
        CarryEnd::Unresumed => "unresumed",
        CarryEnd::Replaced => "replaced",
        CarryEnd::Stale => "stale",
        CarryEnd::Lost(_) => "session",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use proxy::{
        clock::Clock,
        lives::Lives,
        log::{LogFormat, LogWriter},
    };
    use tunnel_core::{Reason, Target, identity::EndpointId, join::Address};

    use super::*;

    /// What is written to it can be read by every clone.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a page").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The events of the lines, and their messages.
    fn told(tell: impl FnOnce(&Teller)) -> Vec<(String, String)> {
        let page = Page::default();
        let guard = Lives::new(Clock::start()).guard("log");
        let started = Log::start(LogFormat::Json, Level::Info, 256, Box::new(page.clone()), guard);
        let (log, writer): (Log, LogWriter) = started.expect("a thread");
        let teller = Teller::new(log, Rc::default(), Duration::from_secs(60));
        tell(&teller);
        drop(teller);
        writer.finish();
        let text = String::from_utf8(page.0.lock().expect("a page").clone()).expect("text");
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (word("event"), word("message"))
        });
        lines.collect()
    }

    fn events(told: &[(String, String)]) -> Vec<&str> {
        told.iter().map(|(event, _)| event.as_str()).collect()
    }

    fn edge() -> EndpointId {
        EndpointId::new("edge-0").expect("an id")
    }

    fn connect(teller: &Teller, resumed: bool) {
        let address = Address::new("edge.example.com", 7443).expect("an address");
        teller.tell(&Event::Connected { endpoint: &edge(), address: &address, resumed });
    }

    fn lose(teller: &Teller) {
        let pause = Some(Duration::from_millis(100));
        teller.tell(&Event::Disconnected { endpoint: &edge(), end: &CarryEnd::Closed, pause });
    }

    #[test]
    fn the_first_failure_is_told_and_after_a_connection_the_next_one() {
        let lines = told(|teller| {
            let dial = Dial::Any;
            let fail = |kind| {
                let pause = Duration::from_millis(1500);
                teller.tell(&Event::NotConnected { dial: &dial, kind, error: "no way", pause });
            };
            fail("unreachable");
            fail("unreachable");
            fail("tls");
            connect(teller, false);
            fail("unreachable");
        });
        assert_eq!(events(&lines), ["unreached", "unreached", "connected", "unreached"]);
        assert_eq!(lines[0].1, "no way; the next attempt is in 1.5 s");
        assert_eq!(lines[2].1, "to edge.example.com:7443");
    }

    #[test]
    fn a_failure_without_any_connection_is_told_once_whichever_endpoint_was_dialled() {
        let lines = told(|teller| {
            let fail = || {
                for dial in [Dial::Endpoint(edge()), Dial::Any] {
                    let pause = Duration::from_secs(1);
                    teller.tell(&Event::NotConnected { dial: &dial, kind: "unreachable", error: "no way", pause });
                }
            };
            fail();
            connect(teller, false);
            fail();
        });
        assert_eq!(events(&lines), ["unreached", "connected", "unreached", "unreached"]);
    }

    #[test]
    fn a_pause_that_rounds_to_zero_is_not_told() {
        for (millis, expected) in [(0, "follows at once"), (49, "follows at once"), (50, "is in 0.1 s")] {
            assert_eq!(next(Duration::from_millis(millis)), format!("the next attempt {expected}"));
        }
    }

    #[test]
    fn a_connection_that_flaps_is_told_once_a_minute() {
        let lines = told(|teller| {
            connect(teller, false);
            for _ in 0..5 {
                lose(teller);
                connect(teller, true);
            }
            connect(teller, false);
        });
        assert_eq!(events(&lines), ["connected", "lost", "connected", "connected"]);
        assert!(lines[2].1.ends_with("and its streams continue"), "{}", lines[2].1);
    }

    #[test]
    fn a_refused_target_is_told_with_its_client_and_the_list() {
        let target = Target { protocol: Protocol::Udp, host: "10.0.0.1".to_owned(), port: 53 };
        let open = Open { target, source: Some(([192, 0, 2, 1], 5).into()) };
        let refusal = Refusal { reason: Reason::NotAllowed, detail: "the agent does not allow it".to_owned() };
        let lines = told(|teller| {
            teller.tell(&Event::Refused { open: &open, refusal: &refusal });
            teller.tell(&Event::Refused { open: &open, refusal: &refusal });
            teller.tell(&Event::Opened(&open));
            teller.tell(&Event::Draining);
        });
        assert_eq!(events(&lines), ["refused", "draining"]);
        assert_eq!(lines[0].1, "a stream from 192.0.2.1:5: the agent does not allow it");
    }
}
