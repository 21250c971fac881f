//! Trains of datagrams: boundaries, bounds, and what happens if the system takes no train.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use proptest::prelude::*;
use proxy::core::udp::trains::{
    Datagram, MAX_BYTES, MAX_DATAGRAMS, Sent, Stop, Trains, join, pass, segment, split, train,
};

/// Datagrams of these sizes, each in a slot of its own as they are received.
fn received(sizes: &[usize]) -> Vec<Datagram> {
    sizes.iter().enumerate().map(|(slot, len)| Datagram { at: slot * 65_536, len: *len }).collect()
}

fn sizes(datagrams: &[Datagram]) -> Vec<usize> {
    datagrams.iter().map(|datagram| datagram.len).collect()
}

/// The sizes of each call that sends `datagrams`; the system takes trains of datagrams of `most` bytes.
fn calls(datagrams: &[Datagram], trains: Option<&Trains>, most: usize) -> Vec<Vec<usize>> {
    let mut calls = Vec::new();
    let sent = pass(datagrams, trains, |train| {
        if train.len() > 1 && train[0].len > most {
            return Sent::<()>::Refused;
        }
        calls.push(sizes(train));
        Sent::Done
    });
    assert_eq!(sent, Ok(()));
    calls
}

#[test]
fn a_received_train_splits_at_its_stride_and_an_empty_datagram_is_one() {
    for (len, stride, expected) in [
        (0, 0, vec![0]),
        (5, 0, vec![5]),
        (0, 7, vec![0]),
        (7, 7, vec![7]),
        (7, 100, vec![7]),
        (300, 100, vec![100, 100, 100]),
        (250, 100, vec![100, 100, 50]),
        (65_507, 65_507, vec![65_507]),
    ] {
        let parts: Vec<Datagram> = split(1000, len, stride).collect();
        assert_eq!(sizes(&parts), expected, "{len} {stride}");
        assert_eq!(parts.first().map(|part| part.at), Some(1000));
    }
}

#[test]
fn a_train_has_one_size_and_may_end_with_a_shorter_datagram() {
    for (sizes, expected) in [
        (vec![], 0),
        (vec![64], 1),
        (vec![0, 0, 0], 1),
        (vec![64, 64, 64], 3),
        (vec![64, 64, 10, 64], 3),
        (vec![64, 64, 65], 2),
        (vec![64, 0, 64], 1),
        (vec![10, 64], 1),
        (vec![1200; 100], 54),
        (vec![1; 100], MAX_DATAGRAMS),
        (vec![65_507], 1),
        (vec![33_000, 33_000], 1),
    ] {
        assert_eq!(train(&received(&sizes), usize::MAX), expected, "{sizes:?}");
    }
    assert_eq!(segment(&received(&[64, 64, 10])), Some(64));
    assert_eq!(segment(&received(&[64])), None, "alone");
}

#[test]
fn datagrams_that_are_apart_are_copied_and_others_are_not() {
    let bytes = b"..abcd..ef..";
    let mut scratch = [0; 8];
    let together = [Datagram { at: 2, len: 2 }, Datagram { at: 4, len: 2 }];
    assert_eq!(join(bytes, &together, &mut scratch), b"abcd");
    let apart = [Datagram { at: 2, len: 2 }, Datagram { at: 8, len: 2 }];
    assert_eq!(join(bytes, &apart, &mut scratch), b"abef");
    assert_eq!(scratch, *b"abef\0\0\0\0", "only the second one needed it");
    assert_eq!(join(bytes, &[], &mut scratch), b"");
}

#[test]
fn the_datagrams_of_a_refused_train_are_sent_alone_and_no_such_train_is_tried_again() {
    let trains = Trains::default();
    let first = calls(&received(&[1400, 1400, 100, 64, 64]), Some(&trains), 1000);
    assert_eq!(first, [vec![1400], vec![1400], vec![100, 64], vec![64]]);
    let mut tried = 0;
    let sent = pass(&received(&[1500, 1500, 1400, 1400]), Some(&trains), |train| {
        tried += usize::from(train.len() > 1);
        Sent::<()>::Done
    });
    assert_eq!((sent, tried), (Ok(()), 0));
}

#[test]
fn without_trains_each_datagram_is_sent_alone() {
    assert_eq!(calls(&received(&[64, 64, 64]), None, usize::MAX), [[64], [64], [64]]);
}

#[test]
fn what_stops_the_flow_leaves_the_rest_unsent() {
    let datagrams = received(&[9, 64, 64, 64, 70]);
    let stopped = pass(&datagrams, Some(&Trains::default()), |train| match train.len() {
        1 => Sent::Done,
        _ => Sent::Stopped("closed"),
    });
    assert_eq!(stopped, Err(Stop { from: 1, count: 3, why: "closed" }));
}

proptest! {
    #[test]
    fn every_datagram_is_sent_once_in_its_order_with_its_own_size(
        sizes in proptest::collection::vec(
            prop_oneof![Just(0_usize), Just(64_usize), Just(1200_usize), 0_usize..2000, 30_000_usize..65_508],
            0..150,
        ),
        most in 0_usize..3000,
    ) {
        let calls = calls(&received(&sizes), Some(&Trains::default()), most);
        for call in &calls {
            let fits = call.len() <= MAX_DATAGRAMS && call.iter().sum::<usize>() <= MAX_BYTES;
            prop_assert!(call.len() == 1 || fits);
            // The system parts a train at the size of its first datagram.
            let parted: Vec<usize> = split(0, call.iter().sum(), call[0]).map(|part| part.len).collect();
            prop_assert_eq!(call, &parted);
        }
        prop_assert_eq!(calls.concat(), sizes);
    }
}

#[test]
fn a_train_has_65000_bytes_at_most_and_datagrams_of_the_largest_size_at_most() {
    assert_eq!(train(&received(&[32_500, 32_500]), usize::MAX), 2);
    assert_eq!(train(&received(&[32_501, 32_500]), usize::MAX), 1);
    assert_eq!([64, 63].map(|largest| train(&received(&[64, 64]), largest)), [2, 1]);
}
