//! Messages on their way to a sink: which come again, which it has, and how far the cursor is.

use durable_core::send::{Passage, Settled, Verdict};

fn delivered(through: u64) -> Verdict {
    Verdict::Delivered { through }
}

fn poison(number: u64) -> Verdict {
    Verdict::Poison { number, reason: "422".to_owned() }
}

/// Takes verdicts, puts all poison aside, and settles.
fn settle(passage: &mut Passage, verdicts: &[Verdict], owes: bool) -> Option<Settled> {
    passage.take(&mut verdicts.to_vec());
    while passage.poison().is_some() {
        passage.put_aside();
    }
    passage.settle(owes)
}

#[test]
fn the_cursor_moves_with_what_the_sink_has_and_is_given_once() {
    let mut passage = Passage::new(5);
    passage.read(5..9, 9);
    assert_eq!((passage.cursor(), passage.next()), (5, 9));
    assert_eq!(settle(&mut passage, &[], true), None);
    assert_eq!(settle(&mut passage, &[delivered(6)], true), Some(Settled { cursor: 7, delivered: 2 }));
    assert_eq!(settle(&mut passage, &[], true), None);
    assert_eq!(settle(&mut passage, &[delivered(8)], false), Some(Settled { cursor: 9, delivered: 2 }));
}

#[test]
fn what_is_put_aside_passes_the_cursor_and_is_not_delivered() {
    let mut passage = Passage::new(0);
    passage.read(0..4, 4);
    let verdicts = [delivered(0), poison(1), poison(2), delivered(3)];
    assert_eq!(settle(&mut passage, &verdicts, false), Some(Settled { cursor: 4, delivered: 2 }));
    passage.read(4..5, 5);
    let settled = settle(&mut passage, &[delivered(4)], false);
    assert_eq!(settled, Some(Settled { cursor: 5, delivered: 1 }), "the earlier ones count once");
}

#[test]
fn poison_that_cannot_be_put_aside_holds_the_cursor_though_the_sink_owes_nothing() {
    let mut passage = Passage::new(0);
    passage.read(0..3, 3);
    passage.take(&mut vec![delivered(0), poison(1), delivered(2)]);
    assert_eq!(passage.settle(false), Some(Settled { cursor: 1, delivered: 1 }));
    assert_eq!(passage.settle(false), None);
    assert_eq!(passage.poison(), Some((1, "422")));
    passage.put_aside();
    assert_eq!(passage.settle(false), Some(Settled { cursor: 3, delivered: 1 }));
}

#[test]
fn what_is_lost_is_passed_when_the_sink_owes_no_word_of_those_before_it() {
    let mut passage = Passage::new(0);
    passage.read([0, 1, 4], 7);
    assert_eq!(settle(&mut passage, &[delivered(1)], true), Some(Settled { cursor: 2, delivered: 2 }));
    assert_eq!(settle(&mut passage, &[delivered(4)], false), Some(Settled { cursor: 7, delivered: 1 }));
    passage.read([], 9);
    assert_eq!(settle(&mut passage, &[], true), None, "an answer may still come");
    assert_eq!(settle(&mut passage, &[], false), Some(Settled { cursor: 9, delivered: 0 }));
}

#[test]
fn messages_that_a_connection_had_come_again_on_the_next_one_and_are_counted() {
    let mut passage = Passage::new(0);
    passage.read(0..6, 6);
    assert_eq!(passage.sends(0..4), 0, "two of them are read, and not sent");
    assert_eq!(settle(&mut passage, &[delivered(1), poison(2)], true), Some(Settled { cursor: 3, delivered: 2 }));
    passage.take(&mut vec![poison(3)]);
    passage.start_over();
    assert_eq!((passage.poison(), passage.next()), (None, 3), "its verdict comes again");
    passage.read(3..8, 8);
    assert_eq!(passage.sends(3..8), 1);
    assert_eq!(settle(&mut passage, &[delivered(7)], false), Some(Settled { cursor: 8, delivered: 5 }));
}

#[test]
fn a_log_from_which_nothing_was_read_leaves_the_cursor_at_its_start() {
    for cursor in [0, 5] {
        let mut passage = Passage::new(cursor);
        assert_eq!((passage.settle(false), passage.cursor()), (None, cursor));
    }
}
