//! What a log outlives: files that vanish, bounds that shrink, disks that stay full, numbers that lie.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use std::time::Duration;

use disk::settings;
use durable_core::{Error, FileError, Files, Log, Outside, Reported, Settings, WhenFull, Why};
use world::{World, payload};

const SEGMENT: &str = "queue-0000000000000000.log";
const CURSOR: &str = "queue-cursor";
/// Bytes of the heads of a segment and of a record.
const SEGMENT_HEAD: usize = 36;
const HEAD: usize = 28;

/// Bytes of the record of a message.
fn record(id: u64) -> usize {
    HEAD + b"192.0.2.1".len() + payload(id).len()
}

/// Gives up the segment that the reader of the world is in.
fn skip_segment(world: &mut World) {
    let World { disk, now, log, reader, reported, .. } = world;
    log.skip_segment(&mut Outside { files: disk, now: *now, reported }, reader);
}

fn is_lost(reported: &Reported) -> bool {
    matches!(reported, Reported::Lost { .. })
}

#[test]
fn a_log_goes_on_without_a_segment_that_somebody_removed() {
    let mut world = World::new(1, settings());
    for _ in 0..24 {
        world.append(1).expect("room");
    }
    world.sync();
    world.disk.remove("queue-0000000000000001.log").expect("the segment is there");
    world.owed.clear();
    let stopped = loop {
        match world.read() {
            Ok(Some(_)) => {}
            stopped => break stopped,
        }
    };
    assert!(matches!(stopped, Err(Error::File { why: FileError::Missing, .. })), "{stopped:?}");
    skip_segment(&mut world);
    while world.read().expect("the other segments are there").is_some() {}
    assert!(world.reported.iter().any(is_lost), "{:?}", world.reported);
    world.acknowledge().expect("what is gone needs no removal");
    for _ in 0..24 {
        world.append(2).expect("room, as all is acknowledged");
        while world.read().expect("the disk is well").is_some() {}
        world.acknowledge().expect("the disk is well");
    }
    world.drain();
}

#[test]
fn a_segment_longer_than_a_smaller_bound_gives_way_once_it_is_acknowledged() {
    let mut world = World::new(1, Settings { max_bytes: 1 << 16, ..settings() });
    for _ in 0..80 {
        world.append(1).expect("room");
    }
    world.sync();
    assert_eq!(world.disk.names().len(), 1, "one segment");
    world.settings = settings();
    world.restart();
    assert!(matches!(world.append(1), Err(Error::Full { .. })), "what is not acknowledged stays");
    while world.read().expect("the disk is well").is_some() {}
    world.acknowledge().expect("the disk is well");
    world.append(1).expect("what is acknowledged gives way");
    world.sync();
    world.restart();
    assert_eq!((world.log.cursor(), world.log.next()), (80, 81));
    world.drain();
}

#[test]
fn on_a_full_disk_messages_beyond_the_age_still_give_way() {
    let mut world = World::new(1, Settings { max_age: Some(Duration::from_secs(80)), ..settings() });
    for _ in 0..3 {
        world.append(2).expect("room");
        world.now.steady += Duration::from_secs(10);
        world.call(Log::tend).expect("the disk is well");
    }
    world.append(2).expect("room");
    world.now.steady += Duration::from_secs(81);
    (world.disk.space, world.filled) = (Some(0), true);
    world.call(Log::tend).expect("the old segments are space for a new one");
    let dropped = |messages| Reported::Dropped { messages, why: Why::Age };
    for messages in [0..2, 2..4, 4..6] {
        assert!(world.reported.contains(&dropped(messages)), "{:?}", world.reported);
    }
    world.drain();
}

#[test]
fn what_gave_way_on_a_full_disk_is_told_as_nothing_else_after_a_start() {
    let mut world = World::new(1, Settings { when_full: WhenFull::DropOldest, ..settings() });
    for _ in 0..20 {
        world.append(1).expect("room");
    }
    world.disk.space = Some(0);
    world.append(1).expect("the oldest segment gave its space");
    world.sync();
    let cursor = world.log.cursor();
    assert!(cursor > 0, "messages were dropped");
    world.disk.crash();
    world.restart();
    assert_eq!(world.log.cursor(), cursor);
    world.drain();
    assert!(
        !world.reported.iter().any(|reported| is_lost(reported) || *reported == Reported::CursorLost),
        "{:?}",
        world.reported
    );
}

#[test]
fn a_message_lost_before_its_sync_is_not_told_as_synced() {
    for at in [SEGMENT_HEAD, SEGMENT_HEAD + HEAD] {
        let mut world = World::new(1, settings());
        world.append(3).expect("room");
        world.disk.bytes(SEGMENT)[at] ^= 1;
        while world.read().expect("the disk is well").is_some() {}
        assert!(world.reported.iter().any(is_lost), "{:?}", world.reported);
        world.sync();
        let synced = world.reported.iter().any(|reported| matches!(reported, Reported::Synced { .. }));
        assert!(!synced, "its sender would forget it: {:?}", world.reported);
        let failed =
            |reported: &Reported| matches!(reported, Reported::SyncFailed { messages, .. } if *messages == (0..3));
        assert!(world.reported.iter().any(failed), "{:?}", world.reported);
        world.append(1).expect("room");
        world.sync();
        assert_eq!(world.reported.last(), Some(&Reported::Synced { messages: 3..4 }));
        world.drain();
    }
}

#[test]
fn a_loss_before_the_messages_that_wait_for_a_sync_does_not_concern_them() {
    let mut world = World::new(1, settings());
    world.append(3).expect("room");
    world.sync();
    world.append(2).expect("room");
    world.disk.bytes(SEGMENT)[SEGMENT_HEAD + record(0) + record(1) + HEAD] ^= 1;
    world.owed.remove(&2);
    while world.read().expect("the disk is well").is_some() {}
    assert_eq!(world.reported.last(), Some(&Reported::Lost { messages: 2..3 }));
    world.sync();
    assert_eq!(world.reported.last(), Some(&Reported::Synced { messages: 3..5 }));
    world.append(1).expect("room");
    assert_eq!(world.disk.names(), [SEGMENT], "a damaged body ends no segment");
    world.drain();
}

#[test]
fn what_comes_behind_a_damaged_head_is_delivered() {
    let mut world = World::new(1, settings());
    world.append(3).expect("room");
    world.sync();
    world.disk.bytes(SEGMENT)[SEGMENT_HEAD + record(0)] ^= 1;
    world.owed.retain(|number, _| *number == 0);
    while world.read().expect("the disk is well").is_some() {}
    assert_eq!(world.reported.last(), Some(&Reported::Lost { messages: 1..3 }));
    world.append(1).expect("room");
    world.sync();
    assert_eq!(world.read(), Ok(Some(3)));
    world.drain();
}

#[test]
fn where_all_is_read_there_is_no_segment_to_give_up() {
    let mut world = World::new(1, settings());
    world.append(2).expect("room");
    world.sync();
    while world.read().expect("the disk is well").is_some() {}
    skip_segment(&mut world);
    world.append(1).expect("room");
    assert_eq!(world.disk.names(), [SEGMENT]);
    world.drain();
}

#[test]
fn the_last_segment_stays_when_all_of_it_is_acknowledged() {
    let mut world = World::new(1, settings());
    world.append(2).expect("room");
    world.sync();
    world.restart();
    while world.read().expect("the disk is well").is_some() {}
    world.acknowledge().expect("the disk is well");
    assert_eq!(world.disk.names(), [SEGMENT, CURSOR]);
    world.drain();
}

/// A log of three messages, the first of which is acknowledged.
fn acknowledged_one() -> World {
    let mut world = World::new(1, settings());
    world.append(3).expect("room");
    world.sync();
    world.read().expect("the disk is well");
    world.acknowledge().expect("the disk is well");
    // From here on the cursor may be lost.
    world.filled = true;
    world
}

#[test]
fn a_cursor_on_a_bad_sector_is_lost_and_not_believed_when_it_is_readable_again() {
    let mut world = acknowledged_one();
    world.disk.unreadable = Some(CURSOR);
    world.restart();
    assert_eq!(world.reported.last(), Some(&Reported::CursorLost));
    world.disk.unreadable = None;
    world.restart();
    assert_eq!(world.log.cursor(), 0);
    world.drain();
}

#[test]
fn a_cursor_that_was_read_is_not_written_again() {
    let mut world = acknowledged_one();
    world.restart();
    let calls = world.disk.calls;
    world.acknowledge().expect("the disk is well");
    assert_eq!(world.disk.calls, calls);
}

#[test]
fn a_number_that_leaves_none_for_later_messages_is_damage() {
    let mut world = acknowledged_one();
    let cursor = world.disk.bytes(CURSOR);
    cursor[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let sum = crc32fast::hash(&cursor[..20]).to_le_bytes();
    cursor[20..24].copy_from_slice(&sum);
    world.restart();
    assert_eq!(world.reported.last(), Some(&Reported::CursorLost));
    world.append(1).expect("room");
    world.drain();
}

#[test]
fn a_bound_beyond_all_lengths_is_refused() {
    let mut world = World::new(1, settings());
    let bounds = Settings { max_message_bytes: usize::MAX, ..settings() };
    let opened = world.call(|_, outside| Log::open(outside, "other-", bounds).map(drop));
    assert!(matches!(opened, Err(Error::Settings { .. })), "{opened:?}");
}

#[test]
fn files_that_are_named_almost_like_segments_are_left_alone() {
    let mut world = acknowledged_one();
    let others = [
        "queue-+00000000000000a.log",
        "queue-000000000000000A.log",
        "queue-8000000000000000.log",
        "queue-ffffffffffffffff.log",
    ];
    for other in others {
        world.disk.create(other).expect("a new file");
        world.disk.append(other, &[7; 100]).expect("space");
    }
    world.restart();
    world.append(1).expect("room");
    world.drain();
    let names = world.disk.names();
    assert!(others.iter().all(|other| names.iter().any(|name| name == other)), "{names:?}");
}

#[test]
fn a_cursor_whose_name_may_not_be_on_disk_removes_no_segment() {
    for seed in 0..32 {
        let mut world = World::new(seed, settings());
        for _ in 0..24 {
            world.append(1).expect("room");
        }
        world.sync();
        while world.read().expect("the disk is well").is_some() {}
        // The process is killed before the folder is synced; the machine runs on.
        world.disk.fuel = Some(6);
        world.acknowledge().expect_err("killed");
        (world.disk.fuel, world.disk.crashed) = (None, false);
        world.disk.failing_syncs = 1;
        world.restart();
        world.acknowledge().expect("the disk is well again");
        world.disk.crash();
        world.restart();
        assert_eq!(world.log.cursor(), 24, "seed {seed}: {:?}", world.reported);
        world.drain();
    }
}

#[test]
fn a_log_whose_first_segment_was_never_synced_goes_on_from_the_oldest_that_is_left() {
    for seed in 0..32 {
        let mut world = World::new(seed, settings());
        world.append(2).expect("room");
        world.disk.failing_syncs = 1;
        world.sync();
        world.append(1).expect("room");
        world.sync();
        assert_eq!(world.owed.keys().copied().collect::<Vec<_>>(), [2]);
        world.disk.crash();
        world.restart();
        world.drain();
    }
}
