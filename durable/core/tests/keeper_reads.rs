//! What a keeper gives to the sink, what it gives up, and when it saves how far the sink is.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod keeping;

use std::time::Duration;

use durable_core::Settings;
use durable_core::keeper::{KeeperSettings, NotKept, ReadBound, StoreEvent};
use keeping::{ALL, Keeping, ids, message, settings};

/// The segment of the first ten messages.
const FIRST: &str = "log-0000000000000000.log";

/// Bytes of the heads of a segment and of a record, and of a whole record.
const SEGMENT_HEAD: usize = 36;
const HEAD: usize = 28;
const RECORD: usize = 45;

/// A keeper of twelve messages: ten in its first segment, and two in the second.
fn twelve() -> Keeping {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..12);
    keeping
}

fn saves_at_once() -> KeeperSettings {
    KeeperSettings { log: Settings { sync_after: Duration::ZERO, ..settings().log }, ..settings() }
}

#[test]
fn a_read_ends_with_the_messages_that_are_asked_for_or_with_the_one_that_reaches_the_bytes() {
    let mut keeping = twelve();
    for (messages, bytes, end) in [(3, 1000, 3_u64), (9, 17, 3), (9, 16, 2), (0, 1000, 0), (99, 1000, 12)] {
        let bound = ReadBound { messages, bytes };
        let read = keeping.keeper.read(&mut keeping.world, 0, bound).expect("the disk is well");
        assert_eq!(ids(&read.messages), (0..end).collect::<Vec<_>>(), "{bound:?}");
        assert_eq!(read.next, end, "{bound:?}");
    }
}

#[test]
fn a_segment_that_cannot_be_read_for_a_minute_is_given_up_if_the_disk_takes_the_cursor() {
    let mut keeping = twelve();
    keeping.world.disk.unreadable = Some(FIRST);
    for _ in 0..3 {
        keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("it may go away");
    }
    keeping.wait(59_999);
    keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("it is no minute");
    keeping.wait(1);
    keeping.world.disk.crashed = true;
    keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("the disk is away");
    assert_eq!(keeping.figures().lost, 0);
    keeping.world.disk.crashed = false;
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the segment is given up");
    assert_eq!((read.messages.len(), read.next, keeping.figures().lost), (0, 10, 10));
    let read = keeping.keeper.read(&mut keeping.world, read.next, ALL).expect("the other segment is well");
    assert_eq!((ids(&read.messages), read.next), (vec![10, 11], 12));
}

#[test]
fn a_disk_that_is_full_for_a_minute_is_there_and_its_unreadable_segment_is_given_up() {
    let mut keeping = twelve();
    (keeping.world.disk.unreadable, keeping.world.disk.space) = (Some(FIRST), Some(0));
    keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("it may go away");
    keeping.wait(60_000);
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the segment is given up");
    assert_eq!((read.messages.len(), read.next, keeping.figures().lost), (0, 10, 10));
}

#[test]
fn an_error_that_goes_away_gives_nothing_up_however_long_it_was() {
    let mut keeping = twelve();
    keeping.world.disk.unreadable = Some(FIRST);
    keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("it may go away");
    keeping.world.disk.unreadable = None;
    keeping.wait(60_000);
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("it went away");
    assert_eq!(read.messages.len(), 12);
    keeping.world.disk.unreadable = Some(FIRST);
    keeping.keeper.read(&mut keeping.world, 0, ALL).expect_err("a later error has its own minute");
    assert_eq!(keeping.figures().lost, 0);
}

#[test]
fn what_is_read_before_a_failure_is_given_first() {
    let mut keeping = twelve();
    keeping.world.disk.unreadable = Some("log-0000000000000001.log");
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("a part of it");
    assert_eq!((read.messages.len(), read.next), (10, 10));
    assert!(keeping.figures().failure.is_some());
    keeping.keeper.read(&mut keeping.world, read.next, ALL).expect_err("the failure");
}

#[test]
fn a_segment_that_is_skipped_is_told_as_lost_and_to_those_who_wait_for_its_sync() {
    let mut keeping = Keeping::new(settings());
    keeping.append(0, false);
    keeping.append(1, false);
    assert!(keeping.turn().is_empty());
    assert_eq!(keeping.keeper.skip_segment(&mut keeping.world, 0), 2);
    let outcomes = keeping.answers();
    let is_reported = matches!(outcomes.as_slice(), [(0, Err(NotKept::NotSynced(_))), (1, Err(NotKept::NotSynced(_)))]);
    assert!(is_reported, "{outcomes:?}");
    let figures = keeping.figures();
    assert_eq!((figures.lost, figures.not_synced), (2, 2));
    assert_eq!(figures.events.after(0).next(), Some(&StoreEvent::Lost { messages: 0..2 }));
}

#[test]
fn the_cursor_is_saved_a_while_after_it_moves_and_later_moves_do_not_put_that_off() {
    let mut keeping = Keeping::new(saves_at_once());
    keeping.fill(0..2);
    keeping.acknowledge(1);
    assert_eq!(keeping.due(), Some(100));
    assert!(keeping.is_silent());
    keeping.wait(50);
    keeping.acknowledge(2);
    keeping.wait(49);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert!(!keeping.is_silent());
    keeping.acknowledge(2);
    assert_eq!(keeping.due(), None, "it has not moved");
    assert_eq!(keeping.saved(), 2);
}

#[test]
fn the_cursor_is_saved_no_more_often_than_messages_are_synced() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    keeping.acknowledge(1);
    assert_eq!(keeping.due(), Some(500));
}

#[test]
fn a_cursor_that_cannot_be_saved_is_tried_again_a_second_after_the_failure() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..1);
    keeping.acknowledge(1);
    keeping.wait(500);
    (keeping.world.disk.crashed, keeping.world.disk.takes) = (true, Duration::from_secs(5));
    keeping.turn();
    (keeping.world.disk.crashed, keeping.world.disk.takes) = (false, Duration::ZERO);
    assert!(keeping.figures().failure.is_some());
    assert_eq!(keeping.due(), Some(1000));
    keeping.wait(999);
    assert!(keeping.is_silent());
    keeping.wait(1);
    assert!(!keeping.is_silent());
    assert_eq!(keeping.due(), None);
    assert_eq!(keeping.saved(), 1);
}

#[test]
fn what_the_sink_acknowledges_outlives_the_process_before_the_caller_goes_on() {
    let mut keeping = twelve();
    for acknowledged in [1, 5, 11] {
        keeping.acknowledge(acknowledged);
        // Without a turn.
        keeping = keeping.restart(settings());
        assert_eq!(keeping.figures().cursor, acknowledged);
    }
    let read = keeping.keeper.read(&mut keeping.world, 11, ALL).expect("the disk is well");
    assert_eq!((ids(&read.messages), keeping.figures().cursors_lost), (vec![11], 0));
}

#[test]
fn an_acknowledgement_costs_one_write_however_many_messages_it_is_about_and_none_if_it_says_nothing_new() {
    let mut keeping = twelve();
    let mut calls = |acknowledged| {
        let before = keeping.world.disk.calls;
        keeping.acknowledge(acknowledged);
        keeping.world.disk.calls - before
    };
    assert!(calls(1) > 1, "a file is begun");
    assert_eq!([2, 10, 10, 9, 12].map(calls), [1, 1, 0, 0, 1]);
}

#[test]
fn a_disk_without_space_for_a_note_is_left_alone_until_the_cursor_is_saved() {
    let mut keeping = twelve();
    keeping.world.disk.space = Some(10);
    keeping.acknowledge(1);
    let calls = keeping.world.disk.calls;
    keeping.acknowledge(2);
    assert_eq!(keeping.world.disk.calls, calls);
    assert_eq!((keeping.figures().failure, keeping.due()), (None, Some(500)), "full is not broken");
    keeping.world.disk.space = None;
    keeping.wait(500);
    keeping.turn();
    assert_eq!(keeping.saved(), 2);
    keeping.acknowledge(3);
    assert_eq!(keeping.restart(settings()).figures().cursor, 3);
}

#[test]
fn the_oldest_message_is_looked_up_once_a_second() {
    let mut keeping = Keeping::new(settings());
    keeping.fill(0..2);
    let oldest = |keeping: &mut Keeping| keeping.figures().oldest_received_millis;
    assert_eq!(oldest(&mut keeping), Some(message(0).received_millis));
    keeping.acknowledge(1);
    keeping.wait(999);
    keeping.turn();
    assert_eq!(oldest(&mut keeping), Some(message(0).received_millis));
    keeping.wait(1);
    keeping.turn();
    assert_eq!(oldest(&mut keeping), Some(message(1).received_millis));
    keeping.acknowledge(2);
    keeping.turn();
    assert_eq!(oldest(&mut keeping), None, "all are acknowledged");
}

#[test]
fn a_message_that_the_sink_refuses_is_put_aside_if_it_is_there_and_its_letter_is_synced() {
    let mut keeping = twelve();
    assert_eq!(keeping.keeper.put_aside(&mut keeping.world, 99, "400"), Ok(false));
    keeping.world.disk.failing_syncs = 1;
    keeping.keeper.put_aside(&mut keeping.world, 3, "400").expect_err("the sync fails");
    let figures = keeping.figures();
    assert_eq!((figures.dead_letters, figures.dropped.dead), (0, 0));
    assert!(figures.failure.is_some());
    assert_eq!(keeping.keeper.put_aside(&mut keeping.world, 3, "400"), Ok(true));
    let figures = keeping.figures();
    assert_eq!((figures.dead_letters, figures.dropped.dead, figures.lost), (1, 0, 0));
}

#[test]
fn on_a_full_disk_a_dead_letter_has_the_space_of_what_is_acknowledged_or_is_dropped() {
    let mut keeping = twelve();
    keeping.world.disk.space = Some(0);
    assert_eq!(keeping.keeper.put_aside(&mut keeping.world, 10, "400"), Ok(false));
    let figures = keeping.figures();
    assert_eq!((figures.dead_letters, figures.dropped.dead, figures.failure), (0, 1, None), "full is not broken");
    keeping.acknowledge(11);
    keeping.world.disk.space = Some(0);
    assert_eq!(keeping.keeper.put_aside(&mut keeping.world, 11, "400"), Ok(true));
    assert_eq!(keeping.figures().dead_letters, 1);
}

#[test]
fn a_message_that_cannot_be_read_is_not_put_aside_and_is_lost_once_the_sink_comes_to_it() {
    let mut keeping = twelve();
    keeping.world.disk.bytes(FIRST)[SEGMENT_HEAD + 3 * RECORD + HEAD] ^= 1;
    assert_eq!(keeping.keeper.put_aside(&mut keeping.world, 3, "400"), Ok(false));
    assert!(keeping.is_silent());
    let figures = keeping.figures();
    assert_eq!((figures.dead_letters, figures.lost), (0, 0));
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the disk is well");
    assert_eq!((read.messages.len(), read.next, keeping.figures().lost), (11, 12, 1));
}

#[test]
fn a_record_with_the_number_of_a_later_segment_costs_no_message_there() {
    let mut keeping = twelve();
    // The record of message 11 in the place of that of message 9.
    let later = keeping.world.disk.bytes("log-0000000000000001.log")[SEGMENT_HEAD + RECORD..].to_vec();
    keeping.world.disk.bytes(FIRST)[SEGMENT_HEAD + 9 * RECORD..].copy_from_slice(&later);
    let read = keeping.keeper.read(&mut keeping.world, 0, ALL).expect("the disk is well");
    assert_eq!(ids(&read.messages), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
    assert_eq!(keeping.figures().lost, 1);
}
