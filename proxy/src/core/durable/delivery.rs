//! The delivery state of a durable listener: a word for people, derived from its log and its sink.

use std::{cmp::Reverse, fmt, time::Duration};

/// If the sink takes nothing for this many seconds although messages wait, the listener is stalled.
const STALLED_AFTER: u64 = 30;
/// A listener is behind while a message is older than this, in seconds.
const BEHIND_AFTER: u64 = 10;
/// How many seconds a log that had no room counts as full.
const FULL_FOR: u64 = 30;
/// How many seconds a listener that was behind counts as behind while messages wait: a lag around the bound would
/// otherwise be reported each second.
const BEHIND_FOR: u64 = 30;
/// How many seconds a store that has failed counts as failing: a disk whose syncs fail and succeed in turn would
/// otherwise be reported each second.
const FAILED_FOR: u64 = 30;

/// The delivery state of a durable listener, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// Messages leave as they arrive.
    #[default]
    Flowing,
    /// The sink takes messages, but later than they arrive.
    Behind,
    /// Messages wait, and the sink takes none.
    Stalled,
    /// The log has no room, so messages are dropped or refused.
    Full,
    /// The disk or the server of the stream fails, or failed a moment ago, so messages are not safe.
    StoreFailed,
}

impl Delivery {
    /// The label value of the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flowing => "Flowing",
            Self::Behind => "Behind",
            Self::Stalled => "Stalled",
            Self::Full => "Full",
            Self::StoreFailed => "StoreFailed",
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Delivery> for proxy_api::Delivery {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Flowing => Self::Flowing,
            Delivery::Behind => Self::Behind,
            Delivery::Stalled => Self::Stalled,
            Delivery::Full => Self::Full,
            Delivery::StoreFailed => Self::StoreFailed,
        }
    }
}

/// An observation of a log of a listener and of its sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Messages that the sink has taken or permanently refused, since the start.
    pub taken: u64,
    /// Whether the sink has failed since it took the last message.
    pub sink_fails: bool,
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Age of the oldest message that the sink does not have, in seconds.
    pub oldest_seconds: u64,
    /// Messages that found no room, since the start.
    pub without_room: u64,
    /// How often the disk was full, since the start.
    pub no_space: u64,
    /// Whether the disk or the server of the stream fails.
    pub store_fails: bool,
}

/// The state of one log of a listener between observations.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    last: Look,
    /// Time of the first observation.
    began: Option<u64>,
    /// When the sink last took a message or had all; `None`: not since the first observation.
    moved: Option<u64>,
    /// The log counts as full until this time.
    full_until: u64,
    /// The listener counts as behind until this time.
    behind_until: u64,
    /// The store counts as failing until this time.
    failed_until: u64,
    /// The disk counts as full until this time.
    no_space_until: u64,
}

impl Watch {
    /// The delivery state at `now` (seconds of the process clock). Call it about once a second.
    pub fn see(&mut self, look: Look, now: u64) -> Delivery {
        let began = *self.began.get_or_insert(now);
        // Progress of the log without the sink, such as messages that are too old, does not count.
        if look.backlog == 0 || look.taken > self.last.taken {
            self.moved = Some(now);
        }
        if look.without_room > self.last.without_room {
            self.full_until = now.saturating_add(FULL_FOR);
        }
        if look.backlog == 0 {
            self.behind_until = now;
        } else if look.oldest_seconds >= BEHIND_AFTER {
            self.behind_until = now.saturating_add(BEHIND_FOR);
        }
        if look.store_fails {
            self.failed_until = now.saturating_add(FAILED_FOR);
        }
        if look.no_space > self.last.no_space {
            self.no_space_until = now.saturating_add(FAILED_FOR);
        }
        self.last = look;
        let is_silent = now.saturating_sub(self.moved.unwrap_or(began)) >= STALLED_AFTER;
        // After a start, it is unknown since when the sink has taken nothing: the age of the waiting messages tells.
        let waits_since_before = self.moved.is_none() && look.sink_fails && look.oldest_seconds >= STALLED_AFTER;
        if look.store_fails || now < self.failed_until || now < self.no_space_until {
            Delivery::StoreFailed
        } else if now < self.full_until {
            Delivery::Full
        } else if is_silent || waits_since_before {
            Delivery::Stalled
        } else if now < self.behind_until {
            Delivery::Behind
        } else {
            Delivery::Flowing
        }
    }
}

/// The state of all logs of a listener that send, in the order of their lanes.
#[derive(Clone, Debug, Default)]
pub struct Watches(Vec<Watch>);

impl Watches {
    /// The delivery state of the listener at `now`, which is that of its worst lane, and that lane. Call it about once a
    /// second with an observation of each.
    pub fn see(&mut self, looks: &[Look], now: u64) -> (Delivery, usize) {
        // A new lane has the same time as the listener's other lanes.
        let like_others = self.0.first().cloned().unwrap_or_default();
        self.0.resize(looks.len(), like_others);
        let watched = self.0.iter_mut().zip(looks).enumerate();
        let worst = watched.map(|(lane, (watch, look))| (watch.see(*look, now), Reverse(lane))).max();
        worst.map(|(delivery, Reverse(lane))| (delivery, lane)).unwrap_or_default()
    }

    /// Whether the disk is full at `now`, or was so a moment ago. All lanes have the same disk.
    #[must_use]
    pub fn have_no_space(&self, now: u64) -> bool {
        self.0.iter().any(|watch| now < watch.no_space_until)
    }
}

/// Reason of connections and datagrams that were dropped because a proxy of the same fleet sent them.
pub const LOOP: &str = "Loop";

/// The data about a durable listener for metrics and documents, about a second old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its delivery state.
    pub delivery: Delivery,
    /// Age of the oldest message that the sink does not have, in seconds; 0 if the sink has all.
    pub oldest_seconds: u64,
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// The most bytes that the log may have.
    pub limit_bytes: u64,
    /// Whether the disk or the server of the stream fails.
    pub store_fails: bool,
    /// Messages that were received.
    pub received: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// Messages that were sent again.
    pub resent: u64,
    /// Messages of which only the beginning was kept, because they were too long.
    pub truncated: u64,
    /// Messages that were dropped, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Connections of clients that were closed, by reason.
    pub closed: Vec<(&'static str, u64)>,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Datagrams that the kernel dropped before they were read.
    pub kernel_drops: u64,
    /// Reads that were shortened or delayed because the shared memory for messages was in use.
    pub short_reads: u64,
    /// Panics while taking messages: each ended one connection, or restarted the socket of a listener.
    pub panics: u64,
    /// Messages that were lost by damage or removal of the log.
    pub lost: u64,
    /// Syncs of messages.
    pub syncs: u64,
    /// The total time of these syncs.
    pub sync_time: Duration,
    /// Number of lanes that send.
    pub lanes: u64,
    /// Why the log is not safe, or why the sink has taken no message since its last one.
    pub error: Option<String>,
}

impl Seen {
    /// Connections and datagrams that came back to the fleet.
    #[must_use]
    pub fn looped(&self) -> u64 {
        self.dropped.iter().filter(|(reason, _)| *reason == LOOP).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three messages wait; the sink has taken `taken` before.
    fn waiting(taken: u64) -> Look {
        Look { taken, backlog: 3, ..Look::default() }
    }

    #[test]
    fn a_sink_that_takes_nothing_stalls_the_listener_until_it_takes_a_message() {
        let mut watch = Watch::default();
        assert_eq!(watch.see(Look::default(), 5), Delivery::Flowing);
        assert_eq!(watch.see(waiting(0), 34), Delivery::Flowing);
        assert_eq!(watch.see(waiting(0), 35), Delivery::Stalled);
        assert_eq!(watch.see(waiting(1), 36), Delivery::Flowing);
    }

    #[test]
    fn a_listener_whose_oldest_message_is_old_is_behind_while_its_sink_takes_others() {
        let mut watch = Watch::default();
        let old = |taken| Look { oldest_seconds: 10, ..waiting(taken) };
        assert_eq!(watch.see(old(1), 100), Delivery::Behind);
        assert_eq!(watch.see(old(2), 200), Delivery::Behind, "it moves");
        let caught_up = Look { backlog: 0, ..waiting(3) };
        assert_eq!(watch.see(caught_up, 201), Delivery::Flowing);
    }

    #[test]
    fn a_lag_around_the_bound_is_behind_until_it_is_short_for_a_while() {
        let mut watch = Watch::default();
        let lag = |now: u64, oldest_seconds| (Look { oldest_seconds, ..waiting(now) }, now);
        let seen: Vec<Delivery> = (100..120)
            .map(|now| lag(now, 9 + now % 2))
            .chain([lag(120, 9), lag(148, 9), lag(149, 9)])
            .map(|(look, now)| watch.see(look, now))
            .collect();
        let (flowing, behind) = (Delivery::Flowing, Delivery::Behind);
        assert_eq!((seen.first(), seen.last()), (Some(&flowing), Some(&flowing)));
        assert!(seen.get(1..22).is_some_and(|between| between.iter().all(|delivery| *delivery == behind)), "{seen:?}");
    }

    #[test]
    fn messages_that_wait_at_a_start_are_stalled_at_once_if_they_are_old_and_the_sink_fails() {
        let old = Look { oldest_seconds: 3600, sink_fails: true, ..waiting(0) };
        assert_eq!(Watch::default().see(old, 5000), Delivery::Stalled);
        let mut watch = Watch::default();
        assert_eq!(watch.see(Look { sink_fails: false, ..old }, 5000), Delivery::Behind, "nobody knows yet");
        assert_eq!(watch.see(old, 5001), Delivery::Stalled);
        assert_eq!(watch.see(Look { taken: 1, sink_fails: false, ..old }, 5002), Delivery::Behind, "it takes them");
        assert_eq!(watch.see(Look { taken: 1, ..old }, 5003), Delivery::Behind, "it has just taken one");
        assert_eq!(watch.see(Look { taken: 1, ..old }, 5032), Delivery::Stalled);
    }

    #[test]
    fn a_listener_that_comes_late_to_a_process_has_the_time_of_every_other_one() {
        let mut watch = Watch::default();
        assert_eq!(watch.see(Look { sink_fails: true, ..waiting(0) }, 5000), Delivery::Flowing);
        assert_eq!(watch.see(waiting(0), 5029), Delivery::Flowing);
        assert_eq!(watch.see(waiting(0), 5030), Delivery::Stalled);
    }

    #[test]
    fn a_log_without_room_is_full_for_a_while_and_a_failing_disk_comes_first() {
        let mut watch = Watch::default();
        let full = Look { without_room: 1, ..waiting(1) };
        assert_eq!(watch.see(full, 10), Delivery::Full);
        assert_eq!(watch.clone().see(Look { store_fails: true, ..full }, 11), Delivery::StoreFailed);
        assert_eq!(watch.see(Look { taken: 2, ..full }, 39), Delivery::Full);
        assert_eq!(watch.see(Look { taken: 3, ..full }, 40), Delivery::Flowing, "no more since");
    }

    #[test]
    fn a_full_disk_is_a_failing_one_until_it_was_not_full_for_a_while() {
        let (mut watches, full) = (Watches::default(), Look { no_space: 1, without_room: 1, ..waiting(1) });
        assert_eq!(
            (watches.see(&[waiting(1), full], 10), watches.have_no_space(10)),
            ((Delivery::StoreFailed, 1), true)
        );
        let fuller = Look { no_space: 2, ..full };
        assert_eq!(watches.see(&[waiting(2), fuller], 20).0, Delivery::StoreFailed);
        assert_eq!(watches.see(&[waiting(3), fuller], 49).0, Delivery::StoreFailed);
        assert!(watches.have_no_space(49) && !watches.have_no_space(50));
        assert_eq!(watches.see(&[waiting(4), Look { taken: 2, ..fuller }], 50).0, Delivery::Flowing);
        let broken = Look { store_fails: true, ..fuller };
        assert_eq!(
            (watches.see(&[waiting(5), broken], 51).0, watches.have_no_space(51)),
            (Delivery::StoreFailed, false)
        );
    }

    #[test]
    fn a_listener_delivers_as_its_worst_lane_does_however_much_the_others_send() {
        let mut watches = Watches::default();
        let mut see = |now: u64, stuck: Look| watches.see(&[waiting(now), stuck, stuck], now);
        assert_eq!(see(100, waiting(0)), (Delivery::Flowing, 0));
        assert_eq!(see(129, Look { oldest_seconds: 29, ..waiting(0) }), (Delivery::Behind, 1));
        assert_eq!(see(130, waiting(0)), (Delivery::Stalled, 1));
        assert_eq!(see(131, waiting(1)).0, Delivery::Behind, "it was a moment ago");
        assert_eq!(watches.see(&[], 140), (Delivery::Flowing, 0));
    }

    #[test]
    fn lanes_that_are_added_count_what_found_no_room_before_once() {
        let (mut watches, full) = (Watches::default(), Look { without_room: 5, ..Look::default() });
        assert_eq!(watches.see(&[full], 10).0, Delivery::Full);
        assert_eq!(watches.see(&[full], 40).0, Delivery::Flowing);
        assert_eq!(watches.see(&[full, full], 41).0, Delivery::Flowing);
    }

    #[test]
    fn a_disk_that_fails_and_works_in_turn_counts_as_failing_until_it_works_for_a_while() {
        let mut watch = Watch::default();
        let looks = |now: u64| Look { store_fails: now.is_multiple_of(2), ..Look::default() };
        let seen: Vec<Delivery> = (100..111).map(|now| watch.see(looks(now), now)).collect();
        assert_eq!(seen, [Delivery::StoreFailed; 11]);
        assert_eq!(watch.see(Look::default(), 139), Delivery::StoreFailed);
        assert_eq!(watch.see(Look::default(), 140), Delivery::Flowing);
    }
}
