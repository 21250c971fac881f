//! Questions to name servers, and what a message says of them. What glibc 2.36 makes of the same messages is the
//! expected value.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;
use proxy::core::resolution::dns::{
    answer::{Answer, Family},
    exchange::{Judgement, Question, Via},
    wire::{Reader, WireName},
};

const ID: u16 = 0x1234;
/// Response, recursion desired and available.
const USUAL: u16 = 0x8180;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RA: u16 = 0x0080;
/// The name of the question, as a pointer.
const ASKED: &[u8] = &[0xc0, 12];

fn question(family: Family) -> Question {
    Question::new("a.Test.", family, false).expect("a name")
}

/// A message with these bits and records, and more bytes behind them.
fn message(bits: u16, records: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("few");
    let header = [ID, bits, 1, count, 0, 0].map(u16::to_be_bytes).concat();
    [&header[..], b"\x01a\x04test\x00\x00\x01\x00\x01", &records.concat(), rest].concat()
}

fn record(owner: &[u8], kind: u8, ttl: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).expect("short");
    [owner, &[0, kind, 0, 1, 0, 0, 0, ttl, 0, length], data].concat()
}

fn a(last: u8) -> Vec<u8> {
    record(ASKED, 1, 60, &[192, 0, 2, last])
}

fn judge(message: &[u8], via: Via) -> Judgement {
    question(Family::Four).judge(ID, message, via)
}

/// What the records of an answer say, over TCP.
fn said(records: &[Vec<u8>]) -> Answer {
    match judge(&message(USUAL, records, b""), Via::Tcp) {
        Judgement::Definite(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn found(lasts: &[u8], ttl: u64) -> Answer {
    let ips = lasts.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
    Answer::Addresses { ips, ttl: Duration::from_secs(ttl) }
}

#[test]
fn a_question_is_a_message_with_the_name_in_its_labels() {
    let name = b"\x01a\x04test\x00";
    let start: [u8; 11] = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0];
    let four = [&start[..], &[0], name, &[0, 1, 0, 1]].concat();
    assert_eq!(question(Family::Four).encode(ID), four);
    let edns = Question::new("a.test", Family::Six, true).expect("a name").encode(ID);
    assert_eq!(edns, [&start[..], &[1], name, &[0, 28, 0, 1], &[0, 0, 41, 4, 0xb0, 0, 0, 0, 0, 0, 0]].concat());
    for text in ["", ".", "a..b", ".a", &"a".repeat(64), &["a"; 128].join("."), "caf\u{e9}.test", "a b.test", "a\\.b"] {
        assert!(Question::new(text, Family::Four, false).is_none(), "{text}");
    }
    assert!(Question::new(&["a"; 127].join("."), Family::Four, false).is_some());
}

#[test]
fn only_a_message_with_the_id_and_the_question_is_an_answer() {
    let good = message(USUAL, &[a(1)], b"");
    for via in [Via::Udp, Via::Tcp] {
        assert_eq!(judge(&good, via), Judgement::Definite(found(&[1], 60)));
        // The id, the number of questions, a letter of the name, the type and the class.
        for at in [0, 1, 5, 13, 20, 22] {
            let mut other = good.clone();
            other[at] ^= 1;
            assert_eq!(judge(&other, via), Judgement::Ignored, "byte {at}");
        }
        for end in 0..24 {
            assert_eq!(judge(&good[..end], via), Judgement::Ignored, "{end} bytes");
        }
    }
    let mut upper = good;
    upper[15] = b'T';
    assert_eq!(judge(&upper, Via::Udp), Judgement::Definite(found(&[1], 60)));
}

#[test]
fn a_server_that_fails_or_knows_nothing_is_passed_over_and_another_error_is_definite() {
    let of = |bits: u16| judge(&message(bits, &[], b""), Via::Udp);
    for (code, is_servfail) in [(2, true), (4, false), (5, false)] {
        let judged = of(USUAL | code);
        let Judgement::NextServer(Answer::Failed { is_servfail: it, .. }) = judged else { panic!("{judged:?}") };
        assert_eq!(it, is_servfail, "code {code}");
    }
    for code in [1, 6, 9, 15] {
        let judged = of(USUAL | code);
        assert!(matches!(judged, Judgement::Definite(Answer::Failed { is_servfail: false, .. })), "{code}: {judged:?}");
    }
    assert_eq!(of(USUAL | 3), Judgement::Definite(Answer::NxDomain));
    // Neither AA nor RA, be it cut or not.
    for bits in [0x8000, 0x8100, 0x8000 | TC] {
        assert!(matches!(of(bits), Judgement::NextServer(Answer::Failed { is_servfail: false, .. })), "{bits:x}");
    }
    assert_eq!(of(0x8000 | RA), Judgement::Definite(Answer::NoData));
    assert_eq!(of(0x8000 | AA), Judgement::Definite(Answer::NoData));
    // A record beside the answer.
    let mut beside = message(0x8000, &[], &a(9));
    beside[11] = 1;
    assert_eq!(judge(&beside, Via::Udp), Judgement::Definite(Answer::NoData));
}

#[test]
fn an_error_of_a_name_server_is_told_by_its_name_if_it_is_a_usual_one() {
    let why = |code: u16| match judge(&message(USUAL | code, &[], b""), Via::Udp) {
        Judgement::NextServer(Answer::Failed { why, .. }) | Judgement::Definite(Answer::Failed { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    for (code, name) in [(1, "FORMERR"), (2, "SERVFAIL"), (4, "NOTIMP"), (5, "REFUSED")] {
        assert_eq!(why(code), format!("the name server answered {name}"));
    }
    assert_eq!(why(9), "the name server answered with error 9");
}

#[test]
fn records_of_a_name_that_does_not_exist_do_not_count() {
    assert_eq!(judge(&message(USUAL | 3, &[a(1)], b""), Via::Udp), Judgement::Definite(Answer::NxDomain));
}

#[test]
fn a_datagram_that_was_cut_or_cannot_be_read_is_asked_for_again_over_tcp() {
    assert_eq!(judge(&message(USUAL | TC, &[a(1)], b""), Via::Udp), Judgement::OverTcp);
    assert_eq!(judge(&message(USUAL | TC, &[a(1)], b""), Via::Tcp), Judgement::Definite(found(&[1], 60)));
    let whole = message(USUAL, &[a(1), a(2)], b"");
    for end in 24..whole.len() {
        assert_eq!(judge(&whole[..end], Via::Udp), Judgement::OverTcp, "{end} bytes");
        let judged = judge(&whole[..end], Via::Tcp);
        assert!(matches!(judged, Judgement::Definite(Answer::Malformed { .. })), "{end} bytes: {judged:?}");
    }
    // Only the answer section is read.
    assert_eq!(judge(&message(USUAL, &[a(1)], &[0xc0]), Via::Udp), Judgement::Definite(found(&[1], 60)));
}

#[test]
fn an_address_of_a_wrong_length_is_passed_over() {
    let odd = |length: usize| record(ASKED, 1, 1, &[192, 0, 2, 66, 0][..length]);
    for length in [0, 3, 5] {
        assert_eq!(said(&[odd(length), a(1)]), found(&[1], 60));
        assert_eq!(said(&[a(1), odd(length)]), found(&[1], 60));
        assert_eq!(said(&[odd(length)]), Answer::OtherRecords);
    }
    let text = record(ASKED, 16, 1, &[0xff]);
    assert_eq!(said(&[text, a(1)]), found(&[1], 60));
}

#[test]
fn a_family_has_only_its_own_addresses() {
    let six = record(ASKED, 28, 60, &[0x20; 16]);
    assert_eq!(said(std::slice::from_ref(&six)), Answer::OtherRecords);
    let mut message = message(USUAL, &[a(1), six], b"");
    message[21] = 28;
    let ips = vec![IpAddr::from([0x20; 16])];
    let answer = Answer::Addresses { ips, ttl: Duration::from_secs(60) };
    assert_eq!(question(Family::Six).judge(ID, &message, Via::Udp), Judgement::Definite(answer));
}

#[test]
fn names_in_an_answer_may_have_any_bytes() {
    for odd in [&b"\x05a\r\n b\x04test\x00"[..], b"\x03a\0b\x04test\x00", b"\x01.\x04test\x00", b"\x02\xff\\\x00"] {
        let records = [record(ASKED, 5, 30, odd), record(odd, 1, 60, &[192, 0, 2, 1])];
        assert_eq!(said(&records), found(&[1], 30), "{odd:?}");
        assert_eq!(said(&[record(odd, 1, 60, &[192, 0, 2, 66]), a(2)]), found(&[2], 60), "{odd:?}");
    }
}

#[test]
fn aliases_count_as_glibc_counts_them_and_in_any_order() {
    let b = b"\x01b\x04test\x00";
    let to_b = |owner: &[u8]| record(owner, 5, 30, b);
    let of_b = record(b, 1, 60, &[192, 0, 2, 2]);
    // Where glibc finds addresses, they are the same.
    assert_eq!(said(&[to_b(ASKED), of_b.clone()]), found(&[2], 30));
    assert_eq!(said(&[a(1), to_b(ASKED), of_b.clone(), a(3)]), found(&[1, 2], 30));
    assert_eq!(said(&[to_b(b"\x01x\x00"), of_b.clone()]), found(&[2], 30));
    assert_eq!(said(&[record(ASKED, 5, 30, ASKED), a(2)]), found(&[2], 30));
    // Where it finds none.
    assert_eq!(said(&[of_b, to_b(ASKED)]), found(&[2], 30));
    assert_eq!(said(&[to_b(ASKED)]), Answer::OtherRecords);
}

#[test]
fn a_name_without_an_end_is_malformed() {
    // Label types that do not exist, a pointer beyond the message, and a pointer to itself.
    let owners: [&[u8]; 4] = [b"\x40a\x00", b"\x80a\x00", &[0xff, 0xff], &[0xc0, 24]];
    for owner in owners {
        let bytes = message(USUAL, &[record(owner, 1, 60, &[192, 0, 2, 1])], b"");
        assert_eq!(judge(&bytes, Via::Udp), Judgement::OverTcp, "{owner:?}");
    }
    assert!(matches!(said(&[record(ASKED, 5, 30, &[0xc0, 0xff]), a(1)]), Answer::Malformed { .. }));
    // 255 bytes with the zero at the end, and 256.
    let name = |last: usize| {
        let label = |length: usize| [vec![u8::try_from(length).expect("short")], vec![b'a'; length]].concat();
        [label(63), label(63), label(63), label(last), vec![0]].concat()
    };
    assert!(Reader::new(&name(61)).name().is_some());
    assert!(Reader::new(&name(62)).name().is_none());
}

proptest! {
    #[test]
    fn whatever_follows_the_question_is_read_within_bounds(
        count in 0_u16..40,
        code in 0_u16..16,
        rest in proptest::collection::vec(any::<u8>(), 0..400),
        is_tcp in any::<bool>(),
    ) {
        let mut bytes = message(USUAL | code, &[], &rest);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        let via = if is_tcp { Via::Tcp } else { Via::Udp };
        match judge(&bytes, via) {
            Judgement::Definite(Answer::Addresses { ips, .. }) => prop_assert!(ips.len() <= usize::from(count)),
            Judgement::OverTcp => prop_assert!(!is_tcp),
            Judgement::Ignored => return Err(TestCaseError::fail("the question is repeated")),
            Judgement::Definite(_) | Judgement::NextServer(_) => {}
        }
    }

    #[test]
    fn a_name_that_was_written_is_read_as_the_same(labels in proptest::collection::vec("[a-zA-Z0-9_*-]{1,40}", 1..6)) {
        let name = WireName::of(&labels.join(".")).expect("a name");
        let bytes = [name.as_bytes(), &[0]].concat();
        prop_assert_eq!(Reader::new(&bytes).name(), Some(name.clone()));
        // The same name behind a pointer to it.
        let pointed = [&[0xc0, 2][..], name.as_bytes(), &[0]].concat();
        prop_assert_eq!(Reader::new(&pointed).name(), Some(name));
    }
}
