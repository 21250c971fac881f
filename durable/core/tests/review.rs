//! What a log outlives: files that vanish, bounds that shrink, disks that stay full, numbers that lie.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use durable_core::{Error, FileError, Files, Outside, Told};
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
