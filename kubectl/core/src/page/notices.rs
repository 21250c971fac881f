//! The notices of the page: Events of the cluster about forwards, each occurrence with a number.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use serde::Serialize;

use crate::describe::last;

/// Most notices that the page gets.
pub const NOTICES: usize = 100;

/// An occurrence of an Event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Number of the notice since the page began; later notices have higher numbers.
    pub number: u64,
    /// Time, in milliseconds since 1970.
    pub at: u64,
    /// Severity: info or warn.
    pub level: &'static str,
    /// Reason of the event.
    pub event: String,
    /// The forward, as `NAMESPACE/NAME`.
    pub subject: String,
    /// Message of the event.
    pub message: String,
}

/// The last notices.
#[derive(Debug, Default)]
pub(super) struct Notices {
    number: u64,
    kept: VecDeque<Notice>,
    /// Time of the last occurrence of each event that exists, by its UID.
    seen: BTreeMap<String, Option<Timestamp>>,
}

impl Notices {
    /// Takes the Events since the last call. An Event that occurs again is another notice.
    pub(super) fn take(&mut self, events: &[Event]) {
        let about = |event: &&Event| event.involved_object.kind.as_deref() == Some("PortForward");
        let mut timed: Vec<(Option<Timestamp>, &Event)> =
            events.iter().filter(about).map(|event| (last(event), event)).collect();
        timed.sort_by_key(|(time, _)| *time);
        let before = std::mem::take(&mut self.seen);
        for (time, event) in timed {
            let uid = event.metadata.uid.clone().unwrap_or_default();
            if before.get(&uid) != Some(&time) {
                self.keep(time, event);
            }
            self.seen.insert(uid, time);
        }
    }

    /// The last notices, oldest first.
    pub(super) fn kept(&self) -> Vec<Notice> {
        self.kept.iter().cloned().collect()
    }

    fn keep(&mut self, time: Option<Timestamp>, event: &Event) {
        self.number += 1;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = &event.involved_object;
        self.kept.push_back(Notice {
            number: self.number,
            at: time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).unwrap_or(0),
            level: if event.type_.as_deref() == Some("Warning") { "warn" } else { "info" },
            event: text(&event.reason),
            subject: format!("{}/{}", text(&about.namespace), text(&about.name)),
            message: text(&event.message),
        });
        while self.kept.len() > NOTICES {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(uid: &str, seconds: i64, kind: &str) -> Event {
        let text = format!(
            "{{metadata: {{name: e, uid: {uid}}}, involvedObject: {{kind: {kind}, namespace: shop, name: db}}, \
             type: Warning, reason: R, message: m, lastTimestamp: '{}'}}",
            Timestamp::from_second(seconds).expect("a time")
        );
        serde_yaml::from_str(&text).expect("an event")
    }

    #[test]
    fn an_event_is_a_notice_once_and_again_when_it_occurs_again() {
        let mut notices = Notices::default();
        let mut numbers = |events: &[Event]| {
            notices.take(events);
            notices.kept().iter().map(|notice| (notice.number, notice.at)).collect::<Vec<_>>()
        };
        let (b, a) = (event("b", 20, "PortForward"), event("a", 10, "PortForward"));
        assert_eq!(numbers(&[b.clone(), a.clone(), event("c", 5, "Pod")]), [(1, 10_000), (2, 20_000)], "by time");
        assert_eq!(numbers(&[b, a]).len(), 2);
        assert_eq!(numbers(&[event("a", 30, "PortForward")]).last(), Some(&(3, 30_000)));
    }

    #[test]
    fn a_page_keeps_the_last_notices() {
        let mut notices = Notices::default();
        let events: Vec<Event> = (0..150).map(|at| event(&format!("u{at}"), at, "PortForward")).collect();
        notices.take(&events);
        let kept = notices.kept();
        assert_eq!((kept.len(), kept.last().map(|notice| notice.number)), (NOTICES, Some(150)));
    }
}
