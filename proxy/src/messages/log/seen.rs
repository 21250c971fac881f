//! The state of a listener's messages, for metrics and status.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{SystemTime, UNIX_EPOCH},
};

use durable::{Figures, intake::IntakeFigures};

use super::Log;
use crate::{
    core::durable::delivery::{LOOP, Look, Seen},
    messages::{settings, words::no_space},
};

impl Log {
    /// The state of the messages at second `now`. `figures` are those of all logs.
    pub(super) fn seen(&mut self, figures: &Figures, now: u64) -> Seen {
        let (intake, dropped, returned) = (self.intake.figures(), figures.dropped, self.returned.load(Relaxed));
        let store_fails = self.failure.is_some() || figures.failure.is_some();
        let ages = self.stores.ages(now, unix_millis());
        let of_waiting = |figures: &Figures, seconds: u64| if figures.backlog() == 0 { 0 } else { seconds };
        let without_room = |figures: &Figures| figures.dropped.full + figures.dropped.queue + figures.refused_full;
        // Where no earlier logs send first, each lane that sends takes messages, and its own room and disk count. Otherwise
        // those of the listener as a whole do.
        let (is_one, fails, of_all) = (self.stores.is_one(), self.failure.is_some(), without_room(figures));
        let look = |(lane, (of_lane, seconds)): (usize, (Figures, u64))| Look {
            taken: self.sent.taken(lane),
            sink_fails: self.sent.fails(lane),
            backlog: of_lane.backlog(),
            oldest_seconds: of_waiting(&of_lane, seconds),
            without_room: if is_one { without_room(&of_lane) } else { of_all },
            no_space: if is_one { of_lane.no_space } else { figures.no_space },
            store_fails: if is_one { fails || of_lane.failure.is_some() } else { store_fails },
        };
        let lanes = self.stores.sending_figures(&self.removal);
        let looks: Vec<Look> = lanes.zip(ages.sending).enumerate().map(look).collect();
        let (delivery, worst) = self.watches.see(&looks, now);
        self.worst = worst;
        let failure = self.why_store_fails(figures, now);
        Seen {
            delivery,
            oldest_seconds: of_waiting(figures, ages.oldest),
            backlog: figures.backlog(),
            bytes: figures.bytes,
            limit_bytes: settings::limit_bytes(&self.durable),
            store_fails: failure.is_some(),
            received: intake.messages,
            delivered: self.sent.delivered(),
            resent: self.sent.resent(),
            truncated: intake.truncated,
            dropped: vec![
                ("AccessDenied", intake.denied.saturating_sub(returned)),
                (LOOP, returned),
                ("TooLong", intake.too_long + dropped.too_long),
                ("QueueFull", dropped.queue),
                ("Full", dropped.full),
                ("TooOld", dropped.age),
                ("Refused", dropped.dead),
                ("DiskFailed", dropped.failed),
                ("StreamLost", dropped.unpublished),
                ("IntakeFailed", intake.lost),
            ],
            closed: closed(&intake),
            dead_lettered: figures.dead_letters,
            kernel_drops: intake.kernel_drops,
            short_reads: intake.short_reads,
            panics: self.ends.panics() + intake.panics,
            lost: self.gone.messages() + figures.lost,
            syncs: figures.syncs,
            sync_time: figures.sync_time,
            lanes: looks.len() as u64,
            error: failure.or_else(|| self.sent.error(worst)),
        }
    }

    /// Why messages are not safe at second `now`; `None`: they are. A full disk comes first, as the log does not know its
    /// folder.
    pub(super) fn why_store_fails(&self, figures: &Figures, now: u64) -> Option<String> {
        let is_full = self.watches.have_no_space(now);
        let full = || is_full.then(|| no_space(&self.place.words_of(None)));
        self.failure.clone().or_else(full).or_else(|| figures.failure.clone())
    }
}

/// Connections that were closed or refused, by reason.
fn closed(intake: &IntakeFigures) -> Vec<(&'static str, u64)> {
    vec![
        ("ConnectionLimit", intake.refused_full),
        ("SourceLimit", intake.refused_source),
        ("SessionLimit", intake.refused_room),
        ("Idle", intake.idle),
        ("Framing", intake.violations),
        ("MemoryLimit", intake.crowded),
        ("StoreFull", intake.log_full),
        ("StoreFailed", intake.not_kept),
    ]
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc, time::Duration};

    use durable::Incoming;
    use proxy_api::{Durable, ListenerId, Origin, Store};
    use tokio::{
        task::{LocalSet, yield_now},
        time::timeout,
    };

    use super::*;
    use crate::{
        core::durable::delivery::Delivery,
        messages::{
            generations::Opened,
            place::{PlaceOfLog, ServerFiles},
            removal::Removal,
            tests::{disk, leftovers::opened, process_with, shared},
        },
    };

    #[tokio::test]
    async fn the_worst_lane_is_the_one_without_room_and_no_other() {
        let (folder, process) = (tempfile::tempdir().expect("a folder"), process_with(None));
        let durable =
            Durable { lanes: 2, max_message_bytes: 1 << 20, store: Store::Disk { max_bytes: 32 << 20 }, ..disk() };
        let id = ListenerId::new(Origin::port_forward("ns", "f"), "l");
        let place = PlaceOfLog::new(&id, folder.path(), ServerFiles::default());
        let test = async {
            let opened = place.open(&durable).await.expect("nobody has it");
            let full = opened.present.stores().last().expect("a lane").clone();
            let source = Arc::<[u8]>::from(&b"192.0.2.1:514"[..]);
            let message = || Incoming { source: source.clone(), received_millis: 0, payload: vec![b'm'; 1 << 20] };
            while full.append_and_sync(vec![message()]).await.expect("it runs").synced().await.is_ok() {}
            let mut log = Log::new(place, &durable, opened, &process, Rc::default());
            log.run(&shared(durable.clone()), &process);
            let told = async {
                while log.delivery != Delivery::Full {
                    log.look(&process).await;
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(10), told).await.expect("it is full");
            assert_eq!(log.worst, 1);
            log.close().await;
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn messages_in_a_stream_are_not_lost_with_the_folder_that_took_its_place() {
        let (home, process) = (tempfile::tempdir().expect("a folder"), process_with(None));
        let id = ListenerId::new(Origin::port_forward("ns", "f"), "l");
        let place = PlaceOfLog::new(&id, home.path(), ServerFiles::default());
        let folder = home.path().join("ns/f/l");
        let test = async {
            let stream = Opened { server: Some("nats://a".to_owned()), ..opened(&home.path().join("a")).await };
            let mut log = Log::new(place, &disk(), stream, &process, Rc::default());
            let shared = shared(disk());
            log.run(&shared, &process);
            let mut on_disk = opened(&folder).await;
            log.removal = Removal::of(on_disk.presence.take());
            log.stores.change(on_disk, &process);
            log.look(&process).await;
            assert!(shared.counters.durable().is_some_and(|seen| (seen.backlog, seen.lost) == (2, 0)));
            std::fs::remove_dir_all(&folder).expect("a folder");
            let seen = async {
                while log.failure.is_none() {
                    log.look(&process).await;
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(10), seen).await.expect("it is noticed");
            assert!(shared.counters.durable().is_some_and(|seen| (seen.backlog, seen.lost) == (1, 1)));
            log.close().await;
        };
        LocalSet::new().run_until(test).await;
    }
}
