//! Dead letters: a message that the sink refuses does not hold the others.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;

use std::time::Duration;

use disk::{Disk, large};
use durable_core::{DeadLetters, Letter, Log, Message, Now, Outside, Record, Reported, Why};

/// The page that shows what a person reads of dead letters.
const PAGE: &str = include_str!("../../../docs/durable.md");

const NOW: Now = Now { steady: Duration::ZERO, unix_millis: 0 };

fn record(number: u64, payload: &[u8]) -> Record<'_> {
    Record { number, message: Message { source: b"192.0.2.1", received_millis: 5, payload } }
}

#[test]
fn one_refused_message_in_ten_thousand_is_put_aside_and_the_others_pass_it() {
    let mut disk = Disk::new(1);
    let (mut reported, mut reported_dead) = (Vec::new(), Vec::new());
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", large()).expect("an empty folder");
    for _ in 0..100 {
        log.append(&mut outside, &[record(0, b"message").message; 100]).expect("room");
    }
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported_dead };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 1 << 20, 64).expect("an empty folder");
    let (mut reader, mut taken) = (log.reader(), 0);
    loop {
        let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
        let Some(found) = log.read(&mut outside, &mut reader).expect("the disk is well") else {
            break;
        };
        if found.number == 6000 {
            let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported_dead };
            dead.put(&mut outside, &found, "422 Unprocessable Content").expect("room");
        } else {
            taken += 1;
        }
        log.acknowledge(found.number + 1);
    }
    assert_eq!((taken, log.backlog()), (9999, 0));

    disk.crash();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported_dead };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 1 << 20, 64).expect("a whole log");
    let mut reader = dead.reader().expect("letters are kept");
    let letter = dead.read(&mut outside, &mut reader).expect("the disk is well");
    assert_eq!(letter, Some(Letter { record: record(6000, b"message"), why: "422 Unprocessable Content" }));
    assert_eq!(dead.read(&mut outside, &mut reader), Ok(None));
}

#[test]
fn a_letter_whose_sync_fails_is_not_put_aside() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 1 << 20, 64).expect("an empty folder");
    disk.failing_syncs = 1;
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let error = dead.put(&mut outside, &record(1, b"message"), "").expect_err("the sync fails");
    assert!(error.to_string().contains("cannot sync the dead letters"), "{error}");
}

#[test]
fn the_oldest_letters_give_way_and_a_long_reason_is_cut_between_characters() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 8192, 64).expect("an empty folder");
    let why = format!("x{}", "é".repeat(300));
    for number in 0..40 {
        dead.put(&mut outside, &record(number, b"message"), &why).expect("the oldest give way");
    }
    assert!((4096..=8192).contains(&dead.bytes()), "{} bytes", dead.bytes());
    let mut reader = dead.reader().expect("letters are kept");
    let oldest = dead.read(&mut outside, &mut reader).expect("the disk is well").expect("a letter");
    assert!(oldest.record.number > 20, "{}", oldest.record.number);
    assert_eq!(oldest.why, format!("x{}", "é".repeat(255)));
    let gave_way = |reported: &Reported| matches!(reported, Reported::Dropped { why: Why::Full, .. });
    assert!(reported.iter().any(gave_way), "{reported:?}");
}

#[test]
fn where_no_letters_are_kept_a_refused_message_is_told_as_dropped() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 0, 64).expect("nothing to open");
    dead.put(&mut outside, &record(7, b"message"), "").expect("nothing to write");
    assert!(dead.reader().is_none());
    assert_eq!(reported, [Reported::Dropped { messages: 7..8, why: Why::Dead }]);
    assert!(disk.names().is_empty());
}

#[test]
fn a_message_longer_than_the_letters_that_are_kept_does_not_hold_the_others() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 8192, 64).expect("an empty folder");
    dead.put(&mut outside, &record(7, &[7; 600]), "").expect("it is dropped");
    dead.put(&mut outside, &record(8, b"message"), "").expect("room");
    let mut reader = dead.reader().expect("letters are kept");
    let letter = dead.read(&mut outside, &mut reader).expect("the disk is well").expect("a letter");
    assert_eq!(letter.record.number, 8);
    assert!(reported.contains(&Reported::Dropped { messages: 7..8, why: Why::Dead }), "{reported:?}");
}

#[test]
fn a_letter_is_a_line_of_json_as_the_page_shows_it_and_in_base64_if_it_is_not_utf_8() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut dead = DeadLetters::open(&mut outside, "dead-", 1 << 20, 64).expect("an empty folder");
    let payload = b"<34>Oct 11 22:14:15 web su: failed";
    let message = Message { source: b"192.0.2.1:40000", received_millis: 1_795_860_000_123, payload };
    let why = "the sink answers 400: it refuses a message because of its contents: no date";
    dead.put(&mut outside, &Record { number: 17, message }, why).expect("room");
    dead.put(&mut outside, &record(18, b"\xFF\x00"), "no").expect("room");
    let (mut letters, mut reader) = DeadLetters::look(&mut outside, "dead-").expect("a log");
    let mut next = || {
        let letter = letters.read(&mut outside, &mut reader).expect("the disk is well").expect("a letter");
        serde_json::to_string(&letter.line("default/logs/syslog")).expect("JSON")
    };
    let first = next();
    assert!(PAGE.lines().any(|line| line == first), "docs/durable.md does not show {first}");
    let second = r#"{"listener":"default/logs/syslog","number":18,"receivedAt":"1970-01-01T00:00:00.005Z","client":"192.0.2.1","reason":"no","messageBase64":"/wA="}"#;
    assert_eq!(next(), second);
}
