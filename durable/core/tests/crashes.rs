//! The machine stops, the disk fails or is full: what was synced is delivered, in order.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use std::time::Duration;

use disk::settings;
use durable_core::{Log, Message, Outside, Reported, Settings, WhenFull};
use proptest::prelude::*;
use world::World;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Sync,
    Read(usize),
    Acknowledge,
    Note,
    Wait(u64),
    SetClock(u64),
    /// The machine stops at this call to the disk.
    Stop(u32),
    Restart,
    FailSyncs(u32),
    FailReads(u32),
    /// So many bytes are left.
    Fill(usize),
    Empty,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1_u64..5).prop_map(Step::Append),
        4 => Just(Step::Sync),
        8 => (1_usize..8).prop_map(Step::Read),
        3 => Just(Step::Acknowledge),
        3 => Just(Step::Note),
        3 => (1_u64..3000).prop_map(Step::Wait),
        1 => (0_u64..4_000_000_000_000).prop_map(Step::SetClock),
        3 => (1_u32..20).prop_map(Step::Stop),
        1 => Just(Step::Restart),
        1 => (1_u32..3).prop_map(Step::FailSyncs),
        1 => (1_u32..3).prop_map(Step::FailReads),
        1 => (0_usize..600).prop_map(Step::Fill),
        1 => Just(Step::Empty),
    ]
}

fn bounds() -> impl Strategy<Value = Settings> {
    let max_age = prop_oneof![Just(None::<Duration>), Just(Some(Duration::from_secs(20)))];
    (any::<bool>(), max_age).prop_map(|(refuse, max_age)| Settings {
        when_full: if refuse { WhenFull::Refuse } else { WhenFull::DropOldest },
        max_age,
        ..settings()
    })
}

fn take(world: &mut World, step: &Step) {
    // A call that fails has its reason in the step before; what follows is what the world checks.
    match *step {
        Step::Append(count) => drop(world.append(count)),
        Step::Sync => world.sync(),
        Step::Read(count) => {
            for _ in 0..count {
                drop(world.read());
            }
        }
        Step::Acknowledge => drop(world.acknowledge()),
        Step::Note => drop(world.note()),
        Step::Wait(millis) => {
            world.now.steady += Duration::from_millis(millis);
            drop(world.call(Log::tend));
        }
        Step::SetClock(millis) => world.now.unix_millis = millis,
        Step::Stop(calls) => world.disk.fuel = Some(calls),
        Step::Restart => {
            world.disk.fuel = None;
            (world.disk.failing_syncs, world.disk.failing_reads) = (0, 0);
            world.restart();
        }
        Step::FailSyncs(count) => world.disk.failing_syncs = count,
        Step::FailReads(count) => world.disk.failing_reads = count,
        Step::Fill(bytes) => (world.disk.space, world.filled) = (Some(bytes), true),
        Step::Empty => world.disk.space = None,
    }
    if world.disk.crashed {
        (world.disk.failing_syncs, world.disk.failing_reads) = (0, 0);
    }
    world.revive();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_is_delivered_in_order_whatever_fails(
        seed in any::<u64>(),
        bounds in bounds(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(seed, bounds);
        for step in &steps {
            take(&mut world, step);
        }
        world.drain();
    }
}

/// A life with every kind of call: segments begin and end, the cursor moves, is noted and saved, files go. What fails
/// because the machine stopped ends it.
fn life(world: &mut World) -> Option<()> {
    for round in 0..12 {
        for _ in 0..3 {
            world.append(2).ok()?;
        }
        world.sync();
        for _ in 0..4 + round % 3 {
            world.read().ok()?;
        }
        world.note().ok()?;
        world.read().ok()?;
        world.acknowledge().ok()?;
        world.now.steady += Duration::from_secs(1);
        world.call(Log::tend).ok()?;
    }
    Some(())
}

/// Whether a life ends before the machine stops at this call. After that everything is delivered.
fn outlives(seed: u64, call: u32) -> bool {
    let mut world = World::new(seed, Settings { max_age: Some(Duration::from_secs(60)), ..settings() });
    world.disk.fuel = Some(call);
    let whole = life(&mut world).is_some() && !world.disk.crashed;
    world.revive();
    // Once more, while the log that was opened is used.
    world.disk.fuel = Some(call % 7 + 1);
    let _ = life(&mut world);
    world.drain();
    whole
}

#[test]
fn the_machine_may_stop_at_every_call_to_the_disk() {
    for seed in 0..4 {
        let calls = (1..1000).find(|call| outlives(seed, *call));
        assert!(calls.is_some_and(|calls| calls > 100), "the calls of a life: {calls:?}");
    }
}

#[test]
fn the_machine_may_stop_while_the_log_is_opened() {
    for call in 1..8 {
        let mut world = World::new(u64::from(call), settings());
        life(&mut world).expect("the disk is well");
        world.append(3).expect("room");
        world.disk.fuel = Some(call);
        world.restart();
        world.drain();
    }
}

#[test]
fn after_a_failed_sync_nothing_of_the_segment_is_acknowledged_and_a_new_one_begins() {
    let mut world = World::new(1, settings());
    world.append(2).expect("room");
    world.sync();
    world.append(2).expect("room");
    world.disk.failing_syncs = 1;
    world.sync();
    assert!(matches!(world.reported.last(), Some(Reported::SyncFailed { messages, .. }) if *messages == (2..4)));
    world.sync();
    assert_eq!(world.reported.len(), 2, "what a sync has failed for is not synced again");
    world.append(1).expect("room");
    world.sync();
    assert_eq!(world.reported.last(), Some(&Reported::Synced { messages: 4..5 }));
    assert_eq!(world.disk.names().len(), 2, "a segment for each");
    assert_eq!(world.owed.keys().copied().collect::<Vec<_>>(), [0, 1, 4]);
    world.disk.crash();
    world.restart();
    world.drain();
}

#[test]
fn a_failed_read_is_an_error_until_it_succeeds_or_is_skipped() {
    let mut world = World::new(1, settings());
    world.append(3).expect("room");
    world.sync();
    world.disk.failing_reads = 1;
    let error = world.read().expect_err("the disk fails").to_string();
    assert!(error.contains("queue-0000000000000000.log") && error.contains("input/output error"), "{error}");
    assert_eq!(world.read(), Ok(Some(0)));

    let World { mut disk, now, mut log, mut reader, .. } = world;
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    log.skip_segment(&mut outside, &mut reader);
    let message = Message { source: b"", received_millis: 0, payload: b"later" };
    assert_eq!(log.append(&mut outside, &[message]), Ok(3..4));
    let record = log.read(&mut outside, &mut reader).expect("the disk is well").expect("a message");
    assert_eq!((record.number, record.message), (3, message));
    assert_eq!(reported, [Reported::Lost { messages: 1..3 }]);
}
