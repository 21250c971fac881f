//! The cursor and dead letters.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;

use std::time::Duration;

use disk::{Disk, large};
use durable_core::send::{Progress, Verdict};
use durable_core::{DeadLetters, Log, Message, Now, Outside, Record};

const NOW: Now = Now { steady: Duration::ZERO, unix_millis: 0 };
const MESSAGE: Message<'static> = Message { source: b"192.0.2.1", received_millis: 5, payload: b"message" };

#[test]
fn the_cursor_passes_a_refused_message_when_its_dead_letter_is_synced_and_not_before() {
    let mut disk = Disk::new(1);
    let mut reported = Vec::new();
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let mut log = Log::open(&mut outside, "queue-", large()).expect("an empty folder");
    log.append(&mut outside, &[MESSAGE; 4]).expect("room");
    let mut dead = DeadLetters::open(&mut outside, "dead-", 1 << 20, 64).expect("an empty folder");
    let mut progress = Progress::new(log.cursor());
    let poison = Verdict::Poison { number: 1, reason: "422".to_owned() };
    progress.take(&mut vec![Verdict::Delivered { through: 0 }, poison, Verdict::Delivered { through: 3 }]);
    log.acknowledge(progress.cursor());
    assert_eq!((log.cursor(), progress.poison()), (1, Some((1, "422"))));

    disk.failing_syncs = 1;
    let mut outside = Outside { files: &mut disk, now: NOW, reported: &mut reported };
    let record = Record { number: 1, message: MESSAGE };
    dead.put(&mut outside, &record, "422").expect_err("the sync fails");
    log.acknowledge(progress.cursor());
    assert_eq!((log.cursor(), progress.poison()), (1, Some((1, "422"))));

    dead.put(&mut outside, &record, "422").expect("the disk is well");
    progress.put_aside();
    log.acknowledge(progress.cursor());
    assert_eq!((log.backlog(), progress.poison()), (0, None));
}

#[test]
fn after_a_break_a_refused_message_is_sent_again_before_those_behind_it() {
    let mut progress = Progress::new(5);
    let poison = Verdict::Poison { number: 6, reason: String::new() };
    progress.take(&mut vec![Verdict::Delivered { through: 5 }, poison, Verdict::Delivered { through: 9 }]);
    progress.broke();
    assert_eq!((progress.cursor(), progress.poison()), (6, None));
    progress.put_aside();
    assert_eq!(progress.cursor(), 6, "nothing waits");
}

#[test]
fn the_cursor_never_goes_back() {
    let mut progress = Progress::new(5);
    progress.take(&mut vec![Verdict::Delivered { through: 2 }]);
    assert_eq!(progress.cursor(), 5);
}
