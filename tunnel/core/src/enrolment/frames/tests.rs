use proptest::prelude::*;

use super::*;

fn enrol() -> Enrol {
    let agent = AgentName::new("home", "pi4").expect("names");
    Enrol { proof: Proof::Token { agent, token: Token::new([7; 32]) }, request: vec![0x30; 300] }
}

fn refused(detail: &str) -> Outcome {
    Outcome::Refused(EnrolRefusal { reason: EnrolReason::Token, detail: detail.to_owned() })
}

#[test]
fn another_frame_is_refused_by_its_first_byte() {
    assert_eq!(Enrol::read(&[Kind::Hello as u8]), Err(Violation::OutOfTurn(Kind::Hello)));
    assert_eq!(Outcome::read(&[Kind::Welcome as u8]), Err(Violation::OutOfTurn(Kind::Welcome)));
    assert_eq!(Enrol::read(b"GET / HTTP/1.1"), Err(Violation::Malformed(Malformed::Kind(b'G'))));
}

#[test]
fn a_long_first_frame_is_refused_by_its_header() {
    let mut header = vec![Kind::Enrol as u8, 0, 0x14, 0x01];
    header.extend_from_slice(&[0; 12]);
    assert_eq!(Enrol::read(&header), Err(Violation::Malformed(Malformed::Length { length: 5121, bound: 5120 })));
}

#[test]
fn a_request_or_a_certificate_beyond_its_bound_is_refused() {
    let mut payload = vec![0];
    payload.extend_from_slice(&4097_u16.to_be_bytes());
    payload.extend_from_slice(&[0; 4097]);
    let malformed = Err(Violation::Malformed(Malformed::Payload(Kind::Enrol)));
    assert_eq!(Enrol::read(&framed(Kind::Enrol, &payload)), malformed);
    let mut payload = 8193_u16.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 8193]);
    let malformed = Err(Violation::Malformed(Malformed::Payload(Kind::Certificate)));
    assert_eq!(Outcome::read(&framed(Kind::Certificate, &payload)), malformed);
}

#[test]
fn bytes_of_a_later_version_are_ignored_and_what_follows_is_left() {
    let mut frame = enrol().frame();
    let length = u16::from_be_bytes([frame[2], frame[3]]) + 5;
    frame[2..4].copy_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(b"later");
    let whole = frame.len();
    frame.extend_from_slice(b"and more");
    assert_eq!(Enrol::read(&frame), Ok(Some((enrol(), whole))));
}

#[test]
fn a_proof_of_a_later_version_is_refused_and_a_reason_is_another_one() {
    let mut frame = enrol().frame();
    frame[HEADER] = 2;
    assert_eq!(Enrol::read(&frame), Err(Violation::Malformed(Malformed::Payload(Kind::Enrol))));
    let mut frame = refused("later").frame();
    frame[HEADER] = 200;
    let expected = EnrolRefusal { reason: EnrolReason::Other, detail: "later".to_owned() };
    assert_eq!(Outcome::read(&frame), Ok(Some((Outcome::Refused(expected), frame.len()))));
}

#[test]
fn each_reason_is_read_as_it_was_written() {
    for reason in
        [EnrolReason::Token, EnrolReason::Request, EnrolReason::Agent, EnrolReason::Unavailable, EnrolReason::Other]
    {
        let outcome = Outcome::Refused(EnrolRefusal { reason, detail: String::new() });
        let frame = outcome.frame();
        assert_eq!(Outcome::read(&frame), Ok(Some((outcome, frame.len()))));
    }
}

#[test]
fn the_longest_request_and_the_longest_certificate_are_read() {
    let longest = Enrol { request: vec![0x30; MAX_REQUEST], ..enrol() };
    let frame = longest.frame();
    assert_eq!(Enrol::read(&frame), Ok(Some((longest, frame.len()))));
    let longest = Outcome::Issued(vec![0x30; MAX_CERTIFICATE]);
    let frame = longest.frame();
    assert_eq!(Outcome::read(&frame), Ok(Some((longest, frame.len()))));
}

#[test]
fn the_token_is_not_printed() {
    let shown = format!("{:?}", enrol());
    assert!(shown.contains("Token(..)") && !shown.contains("7, 7"), "{shown}");
}

#[test]
fn a_detail_changes_no_terminal() {
    let frame = refused("one\u{1b}[2Jtwo").frame();
    let Ok(Some((Outcome::Refused(read), _))) = Outcome::read(&frame) else { panic!("no answer") };
    assert_eq!(read.detail, "one [2Jtwo");
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(
        token: Option<[u8; 32]>,
        namespace in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        request in prop::collection::vec(any::<u8>(), 0..=MAX_REQUEST),
    ) {
        let agent = AgentName::new(&namespace, &name).expect("names");
        let proof = token.map_or(Proof::Certificate, |token| Proof::Token { agent, token: Token::new(token) });
        let enrol = Enrol { proof, request };
        let frame = enrol.frame();
        for cut in 0..frame.len() {
            prop_assert_eq!(Enrol::read(&frame[..cut]), Ok(None));
        }
        prop_assert_eq!(Enrol::read(&frame), Ok(Some((enrol, frame.len()))));
    }

    #[test]
    fn a_certificate_is_read_as_it_was_written(
        certificate in prop::collection::vec(any::<u8>(), 0..=MAX_CERTIFICATE),
    ) {
        let outcome = Outcome::Issued(certificate);
        let frame = outcome.frame();
        for cut in 0..frame.len() {
            prop_assert_eq!(Outcome::read(&frame[..cut]), Ok(None));
        }
        prop_assert_eq!(Outcome::read(&frame), Ok(Some((outcome, frame.len()))));
    }

    #[test]
    fn a_detail_is_cut_between_characters(detail in "\\PC{0,600}") {
        let Ok(Some((Outcome::Refused(read), _))) = Outcome::read(&refused(&detail).frame()) else {
            return Err(TestCaseError::fail("no answer"));
        };
        prop_assert!(detail.starts_with(&read.detail) && read.detail.len() + 4 > detail.len().min(MAX_REMEDY));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in prop::sample::select(vec![4_u8, 14, 15])) {
        let _ = Enrol::read(&bytes);
        let _ = Outcome::read(&bytes);
        let mut frame = vec![kind, 0];
        let bytes = &bytes[..bytes.len().min(1000)];
        frame.extend_from_slice(&u16::try_from(bytes.len()).expect("few").to_be_bytes());
        frame.extend_from_slice(&[0; 12]);
        frame.extend_from_slice(bytes);
        let _ = Enrol::read(&frame);
        let _ = Outcome::read(&frame);
    }
}
