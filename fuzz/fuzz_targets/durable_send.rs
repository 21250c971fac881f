//! What a sink answers over RELP, or a message that something is added to.
//!
//! The first byte says which, and whether the session is open; the second in pieces of which length the rest comes.

#![no_main]

use durable_core::{
    Message,
    enrich::{Enricher, Form},
    send::{Outgoing, Relp, SendError, Verdict},
};
use libfuzzer_sys::fuzz_target;

/// Messages that wait for an answer.
const MESSAGES: u64 = 8;
/// The longest reason of a verdict.
const REASON: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let [way, piece, bytes @ ..] = bytes else { return };
    match way % 4 {
        0 | 1 => answers(way % 4 == 0, bytes, usize::from(*piece) + 1),
        2 => syslog(bytes),
        _ => json(bytes),
    }
});

fn answers(is_open: bool, bytes: &[u8], piece: usize) {
    let whole = session(is_open, [bytes]);
    assert_eq!(session(is_open, bytes.chunks(piece)), whole);
    let mut next = 0;
    for verdict in whole.0 {
        let number = match verdict {
            Verdict::Delivered { through } => through,
            Verdict::Poison { number, reason } => {
                assert_eq!(number, next);
                assert!(reason.len() < REASON && !reason.contains('\n'));
                number
            }
        };
        assert!((next..MESSAGES).contains(&number));
        next = number + 1;
    }
}

fn session<'a>(is_open: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Verdict>, Result<(), SendError>) {
    let mut relp = Relp::open(usize::MAX, &mut Vec::new());
    let mut verdicts = Vec::new();
    if is_open {
        let offers = "200 OK\nrelp_version=0\ncommands=syslog";
        let answer = format!("1 rsp {} {offers}\n", offers.len());
        relp.received(answer.as_bytes(), &mut verdicts).expect("it opens");
        for number in 0..MESSAGES {
            relp.push(Outgoing { number, payload: b"message".to_vec() }, &mut Vec::new());
        }
    }
    let result = pieces.into_iter().try_for_each(|piece| relp.received(piece, &mut verdicts));
    (verdicts, result)
}

fn syslog(payload: &[u8]) {
    let (enriched, is_added) = enrich(Form::Syslog { id: "portlane@32473".to_owned() }, payload);
    if is_added {
        assert!(enriched.len() >= payload.len());
        let (again, is_added) = enrich(Form::Syslog { id: "portlane@32473".to_owned() }, &enriched);
        assert!(again == enriched && !is_added);
    } else {
        assert_eq!(enriched, payload);
    }
}

fn json(payload: &[u8]) {
    let (enriched, _) = enrich(Form::Json, payload);
    let object: serde_json::Value = serde_json::from_slice(&enriched).expect("an object");
    let message = object.get("message").and_then(serde_json::Value::as_str).map(str::as_bytes);
    assert!(message.map_or(object.get("messageBase64").is_some(), |message| message == payload));
}

fn enrich(form: Form, payload: &[u8]) -> (Vec<u8>, bool) {
    let mut enricher = Enricher::new(form, "default/\"]\\".to_owned(), "gw-0".to_owned());
    let enriched = enricher.enrich("192.0.2.1", &Message { source: b"", received_millis: u64::MAX, payload });
    (enriched, enricher.untouched() == 0)
}
