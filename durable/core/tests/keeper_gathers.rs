//! For how long a keeper lets messages gather before it writes them together.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod disk;
mod keeping;

use std::time::Duration;

use durable_core::keeper::KeeperSettings;
use keeping::{Keeping, settings};

#[test]
fn messages_gather_for_a_while_after_the_beginning_of_a_turn_that_wrote_some() {
    let mut keeping = Keeping::new(settings());
    assert_eq!(keeping.pause(), None);
    keeping.append(0, false);
    keeping.turn();
    assert_eq!(keeping.pause(), Some(20));
    keeping.wait(15);
    keeping.turn();
    assert_eq!(keeping.pause(), Some(5), "a turn that writes nothing begins no pause");
    keeping.append(1, false);
    keeping.turn();
    assert_eq!(keeping.pause(), Some(20));
    keeping.wait(20);
    keeping.world.disk.takes = Duration::from_millis(5);
    keeping.append(2, true);
    keeping.turn();
    assert_eq!(keeping.pause(), Some(5), "a write and the syncs of a file and its name took the rest");
}

#[test]
fn messages_gather_no_longer_than_until_something_is_due() {
    let mut keeping = Keeping::new(KeeperSettings { gather: Duration::from_secs(3600), ..settings() });
    keeping.append(0, false);
    keeping.turn();
    assert_eq!((keeping.pause(), keeping.due()), (Some(500), Some(500)), "a sync");
}
