//! What a keeper writes when, who waits, and who is refused.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod keeping;

use std::time::Duration;

use durable_core::keeper::{Append, Drops, KeeperSettings, NotKept, StoreEvent};
use durable_core::{Error, Settings, WhenFull};
use keeping::{ALL, Keeping, Outcome, ids, message, settings};

fn blocking() -> KeeperSettings {
    KeeperSettings { blocks: true, ..settings() }
}

/// The ids of those who are refused for this reason.
fn refused(outcomes: &[Outcome], is_so: impl Fn(&Error) -> bool) -> Vec<u64> {
    let is_refused = |outcome: &&Outcome| matches!(&outcome.1, Err(NotKept::Refused(error)) if is_so(error));
    outcomes.iter().filter(is_refused).map(|outcome| outcome.0).collect()
}

#[test]
fn without_messages_nothing_is_due_and_a_turn_does_nothing() {
    let mut keeping = Keeping::new(settings());
    assert_eq!(keeping.due(), None);
    assert!(keeping.is_silent());
    assert_eq!(keeping.due(), None);
}

#[test]
fn commands_that_wait_share_one_write_and_one_sync() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    let calls = keeping.world.disk.calls;
    for id in 1..4 {
        keeping.append(id, true);
    }
    assert_eq!(keeping.turn(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
    assert_eq!((keeping.world.disk.calls - calls, keeping.keeper.next()), (2, 4));
    let figures = keeping.figures();
    assert_eq!((figures.appended, figures.synced, figures.syncs), (4, 4, 2));
}

#[test]
fn a_command_of_several_messages_is_answered_by_the_sync_of_the_last_one() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..3);
    keeping.append_all(9, vec![message(3), message(4)], true);
    assert_eq!(keeping.turn(), [(9, Ok(()))]);
    assert_eq!(keeping.keeper.next(), 5);
}

#[test]
fn commands_that_fill_more_than_half_a_segment_have_writes_of_their_own() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    let calls = keeping.world.disk.calls;
    for reply in 1..3 {
        keeping.keeper.append(Append { messages: vec![message(reply)], bytes: 200, sync: true, reply });
    }
    assert_eq!(keeping.turn(), [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(keeping.world.disk.calls - calls, 3, "two writes and a sync");
}

#[test]
fn commands_that_fill_no_more_than_half_a_segment_together_share_a_write() {
    for (bytes, calls) in [([128, 128], 2), ([128, 129], 3)] {
        let mut keeping = Keeping::new(settings());
        keeping.fill(0..1);
        let before = keeping.world.disk.calls;
        for (reply, bytes) in (1..).zip(bytes) {
            keeping.keeper.append(Append { messages: vec![message(reply)], bytes, sync: true, reply });
        }
        assert_eq!(keeping.turn(), [(1, Ok(())), (2, Ok(()))]);
        assert_eq!(keeping.world.disk.calls - before, calls, "{bytes:?}");
    }
}

#[test]
fn commands_share_a_write_of_256_kib_at_most_and_one_sync() {
    for (bytes, calls) in [([128 << 10, 128 << 10], 2), ([128 << 10, (128 << 10) + 1], 3)] {
        let mut large = settings();
        large.log.max_bytes = 1 << 24;
        let mut keeping = Keeping::new(large);
        keeping.fill(0..1);
        let before = keeping.world.disk.calls;
        for (reply, bytes) in (1..).zip(bytes) {
            keeping.keeper.append(Append { messages: vec![message(reply)], bytes, sync: true, reply });
        }
        assert_eq!(keeping.turn(), [(1, Ok(())), (2, Ok(()))]);
        assert_eq!(keeping.world.disk.calls - before, calls, "{bytes:?}");
    }
}

#[test]
fn what_nobody_waits_for_is_synced_when_it_is_due_and_not_before() {
    let mut keeping = Keeping::new(settings());
    keeping.append(0, false);
    assert!(keeping.turn().is_empty());
    assert_eq!(keeping.due(), Some(500));
    keeping.wait(499);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert_eq!(keeping.turn(), [(0, Ok(()))]);
}

#[test]
fn a_sender_that_waits_has_the_messages_before_its_own_synced_with_them() {
    let mut keeping = Keeping::new(settings());
    keeping.append(0, false);
    assert!(keeping.turn().is_empty());
    keeping.append(1, true);
    assert_eq!(keeping.turn(), [(0, Ok(())), (1, Ok(()))]);
    assert_eq!(keeping.figures().syncs, 1);
}

#[test]
fn messages_can_be_read_and_empty_commands_are_answered_before_the_sync() {
    let mut keeping = Keeping::new(settings());
    keeping.append(0, true);
    keeping.append_all(1, Vec::new(), true);
    keeping.keeper.write(&mut keeping.world);
    assert_eq!(keeping.answers(), [(1, Ok(()))]);
    assert_eq!(keeping.keeper.next(), 1);
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the disk is well");
    assert_eq!((ids(&read.messages), read.next), (vec![0], 1));
    keeping.keeper.tend(&mut keeping.world);
    assert_eq!(keeping.answers(), [(0, Ok(()))]);
}

#[test]
fn the_time_of_a_sync_is_counted_and_not_that_of_the_write() {
    let mut keeping = Keeping::new(settings());
    keeping.world.disk.takes = Duration::from_secs(2);
    keeping.fill(0..1);
    assert_eq!(keeping.figures().sync_time, Duration::from_secs(4), "a file, and its name");
}

#[test]
fn a_failed_sync_is_told_to_those_who_wait_for_it_and_once_to_people() {
    let mut keeping = Keeping::new(settings());
    keeping.world.disk.failing_syncs = 2;
    for id in 0..2 {
        keeping.append(id, true);
        let outcomes = keeping.turn();
        assert!(matches!(outcomes.as_slice(), [(_, Err(NotKept::NotSynced(_)))]), "{outcomes:?}");
    }
    assert!(keeping.figures().failure.is_some());
    keeping.fill(2..3);
    let figures = keeping.figures();
    assert_eq!((figures.not_synced, figures.synced, figures.failure), (2, 1, None));
    let error = "messages were not synced: input/output error; check the disk".to_owned();
    assert_eq!(figures.events.after(0).cloned().collect::<Vec<_>>(), [StoreEvent::Failed { error }]);
}

#[test]
fn on_a_full_disk_messages_are_refused_at_once_and_dropped_if_nobody_hears_so() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    keeping.world.disk.space = Some(10);
    keeping.append(1, false);
    keeping.append(2, true);
    let outcomes = keeping.turn();
    assert_eq!(refused(&outcomes, Error::is_no_space), [1, 2], "{outcomes:?}");
    let figures = keeping.figures();
    assert_eq!((figures.dropped.full, figures.dropped.failed, figures.refused, figures.refused_full), (0, 1, 1, 0));
    assert_eq!((figures.no_space, figures.events.count()), (1, 0), "it is counted, and no event");
    keeping.world.disk.space = None;
    keeping.fill(3..4);
    assert_eq!(keeping.figures().no_space, 1);
}

#[test]
fn messages_that_give_way_to_others_on_a_full_disk_are_not_those_of_a_full_log() {
    let log = Settings { when_full: WhenFull::DropOldest, ..settings().log };
    let mut keeping = Keeping::new(KeeperSettings { log, ..settings() });
    keeping.fill(0..20);
    keeping.world.disk.space = Some(0);
    keeping.fill(20..21);
    let figures = keeping.figures();
    assert!(figures.dropped.failed > 0 && figures.dropped.failed == figures.cursor, "{figures:?}");
    assert_eq!((figures.dropped.full, figures.no_space, figures.failure), (0, 1, None));
}

#[test]
fn a_cursor_that_a_full_disk_does_not_take_is_told_with_what_helps() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..2);
    keeping.world.disk.space = Some(0);
    keeping.acknowledge(1);
    keeping.wait(1000);
    keeping.turn();
    let figures = keeping.figures();
    assert_eq!(figures.no_space, 1);
    let failure = figures.failure.unwrap_or_default();
    assert!(failure.contains("is full; free space there, or lower the bound of the log"), "{failure}");
}

#[test]
fn a_broken_disk_is_told_once_and_what_it_refuses_is_counted_apart() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    keeping.world.disk.crashed = true;
    for (id, sync) in [(1, false), (2, true)] {
        keeping.append(id, sync);
        let outcomes = keeping.turn();
        assert_eq!(refused(&outcomes, |error| matches!(error, Error::File { .. })), [id], "{outcomes:?}");
    }
    let figures = keeping.figures();
    assert_eq!((figures.dropped.full, figures.dropped.failed, figures.refused, figures.refused_full), (0, 1, 1, 0));
    assert!(figures.failure.is_some() && figures.events.count() == 1, "{figures:?}");
    keeping.world.disk.crashed = false;
    keeping.fill(3..4);
    assert_eq!(keeping.figures().failure, None);
}

#[test]
fn a_keeper_that_blocks_refuses_nobody_and_tries_a_full_disk_again_after_a_second() {
    let mut keeping = Keeping::new(blocking());
    keeping.fill(0..1);
    keeping.wait(300);
    keeping.world.disk.space = Some(10);
    keeping.append(1, true);
    assert!(keeping.turn().is_empty());
    keeping.world.disk.space = None;
    assert_eq!(keeping.due(), Some(700), "the age of the oldest message");
    keeping.append(2, true);
    keeping.wait(700);
    assert!(keeping.is_silent());
    assert_eq!(keeping.due(), Some(300));
    keeping.wait(299);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert_eq!(keeping.turn(), [(1, Ok(())), (2, Ok(()))], "in their order");
    let figures = keeping.figures();
    assert_eq!((figures.dropped, figures.refused, figures.failure), (Drops::default(), 0, None));
    assert_eq!(figures.no_space, 1, "it is counted though nothing is dropped");
}

#[test]
fn the_pause_counts_from_the_end_of_a_failure_however_long_the_disk_takes() {
    let mut keeping = Keeping::new(blocking());
    keeping.fill(0..1);
    (keeping.world.disk.crashed, keeping.world.disk.takes) = (true, Duration::from_secs(5));
    keeping.append(1, true);
    assert!(keeping.turn().is_empty());
    (keeping.world.disk.crashed, keeping.world.disk.takes) = (false, Duration::ZERO);
    assert!(keeping.figures().failure.is_some(), "broken is reported, also while messages wait");
    keeping.wait(999);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert_eq!(keeping.turn(), [(1, Ok(()))]);
}

#[test]
fn a_full_log_that_blocks_goes_on_when_the_cursor_is_saved_and_does_not_wait_for_its_pause() {
    let mut keeping = Keeping::new(blocking());
    let mut last = 0;
    loop {
        keeping.append(last, true);
        if keeping.turn().is_empty() {
            break;
        }
        last += 1;
        assert!(last < 200, "no bound");
    }
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the disk is well");
    keeping.acknowledge(read.next);
    keeping.wait(499);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert_eq!(keeping.turn(), [(last, Ok(()))]);
}

#[test]
fn a_message_that_no_log_takes_is_refused_though_the_keeper_blocks() {
    let mut keeping = Keeping::new(blocking());
    let mut long = message(0);
    long.payload = vec![0; 65];
    keeping.append_all(0, vec![long], true);
    let outcomes = keeping.turn();
    assert_eq!(refused(&outcomes, |error| matches!(error, Error::TooLong { .. })), [0], "{outcomes:?}");
    assert_eq!(keeping.figures().refused, 1);
    keeping.append(1, true);
    assert_eq!(keeping.turn(), [(1, Ok(()))]);
}

#[test]
fn a_full_log_takes_messages_again_once_it_may_have_more_bytes() {
    let (max_bytes, mut keeping) = (settings().log.max_bytes, Keeping::new(settings()));
    let is_full = |error: &Error| matches!(error, Error::Full { .. });
    let fill = |keeping: &mut Keeping| {
        (0..1000)
            .take_while(|id| {
                keeping.append(*id, true);
                refused(&keeping.turn(), is_full).is_empty()
            })
            .count()
    };
    let taken = fill(&mut keeping);
    assert!(taken > 10 && taken < 1000, "{taken}");
    keeping.keeper.bound(1);
    assert_eq!(fill(&mut keeping), 0, "too few bytes for a message are no bound, and it is still full");
    keeping.keeper.bound(max_bytes * 2);
    let more = fill(&mut keeping);
    assert!(more > taken / 2, "{more} after {taken}");
    assert!(keeping.figures().bytes <= max_bytes * 2);
}

#[test]
fn what_is_too_old_is_dropped_without_a_command() {
    let log = Settings { max_age: Some(Duration::from_secs(80)), ..settings().log };
    let mut keeping = Keeping::new(KeeperSettings { log, ..settings() });
    keeping.fill(0..1);
    keeping.wait(10_000);
    keeping.turn();
    keeping.wait(80_000);
    assert_eq!(keeping.due(), Some(0), "each second, while a message is left");
    assert!(keeping.is_silent(), "it is not older than it may be");
    keeping.wait(1000);
    assert_eq!(keeping.due(), Some(0));
    keeping.turn();
    assert_eq!((keeping.figures().dropped.age, keeping.due()), (1, None));
}

#[test]
fn closing_writes_what_waits_for_its_pause_and_saves_the_cursor() {
    let mut keeping = Keeping::new(blocking());
    keeping.fill(0..2);
    keeping.acknowledge(1);
    keeping.world.disk.space = Some(10);
    keeping.append(2, false);
    assert!(keeping.turn().is_empty());
    keeping.world.disk.space = None;
    keeping.keeper.close(&mut keeping.world);
    assert_eq!(keeping.answers(), [(2, Ok(()))]);
    assert_eq!(keeping.saved(), 1);
    let figures = keeping.restart(blocking()).figures();
    assert_eq!((figures.cursor, figures.next), (1, 3));
}

#[test]
fn what_a_full_disk_refuses_at_the_end_is_not_answered() {
    let mut keeping = Keeping::new(blocking());
    keeping.fill(0..1);
    keeping.world.disk.space = Some(10);
    keeping.append(1, true);
    keeping.keeper.close(&mut keeping.world);
    assert!(keeping.answers().is_empty());
}

#[test]
fn a_keeper_is_drained_when_nothing_waits_and_all_is_acknowledged() {
    let mut keeping = Keeping::new(settings());
    assert!(keeping.keeper.is_drained());
    keeping.append(0, true);
    assert!(!keeping.keeper.is_drained(), "it waits");
    assert_eq!(keeping.turn(), [(0, Ok(()))]);
    assert!(!keeping.keeper.is_drained(), "the sink does not have it");
    keeping.acknowledge(1);
    assert!(keeping.keeper.is_drained());
}

#[test]
fn a_log_whose_sink_has_all_gives_its_disk_back_and_goes_on_with_the_next_number() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..3);
    let leave = |keeping: &mut Keeping, acknowledged| {
        keeping.acknowledge(acknowledged);
        keeping.keeper.close(&mut keeping.world);
        keeping.keeper.release(&mut keeping.world);
        keeping.figures().bytes
    };
    assert!(leave(&mut keeping, 2) > 0, "a message waits");
    assert_eq!(leave(&mut keeping, 3), 0);
    assert!(keeping.world.disk.used() < 36, "no segment is left: {:?}", keeping.world.disk.names());
    let mut again = keeping.restart(settings());
    again.fill(3..4);
    let read = again.keeper.read(&mut again.world, 0, ALL).expect("the disk is well");
    assert_eq!((read.next, ids(&read.messages)), (4, vec![3]));
}
