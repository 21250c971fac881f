//! What a log outlives: files that vanish, bounds that shrink, disks that stay full, numbers that lie.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use std::time::Duration;

use durable_core::{Error, FileError, Files, Log, Outside, Settings, Told, WhenFull, Why};
use world::{World, settings};

/// Gives up the segment that the reader of the world is in.
fn skip_segment(world: &mut World) {
    let World { disk, now, log, reader, told, .. } = world;
    log.skip_segment(&mut Outside { files: disk, now: *now, told }, reader);
}

fn is_lost(told: &Told) -> bool {
    matches!(told, Told::Lost { .. })
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
    assert!(world.told.iter().any(is_lost), "{:?}", world.told);
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
    let dropped = |messages| Told::Dropped { messages, why: Why::Age };
    for messages in [0..2, 2..4, 4..6] {
        assert!(world.told.contains(&dropped(messages)), "{:?}", world.told);
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
    assert!(!world.told.iter().any(|told| is_lost(told) || *told == Told::CursorLost), "{:?}", world.told);
}
