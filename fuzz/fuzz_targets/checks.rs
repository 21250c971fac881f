//! The dialogues of active checks with any server. The first byte picks the check, the second how many bytes arrive at
//! once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::core::backends::checks::{Dialogue, LONGEST, Step};
use proxy_api::{Octets, Probe};

/// Most bytes that a check sends at once: a login with the longest method of authentication.
const SENT: usize = 256;
/// Most answers that a check gives to a server: the login, and one for each of four questions.
const ANSWERS: usize = 5;
/// Most bytes of a message: 200 bytes of the server, each escaped as four, and what the check says about them.
const MESSAGE: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let [check, at_once, server @ ..] = bytes else { return };
    let mut dialogue = Dialogue::of(&probe(*check)).expect("a check with a dialogue");
    assert!(dialogue.opening().len() <= SENT);
    let (mut taken, mut answers) = (0, 0);
    for bytes in server.chunks(usize::from(*at_once).max(1)) {
        taken += bytes.len();
        match dialogue.take(bytes) {
            Step::Read => assert!(taken < LONGEST, "a dialogue has an end"),
            Step::Send(answer) => {
                answers += 1;
                assert!(taken < LONGEST && answers <= ANSWERS && answer.len() <= SENT);
            }
            Step::Passed(goodbye) => return assert!(goodbye.len() <= SENT),
            Step::Failed(why) => return check_message(&why),
        }
    }
    check_message(&dialogue.ended());
    check_message(&dialogue.late(2));
});

fn probe(which: u8) -> Probe {
    let user = || Some("probe".to_owned());
    let octets = |bytes: &[u8]| Octets::new(bytes.to_vec()).expect("not too long");
    match which % 5 {
        0 => Probe::Exchange { send: octets(b"PING\r\n"), expect: octets(b"+PONG") },
        1 => Probe::Mysql { user: None },
        2 => Probe::Mysql { user: user() },
        3 => Probe::Postgres { user: None },
        _ => Probe::Postgres { user: user() },
    }
}

/// A message about a stranger is short and printable.
fn check_message(message: &str) {
    assert!(!message.is_empty() && message.len() <= MESSAGE, "{message}");
    assert!(!message.contains(char::is_control), "{message:?}");
}
