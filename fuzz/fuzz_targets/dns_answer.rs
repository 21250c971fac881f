//! What a name server sends. The first byte picks the family and the way, the rest follows the id and the question.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::core::resolution::dns::{
    answer::{Answer, Family},
    exchange::{Judgement, Question, Via},
};

/// Shortest record of an address, in bytes: the root as owner, and four bytes of data.
const RECORD: usize = 15;
/// Most bytes of a message about a server.
const MESSAGE: usize = 128;

fuzz_target!(|bytes: &[u8]| {
    let Some(([way, flags @ ..], rest)) = bytes.split_first_chunk::<11>() else { return };
    let family = if way & 1 == 0 { Family::Four } else { Family::Six };
    let via = if way & 2 == 0 { Via::Udp } else { Via::Tcp };
    let question = Question::new("db.example.test.", family, way & 4 != 0).expect("a name");
    let asked = question.encode(7);
    let section = &asked[12..];
    let mut message = asked[..2].to_vec();
    message.extend(flags);
    // Half of the messages repeat the question.
    if way & 8 == 0 {
        message[4..6].copy_from_slice(&[0, 1]);
        message.extend(section.iter().take(21));
    }
    message.extend(rest);
    match question.judge(7, &message, via) {
        Judgement::Definite(answer) => check(&answer, family, message.len()),
        Judgement::NextServer(answer) => check_failure(&answer),
        Judgement::OverTcp => assert_eq!(via, Via::Udp),
        Judgement::Ignored => assert_ne!(way & 8, 0, "the question is repeated"),
    }
    assert_eq!(question.judge(8, &message, via), Judgement::Ignored, "another id");
});

fn check(answer: &Answer, family: Family, length: usize) {
    match answer {
        Answer::Addresses { ips, .. } => {
            assert!(!ips.is_empty() && ips.len() <= length / RECORD);
            assert!(ips.iter().all(|ip| ip.is_ipv4() == (family == Family::Four)));
        }
        Answer::NoData | Answer::OtherRecords | Answer::NxDomain => {}
        Answer::Failed { .. } | Answer::Malformed { .. } => check_failure(answer),
    }
}

fn check_failure(answer: &Answer) {
    let why = answer.failure().expect("a failure has a reason");
    assert!(!why.is_empty() && why.len() <= MESSAGE, "{why}");
}
