use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn made(addresses: &[&str]) -> JoinString {
    let agent = AgentName::new("home", "pi4").expect("names");
    let addresses = addresses.iter().map(|text| address(text)).collect();
    JoinString::new(addresses, Fingerprint::of(b"root"), agent, 1_900_000_000, Token::new([0xa7; 32])).expect("fits")
}

fn usual() -> JoinString {
    made(&["tunnel.example.com:7443", "192.0.2.7:7443", "[2001:db8::7]:7443"])
}

/// A join string with these bytes as its content, and a valid length and checksum.
fn sealed(content: &[u8]) -> String {
    let length = u16::try_from(HEADER + content.len() + CHECKSUM).expect("short").to_be_bytes();
    let mut bytes = vec![length[0], length[1], check(length)];
    bytes.extend(content);
    bytes.extend(checksum(&bytes));
    format!("portlane-join-1.{}", BASE64URL_NOPAD.encode(&bytes))
}

/// The content of a join string, without length and checksum.
fn content(join: &JoinString) -> Vec<u8> {
    let text = join.encode();
    let bytes = decode(text.strip_prefix("portlane-join-1.").expect("version 1")).expect("whole");
    bytes[HEADER..].to_vec()
}

#[test]
fn a_join_string_is_one_word_that_is_read_again() {
    let join = usual();
    let text = join.encode();
    assert!(text.starts_with("portlane-join-1.") && !text.contains(char::is_whitespace), "{text}");
    assert_eq!(JoinString::parse(&format!("\n {text}\r\n")), Ok(join));
}

#[test]
fn a_join_string_that_was_cut_anywhere_is_told_as_cut() {
    let text = usual().encode();
    for end in 1..text.len() {
        assert_eq!(JoinString::parse(&text[..end]), Err(JoinError::Cut), "{end} of {} characters", text.len());
    }
    assert_eq!(JoinString::parse(""), Err(JoinError::Foreign));
}

#[test]
fn a_changed_character_is_told_as_damage_and_an_added_one_too() {
    let text = usual().encode();
    let body = "portlane-join-1.".len();
    for at in body..text.len() {
        for other in ['A', 'z', '0', '-', '_'] {
            if text[at..].starts_with(other) {
                continue;
            }
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(JoinString::parse(&changed), Err(JoinError::Damaged), "{other} at {at}");
        }
    }
    for more in ["A", "AA", "AAA", "AAAA"] {
        assert_eq!(JoinString::parse(&format!("{text}{more}")), Err(JoinError::Damaged));
    }
    let endless = format!("{text}{}", "A".repeat(1 << 20));
    assert_eq!(JoinString::parse(&endless), Err(JoinError::Damaged));
}

#[test]
fn a_space_or_a_line_break_within_is_named_by_its_place() {
    let text = usual().encode();
    let broken = format!("{}\n{}", &text[..40], &text[40..]);
    assert_eq!(JoinString::parse(&broken), Err(JoinError::Character(41)));
    let broken = format!("{}ä{}", &text[..20], &text[21..]);
    assert_eq!(JoinString::parse(&broken), Err(JoinError::Character(21)));
}

#[test]
fn other_versions_and_other_texts_are_told_apart() {
    let text = usual().encode().replacen("-1.", "-2.", 1);
    assert_eq!(JoinString::parse(&text), Err(JoinError::Newer(2)));
    assert_eq!(JoinString::parse(&format!("{text}{}", "A".repeat(4096))), Err(JoinError::Newer(2)));
    assert_eq!(JoinString::parse("portlane-join-x.AAAA"), Err(JoinError::Damaged));
    assert_eq!(JoinString::parse("portlane-join-x"), Err(JoinError::Damaged), "no version begins like this");
    assert_eq!(JoinString::parse("portlane-join-123456789"), Err(JoinError::Cut));
    assert_eq!(JoinString::parse("portlane-join-1234567890"), Err(JoinError::Damaged));
    assert_eq!(JoinString::parse("https://example.com"), Err(JoinError::Foreign));
    assert_eq!(JoinString::parse("\"portlane-join-1.AAAA\""), Err(JoinError::Foreign));
}

#[test]
fn a_whole_string_with_content_that_is_not_valid_is_refused() {
    let content = content(&usual());
    let changed = |at: usize, byte: u8| {
        let mut content = content.clone();
        content[at] = byte;
        JoinString::parse(&sealed(&content))
    };
    assert_eq!(JoinString::parse(&sealed(&content)), Ok(usual()), "the helper seals what it was given");
    let namespace = 32 + 32 + 8;
    assert_eq!(changed(namespace + 1, b'H'), Err(JoinError::Content("name of an agent")));
    assert_eq!(changed(namespace + 1, 0xff), Err(JoinError::Content("namespace")));
    let count = namespace + 1 + "home".len() + 1 + "pi4".len();
    for byte in [0, 9, 255] {
        assert_eq!(changed(count, byte), Err(JoinError::Content("count of addresses")));
    }
    assert_eq!(changed(count, 2), Err(JoinError::Content("end")));
    assert_eq!(changed(count, 4), Err(JoinError::Content("address")));
    assert_eq!(JoinString::parse(&sealed(&content[..40])), Err(JoinError::Content("token")));
    assert_eq!(JoinString::parse(&sealed(&[])), Err(JoinError::Content("fingerprint")));
}

#[test]
fn addresses_are_bounded_in_number_and_length() {
    let new = |addresses: Vec<Address>| {
        let agent = AgentName::new("a", "b").expect("names");
        JoinString::new(addresses, Fingerprint::of(b""), agent, 0, Token::new([0; 32])).map(|join| join.encode().len())
    };
    assert_eq!(new(vec![]), Err(JoinError::Addresses(0)));
    assert_eq!(new(vec![address("a:1"); 9]), Err(JoinError::Addresses(9)));
    assert!(new(vec![address("a:1"); 8]).is_ok());
    let long = format!("{}.example.com:7443", ["a"; 100].join("."));
    assert!(new(vec![address(&long); 2]).is_ok_and(|length| length <= LONGEST));
    assert!(matches!(new(vec![address(&long); 8]), Err(JoinError::TooLong(length)) if length > LONGEST));
}

#[test]
fn the_longest_join_string_is_read_and_has_1024_characters() {
    let new = |host: &str| {
        let mut addresses = vec![Address::new(&["a"; 83].join("."), 1).expect("an address"); 3];
        addresses.push(Address::new(host, 1).expect("an address"));
        let agent = AgentName::new("a", "b").expect("names");
        JoinString::new(addresses, Fingerprint::of(b""), agent, 0, Token::new([0; 32]))
    };
    let host = ["a"; 83].join(".");
    let longest = new(&host).expect("it fits");
    assert_eq!(longest.encode().len(), LONGEST);
    assert_eq!(JoinString::parse(&longest.encode()), Ok(longest));
    assert_eq!(new(&format!("{host}a")), Err(JoinError::TooLong(1026)));
}

#[test]
fn the_check_of_the_length_has_the_bits_in_which_its_bytes_differ() {
    assert_eq!(check([0b1100, 0b1010]), !0b0110);
}

#[test]
fn a_host_has_253_bytes_at_most() {
    let hosts = [["a"; 127].join("."), format!("{}.aa", ["a"; 126].join("."))];
    assert_eq!(hosts.map(|host| Address::new(&host, 1).is_ok()), [true, false]);
}

#[test]
fn addresses_are_read_and_written_alike() {
    for text in ["example.com:7443", "a_b.example.com.:1", "127.0.0.1:65535", "[::1]:80", "localhost:7443"] {
        assert_eq!(address(text).to_string(), text);
    }
    for text in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:-1",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[a]:80",
        "a b:80",
        "a..b:80",
        "https://a:80",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text} is accepted");
    }
    assert!(Address::new(&"a".repeat(1 << 16), 1).expect_err("too long").to_string().len() < 600);
}

#[test]
fn the_token_is_printed_nowhere() {
    let join = usual();
    let shown = format!("{join} {join:?} {join:#?} {:?}", join.token());
    assert_eq!(
        join.to_string(),
        "join string of agent home/pi4 for tunnel.example.com:7443, 192.0.2.7:7443, [2001:db8::7]:7443"
    );
    for secret in ["a7a7", "167", "p6en", &BASE64URL_NOPAD.encode(join.token().secret())] {
        assert!(!shown.contains(secret), "{shown} shows the token");
    }
}

#[test]
fn a_token_is_the_same_after_it_was_a_text_and_other_texts_are_none() {
    let token = Token::new([0xa7; 32]);
    let text = token.to_text();
    assert_eq!((text.len(), Token::from_text(&text)), (43, Some(token)));
    for wrong in ["", &text[1..], &format!("{text}="), &format!("{text}A"), &"+".repeat(43)] {
        assert_eq!(Token::from_text(wrong), None, "{wrong}");
    }
}

#[test]
fn a_join_string_is_over_at_its_expiry() {
    let join = usual();
    assert!(!join.expired(1_899_999_999));
    assert!(join.expired(1_900_000_000));
}

proptest! {
    #[test]
    fn every_join_string_survives_its_text(
        hosts in proptest::collection::vec(("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?([.][a-z]{1,10}){0,3}", 1_u16..), 1..8),
        root: [u8; 32],
        token: [u8; 32],
        expires: u64,
        namespace in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
    ) {
        let addresses: Vec<Address> =
            hosts.iter().map(|(host, port)| Address::new(host, *port).expect("valid")).collect();
        let agent = AgentName::new(&namespace, "agent").expect("names");
        let made = JoinString::new(addresses, Fingerprint::from_bytes(root), agent, expires, Token::new(token));
        let made = made.expect("fits");
        prop_assert_eq!(JoinString::parse(&made.encode()), Ok(made));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text: String, content in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(JoinString::parse(&text));
        drop(JoinString::parse(&format!("portlane-join-1.{text}")));
        if let Ok(read) = JoinString::parse(&sealed(&content)) {
            prop_assert_eq!(read.encode(), sealed(&content));
        }
    }
}
