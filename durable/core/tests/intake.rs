//! Streams in every framing, cut at every byte; messages that are too long, and streams that lie.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use durable_core::intake::{Counts, Decoder, Framing, FramingError, Limits, Oversize, encode};
use proptest::prelude::*;

const ALL: [Framing; 6] =
    [Framing::Newline, Framing::Nul, Framing::OctetCounting, Framing::Syslog, Framing::Length2, Framing::Length4];

const WIDE: Limits = Limits { max_message_bytes: 64, oversize: Oversize::Truncate };

/// What a decoder makes of a connection.
type Outcome = (Vec<Vec<u8>>, Result<(), FramingError>, Counts);

fn decode<'a>(framing: Framing, limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(framing, limits);
    let mut messages = Vec::new();
    for piece in pieces {
        let fed = decoder.feed(piece, &mut messages);
        assert!(decoder.held() <= limits.max_message_bytes, "{} bytes are held", decoder.held());
        if fed.is_err() {
            return (messages, fed, decoder.counts());
        }
    }
    let ended = decoder.end(&mut messages);
    (messages, ended, decoder.counts())
}

/// The outcome, which is the same wherever the stream is cut.
fn decode_cut(framing: Framing, limits: Limits, bytes: &[u8]) -> Outcome {
    let whole = decode(framing, limits, [bytes]);
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(decode(framing, limits, [head, tail]), whole, "{framing:?}, cut at {at}");
    }
    assert_eq!(decode(framing, limits, bytes.chunks(1)), whole, "{framing:?}, byte by byte");
    whole
}

/// The messages of a stream without faults.
fn texts(framing: Framing, stream: &str) -> Vec<String> {
    let (messages, result, counts) = decode_cut(framing, WIDE, stream.as_bytes());
    assert_eq!((result, counts), (Ok(()), Counts::default()), "{framing:?} {stream:?}");
    messages.into_iter().map(|message| String::from_utf8(message).expect("text")).collect()
}

#[test]
fn the_bound_of_what_keeps_messages_lowers_that_of_a_connection_and_never_raises_it() {
    let within = |longest| WIDE.within(longest);
    let limits = |max_message_bytes| Limits { max_message_bytes, ..WIDE };
    assert_eq!([None, Some(10), Some(64), Some(65)].map(within), [64, 10, 64, 64].map(limits));
}

#[test]
fn a_line_has_no_return_or_nul_at_its_end_and_an_empty_one_is_no_message_as_in_syslog_ng() {
    let stream = "one\r\ntwo\n\n\r\nthree\0\nin\rside\nlast";
    assert_eq!(texts(Framing::Newline, stream), ["one", "two", "three", "in\rside", "last"]);
}

#[test]
fn a_nul_ends_a_message_that_may_have_lines() {
    assert_eq!(texts(Framing::Nul, "one\r\ntwo\r\n\0\0three"), ["one\r\ntwo\r\n", "three"]);
}

#[test]
fn a_counted_message_has_every_byte_that_was_counted() {
    assert_eq!(texts(Framing::OctetCounting, "5 hello13 hello\r\nworld\n"), ["hello", "hello\r\nworld\n"]);
}

#[test]
fn each_message_of_a_syslog_stream_may_have_a_count_or_a_newline() {
    let stream = "<13>a\r\n7 <13>b\nc<13>d\n\n5 <13>e\n<13>5 f";
    assert_eq!(texts(Framing::Syslog, stream), ["<13>a", "<13>b\nc", "<13>d", "<13>e", "<13>5 f"]);
}

#[test]
fn a_length_comes_before_its_message_which_may_be_empty() {
    assert_eq!(texts(Framing::Length2, "\0\u{2}hi\0\0\0\u{1}\n"), ["hi", "", "\n"]);
    assert_eq!(texts(Framing::Length4, "\0\0\0\u{2}hi\0\0\0\0\0\0\0\u{1}\n"), ["hi", "", "\n"]);
}

#[test]
fn a_message_over_the_bound_is_truncated_or_dropped_and_counted_and_the_next_one_is_whole() {
    for framing in ALL {
        let mut stream = Vec::new();
        for message in ["ends", "message", "next"] {
            encode(framing, message.as_bytes(), &mut stream).expect("every framing carries it");
        }
        let limits = Limits { max_message_bytes: 4, oversize: Oversize::Truncate };
        let (messages, result, counts) = decode_cut(framing, limits, &stream);
        assert_eq!((result, counts), (Ok(()), Counts { truncated: 1, dropped: 0 }), "{framing:?}");
        assert_eq!(messages, [b"ends", b"mess", b"next"], "{framing:?}");
        let limits = Limits { oversize: Oversize::Drop, ..limits };
        let (messages, result, counts) = decode_cut(framing, limits, &stream);
        assert_eq!((result, counts), (Ok(()), Counts { truncated: 0, dropped: 1 }), "{framing:?}");
        assert_eq!(messages, [b"ends", b"next"], "{framing:?}");
    }
}

#[test]
fn the_return_before_a_newline_does_not_make_a_message_too_long() {
    for oversize in [Oversize::Truncate, Oversize::Drop] {
        let limits = Limits { max_message_bytes: 4, oversize };
        let (messages, _, counts) = decode_cut(Framing::Newline, limits, b"four\r\0\r\n");
        assert_eq!((messages, counts), (vec![b"four".to_vec()], Counts::default()));
    }
    let limits = Limits { max_message_bytes: 4, oversize: Oversize::Truncate };
    let (messages, _, counts) = decode_cut(Framing::Newline, limits, b"four\r!\n");
    assert_eq!((messages, counts.truncated), (vec![b"four".to_vec()], 1), "a return within");
}

#[test]
fn a_message_without_an_end_is_kept_up_to_the_bound_only() {
    for (framing, start) in [(Framing::Newline, ""), (Framing::Nul, ""), (Framing::Syslog, "1000000 ")] {
        for (oversize, held) in [(Oversize::Truncate, 100), (Oversize::Drop, 0)] {
            let mut decoder = Decoder::new(framing, Limits { max_message_bytes: 100, oversize });
            let mut messages = Vec::new();
            decoder.feed(start.as_bytes(), &mut messages).expect("the start");
            for _ in 0..10_000 {
                decoder.feed(&[b'x'; 77], &mut messages).expect("more of the message");
                assert!(decoder.held() <= 100 && messages.is_empty());
            }
            assert_eq!(decoder.held(), held, "{framing:?} {oversize:?}");
        }
    }
}

/// Streams that lie, with what is read before the lie and the message for the owner.
const LIES: [(Framing, &str, &[&str], &str); 13] = [
    (
        Framing::OctetCounting,
        "-5 hello",
        &[],
        "a message starts with '-' and not with the count of its octets: set `framing` to Syslog or Newline, or have \
         the sender count octets, including a newline at the end",
    ),
    (
        Framing::OctetCounting,
        "5 hello\n5 hello",
        &["hello"],
        "a message starts with '\\n' and not with the count of its octets: set `framing` to Syslog or Newline, or have \
         the sender count octets, including a newline at the end",
    ),
    (
        Framing::OctetCounting,
        "<13>hello\n",
        &[],
        "a message starts with '<' and not with the count of its octets: set `framing` to Syslog or Newline, or have \
         the sender count octets, including a newline at the end",
    ),
    (
        Framing::OctetCounting,
        "5 hello05 hello",
        &["hello"],
        "a count of octets starts with 0: have the sender write it without zeros, and send no empty messages",
    ),
    (
        Framing::Syslog,
        "<1>a\n0 ",
        &["<1>a"],
        "a count of octets starts with 0: have the sender write it without zeros, and send no empty messages",
    ),
    (
        Framing::Syslog,
        "5x hello",
        &[],
        "a count of octets ends with 'x' and not with a space: have the sender write one, or set `framing` to Newline \
         if its messages start with digits",
    ),
    (
        Framing::OctetCounting,
        "16777216 x",
        &[],
        "a message announces a length of 16777216 bytes or more, and the maximum is 16777215: set `framing` to the one \
         that the sender uses",
    ),
    (
        Framing::Syslog,
        "99999999999999999999999999999999 x",
        &[],
        "a message announces a length of 99999999 bytes or more, and the maximum is 16777215: set `framing` to the one \
         that the sender uses",
    ),
    (
        Framing::Length4,
        "GET / HTTP/1.1",
        &[],
        "a message announces a length of 1195725856 bytes or more, and the maximum is 16777215: set `framing` to the \
         one that the sender uses",
    ),
    (
        Framing::Syslog,
        "5 hello9 hello",
        &["hello"],
        "the connection ended after 5 of the 9 bytes of a message: find out why the sender disconnected",
    ),
    (
        Framing::Length2,
        "\0\u{9}hello",
        &[],
        "the connection ended after 5 of the 9 bytes of a message: find out why the sender disconnected",
    ),
    (
        Framing::OctetCounting,
        "5 hello12",
        &["hello"],
        "the connection ended within the length of a message: find out why the sender disconnected",
    ),
    (
        Framing::Length4,
        "\0\0\0\u{5}hello\0\0\0",
        &["hello"],
        "the connection ended within the length of a message: find out why the sender disconnected",
    ),
];

#[test]
fn a_stream_that_lies_is_refused_with_words_and_the_messages_before_the_lie_are_read() {
    for (framing, stream, before, words) in LIES {
        let (messages, result, _) = decode_cut(framing, WIDE, stream.as_bytes());
        assert_eq!(result.expect_err(stream).to_string(), words, "{framing:?} {stream:?}");
        let before: Vec<Vec<u8>> = before.iter().map(|text| text.as_bytes().to_vec()).collect();
        assert_eq!(messages, before, "{framing:?} {stream:?}");
    }
}

#[test]
fn a_stream_is_not_read_on_after_an_error() {
    let mut decoder = Decoder::new(Framing::OctetCounting, WIDE);
    let mut messages = Vec::new();
    let error = decoder.feed(b"x", &mut messages).expect_err("no count");
    assert_eq!(decoder.feed(b"5 hello", &mut messages), Err(error));
    assert_eq!(decoder.end(&mut messages), Err(error));
    assert!(messages.is_empty());
}

#[test]
fn a_message_that_a_framing_cannot_carry_is_refused_with_words_and_nothing_is_written() {
    let long = "x".repeat(65_536);
    let empty = "a message is empty, and receivers skip empty messages in this framing: send with Length2 or Length4";
    for (framing, message, words) in [
        (
            Framing::Newline,
            "a\nb",
            "a message contains '\\n', which would end it: send with the framing OctetCounting or Length4",
        ),
        (
            Framing::Nul,
            "a\0",
            "a message contains '\\0', which would end it: send with the framing OctetCounting or Length4",
        ),
        (Framing::Newline, "", empty),
        (Framing::Nul, "", empty),
        (Framing::OctetCounting, "", empty),
        (Framing::Syslog, "", empty),
        (
            Framing::Length2,
            long.as_str(),
            "a message of 65536 bytes is longer than 65535, the maximum in this framing: send with another framing, or \
             lower `maxMessageBytes`",
        ),
    ] {
        let mut out = b"before".to_vec();
        let error = encode(framing, message.as_bytes(), &mut out).expect_err(words);
        assert_eq!((error.to_string().as_str(), out.as_slice()), (words, &b"before"[..]), "{framing:?}");
    }
}

/// Bytes that often mean something to a framing.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(b"0123459  \r\n\0<>ab".to_vec());
    prop::collection::vec(prop_oneof![9 => telling, 1 => any::<u8>()], 0..40)
}

/// What is left of a message that was written and read: a line loses its end.
fn read_as(framing: Framing, message: &[u8]) -> Option<Vec<u8>> {
    if framing != Framing::Newline {
        return Some(message.to_vec());
    }
    let last = message.iter().rposition(|byte| !matches!(byte, b'\r' | 0))?;
    Some(message[..=last].to_vec())
}

proptest! {
    #[test]
    fn any_stream_has_the_same_outcome_wherever_it_is_cut(
        framing in prop::sample::select(ALL.to_vec()),
        max_message_bytes in 0_usize..12,
        drops: bool,
        stream in bytes(),
    ) {
        let oversize = if drops { Oversize::Drop } else { Oversize::Truncate };
        let (messages, _, counts) = decode_cut(framing, Limits { max_message_bytes, oversize }, &stream);
        prop_assert!(messages.iter().all(|message| message.len() <= max_message_bytes));
        prop_assert_eq!(if drops { counts.truncated } else { counts.dropped }, 0);
    }

    #[test]
    fn what_is_written_in_a_framing_is_read_in_it(
        framing in prop::sample::select(ALL.to_vec()),
        messages in prop::collection::vec(bytes(), 0..6),
        piece in 1_usize..50,
    ) {
        let mut stream = Vec::new();
        let mut written = Vec::new();
        for message in messages {
            if encode(framing, &message, &mut stream).is_ok() {
                written.extend(read_as(framing, &message));
            }
        }
        let (read, result, counts) = decode(framing, WIDE, stream.chunks(piece));
        prop_assert_eq!((read, result, counts), (written, Ok(()), Counts::default()));
    }
}
