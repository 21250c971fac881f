//! A process that is killed: what its sink had acknowledged is not sent again.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use disk::{large, settings};
use durable_core::{Files, Reported};
use world::World;

const CURSOR: &str = "queue-cursor";
/// The files of notes, in the order of their use.
const NOTES: [&str; 2] = ["queue-cursor.1", "queue-cursor.0"];
/// Bytes of a note.
const NOTE: usize = 24;
/// As many notes as fill both files, and more.
const MANY: u64 = 360;

/// A log of so many messages, none of which is acknowledged.
fn world(messages: u64) -> World {
    let mut world = World::new(1, large());
    world.append(messages).expect("room");
    world.sync();
    world
}

/// The sink gets a message and acknowledges it.
fn deliver(world: &mut World) -> Option<()> {
    world.read().expect("the disk is read").expect("a message");
    world.note().ok()
}

/// The names of the files of notes, and the bytes of each.
fn notes(world: &mut World) -> Vec<(String, u64)> {
    let files = world.disk.list().expect("the disk is well");
    files.into_iter().filter(|(name, _)| NOTES.contains(&name.as_str())).collect()
}

#[test]
fn delivery_goes_on_at_the_latest_note_which_is_saved_at_the_start() {
    let mut world = world(5);
    for _ in 0..3 {
        deliver(&mut world).expect("the disk is well");
    }
    world.kill();
    assert_eq!((world.log.cursor(), notes(&mut world)), (3, Vec::new()));
    world.disk.crash();
    world.restart();
    assert_eq!(world.log.cursor(), 3, "it outlives the machine, too");
    assert!(!world.reported.contains(&Reported::CursorLost));
    world.drain();
}

#[test]
fn a_process_may_be_killed_at_every_call_to_the_disk() {
    let mut calls = 1;
    loop {
        let mut world = world(MANY);
        world.disk.fuel = Some(calls);
        let whole = (0..MANY).try_for_each(|_| deliver(&mut world)).is_some();
        // The world knows what was noted.
        world.kill();
        world.drain();
        if whole {
            break;
        }
        calls += 1;
    }
    assert!(u64::from(calls) > MANY, "{calls} calls");
}

#[test]
fn a_process_may_be_killed_while_it_saves_the_cursor() {
    for calls in 1..12 {
        let mut world = world(5);
        for _ in 0..3 {
            deliver(&mut world).expect("the disk is well");
        }
        world.disk.fuel = Some(calls);
        // It may have ended before.
        let _ = world.acknowledge();
        world.kill();
        assert_eq!(world.log.cursor(), 3, "{calls} calls");
        world.drain();
    }
}

#[test]
fn notes_take_a_block_in_each_of_two_files_and_none_once_the_cursor_is_saved() {
    let mut world = world(MANY);
    for _ in 0..MANY {
        deliver(&mut world).expect("the disk is well");
        let notes = notes(&mut world);
        assert!(notes.len() <= 2 && notes.iter().all(|(_, bytes)| *bytes <= 4096), "{notes:?}");
    }
    world.acknowledge().expect("the disk is well");
    assert!(notes(&mut world).is_empty());
    world.drain();
}

#[test]
fn nothing_is_noted_of_a_cursor_that_is_saved() {
    let mut world = world(2);
    deliver(&mut world).expect("the disk is well");
    world.acknowledge().expect("the disk is well");
    world.note().expect("the disk is well");
    assert!(notes(&mut world).is_empty());
}

/// The cursor that is found after a file of three notes was changed.
fn found(change: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let mut world = world(5);
    for _ in 0..3 {
        deliver(&mut world).expect("the disk is well");
    }
    change(world.disk.bytes(NOTES[0]));
    world.noted = 0;
    world.kill();
    let cursor = world.log.cursor();
    world.drain();
    cursor
}

#[test]
fn a_note_that_is_torn_or_damaged_is_passed_over() {
    assert_eq!(found(|notes| notes.truncate(3 * NOTE - 1)), 2);
    assert_eq!(found(|notes| notes[2 * NOTE + 9] ^= 1), 2);
    assert_eq!(found(|notes| notes[NOTE + 9] ^= 1), 3, "a later one is whole");
}

#[test]
fn notes_on_a_bad_sector_are_removed_and_never_believed_later() {
    let mut world = world(5);
    deliver(&mut world).expect("the disk is well");
    world.acknowledge().expect("the disk is well");
    deliver(&mut world).expect("the disk is well");
    world.disk.unreadable = Some(NOTES[0]);
    world.noted = 0;
    world.kill();
    assert_eq!((world.log.cursor(), notes(&mut world)), (1, Vec::new()));
    world.disk.unreadable = None;
    world.append(1).expect("room");
    world.sync();
    world.disk.crash();
    world.restart();
    assert_eq!((world.log.cursor(), notes(&mut world)), (1, Vec::new()), "its removal is on the disk, too");
    world.drain();
}

#[test]
fn notes_say_how_far_the_sink_is_though_the_cursor_is_damaged() {
    let mut world = world(5);
    deliver(&mut world).expect("the disk is well");
    world.acknowledge().expect("the disk is well");
    deliver(&mut world).expect("the disk is well");
    world.disk.bytes(CURSOR)[9] ^= 1;
    // From here on the cursor may be lost.
    world.filled = true;
    world.kill();
    assert_eq!((world.log.cursor(), world.reported.last()), (2, Some(&Reported::CursorLost)));
    world.drain();
}

#[test]
fn notes_that_are_not_ahead_of_the_cursor_are_passed_over_and_go() {
    for count in [1, 2] {
        let mut world = World::new(1, settings());
        world.append(3).expect("room");
        world.sync();
        for _ in 0..2 {
            deliver(&mut world).expect("the disk is well");
        }
        let old = world.disk.bytes(NOTES[0])[..count * NOTE].to_vec();
        world.acknowledge().expect("the disk is well");
        // Their removal was not on the disk.
        world.disk.create(NOTES[0]).expect("it is gone");
        world.disk.append(NOTES[0], &old).expect("space");
        world.kill();
        assert_eq!((world.log.cursor(), notes(&mut world)), (2, Vec::new()), "{count} notes");
        world.drain();
    }
}
