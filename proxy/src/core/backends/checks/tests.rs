use proptest::prelude::*;
use proxy_api::Octets;

use super::*;

fn dialogue(probe: &Probe) -> Dialogue {
    Dialogue::of(probe).expect("a check with a dialogue")
}

fn octets(bytes: &[u8]) -> Octets {
    Octets::new(bytes.to_vec()).expect("not too long")
}

fn exchange() -> Probe {
    Probe::Exchange { send: octets(b"PING\r\n"), expect: octets(b"+PONG") }
}

fn mysql(user: Option<&str>) -> Probe {
    Probe::Mysql { user: user.map(str::to_owned) }
}

fn postgres(user: Option<&str>) -> Probe {
    Probe::Postgres { user: user.map(str::to_owned) }
}

fn why(step: Step) -> String {
    match step {
        Step::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![u8::try_from(payload.len()).expect("a short packet"), 0, 0, number];
    packet.extend(payload);
    packet
}

/// The greeting of a `MariaDB` 10.11, with its method of authentication.
fn greeting(method: &str) -> Vec<u8> {
    let mut payload = b"\x0a5.5.5-10.11.6-MariaDB\0\x08\0\0\0".to_vec();
    payload.extend([b'a'; 8]);
    payload.extend([0, 0xfe, 0xf7, 8, 2, 0, 0xff, 0x81, 21]);
    payload.extend([0; 10]);
    payload.extend([b'b'; 12]);
    payload.push(0);
    payload.extend(method.bytes());
    payload.push(0);
    packet(0, &payload)
}

/// The dialogue after the greeting, and the login.
fn logged_in(user: Option<&str>) -> (Dialogue, Vec<u8>) {
    let mut dialogue = dialogue(&mysql(user));
    assert_eq!(dialogue.opening(), b"");
    match dialogue.take(&greeting("mysql_native_password")) {
        Step::Send(login) => (dialogue, login),
        other => panic!("{other:?}"),
    }
}

#[test]
fn checks_that_only_connect_have_no_dialogue() {
    assert!(Dialogue::of(&Probe::Tcp).is_none());
    assert!(Dialogue::of(&Probe::Http { path: "/".to_owned() }).is_none());
}

#[test]
fn the_expected_bytes_may_stand_anywhere_and_arrive_in_pieces() {
    let mut check = dialogue(&exchange());
    assert_eq!(check.opening(), b"PING\r\n");
    assert_eq!(check.take(b"first line\r\n+PO"), Step::Read);
    assert_eq!(check.take(b"NG\r\n"), Step::Passed(Vec::new()));
}

#[test]
fn the_expected_bytes_are_found_however_the_answer_is_cut() {
    let answer = b"++PO+PONG\r\n";
    for size in 1..answer.len() {
        let mut check = dialogue(&exchange());
        let passed = answer.chunks(size).map(|piece| check.take(piece)).position(|step| step != Step::Read);
        assert_eq!(passed, Some(8 / size), "in pieces of {size}");
    }
}

#[test]
fn an_answer_without_the_expected_bytes_is_quoted() {
    let mut check = dialogue(&exchange());
    assert_eq!(check.late(2), "did not send the expected answer within 2 s");
    assert_eq!(check.take(b"-NOAUTH\r\n"), Step::Read);
    assert_eq!(check.late(2), r"did not send the expected answer within 2 s, but '-NOAUTH\r\n'");
    assert_eq!(check.ended(), r"did not send the expected answer before it ended the connection, but '-NOAUTH\r\n'");
}

#[test]
fn no_more_than_4_kib_are_searched() {
    let mut check = dialogue(&exchange());
    assert_eq!(check.take(&[b' '; LONGEST - 5]), Step::Read);
    assert_eq!(check.take(b"+PONG"), Step::Passed(Vec::new()));
    let mut check = dialogue(&exchange());
    assert_eq!(check.take(&[b' '; LONGEST - 4]), Step::Read);
    let why = why(check.take(b"+PONG"));
    assert!(why.contains("in its first 4096 bytes") && why.len() < 300, "{why}");
}

#[test]
fn the_login_names_an_account_without_a_password_and_the_servers_method() {
    let (_, login) = logged_in(Some("probe"));
    assert_eq!(&login[..8], [login.len().to_le_bytes()[0] - 4, 0, 0, 1, 0x01, 0x82, 0x08, 0]);
    assert_eq!(&login[36..], b"probe\0\0mysql_native_password\0");
    let (_, login) = logged_in(None);
    assert_eq!(&login[36..], b"portlane-check\0\0mysql_native_password\0");
}

#[test]
fn a_server_that_lets_the_account_in_is_told_goodbye() {
    let (mut check, _) = logged_in(Some("probe"));
    assert_eq!(check.take(&packet(2, &[0, 0, 0, 2, 0, 0, 0])), Step::Passed(vec![1, 0, 0, 0, 1]));
}

#[test]
fn an_account_that_is_refused_is_a_sign_of_life_only_if_the_forward_names_none() {
    let denied = packet(2, b"\xff\x15\x04#28000Access denied for user 'probe'@'10.0.0.1' (using password: NO)");
    assert_eq!(logged_in(None).0.take(&denied), Step::Passed(Vec::new()));
    let why = why(logged_in(Some("probe")).0.take(&denied));
    assert!(why.starts_with("MySQL error 1045: 'Access denied for user"), "{why}");
}

#[test]
fn a_server_without_a_place_or_that_blocks_the_host_has_failed_with_its_own_words() {
    for (error, expected) in [
        (&b"\xff\x10\x04Too many connections"[..], "MySQL error 1040: 'Too many connections'"),
        (&b"\xff\x69\x04Host '10.0.0.1' is blocked"[..], "MySQL error 1129: 'Host '10.0.0.1' is blocked'"),
        (&b"\xff\x10\x04#08004Too many connections"[..], "MySQL error 1040: 'Too many connections'"),
    ] {
        assert_eq!(why(dialogue(&mysql(None)).take(&packet(0, error))), expected);
        assert_eq!(why(logged_in(None).0.take(&packet(2, error))), expected, "after the login too");
    }
    let long = packet(0, &[b"\xff\x10\x04".as_slice(), &[b'x'; 240]].concat());
    assert!(why(dialogue(&mysql(None)).take(&long)).len() < 230);
}

#[test]
fn a_question_after_the_login_gets_an_answer_of_the_right_length_and_not_for_ever() {
    let (mut check, _) = logged_in(None);
    let switch = |method: &str| packet(2, &[b"\xfe", method.as_bytes(), b"\0challenge\0"].concat());
    assert_eq!(check.take(&switch("client_ed25519")), Step::Send(packet(3, &[0; 64])));
    assert_eq!(check.take(&switch("mysql_native_password")), Step::Send(packet(3, &[])));
    assert_eq!(check.take(&switch("caching_sha2_password")), Step::Send(packet(3, &[0])));
    assert_eq!(check.take(&packet(2, b"\x04Password: ")), Step::Send(packet(3, &[0])));
    assert_eq!(why(check.take(&packet(2, b"\x04Password: "))), "asked more than 4 questions after the login");
}

#[test]
fn what_is_no_mysql_server_is_quoted() {
    let expected = r"is not a MySQL server: it sent 'SSH-2.0-OpenSSH\r\n'";
    assert_eq!(why(dialogue(&mysql(None)).take(b"SSH-2.0-OpenSSH\r\n")), expected);
    let other = why(dialogue(&mysql(None)).take(&packet(0, b"\x09old\0")));
    assert_eq!(other, r"is not a MySQL server: it greeted with '\told\x00'");
    let short = why(dialogue(&mysql(None)).take(&packet(0, b"\x0a8.0")));
    assert_eq!(short, "is not a MySQL server: it greeted with '8.0'");
}

#[test]
fn a_mysql_server_that_is_silent_owes_its_greeting_and_then_an_answer() {
    assert_eq!(dialogue(&mysql(None)).late(2), "did not send the greeting of a MySQL server within 2 s");
    assert_eq!(logged_in(None).0.late(2), "did not send an answer to the login within 2 s");
}

#[test]
fn a_mysql_server_that_does_not_know_this_login_is_too_old() {
    let mut old = greeting("mysql_native_password");
    let at = old.windows(2).position(|pair| pair == [0xfe, 0xf7]).expect("what the server can do");
    old[at + 1] ^= 2;
    assert_eq!(why(dialogue(&mysql(None)).take(&old)), "is a MySQL server older than 4.1");
}

#[test]
fn a_postgres_server_answers_a_request_for_encryption() {
    for answer in [b"G", b"N"] {
        let mut check = dialogue(&postgres(None));
        assert_eq!(check.opening(), [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);
        assert_eq!(check.take(answer), Step::Passed(Vec::new()));
    }
    let other = why(dialogue(&postgres(None)).take(b"220 mail\r\n"));
    assert_eq!(other, r"is not a PostgreSQL server: it sent '220 mail\r\n'");
    for text in ["NOT A DATABASE", "GO AWAY"] {
        assert!(why(dialogue(&postgres(None)).take(text.as_bytes())).starts_with("is not a PostgreSQL server"));
    }
}

#[test]
fn an_old_postgres_server_does_not_know_the_request_and_lives() {
    let error = b"E\0\0\0\x30SFATAL\0C0A000\0Munsupported frontend protocol 1234.5680: server supports 2.0 to 3.0\0\0";
    let mut error = error.to_vec();
    error[4] = u8::try_from(error.len() - 1).expect("short");
    assert_eq!(dialogue(&postgres(None)).take(&error), Step::Passed(Vec::new()));
    let bare = b"Eunsupported frontend protocol 1234.5680: server supports 2.0 to 3.0\0";
    assert_eq!(dialogue(&postgres(None)).take(bare), Step::Passed(Vec::new()));
}

#[test]
fn a_user_begins_a_session_and_leaves_at_the_question_for_a_password() {
    let check = || dialogue(&postgres(Some("app")));
    assert_eq!(check().opening(), b"\0\0\0\x24\0\x03\0\0user\0app\0database\0postgres\0\0"[..].to_vec());
    assert_eq!(check().take(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"), Step::Passed(Vec::new()));
    assert_eq!(check().take(b"R\0\0\0\x08\0\0\0\0"), Step::Passed(b"X\0\0\0\x04".to_vec()));
    assert_eq!(check().take(b"R\0\0\0"), Step::Read);
    assert_eq!(why(check().take(b"READY NOW")), "is not a PostgreSQL server: it sent 'READY NOW'");
    assert_eq!(why(check().take(b"R\0\0\0\x07")), r"is not a PostgreSQL server: it sent 'R\x00\x00\x00\x07'");
    let starting = b"E\0\0\0\x3aSFATAL\0C57P03\0Mthe database system is starting up\0\0\0\0\0";
    assert_eq!(why(check().take(starting)), "PostgreSQL says 'the database system is starting up'");
    assert_eq!(why(check().take(b"Ecould not fork new process\0")), "PostgreSQL says 'could not fork new process'");
}

fn probes() -> impl Strategy<Value = Probe> {
    prop_oneof![
        Just(exchange()),
        Just(mysql(None)),
        Just(mysql(Some("u"))),
        Just(postgres(None)),
        Just(postgres(Some("u"))),
    ]
}

/// Pieces that reach the later states of the dialogues, and any others.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(greeting("mysql_native_password")),
        Just(greeting("")),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(number, it)| packet(number, &it)),
        Just(b"E\0\0\0\xff".to_vec()),
        Just(b"R\0\0\0".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::collection::vec(any::<u8>(), 4000..5000),
    ]
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange_and_no_message_too_long(probe in probes(), sent in proptest::collection::vec(pieces(), 0..20)) {
        let mut check = dialogue(&probe);
        for piece in sent {
            match check.take(&piece) {
                Step::Failed(why) => prop_assert!(why.len() < 1000, "{why}"),
                Step::Send(bytes) => prop_assert!(bytes.len() < 256),
                Step::Read | Step::Passed(_) => {}
            }
            prop_assert!(check.received.len() <= LONGEST);
        }
        prop_assert!(check.ended().len() < 1000 && check.late(3600).len() < 1000);
    }

    #[test]
    fn a_verdict_does_not_depend_on_how_the_answer_is_cut(at in 0_usize..60) {
        let greeting = greeting("caching_sha2_password");
        let (first, second) = greeting.split_at(at.min(greeting.len() - 1));
        let mut check = dialogue(&mysql(None));
        prop_assert_eq!(check.take(first), Step::Read);
        prop_assert!(matches!(check.take(second), Step::Send(_)));
    }
}
