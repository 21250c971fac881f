//! What a sender of messages sends on one connection, in a framing or in RELP.
//!
//! The first byte picks the framing, and whether long messages are truncated or dropped; the second is the longest
//! message, and the third says in pieces of which length the rest comes.

#![no_main]

use durable_core::intake::{
    Counts, Decoder, Framing, FramingError, Limits, Oversize, encode,
    relp::{Received, Server, Violation},
};
use libfuzzer_sys::fuzz_target;

/// Bytes that a server of RELP holds at least: the offers of a client.
const OFFERS: usize = 4096;
/// Most bytes that a server answers to one frame.
const ANSWER: usize = 128;

fuzz_target!(|bytes: &[u8]| {
    let [way, longest, piece, bytes @ ..] = bytes else { return };
    let oversize = if way & 8 == 0 { Oversize::Truncate } else { Oversize::Drop };
    let limits = Limits { max_message_bytes: usize::from(*longest), oversize };
    let piece = usize::from(*piece) + 1;
    let framing = match way % 8 {
        0 => Framing::Newline,
        1 => Framing::Nul,
        2 => Framing::OctetCounting,
        3 => Framing::Syslog,
        4 => Framing::Length2,
        5 => Framing::Length4,
        _ => return relp(limits, bytes, piece),
    };
    let whole = decode(framing, limits, [bytes]);
    assert_eq!(decode(framing, limits, bytes.chunks(piece)), whole);
    let (messages, _, counts) = whole;
    assert!(messages.iter().all(|message| message.len() <= limits.max_message_bytes));
    assert_eq!(if oversize == Oversize::Drop { counts.truncated } else { counts.dropped }, 0);
    // What was read is written and reads as the same. The cut end of a message may be that of a line, and is trimmed.
    let mut stream = Vec::new();
    let lasting = messages.into_iter().filter(|message| !message.ends_with(b"\r") && !message.ends_with(b"\0"));
    let written: Vec<Vec<u8>> = lasting.filter(|message| encode(framing, message, &mut stream).is_ok()).collect();
    assert_eq!(decode(framing, limits, [stream.as_slice()]), (written, Ok(()), Counts::default()));
});

fn decode<'a>(
    framing: Framing,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Result<(), FramingError>, Counts) {
    let mut decoder = Decoder::new(framing, limits);
    let mut messages = Vec::new();
    let mut result = Ok(());
    for piece in pieces {
        result = decoder.feed(piece, &mut messages);
        assert!(decoder.held() <= limits.max_message_bytes);
    }
    let result = result.and_then(|()| decoder.end(&mut messages));
    (messages, result, decoder.counts())
}

fn relp(limits: Limits, bytes: &[u8], piece: usize) {
    let whole = serve(limits, [bytes]);
    assert_eq!(serve(limits, bytes.chunks(piece)), whole);
    let (received, out, _) = whole;
    assert!(received.iter().all(|message| message.payload.len() <= limits.max_message_bytes));
    assert!(out.is_ascii() && out.len() <= ANSWER * (2 + bytes.len() / 10), "{} bytes", out.len());
}

/// Answers all messages at the end, the last one first.
fn serve<'a>(
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Received>, Vec<u8>, Result<(), Violation>) {
    let mut server = Server::new(limits);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    for piece in pieces {
        result = server.feed(piece, &mut received, &mut out);
        assert!(server.held() <= limits.max_message_bytes.max(OFFERS));
    }
    let result = result.and_then(|()| server.end());
    for message in received.iter().rev() {
        server.answer(message.transaction, &mut out);
    }
    assert!(result.is_err() || server.is_closed() || !out.ends_with(b"serverclose 0\n"));
    (received, out, result)
}
