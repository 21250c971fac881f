//! Bounds: bytes, age, sizes, the time until a sync, and what a start reads.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use std::ops::Range;
use std::time::Duration;

use disk::{Disk, settings};
use durable_core::{Error, Files, Log, MAX_SOURCE_BYTES, Message, Now, Outside, Reported, Settings, WhenFull, Why};
use world::World;

/// Appends until the log is full. Returns the error, and how many messages it has.
fn fill(world: &mut World) -> (Error, u64) {
    for count in 0..200 {
        if let Err(error) = world.append(1) {
            return (error, count);
        }
    }
    panic!("no bound")
}

fn dropped(reported: &[Reported], reason: Why) -> u64 {
    let ranges = reported.iter().filter_map(|reported| match reported {
        Reported::Dropped { messages, why } if *why == reason => Some(messages),
        _ => None,
    });
    ranges.map(|messages| messages.end - messages.start).sum()
}

#[test]
fn a_full_log_refuses_messages_until_the_sink_has_acknowledged_a_segment() {
    let mut world = World::new(1, settings());
    let (error, count) = fill(&mut world);
    assert!(matches!(error, Error::Full { held, max: 4096 } if held > 3500), "{error}");
    assert!(world.disk.used() <= 4096, "{} bytes", world.disk.used());
    while world.read().expect("the disk is well").is_some_and(|id| id < count / 2) {}
    world.acknowledge().expect("the disk is well");
    assert!(world.disk.used() < 3200, "{} bytes are left", world.disk.used());
    world.append(1).expect("room again");
    world.drain();
}

#[test]
fn a_log_that_drops_the_oldest_takes_every_message_and_tells_which_are_gone() {
    let mut world = World::new(1, Settings { when_full: WhenFull::DropOldest, ..settings() });
    for _ in 0..200 {
        world.append(1).expect("the oldest give way");
    }
    let gone = dropped(&world.reported, Why::Full);
    assert!(gone > 100 && gone == world.log.cursor(), "{gone} are dropped");
    assert_eq!(world.log.backlog(), 200 - gone);
    assert_eq!(world.read(), Ok(Some(gone)), "the oldest that is left");
    assert!(!world.reported.iter().any(|reported| matches!(reported, Reported::Lost { .. })), "dropped is not lost");
    world.drain();
}

#[test]
fn on_a_full_disk_a_log_refuses_and_goes_on_when_there_is_space() {
    let mut world = World::new(1, settings());
    world.append(4).expect("room");
    world.disk.space = Some(20);
    let error = world.append(1).expect_err("no space");
    assert!(error.is_no_space(), "{error}");
    world.disk.space = Some(400);
    world.append(1).expect("space");
    world.drain();
}

#[test]
fn on_a_full_disk_one_message_costs_one_segment_at_most() {
    let mut world = World::new(1, Settings { when_full: WhenFull::DropOldest, ..settings() });
    for _ in 0..20 {
        world.append(1).expect("room");
    }
    let segments = world.disk.names().len();
    world.disk.space = Some(0);
    world.append(1).expect("the oldest segment gave its space");
    assert!(dropped(&world.reported, Why::NoSpace) > 0);
    assert_eq!(dropped(&world.reported, Why::Full), 0, "the log is not full");
    assert!(world.disk.names().len() > segments - 2, "{:?}", world.disk.names());
    world.drain();
}

#[test]
fn on_a_full_disk_acknowledged_segments_make_space_for_the_cursor() {
    let mut world = World::new(1, settings());
    for _ in 0..20 {
        world.append(1).expect("room");
    }
    world.sync();
    while world.read().expect("the disk is well").is_some() {}
    world.disk.space = Some(0);
    world.acknowledge().expect("the segments are space");
    world.restart();
    assert_eq!(world.log.cursor(), 20);
}

#[test]
fn on_a_full_disk_the_only_segment_makes_space_for_the_cursor_once_all_of_it_is_acknowledged() {
    let mut world = World::new(1, settings());
    world.append(2).expect("room");
    world.sync();
    world.disk.space = Some(0);
    world.append(1).expect_err("no space");
    while world.read().expect("the disk is well").is_some() {}
    world.acknowledge().expect("the segment is space");
    world.append(1).expect("there is space again");
    world.sync();
    world.restart();
    assert_eq!(world.log.cursor(), 2, "nothing is sent twice");
    world.drain();
}

#[test]
fn messages_beyond_the_age_are_dropped_by_a_clock_that_does_not_jump() {
    let mut world = World::new(1, Settings { max_age: Some(Duration::from_secs(80)), ..settings() });
    world.append(2).expect("room");
    world.now.steady += Duration::from_secs(10);
    world.call(Log::tend).expect("the disk is well");
    world.append(2).expect("room");
    world.now.unix_millis *= 2;
    world.call(Log::tend).expect("the disk is well");
    world.now.unix_millis = 0;
    world.now.steady += Duration::from_secs(80);
    world.call(Log::tend).expect("the disk is well");
    assert_eq!(dropped(&world.reported, Why::Age), 0, "neither a jump nor the age itself drops");
    world.now.steady += Duration::from_secs(1);
    world.call(Log::tend).expect("the disk is well");
    assert_eq!(world.reported.last(), Some(&Reported::Dropped { messages: 0..2, why: Why::Age }));
    world.drain();
}

#[test]
fn a_segment_of_an_earlier_process_has_the_age_that_its_head_says() {
    let mut world = World::new(1, Settings { max_age: Some(Duration::from_secs(80)), ..settings() });
    world.append(2).expect("room");
    world.now.steady += Duration::from_secs(10);
    world.call(Log::tend).expect("the disk is well");
    world.append(2).expect("room");
    world.now.unix_millis += 81_000;
    world.restart();
    world.call(Log::tend).expect("the disk is well");
    assert_eq!(dropped(&world.reported, Why::Age), 2);
    world.drain();
}

#[test]
fn a_sync_is_due_by_time_or_by_bytes() {
    let mut world = World::new(1, Settings { sync_bytes: 150, ..settings() });
    assert_eq!(world.log.sync_at(), None);
    world.append(1).expect("room");
    let start = world.now.steady;
    assert_eq!(world.log.sync_at(), Some(start + Duration::from_millis(500)));
    world.now.steady += Duration::from_millis(499);
    world.call(Log::tend).expect("the disk is well");
    assert!(world.reported.is_empty(), "a millisecond is left");
    world.append(4).expect("room");
    assert_eq!(world.log.sync_at(), Some(start), "so many bytes wait for none");
    world.call(Log::tend).expect("the disk is well");
    assert_eq!(world.reported, [Reported::Synced { messages: 0..5 }]);
    assert_eq!(world.log.sync_at(), None);
}

#[test]
fn an_append_of_no_messages_waits_for_no_sync() {
    let mut world = World::new(1, settings());
    for _ in 0..2 {
        world.append(0).expect("nothing to write");
        assert_eq!(world.log.sync_at(), None);
        world.append(1).expect("room");
        world.sync();
    }
}

#[test]
fn a_disk_that_fails_costs_none_of_the_messages_that_may_be_dropped() {
    let mut world = World::new(1, Settings { when_full: WhenFull::DropOldest, ..settings() });
    for _ in 0..20 {
        world.append(1).expect("room");
    }
    world.disk.crashed = true;
    let error = world.append(1).expect_err("the disk is away");
    assert!(!error.is_no_space(), "{error}");
    assert_eq!((dropped(&world.reported, Why::Full), world.log.cursor()), (0, 0));
}

#[test]
fn a_segment_that_took_no_message_is_gone_and_counts_no_bytes() {
    let mut world = World::new(1, settings());
    // The head of a segment fits in, and a part of a message.
    world.disk.space = Some(40);
    world.append(1).expect_err("no space");
    assert_eq!((world.log.bytes(), world.disk.used()), (0, 0));
    world.drain();
}

#[test]
fn sizes_beyond_the_bounds_are_refused_and_nothing_is_appended() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let now = Now { steady: Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    let small = Settings { max_bytes: 1000, ..settings() };
    assert!(matches!(Log::open(&mut outside, "queue-", small), Err(Error::Settings { .. })));

    let mut log = Log::open(&mut outside, "queue-", settings()).expect("an empty folder");
    let fits = Message { source: b"a", received_millis: 0, payload: &[7; 64] };
    let too_long = Message { payload: &[7; 65], ..fits };
    let source = Message { source: &[7; MAX_SOURCE_BYTES + 1], ..fits };
    assert!(matches!(log.append(&mut outside, &[fits, too_long]), Err(Error::TooLong { bytes: 65, .. })));
    assert!(matches!(log.append(&mut outside, &[source]), Err(Error::TooLong { source_bytes: 256, .. })));
    assert!(matches!(log.append(&mut outside, &[fits; 6]), Err(Error::Batch { max: 476, .. })));
    assert_eq!(log.append(&mut outside, &[]), Ok(0..0));
    assert_eq!(log.append(&mut outside, &[fits; 5]), Ok(0..5));
}

#[test]
fn a_start_reads_the_heads_of_segments_and_the_last_segment() {
    let bounds = Settings { max_bytes: 8 << 20, max_message_bytes: 4096, ..settings() };
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let now = Now { steady: Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", bounds.clone()).expect("an empty folder");
    let message = Message { source: b"a", received_millis: 0, payload: &[7; 4096] };
    while log.bytes() < 7 << 20 {
        log.append(&mut outside, &[message; 16]).expect("room");
    }
    let backlog = log.backlog();
    let log = Log::open(&mut outside, "queue-", bounds).expect("a whole log");
    assert_eq!(log.backlog(), backlog);
    assert!(disk.read < 1_200_000, "{} bytes were read", disk.read);
}

const NOW: Now = Now { steady: Duration::ZERO, unix_millis: 0 };

fn append(disk: &mut Disk, log: &mut Log, messages: &[Message<'_>]) -> Result<Range<u64>, Error> {
    log.append(&mut Outside { files: disk, now: NOW, reported: &mut Vec::new() }, messages)
}

fn open(disk: &mut Disk, settings: Settings) -> Result<Log, Error> {
    Log::open(&mut Outside { files: disk, now: NOW, reported: &mut Vec::new() }, "queue-", settings)
}

/// Messages whose records have so many bytes together: some of 93, and a last one that has the rest in its source.
fn records(bytes: usize) -> Vec<Message<'static>> {
    const PAYLOAD: &[u8] = &[7; 64];
    const SOURCE: &[u8] = &[7; 93];
    let count = bytes / 93;
    let mut messages = vec![Message { source: &SOURCE[..1], received_millis: 0, payload: PAYLOAD }; count];
    messages[count - 1].source = &SOURCE[..=bytes % 93];
    messages
}

#[test]
fn a_log_has_as_many_bytes_as_it_may_to_the_last_one() {
    let mut disk = Disk::new(1);
    let mut log = open(&mut disk, settings()).expect("an empty folder");
    for _ in 0..8 {
        append(&mut disk, &mut log, &records(476)).expect("a segment without its head");
    }
    assert_eq!(log.bytes(), 4096);
    assert_eq!(append(&mut disk, &mut log, &records(93)), Err(Error::Full { held: 4096, max: 4096 }));
    assert_eq!(disk.used(), 4096);
}

#[test]
fn a_segment_takes_batches_until_it_is_full_to_the_last_byte() {
    let mut disk = Disk::new(1);
    let mut log = open(&mut disk, settings()).expect("an empty folder");
    for (bytes, segments) in [(100, 1), (376, 1), (93, 2)] {
        append(&mut disk, &mut log, &records(bytes)).expect("room");
        assert_eq!(disk.names().len(), segments, "{bytes}");
    }
}

#[test]
fn an_old_segment_ends_only_where_the_next_one_has_room_for_its_head() {
    for (last, bytes) in [(440, 4096), (441, 4061)] {
        let mut disk = Disk::new(1);
        let aging = Settings { max_age: Some(Duration::from_secs(80)), ..settings() };
        let mut log = open(&mut disk, aging).expect("an empty folder");
        for count in [476, 476, 476, 476, 476, 476, 476, last] {
            append(&mut disk, &mut log, &records(count)).expect("room");
        }
        let now = Now { steady: Duration::from_secs(10), unix_millis: 0 };
        log.tend(&mut Outside { files: &mut disk, now, reported: &mut Vec::new() }).expect("the disk is well");
        assert_eq!(log.bytes(), bytes, "{last}");
    }
}

#[test]
fn the_smallest_log_has_room_for_one_longest_message_in_each_segment() {
    let with = |max_bytes| Settings { max_bytes, ..settings() };
    assert!(open(&mut Disk::new(1), with(3064)).is_ok());
    let refused = open(&mut Disk::new(1), with(3063)).expect_err("it is too small");
    assert_eq!(refused, Error::Settings { message: 64, max: 3063, least: 3064 });
}

#[test]
fn no_log_is_for_messages_that_its_records_do_not_take() {
    let with = |max_message_bytes| Settings { max_bytes: 1 << 40, max_message_bytes, ..settings() };
    assert!(open(&mut Disk::new(1), with((1 << 24) - 1)).is_ok());
    let refused = open(&mut Disk::new(1), with(1 << 24)).expect_err("its length has 24 bits");
    assert!(matches!(refused, Error::Settings { message: 16_777_216, .. }), "{refused}");
}

#[test]
fn a_segment_has_an_eighth_of_the_log_and_no_more_than_64_mebibytes() {
    let of = |max_bytes| Settings { max_bytes, ..settings() }.segment_bytes();
    assert_eq!([4096, (512 << 20) - 8, 1 << 40].map(of), [512, (64 << 20) - 1, 64 << 20]);
}

#[test]
fn the_only_segment_gives_way_to_messages_once_the_bound_is_lower_than_it() {
    for when_full in [WhenFull::Refuse, WhenFull::DropOldest] {
        let (mut disk, mut reported) = (Disk::new(1), Vec::new());
        let large = Settings { max_bytes: 8 * 4096, when_full, ..settings() };
        let mut log = open(&mut disk, large).expect("an empty folder");
        append(&mut disk, &mut log, &records(3900)).expect("a segment takes it");
        let kept = log.backlog();
        assert_eq!((log.bound(3064), disk.names().len()), (3064, 1));
        let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
        let appended = log.append(&mut outside, &records(93));
        let synced = Reported::Synced { messages: 0..kept };
        if when_full == WhenFull::Refuse {
            assert_eq!(appended, Err(Error::Full { held: 3936, max: 3064 }));
            assert_eq!(reported, [synced]);
            assert_eq!(log.cursor(), 0, "the sink has none of it");
            log.acknowledge(kept);
            append(&mut disk, &mut log, &records(93)).expect("the sink has all of it");
        } else {
            assert_eq!(appended, Ok(kept..kept + 1));
            assert_eq!(reported, [synced, Reported::Dropped { messages: 0..kept, why: Why::Full }]);
        }
        assert_eq!((log.bytes(), log.backlog()), (36 + 93, 1));
    }
}

#[test]
fn a_damaged_file_that_is_kept_gives_way_to_messages() {
    const DAMAGED: &str = "queue-0000000000000000.damaged";
    let mut disk = Disk::new(1);
    disk.create(DAMAGED).expect("a new file");
    disk.append(DAMAGED, &[7; 1000]).expect("space");
    let mut log = open(&mut disk, settings()).expect("a log");
    assert_eq!(log.bytes(), 1000);
    for _ in 0..8 {
        append(&mut disk, &mut log, &records(476)).expect("it gives way");
    }
    assert_eq!((log.bytes(), disk.used()), (4096, 4096));
}

#[test]
fn a_start_reads_64_bytes_of_each_segment_and_the_records_of_the_last_one_once() {
    let mut disk = Disk::new(1);
    let mut log = open(&mut disk, settings()).expect("an empty folder");
    for _ in 0..8 {
        append(&mut disk, &mut log, &records(476)).expect("room");
    }
    open(&mut disk, settings()).expect("a whole log");
    assert_eq!(disk.read, 8 * 64 + 476);
}

#[test]
fn whoever_reads_on_where_the_last_read_ended_reads_hardly_a_byte_twice() {
    let bounds = Settings { max_bytes: 8 << 20, max_message_bytes: 4096, ..settings() };
    let mut disk = Disk::new(1);
    let mut log = open(&mut disk, bounds).expect("an empty folder");
    let message = Message { source: b"a", received_millis: 0, payload: &[7; 4096] };
    for _ in 0..10 {
        append(&mut disk, &mut log, &[message; 20]).expect("room");
    }
    let (mut reader, mut reported) = (log.reader(), Vec::new());
    for number in 0..200 {
        reader.seek(number);
        let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
        let record = log.read(&mut outside, &mut reader).expect("the disk is well").expect("a message");
        assert_eq!(record.number, number);
    }
    // A window may end in a message, which the next one has whole.
    let (read, bytes) = (disk.read as u64, log.bytes());
    assert!((bytes - 100..bytes + bytes / 8).contains(&read), "{read} of {bytes}");
}
