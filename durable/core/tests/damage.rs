//! Damaged files: what is lost is reported, what is delivered is as it was sent, and a log always opens.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use disk::{Chance, Disk, settings};
use durable_core::{Error, Files, Log, Message, Now, Outside, Reported, Settings};
use world::{World, payload};

const SEGMENT: &str = "queue-0000000000000001.log";
/// Bytes of the heads of a segment and of a record, and of a source.
const SEGMENT_HEAD: usize = 36;
const HEAD: usize = 28;
const SOURCE: usize = 9;

/// A disk with the messages 0..`count`, synced, and none acknowledged.
fn written(count: u64) -> Disk {
    let mut world = World::new(1, settings());
    for _ in 0..count {
        world.append(1).expect("room");
    }
    world.sync();
    world.disk
}

/// Opens the log, and reads all of it: the ids, and what was reported.
fn read(disk: &mut Disk) -> Result<(Vec<u64>, Vec<Reported>), Error> {
    let mut reported = Vec::new();
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: disk, now, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", settings())?;
    let mut reader = log.reader();
    let mut ids = Vec::new();
    while let Some(record) = log.read(&mut outside, &mut reader)? {
        let bytes = record.message.payload;
        let id = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        assert_eq!(bytes, payload(id), "as it was sent");
        ids.push(id);
    }
    // A damaged segment is kept under another name when its turn has come.
    log.acknowledge(log.next());
    log.commit(&mut outside)?;
    Ok((ids, reported))
}

/// Opens the log. Returns it with what was reported.
fn open(disk: &mut Disk) -> (Log, Vec<Reported>) {
    let mut reported = Vec::new();
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let log = Log::open(&mut Outside { files: disk, now, reported: &mut reported }, "queue-", settings());
    (log.expect("the log opens"), reported)
}

/// The messages that were reported as lost.
fn lost(reported: &[Reported]) -> Vec<u64> {
    let ranges = reported
        .iter()
        .filter_map(|reported| if let Reported::Lost { messages } = reported { Some(messages) } else { None });
    ranges.cloned().flatten().collect()
}

fn number_of_the_first(disk: &mut Disk, segment: &str) -> u64 {
    let bytes = disk.bytes(segment);
    u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"))
}

#[test]
fn any_flipped_bit_loses_what_is_told_and_nothing_else() {
    let mut chance = Chance(7);
    for _ in 0..400 {
        let mut disk = written(24);
        let names = disk.names();
        let name = &names[chance.below(names.len())];
        let bytes = disk.bytes(name);
        let at = chance.below(bytes.len());
        bytes[at] ^= 1_u8 << chance.below(8);
        let (ids, reported) = read(&mut disk).expect("the log opens");
        let lost = lost(&reported);
        let cut = reported.iter().any(|reported| matches!(reported, Reported::Cut { .. }));
        let end = ids.iter().chain(&lost).max().copied().expect("some are left");
        let mut all = [ids, lost].concat();
        all.sort_unstable();
        assert_eq!(all, (0..=end).collect::<Vec<_>>(), "byte {at} of {name}");
        assert!(
            end == 23 || cut || reported.iter().any(|reported| matches!(reported, Reported::Quarantined { .. })),
            "{reported:?}"
        );
    }
}

#[test]
fn a_damaged_body_loses_one_message_and_the_segment_is_kept_aside() {
    let mut disk = written(24);
    let first = number_of_the_first(&mut disk, SEGMENT);
    disk.bytes(SEGMENT)[SEGMENT_HEAD + HEAD + SOURCE] ^= 1;
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!(lost(&reported), [first]);
    assert_eq!(ids.len(), 23);
    let file = SEGMENT.replace("log", "damaged");
    assert!(reported.contains(&Reported::Quarantined { file: file.clone() }), "{reported:?}");
    assert!(disk.names().contains(&file), "{:?}", disk.names());
}

#[test]
fn a_damaged_head_loses_the_rest_of_its_segment() {
    let mut disk = written(24);
    let first = number_of_the_first(&mut disk, SEGMENT);
    let next = number_of_the_first(&mut disk, "queue-0000000000000002.log");
    disk.bytes(SEGMENT)[SEGMENT_HEAD] ^= 1;
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!(lost(&reported), (first..next).collect::<Vec<_>>());
    assert_eq!(ids.last(), Some(&23), "the next segment is read");
}

#[test]
fn a_damaged_head_of_the_last_segment_is_no_torn_end_and_the_segment_is_kept_aside() {
    let mut disk = written(3);
    let last = "queue-0000000000000000.log";
    let second = SEGMENT_HEAD + HEAD + SOURCE + payload(0).len();
    disk.bytes(last)[second + 2] ^= 1;
    disk.bytes(last).extend_from_slice(&[0xAB; 17]);
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, lost(&reported)), (vec![0], vec![1, 2]), "what is behind it is reported as lost");
    assert!(
        reported.contains(&Reported::Cut { file: last.to_owned(), bytes: 17 }),
        "the end is cut, and no more: {reported:?}"
    );

    let mut reported = Vec::new();
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", settings()).expect("the log opens");
    assert_eq!((log.backlog(), log.next()), (0, 3), "their numbers are not those of others");
    log.release(&mut outside).expect("the disk is well");
    let file = last.replace("log", "damaged");
    assert!(reported.contains(&Reported::Quarantined { file }), "though nobody has read it since: {reported:?}");
}

#[test]
fn messages_are_found_behind_a_long_one_whose_head_is_damaged() {
    let bounds = Settings { max_bytes: 8 << 20, max_message_bytes: 200_000, ..settings() };
    let (mut disk, mut reported) = (Disk::new(1), Vec::new());
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", bounds.clone()).expect("an empty folder");
    let body = vec![b'm'; 150_000];
    for payload in [&b"first"[..], &body[..], &b"last"[..]] {
        let message = Message { source: b"", received_millis: 7, payload };
        log.append(&mut outside, &[message]).expect("room");
    }
    log.sync(&mut outside).expect("the disk is well");
    disk.bytes("queue-0000000000000000.log")[SEGMENT_HEAD + HEAD + 5] ^= 1;
    let (mut reported, files) = (Vec::new(), &mut disk);
    let mut outside = Outside { files, now, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", bounds).expect("the log opens");
    let mut reader = log.reader();
    while log.read(&mut outside, &mut reader).expect("the disk is well").is_some() {}
    assert_eq!(reported, [Reported::Lost { messages: 1..3 }]);
}

#[test]
fn a_segment_without_its_head_starts_at_its_first_record() {
    let mut disk = written(24);
    disk.bytes(SEGMENT)[0] ^= 1;
    let (ids, _) = read(&mut disk).expect("the log opens");
    assert_eq!(ids, (0..24).collect::<Vec<_>>());
}

#[test]
fn a_torn_end_is_cut_and_new_messages_do_not_follow_it() {
    let mut world = World::new(1, settings());
    world.append(2).expect("room");
    world.sync();
    world.disk.bytes("queue-0000000000000000.log").extend_from_slice(&[0xAB; 17]);
    world.restart();
    let file = "queue-0000000000000000.log".to_owned();
    assert_eq!(world.reported.last(), Some(&Reported::Cut { file, bytes: 17 }));
    world.append(2).expect("room");
    world.drain();
    assert!(!world.reported.iter().any(|reported| matches!(reported, Reported::Lost { .. })), "{:?}", world.reported);
}

#[test]
fn without_its_cursor_a_log_starts_at_the_oldest_message() {
    let mut world = World::new(1, settings());
    world.append(3).expect("room");
    world.sync();
    world.read().expect("the disk is well");
    world.acknowledge().expect("the disk is well");
    let mut disk = world.disk;
    disk.bytes("queue-cursor")[9] ^= 1;
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, reported), (vec![0, 1, 2], vec![Reported::CursorLost]));
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, reported), (vec![], vec![]), "the cursor was saved again");
}

#[test]
fn a_log_of_a_newer_version_is_refused_and_left_alone() {
    let mut disk = written(3);
    let name = "queue-0000000000000000.log";
    let head = disk.bytes(name);
    head[8] = 2;
    let sum = crc32fast::hash(&head[..12]).to_le_bytes();
    head[12..16].copy_from_slice(&sum);
    let before = disk.bytes(name).clone();
    let error = read(&mut disk).expect_err("a newer version");
    assert_eq!(error, Error::Newer { file: name.to_owned(), found: 2, known: 1 });
    assert_eq!(*disk.bytes(name), before);
}

#[test]
fn a_record_without_the_end_of_its_body_is_no_message() {
    let mut disk = written(2);
    let file = "queue-0000000000000000.log".to_owned();
    disk.bytes(&file).pop();
    let bytes = (HEAD + SOURCE + payload(1).len() - 1) as u64;
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, reported), (vec![0], vec![Reported::Cut { file, bytes }]));
}

#[test]
fn a_segment_of_which_nothing_is_known_is_kept_aside_and_counts() {
    let mut disk = written(24);
    let first = number_of_the_first(&mut disk, SEGMENT);
    let next = number_of_the_first(&mut disk, "queue-0000000000000002.log");
    disk.bytes(SEGMENT)[0] ^= 1;
    disk.bytes(SEGMENT)[SEGMENT_HEAD] ^= 1;
    let (log, reported) = open(&mut disk);
    assert_eq!(reported, [Reported::Quarantined { file: SEGMENT.replace("log", "damaged") }]);
    assert_eq!(log.bytes(), disk.used());
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!(lost(&reported), (first..next).collect::<Vec<_>>());
    assert_eq!(ids, (0..first).chain(next..24).collect::<Vec<_>>());
}

#[test]
fn of_the_damaged_files_of_earlier_processes_the_latest_is_kept_and_counts() {
    let mut disk = written(3);
    let names = ["queue-0000000000000007.damaged", "queue-0000000000000008.damaged"];
    for (name, bytes) in names.into_iter().zip([100, 60]) {
        disk.create(name).expect("a new file");
        disk.append(name, &vec![7; bytes]).expect("space");
    }
    let (log, _) = open(&mut disk);
    assert_eq!(names.map(|name| disk.names().iter().any(|there| there == name)), [false, true]);
    assert_eq!(log.bytes(), disk.used());
}

#[test]
fn of_two_damaged_segments_the_later_one_is_kept_and_counts() {
    let mut disk = written(24);
    for segment in [SEGMENT, "queue-0000000000000002.log"] {
        disk.bytes(segment)[SEGMENT_HEAD + HEAD + SOURCE] ^= 1;
    }
    let (ids, reported) = read(&mut disk).expect("the log opens");
    assert_eq!((ids.len(), lost(&reported).len()), (22, 2));
    let damaged: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".damaged")).collect();
    assert_eq!(damaged, ["queue-0000000000000002.damaged"]);
}

#[test]
fn the_bytes_of_a_log_are_those_of_its_files_when_damaged_segments_have_gone() {
    let mut disk = written(24);
    for segment in [SEGMENT, "queue-0000000000000002.log"] {
        disk.bytes(segment)[SEGMENT_HEAD + HEAD + SOURCE] ^= 1;
    }
    let (mut log, mut reported) = open(&mut disk);
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: &mut disk, now, reported: &mut reported };
    let mut reader = log.reader();
    while log.read(&mut outside, &mut reader).expect("the disk is well").is_some() {}
    log.acknowledge(log.next());
    log.commit(&mut outside).expect("the disk is well");
    let cursor = disk.bytes("queue-cursor").len() as u64;
    assert_eq!(log.bytes(), disk.used() - cursor);
}

#[test]
fn files_that_spell_a_number_otherwise_are_those_of_somebody_else() {
    let mut disk = written(3);
    let others = ["queue-1.log", "queue-000000000000000A.log", "queue-+000000000000001.log"];
    for name in others {
        disk.create(name).expect("a new file");
        disk.append(name, &[7; 100]).expect("space");
    }
    let (log, reported) = open(&mut disk);
    assert_eq!((log.backlog(), reported.len()), (3, 0));
    assert!(others.iter().all(|name| disk.names().iter().any(|there| there == name)));
}
