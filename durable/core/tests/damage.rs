//! Damaged files: what is lost is told, what is delivered is as it was sent, and a log always opens.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod world;

use disk::{Chance, Disk, settings};
use durable_core::{Error, Log, Now, Outside, Told};
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

/// Opens the log, and reads all of it: the ids, and what was told.
fn read(disk: &mut Disk) -> Result<(Vec<u64>, Vec<Told>), Error> {
    let mut told = Vec::new();
    let now = Now { steady: std::time::Duration::ZERO, unix_millis: 0 };
    let mut outside = Outside { files: disk, now, told: &mut told };
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
    Ok((ids, told))
}

/// The messages that were told as lost.
fn lost(told: &[Told]) -> Vec<u64> {
    let ranges = told.iter().filter_map(|told| if let Told::Lost { messages } = told { Some(messages) } else { None });
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
        let (ids, told) = read(&mut disk).expect("the log opens");
        let lost = lost(&told);
        let cut = told.iter().any(|told| matches!(told, Told::Cut { .. }));
        let end = ids.iter().chain(&lost).max().copied().expect("some are left");
        let mut all = [ids, lost].concat();
        all.sort_unstable();
        assert_eq!(all, (0..=end).collect::<Vec<_>>(), "byte {at} of {name}");
        assert!(end == 23 || cut || told.iter().any(|told| matches!(told, Told::Quarantined { .. })), "{told:?}");
    }
}

#[test]
fn a_damaged_body_loses_one_message_and_the_segment_is_kept_aside() {
    let mut disk = written(24);
    let first = number_of_the_first(&mut disk, SEGMENT);
    disk.bytes(SEGMENT)[SEGMENT_HEAD + HEAD + SOURCE] ^= 1;
    let (ids, told) = read(&mut disk).expect("the log opens");
    assert_eq!(lost(&told), [first]);
    assert_eq!(ids.len(), 23);
    let file = SEGMENT.replace("log", "damaged");
    assert!(told.contains(&Told::Quarantined { file: file.clone() }), "{told:?}");
    assert!(disk.names().contains(&file), "{:?}", disk.names());
}

#[test]
fn a_damaged_head_loses_the_rest_of_its_segment() {
    let mut disk = written(24);
    let first = number_of_the_first(&mut disk, SEGMENT);
    let next = number_of_the_first(&mut disk, "queue-0000000000000002.log");
    disk.bytes(SEGMENT)[SEGMENT_HEAD] ^= 1;
    let (ids, told) = read(&mut disk).expect("the log opens");
    assert_eq!(lost(&told), (first..next).collect::<Vec<_>>());
    assert_eq!(ids.last(), Some(&23), "the next segment is read");
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
    assert_eq!(world.told.last(), Some(&Told::Cut { file, bytes: 17 }));
    world.append(2).expect("room");
    world.drain();
    assert!(!world.told.iter().any(|told| matches!(told, Told::Lost { .. })), "{:?}", world.told);
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
    let (ids, told) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, told), (vec![0, 1, 2], vec![Told::CursorLost]));
    let (ids, told) = read(&mut disk).expect("the log opens");
    assert_eq!((ids, told), (vec![], vec![]), "the cursor was saved again");
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
