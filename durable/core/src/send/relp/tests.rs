use super::*;

fn opened(window: usize) -> Relp {
    let mut out = Vec::new();
    let mut relp = Relp::open(window, &mut out);
    let offers = "relp_version=0\nrelp_software=portlane\ncommands=syslog";
    assert_eq!(out, format!("1 open {} {offers}\n", offers.len()).into_bytes());
    assert_eq!(relp.room(), 0, "the sink has not answered");
    assert!(relp.waits());
    // In the form that librelp gives its answer.
    let answer = "200 OK\nrelp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog";
    let mut verdicts = Vec::new();
    relp.received(format!("1 rsp {} {answer}\n", answer.len()).as_bytes(), &mut verdicts).expect("it opens");
    assert!(verdicts.is_empty());
    relp
}

fn push(relp: &mut Relp, number: u64) -> String {
    let mut out = Vec::new();
    relp.push(Outgoing { number, payload: format!("message {number}").into_bytes() }, &mut out);
    String::from_utf8(out).expect("text")
}

fn received(relp: &mut Relp, bytes: &str) -> (Vec<Verdict>, Result<(), SendError>) {
    let mut verdicts = Vec::new();
    let result = relp.received(bytes.as_bytes(), &mut verdicts);
    (verdicts, result)
}

fn poison(number: u64, reason: &str) -> Verdict {
    Verdict::Poison { number, reason: reason.to_owned() }
}

#[test]
fn a_message_is_delivered_when_the_sink_answers_200_to_it() {
    let mut relp = opened(8);
    assert_eq!(push(&mut relp, 7), "2 syslog 9 message 7\n");
    assert!(relp.waits());
    assert_eq!(received(&mut relp, "2 rsp 6 200 OK\n"), (vec![Verdict::Delivered { through: 7 }], Ok(())));
    assert!(!relp.waits());
}

#[test]
fn hints_are_no_answers_so_that_a_sink_with_nothing_else_to_say_is_silent() {
    let mut relp = opened(8);
    push(&mut relp, 7);
    assert_eq!(received(&mut relp, "0 busy 0\n0 busy 0\n"), (vec![], Ok(())));
    assert_eq!(relp.answers(), 1, "the answer to the offers");
    assert_eq!(received(&mut relp, "2 rsp 6 200 OK\n"), (vec![Verdict::Delivered { through: 7 }], Ok(())));
    assert_eq!(relp.answers(), 2);
}

#[test]
fn an_empty_message_has_no_data() {
    let mut relp = opened(8);
    let mut out = Vec::new();
    relp.push(Outgoing { number: 7, payload: Vec::new() }, &mut out);
    assert_eq!(out, b"2 syslog 0\n");
}

#[test]
fn answers_in_another_order_move_nothing_until_the_first_one_is_there() {
    let mut relp = opened(8);
    for number in 10..13 {
        push(&mut relp, number);
    }
    assert_eq!(received(&mut relp, "4 rsp 6 200 OK\n2 rsp"), (vec![], Ok(())));
    assert_eq!(received(&mut relp, " 6 200 OK\n"), (vec![Verdict::Delivered { through: 10 }], Ok(())));
    assert_eq!(received(&mut relp, "3 rsp 3 200\n"), (vec![Verdict::Delivered { through: 12 }], Ok(())));
}

#[test]
fn a_message_that_the_sink_refuses_is_poison_and_the_others_pass() {
    let mut relp = opened(8);
    for number in 1..4 {
        push(&mut relp, number);
    }
    let (verdicts, result) = received(&mut relp, "2 rsp 6 200 OK\n3 rsp 11 500 \x07no way\n4 rsp 6 200 OK\n");
    let expected = [
        Verdict::Delivered { through: 1 },
        poison(2, "the sink answers 500  no way"),
        Verdict::Delivered { through: 3 },
    ];
    assert_eq!((verdicts.as_slice(), result), (expected.as_slice(), Ok(())));
}

#[test]
fn the_window_bounds_what_is_without_an_answer() {
    let mut relp = opened(2);
    push(&mut relp, 1);
    push(&mut relp, 2);
    assert_eq!(relp.room(), 0);
    received(&mut relp, "2 rsp 6 200 OK\n").1.expect("an answer");
    assert_eq!(relp.room(), 1);
    assert_eq!(opened(0).room(), 1);
    assert_eq!(opened(5000).room(), 1024);
}

#[test]
fn a_sink_that_announces_its_end_is_left_and_its_answers_count() {
    let mut relp = opened(8);
    push(&mut relp, 1);
    let (verdicts, result) = received(&mut relp, "2 rsp 6 200 OK\n0 hint 0\n0 serverclose 0\n");
    assert_eq!((verdicts, result), (vec![Verdict::Delivered { through: 1 }], Err(SendError::Closed)));
}

#[test]
fn transactions_start_over_after_nine_digits() {
    let mut relp = opened(8);
    relp.transaction = LAST - 1;
    assert_eq!(push(&mut relp, 1), "999999999 syslog 9 message 1\n");
    assert_eq!(push(&mut relp, 2), "1 syslog 9 message 2\n");
    let answers = "999999999 rsp 6 200 OK\n1 rsp 6 200 OK\n";
    assert_eq!(received(&mut relp, answers), (vec![Verdict::Delivered { through: 2 }], Ok(())));
}

#[test]
fn a_close_lets_answers_come_and_takes_no_more_messages() {
    let mut relp = opened(8);
    push(&mut relp, 1);
    let mut out = Vec::new();
    relp.close(&mut out);
    assert_eq!(out, b"3 close 0\n");
    assert_eq!(relp.room(), 0);
    assert_eq!(received(&mut relp, "2 rsp 6 200 OK\n"), (vec![Verdict::Delivered { through: 1 }], Ok(())));
    assert!(relp.waits() && !relp.is_closed());
    assert_eq!(received(&mut relp, "3 rsp 6 200 OK\n"), (vec![], Ok(())));
    assert!(!relp.waits() && relp.is_closed());
}

#[test]
fn a_sink_that_does_not_open_is_told_with_its_words() {
    for (answer, reported) in [
        ("500 required command not supported", "refuses the RELP session: 500 required command not supported"),
        ("200 OK", "offers another version"),
        ("200 OK\nrelp_version=2\ncommands=syslog", "offers another version"),
        ("200 OK\nrelp_version=1\ncommands=eventlog", "does not offer the command syslog"),
    ] {
        let mut relp = Relp::open(8, &mut Vec::new());
        let error = received(&mut relp, &format!("1 rsp {} {answer}\n", answer.len())).1.expect_err(answer);
        assert!(error.to_string().contains(reported), "{error}");
        assert_eq!(relp.room(), 0);
    }
}

#[test]
fn a_sink_that_violates_the_protocol_is_left() {
    for bytes in [
        "HTTP/1.1 400 Bad Request\r\n",
        "x rsp 6 200 OK\n",
        "2  rsp 6 200 OK\n",
        "1234567890 rsp 6 200 OK\n",
        "2 rsp 6 200 OK.",
        "2 rsp 0 \n",
        "2 rsp 999999999 ",
        "2 rsp 5 20 OK\n",
        "2 rsp 2 OK\n",
        "2 rsp 0\n",
        "3 rsp 6 200 OK\n",
        "2 rsp 6 200 OK\n2 rsp 6 200 OK\n",
        "2 syslog 2 hi\n",
        "2 abcdefghijklmnopqrstuvwxyzabcdefgh 0\n",
    ] {
        let mut relp = opened(8);
        push(&mut relp, 1);
        let error = received(&mut relp, bytes).1.expect_err(bytes);
        assert!(matches!(error, SendError::Protocol { .. }), "{bytes:?}: {error}");
    }
}
