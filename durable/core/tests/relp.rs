//! RELP: sessions as librelp has them, the order of answers, and clients that lie, cut at every byte.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use durable_core::intake::relp::{Received, Server, Violation, WINDOW};
use durable_core::intake::{Counts, Limits, Oversize};
use proptest::prelude::*;

const WIDE: Limits = Limits { max_message_bytes: 64, oversize: Oversize::Truncate };
const OPENED: &str = "200 OK\nrelp_version=0\nrelp_software=portlane\ncommands=syslog";
const GOING: &str = "0 serverclose 0\n";

/// What a server makes of a connection.
#[derive(Debug, PartialEq)]
struct Seen {
    received: Vec<Received>,
    out: String,
    result: Result<(), Violation>,
    counts: Counts,
    closed: bool,
}

/// Feeds all, and answers all messages at the end, the last one first.
fn serve<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut server = Server::new(limits);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    for piece in pieces {
        result = server.feed(piece, &mut received, &mut out);
        assert!(server.held() <= limits.max_message_bytes.max(4096), "{} bytes are held", server.held());
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| server.end());
    for message in received.iter().rev() {
        server.answer(message.transaction, &mut out);
    }
    let out = String::from_utf8(out).expect("text");
    Seen { received, out, result, counts: server.counts(), closed: server.is_closed() }
}

/// What is seen, which is the same wherever the stream is cut.
fn serve_cut(limits: Limits, bytes: &[u8]) -> Seen {
    let whole = serve(limits, [bytes]);
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(serve(limits, [head, tail]), whole, "cut at {at}");
    }
    assert_eq!(serve(limits, bytes.chunks(1)), whole, "byte by byte");
    whole
}

fn frame(number: u32, command: &str, data: &str) -> String {
    let space = if data.is_empty() { "" } else { " " };
    format!("{number} {command} {}{space}{data}\n", data.len())
}

fn payloads(seen: &Seen) -> Vec<&[u8]> {
    seen.received.iter().map(|message| message.payload.as_slice()).collect()
}

#[test]
fn a_session_of_librelp_is_opened_answered_and_closed() {
    let offers = "relp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog";
    let stream =
        [frame(1, "open", offers), frame(2, "syslog", "<13>one\ntwo"), frame(3, "syslog", ""), frame(4, "close", "")];
    let seen = serve_cut(WIDE, stream.concat().as_bytes());
    assert_eq!(seen.result, Ok(()));
    assert_eq!(payloads(&seen), [&b"<13>one\ntwo"[..], b""]);
    let answers =
        [frame(1, "rsp", OPENED), frame(2, "rsp", "200 OK"), frame(3, "rsp", "200 OK"), frame(4, "rsp", "200 OK")];
    assert_eq!((seen.out, seen.closed), (answers.concat(), true));
}

#[test]
fn answers_wait_for_those_of_earlier_transactions_and_the_close_for_all() {
    let mut server = Server::new(WIDE);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let stream = "1 open 0\n2 syslog 1 a\n3 syslog 1 b\n4 close 0\n";
    assert_eq!(server.feed(stream.as_bytes(), &mut received, &mut out), Ok(()));
    out.clear();
    server.answer(3, &mut out);
    assert_eq!((out.as_slice(), server.is_closed()), (&b""[..], false));
    server.answer(7, &mut out);
    assert_eq!((out.as_slice(), server.is_closed()), (&b""[..], false), "no such transaction");
    server.answer(2, &mut out);
    assert_eq!(out, b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 6 200 OK\n");
    assert!(server.is_closed());
}

#[test]
fn the_version_is_the_lower_one_and_unknown_offers_are_ignored() {
    for (offers, version) in [
        ("", 0),
        ("relp_version=0", 0),
        ("\nrelp_version=1\ncommands=eventlog,syslog", 1),
        ("commands=syslog\nrelp_version=7\ncolour=blue,green\nflag", 1),
    ] {
        let seen = serve_cut(WIDE, frame(1, "open", offers).as_bytes());
        let opened = OPENED.replace("version=0", &format!("version={version}"));
        assert_eq!((seen.result, seen.out), (Ok(()), frame(1, "rsp", &opened)), "{offers:?}");
    }
}

#[test]
fn zeros_before_a_number_are_read_as_librelp_reads_them() {
    let seen = serve_cut(WIDE, b"01 open 00\n000000002 syslog 0003 abc\n");
    assert_eq!((seen.result.clone(), payloads(&seen)), (Ok(()), vec![&b"abc"[..]]));
}

#[test]
fn a_hint_has_no_answer_and_no_effect() {
    let seen = serve_cut(WIDE, b"0 hello 3 abc\n1 open 0\n0 starttls 0\n2 syslog 1 a\n");
    assert_eq!((seen.result.clone(), payloads(&seen)), (Ok(()), vec![&b"a"[..]]));
    assert_eq!(seen.out, frame(1, "rsp", OPENED) + &frame(2, "rsp", "200 OK"));
}

#[test]
fn a_message_over_the_bound_is_truncated_or_dropped_and_answered_in_both_cases() {
    let stream = b"1 open 0\n2 syslog 1 a\n3 syslog 7 message\n4 syslog 1 b\n";
    let answers: String = (2..=4).map(|number| frame(number, "rsp", "200 OK")).collect();
    let answers = frame(1, "rsp", OPENED) + &answers;
    let limits = Limits { max_message_bytes: 4, oversize: Oversize::Truncate };
    let seen = serve_cut(limits, stream);
    assert_eq!(payloads(&seen), [&b"a"[..], b"mess", b"b"]);
    assert_eq!((seen.counts, seen.out), (Counts { truncated: 1, dropped: 0 }, answers.clone()));
    let seen = serve_cut(Limits { oversize: Oversize::Drop, ..limits }, stream);
    assert_eq!(payloads(&seen), [b"a", b"b"]);
    assert_eq!((seen.counts, seen.out), (Counts { truncated: 0, dropped: 1 }, answers));
}

#[test]
fn a_server_is_full_while_a_window_of_transactions_has_no_answer() {
    let mut server = Server::new(WIDE);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    server.feed(b"1 open 0\n", &mut received, &mut out).expect("open");
    for number in (2_u32..).take(WINDOW) {
        assert!(!server.is_full(), "before {number}");
        server.feed(frame(number, "syslog", "a").as_bytes(), &mut received, &mut out).expect("a message");
    }
    assert!(server.is_full());
    server.answer(2, &mut out);
    assert!(!server.is_full());
}

#[test]
fn a_server_that_goes_says_so_unless_the_client_has_closed() {
    let mut server = Server::new(WIDE);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    server.hint_close(&mut out);
    assert_eq!(out, GOING.as_bytes());
    server.feed(b"1 open 0\n2 close 0\n", &mut received, &mut out).expect("a session");
    out.clear();
    server.hint_close(&mut out);
    assert!(out.is_empty() && server.is_closed());
}

#[test]
fn a_server_reads_nothing_after_a_violation_and_still_answers_what_was_kept() {
    let mut server = Server::new(WIDE);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    server.feed(b"1 open 0\n2 syslog 1 a\n", &mut received, &mut out).expect("a session");
    let violation = server.feed(b"x", &mut received, &mut out).expect_err("no number");
    out.clear();
    assert_eq!(server.feed(b"3 syslog 1 b\n", &mut received, &mut out), Err(violation.clone()));
    assert_eq!(server.end(), Err(violation));
    assert_eq!((received.len(), out.len()), (1, 0));
    server.answer(2, &mut out);
    assert_eq!(out, b"2 rsp 6 200 OK\n0 serverclose 0\n");
}

#[test]
fn a_client_hears_of_its_violation_behind_the_answers_to_what_it_sent_before() {
    let mut server = Server::new(WIDE);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    server.feed(b"1 open 0\n", &mut received, &mut out).expect("a session");
    out.clear();
    let stream = b"2 syslog 1 a\n3 syslog 1 b\n4 starttls 0\n";
    assert_eq!(server.feed(stream, &mut received, &mut out), Err(Violation::StartTls));
    assert_eq!(out, b"", "it would read no answers, and send both messages again");
    server.answer(2, &mut out);
    server.answer(3, &mut out);
    let refused = frame(4, "rsp", "500 TLS is not offered");
    assert_eq!(String::from_utf8(out).expect("text"), format!("2 rsp 6 200 OK\n3 rsp 6 200 OK\n{refused}{GOING}"));
}

const NO_NUMBER: &str = "and not with the number of a transaction: have the sender speak RELP, without TLS, or set \
                         `framing` to the one that the sender uses";
const BAD_LENGTH: &str = "in its length, where digits belong, then a space, or a newline after 0: update the sender";
const BAD_ORDER: &str = "instead of 2: update the sender, and check that nothing on the way changes the stream";

/// What a client says after `open`, and the message for its owner.
fn lies() -> Vec<(&'static str, String)> {
    let command = "in its command, where 1 to 32 letters and a space belong: update the sender";
    let end = "where its newline belongs, so its length is wrong: update the sender";
    let digits = "a RELP frame has a number of more than 9 digits: see whether the sender is a client of RELP";
    let cut = "the connection ended within a RELP frame: find out why the sender disconnected; it resends what was not \
               acknowledged";
    let long = "bytes of data, and the maximum is";
    vec![
        ("hello", format!("a RELP frame starts with 'h' {NO_NUMBER}")),
        ("-2 syslog 2 hi\n", format!("a RELP frame starts with '-' {NO_NUMBER}")),
        ("\u{16}\u{3}\u{1}", format!("a RELP frame starts with '\\u{{16}}' {NO_NUMBER}")),
        ("\n2 syslog 2 hi\n", format!("a RELP frame starts with '\\n' {NO_NUMBER}")),
        ("2\n", format!("a RELP frame starts with '\\n' {NO_NUMBER}")),
        ("0000000002 syslog 2 hi\n", digits.to_owned()),
        ("2 syslog 0000000002 hi\n", digits.to_owned()),
        ("2 sys-log 2 hi\n", format!("a RELP frame has '-' {command}")),
        ("2  2 hi\n", format!("a RELP frame has ' ' {command}")),
        ("2 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaz 0\n", format!("a RELP frame has 'z' {command}")),
        ("2 syslog -2 hi\n", format!("a RELP frame has '-' {BAD_LENGTH}")),
        ("2 syslog two hi\n", format!("a RELP frame has 't' {BAD_LENGTH}")),
        ("2 syslog  hi\n", format!("a RELP frame has ' ' {BAD_LENGTH}")),
        ("2 syslog \n", format!("a RELP frame has '\\n' {BAD_LENGTH}")),
        ("2 syslog 2\n", format!("a RELP frame has '\\n' {BAD_LENGTH}")),
        ("2 syslog 0 \n", format!("a RELP frame has ' ' {BAD_LENGTH}")),
        ("2 syslog 16777216 x", format!("a RELP frame announces 16777216 {long} 16777215: send shorter messages")),
        ("0 hint 4097 x", format!("a RELP frame announces 4097 {long} 4096: send shorter messages")),
        ("2 close 4097 x", format!("a RELP frame announces 4097 {long} 4096: send shorter messages")),
        ("2 syslog 2 hi3 syslog 2 hi\n", format!("a RELP frame has '3' {end}")),
        ("2 syslog 2 hello\n", format!("a RELP frame has 'l' {end}")),
        ("2 syslog 2 hi\r\n", format!("a RELP frame has '\\r' {end}")),
        ("2 syslog 9 hello\n", cut.to_owned()),
        ("2 syslog 2 hi", cut.to_owned()),
        ("2 sys", cut.to_owned()),
        ("3 syslog 2 hi\n", format!("a RELP transaction has the number 3 {BAD_ORDER}")),
        ("1 syslog 2 hi\n", format!("a RELP transaction has the number 1 {BAD_ORDER}")),
        ("0 syslog 2 hi\n", format!("a RELP transaction has the number 0 {BAD_ORDER}")),
    ]
}

#[test]
fn a_frame_that_lies_is_refused_with_words_and_nothing_of_it_is_received() {
    for (lie, words) in lies() {
        let seen = serve_cut(WIDE, format!("1 open 0\n{lie}").as_bytes());
        assert_eq!(seen.result.expect_err(lie).to_string(), words, "{lie:?}");
        assert!(seen.received.is_empty(), "{lie:?}");
        let cut = words.starts_with("the connection ended");
        assert!(cut != seen.out.ends_with(GOING), "{lie:?}: the client hears {:?}", seen.out);
        assert!(!seen.out.contains("\n0 rsp"), "{lie:?}: a hint is answered");
    }
}

#[test]
fn a_client_hears_why_its_command_is_refused_and_that_the_server_goes() {
    let open = frame(1, "open", "");
    let closed = format!("{open}2 close 0\n");
    for (start, number, command, data, words, answer) in [
        ("", 1, "syslog", "hi", "a RELP session starts without open: update the sender", "open the session first"),
        ("", 1, "close", "", "a RELP session starts without open: update the sender", "open the session first"),
        (open.as_str(), 2, "open", "", "a RELP session is opened twice: update the sender", "the session is open"),
        (
            closed.as_str(),
            3,
            "syslog",
            "hi",
            "a command follows the close of a RELP session: update the sender",
            "the session is closed",
        ),
        (
            open.as_str(),
            2,
            "starttls",
            "",
            "the sender asks for TLS within RELP, which is not offered: have it send without TLS",
            "TLS is not offered",
        ),
        (
            open.as_str(),
            2,
            "rsp",
            "200 OK",
            "the RELP command \"rsp\" is not one of open, syslog and close: have the sender use only these",
            "the command is not offered",
        ),
        (
            "",
            1,
            "open",
            "relp_version=one",
            "the sender offers a RELP version that is not a number: update the sender",
            "the version is not a number",
        ),
        (
            "",
            1,
            "open",
            "relp_version=0\ncommands=eventlog",
            "the sender does not offer the RELP command syslog: have it send by this command",
            "the command syslog is required",
        ),
    ] {
        let stream = format!("{start}{}", frame(number, command, data));
        let seen = serve_cut(WIDE, stream.as_bytes());
        assert_eq!(seen.result.expect_err(words).to_string(), words, "{stream:?}");
        let end = frame(number, "rsp", &format!("500 {answer}")) + GOING;
        assert!(seen.received.is_empty() && seen.out.ends_with(&end), "{stream:?}: {:?}", seen.out);
    }
}

/// Frames of a client that mostly keeps to the protocol, in which some bytes are other ones.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let command = prop::sample::select(vec!["syslog", "syslog", "syslog", "close", "open", "hint", "starttls"]);
    let frames = prop::collection::vec((command, "[a-z\n ]{0,9}", prop::bool::weighted(0.1)), 0..6);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (frames, damage).prop_map(|(frames, damage)| {
        let mut stream = frame(1, "open", "");
        for (number, (command, data, hint)) in (2..).zip(&frames) {
            stream += &frame(if *hint { 0 } else { number }, command, data);
        }
        let mut stream = stream.into_bytes();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

proptest! {
    #[test]
    fn any_stream_is_seen_alike_wherever_it_is_cut(stream in streams(), max_message_bytes in 0_usize..12, drops: bool) {
        let oversize = if drops { Oversize::Drop } else { Oversize::Truncate };
        let seen = serve_cut(Limits { max_message_bytes, oversize }, &stream);
        prop_assert!(seen.received.iter().all(|message| message.payload.len() <= max_message_bytes));
        let numbers: Vec<u32> = seen.received.iter().map(|message| message.transaction).collect();
        prop_assert!(numbers.is_sorted(), "{numbers:?}");
        for number in numbers {
            let answer = frame(number, "rsp", "200 OK");
            prop_assert_eq!(seen.out.matches(&answer).count(), 1, "{}", seen.out);
        }
    }
}
