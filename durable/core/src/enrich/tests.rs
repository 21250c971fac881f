use proptest::prelude::*;

use super::*;

const ADDED: &str =
    r#"[portlane@32473 receivedAt="2027-01-15T08:00:00.123Z" client="192.0.2.1" forward="default/syslog" pod="gw-0"]"#;

fn enricher(form: Form) -> Enricher {
    Enricher::new(form, "default/syslog".to_owned(), "gw-0".to_owned())
}

fn syslog() -> Enricher {
    enricher(Form::Syslog { id: "portlane@32473".to_owned() })
}

fn enrich(enricher: &mut Enricher, payload: &[u8]) -> Vec<u8> {
    let message = Message { source: b"", received_millis: 1_800_000_000_123, payload };
    enricher.enrich("192.0.2.1", &message)
}

fn text(enricher: &mut Enricher, payload: &str) -> String {
    String::from_utf8(enrich(enricher, payload.as_bytes())).expect("text")
}

#[test]
fn a_message_becomes_a_string_in_an_object() {
    let object = text(&mut enricher(Form::Json), "a \"quoted\"\n\u{1}line é");
    let expected = r#"{"receivedAt":"2027-01-15T08:00:00.123Z","client":"192.0.2.1","forward":"default/syslog","pod":"gw-0","message":"a \"quoted\"\n\u0001line é"}"#;
    assert_eq!(object, expected);
}

#[test]
fn a_message_that_is_not_utf_8_is_in_base64() {
    let object = enrich(&mut enricher(Form::Json), b"\xFF\x00");
    let object = String::from_utf8(object).expect("text");
    assert!(object.ends_with(r#""pod":"gw-0","messageBase64":"/wA="}"#), "{object}");
}

#[test]
fn a_client_is_an_address_without_its_port() {
    for (client, expected) in [
        ("192.0.2.1:40000", "192.0.2.1"),
        ("[2001:db8::1]:40000", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("a name", "a name"),
    ] {
        let message = Message { source: client.as_bytes(), received_millis: 0, payload: b"" };
        let object = String::from_utf8(enricher(Form::Json).enrich(client, &message)).expect("text");
        assert!(object.contains(&format!(r#""client":"{expected}""#)), "{object}");
    }
}

#[test]
fn a_time_after_the_year_9999_is_its_end() {
    let message = Message { source: b"", received_millis: u64::MAX, payload: b"" };
    let object = enricher(Form::Json).enrich("", &message);
    let object = String::from_utf8(object).expect("text");
    assert!(object.contains(r#""receivedAt":"9999-12-31T23:59:59.999Z""#), "{object}");
}

#[test]
fn a_syslog_message_gets_one_element_behind_those_that_it_has() {
    let mut enricher = syslog();
    for (head, data, rest) in [
        ("<34>1 2003-10-11T22:14:15.003Z host su - ID47 ", "-", " \u{FEFF}'su root' failed"),
        ("<0>1 - - - - - ", "-", ""),
        ("<191>1 - - - - - ", r#"[a][b@1 x="1" y=""]"#, " text [c]"),
        ("<34>1 - - - - - ", r#"[a x="\"\]\\ é"]"#, ""),
    ] {
        let expected = format!("{head}{}{ADDED}{rest}", if data == "-" { "" } else { data });
        assert_eq!(text(&mut enricher, &format!("{head}{data}{rest}")), expected);
    }
    assert_eq!(enricher.untouched(), 0);
}

#[test]
fn other_messages_stay_as_they_are_and_are_counted() {
    let others = [
        "",
        "plain",
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
        "<192>1 - - - - - -",
        "<34>2 - - - - - -",
        "<34>1 - - - - - ",
        "<34>1 - - - -  -",
        "<34>1 - - - - - -text",
        "<34>1 - - - - - [a",
        "<34>1 - - - - - []",
        "<34>1 - - - - - [a x=1]",
        r#"<34>1 - - - - - [a x="]"]"#,
        r#"<34>1 - - - - - [a x="\"]"#,
        r#"<34>1 - - - - - [b][portlane@32473 x="1"] text"#,
    ];
    let mut enricher = syslog();
    for other in others {
        assert_eq!(text(&mut enricher, other), other);
    }
    assert_eq!(enricher.untouched(), others.len() as u64);
}

#[test]
fn what_is_added_to_a_syslog_message_is_escaped() {
    let labels = Labels { received_at: "now", client: "a\"b", forward: "c]d", pod: "e\\f" };
    let added = structured::add("id", &labels, b"<34>1 - - - - - -").expect("a message of RFC 5424");
    let expected = r#"<34>1 - - - - - [id receivedAt="now" client="a\"b" forward="c\]d" pod="e\\f"]"#;
    assert_eq!(String::from_utf8(added).expect("text"), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_added_to_any_message_can_be_taken_out_again(
        head in proptest::sample::select(vec!["", "<34>1 - - - - - ", "<34>1 - - - - - - ", "<34>1 - - - - - [a x=\"1\"]"]),
        rest in proptest::collection::vec(any::<u8>(), 0..64),
        signs in proptest::collection::vec(proptest::sample::select(b"[]\"\\ =a-".to_vec()), 0..16),
    ) {
        let payload = [head.as_bytes(), signs.as_slice(), rest.as_slice()].concat();
        let mut enricher = syslog();
        let enriched = enrich(&mut enricher, &payload);
        if enricher.untouched() == 1 {
            prop_assert_eq!(enriched, payload);
        } else {
            let at = enriched.windows(ADDED.len()).position(|part| part == ADDED.as_bytes()).expect("it is added");
            let (before, behind) = (&enriched[..at], &enriched[at + ADDED.len()..]);
            let kept = [before, behind].concat();
            let nil = [before, b"-".as_slice(), behind].concat();
            prop_assert!(kept == payload || nil == payload);
        }
    }

    #[test]
    fn the_object_of_any_message_has_the_message(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let object = enrich(&mut enricher(Form::Json), &payload);
        let object: serde_json::Value = serde_json::from_slice(&object).expect("JSON");
        let message = match (object.get("message"), object.get("messageBase64")) {
            (Some(message), None) => message.as_str().expect("a string").as_bytes().to_vec(),
            (None, Some(message)) => BASE64.decode(message.as_str().expect("a string").as_bytes()).expect("base64"),
            both => panic!("{both:?}"),
        };
        prop_assert_eq!(message, payload);
    }
}
