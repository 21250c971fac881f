use proptest::prelude::*;

use super::*;

fn hello() -> Hello {
    Hello {
        versions: 1..=3,
        boot: Boot([7; 16]),
        epoch: 42,
        instance: Instance::new("pi4").expect("an instance"),
        program: "0.9.0".to_owned(),
        sessions: vec![
            SessionName { endpoint: Boot([1; 16]), born: 3 },
            SessionName { endpoint: Boot([2; 16]), born: 41 },
        ],
    }
}

fn welcome(peers: usize) -> Welcome {
    let peer = |index: usize| EndpointId::new(&format!("{index:063}")).expect("an id");
    Welcome {
        version: 1,
        endpoint: EndpointId::new("edge-0").expect("an id"),
        boot: Boot([9; 16]),
        resumed: true,
        heartbeat: 5,
        named: Named { peers: (0..peers).map(peer).collect(), sidecars: (0..peers / 2).map(peer).collect() },
    }
}

/// The frame with bytes of a later version at its end.
fn longer(mut frame: Vec<u8>, more: &[u8]) -> Vec<u8> {
    let length = u16::from_be_bytes([frame[2], frame[3]]) + u16::try_from(more.len()).expect("few");
    frame[2..4].copy_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(more);
    frame
}

#[test]
fn bytes_of_a_later_version_are_ignored() {
    let frame = longer(hello().frame(), b"later");
    assert_eq!(Hello::read(&frame), Ok(Some((hello(), frame.len()))));
    let answer = Answer::Welcome(welcome(2));
    let frame = longer(answer.frame(), b"later");
    assert_eq!(Answer::read(&frame), Ok(Some((answer, frame.len()))));
}

#[test]
fn what_follows_the_frame_is_left() {
    let frame = hello().frame();
    let mut bytes = frame.clone();
    bytes.extend_from_slice(b"frames of the session");
    assert_eq!(Hello::read(&bytes), Ok(Some((hello(), frame.len()))));
}

#[test]
fn another_frame_is_refused_by_its_first_byte() {
    assert_eq!(Hello::read(&[Kind::Datagram as u8]), Err(Violation::OutOfTurn(Kind::Datagram)));
    assert_eq!(Answer::read(&[Kind::Hello as u8]), Err(Violation::OutOfTurn(Kind::Hello)));
    assert_eq!(Hello::read(b"GET / HTTP/1.1"), Err(Violation::Malformed(Malformed::Kind(b'G'))));
}

#[test]
fn a_long_first_frame_is_refused_by_its_header() {
    let mut header = vec![Kind::Hello as u8, 0, 0x10, 0x01];
    header.extend_from_slice(&[0; 12]);
    assert_eq!(Hello::read(&header), Err(Violation::Malformed(Malformed::Length { length: 4097, bound: 4096 })));
}

#[test]
fn a_hello_that_no_agent_sends_is_refused() {
    let malformed = Err(Violation::Malformed(Malformed::Payload(Kind::Hello)));
    let program = HEADER + 4 + 16 + 8 + 1 + "pi4".len() + 1;
    for (at, byte, what) in [(HEADER + 1, 4, "versions 4 to 3"), (program, b' ', "a program with a space")] {
        let mut frame = hello().frame();
        frame[at] = byte;
        assert_eq!(Hello::read(&frame), malformed, "{what}");
    }
    let session = SessionName { endpoint: Boot([1; 16]), born: 3 };
    let mut frame = longer(Hello { sessions: vec![session; MAX_SESSIONS], ..hello() }.frame(), &[1; 24]);
    assert!(Hello::read(&frame).is_ok());
    frame[program + "0.9.0".len()] += 1;
    assert_eq!(Hello::read(&frame), malformed, "one session too many");
}

#[test]
fn an_endpoint_that_denies_has_no_session_unless_the_reason_is_the_connection() {
    let reasons = |ends: bool| Denial::ALL.into_iter().filter(move |reason| reason.ends_session() == ends);
    assert_eq!(reasons(false).map(Denial::as_str).collect::<Vec<_>>(), ["version", "stale", "other"]);
    assert_eq!(reasons(true).count(), 7);
}

#[test]
fn an_instance_is_shown_by_its_name() {
    assert_eq!(hello().instance.to_string(), "pi4");
}

#[test]
fn an_answer_names_no_more_endpoints_than_an_agent_reads() {
    let sent = welcome(MAX_PEERS + 6);
    let Ok(Some((Answer::Welcome(read), _))) = Answer::read(&Answer::Welcome(sent.clone()).frame()) else {
        panic!("no answer");
    };
    assert_eq!(read.named.peers, sent.named.peers[..MAX_PEERS]);
    assert_eq!(read.named.sidecars, sent.named.sidecars);
}

#[test]
fn both_ends_take_the_highest_version_that_they_have_in_common() {
    assert_eq!(agree(&(1..=1)), Some(1));
    assert_eq!(agree(&(0..=9)), Some(1));
    assert_eq!(agree(&(2..=9)), None);
    assert_eq!(agree(&(0..=0)), None);
}

#[test]
fn a_reason_of_a_later_version_is_another_one() {
    let mut frame = Answer::Denied(Denied { reason: Denial::Full, detail: "later".to_owned() }).frame();
    frame[HEADER] = 200;
    let expected = Answer::Denied(Denied { reason: Denial::Other, detail: "later".to_owned() });
    assert_eq!(Answer::read(&frame), Ok(Some((expected, frame.len()))));
}

proptest! {
    #[test]
    fn a_hello_is_read_as_it_was_written(
        lowest in 0..100_u16,
        more in 0..100_u16,
        boot: [u8; 16],
        epoch: u64,
        instance in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        program in "[!-~]{0,64}",
        sessions in prop::collection::vec(any::<([u8; 16], u64)>(), 0..=MAX_SESSIONS),
    ) {
        let hello = Hello {
            versions: lowest..=lowest + more,
            boot: Boot(boot),
            epoch,
            instance: Instance::new(&instance).expect("an instance"),
            program,
            sessions: sessions.into_iter().map(|(boot, born)| SessionName { endpoint: Boot(boot), born }).collect(),
        };
        let frame = hello.frame();
        for cut in 0..frame.len() {
            prop_assert_eq!(Hello::read(&frame[..cut]), Ok(None));
        }
        prop_assert_eq!(Hello::read(&frame), Ok(Some((hello, frame.len()))));
    }

    #[test]
    fn a_welcome_is_read_as_it_was_written(peers in 0..=MAX_PEERS, resumed: bool, heartbeat: u16) {
        let answer = Answer::Welcome(Welcome { resumed, heartbeat, ..welcome(peers) });
        let frame = answer.frame();
        for cut in 0..frame.len() {
            prop_assert_eq!(Answer::read(&frame[..cut]), Ok(None));
        }
        prop_assert_eq!(Answer::read(&frame), Ok(Some((answer, frame.len()))));
    }

    #[test]
    fn a_denial_is_cut_between_characters(detail in "\\PC{0,300}") {
        let answer = Answer::Denied(Denied { reason: Denial::Revoked, detail: detail.clone() });
        let Ok(Some((Answer::Denied(read), _))) = Answer::read(&answer.frame()) else {
            return Err(TestCaseError::fail("no answer"));
        };
        prop_assert!(detail.starts_with(&read.detail) && read.detail.len() + 4 > detail.len().min(MAX_DETAIL));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in prop::sample::select(vec![4_u8, 12, 13])) {
        let _ = Hello::read(&bytes);
        let _ = Answer::read(&bytes);
        let mut frame = Vec::new();
        let bytes = &bytes[..bytes.len().min(1000)];
        frame.push(kind);
        frame.push(0);
        frame.extend_from_slice(&u16::try_from(bytes.len()).expect("few").to_be_bytes());
        frame.extend_from_slice(&[0; 12]);
        frame.extend_from_slice(bytes);
        let _ = Hello::read(&frame);
        let _ = Answer::read(&frame);
    }
}
