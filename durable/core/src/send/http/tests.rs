use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(format: Format) -> HttpSettings {
    HttpSettings { format, batch_bytes: 1000, batch_messages: 8, linger: SECOND }
}

fn filled(format: Format, payloads: &[&str]) -> Http {
    let mut http = Http::new(settings(format));
    for (number, payload) in (0..).zip(payloads) {
        http.push(Outgoing { number, payload: payload.as_bytes().to_vec() }, Duration::ZERO);
    }
    http
}

fn post(http: &mut Http, now: Duration) -> (String, Vec<Verdict>) {
    let (mut body, mut verdicts) = (Vec::new(), Vec::new());
    http.post(now, &mut body, &mut verdicts);
    (String::from_utf8(body).expect("text"), verdicts)
}

fn answered(http: &mut Http, status: u16) -> (HttpOutcome, Vec<Verdict>) {
    let mut verdicts = Vec::new();
    let answer = HttpAnswer { status, retry_after: None, body: b"" };
    let outcome = http.answered(&answer, SECOND, 1.0, &mut verdicts);
    (outcome, verdicts)
}

#[test]
fn each_format_has_its_body() {
    for (format, expected) in [(Format::Ndjson, "{}\n[1]\n"), (Format::JsonArray, "[{},[1]]"), (Format::Raw, "{}\n[1]")]
    {
        let mut http = filled(format, &["{}", "[1]"]);
        assert_eq!(post(&mut http, SECOND), (expected.to_owned(), vec![]), "{format:?}");
        let (outcome, verdicts) = answered(&mut http, 204);
        assert_eq!((outcome, verdicts), (HttpOutcome::Settled, vec![Verdict::Delivered { through: 1 }]));
        assert_eq!(http.due(), None);
    }
    let types = [Format::Ndjson, Format::JsonArray, Format::Raw].map(Format::content_type);
    assert_eq!(types, ["application/x-ndjson", "application/json", "application/octet-stream"]);
}

#[test]
fn a_batch_waits_for_more_messages_until_it_lingered_or_is_full() {
    let mut http = filled(Format::Raw, &["a"; 7]);
    assert_eq!(http.due(), Some(SECOND));
    assert_eq!(post(&mut http, SECOND / 2).0, "");
    http.push(Outgoing { number: 7, payload: b"a".to_vec() }, SECOND / 2);
    assert_eq!(http.due(), Some(Duration::ZERO), "eight messages are a batch");
    assert_eq!(post(&mut http, SECOND / 2).0, ["a"; 8].join("\n"));
    assert_eq!(http.due(), None, "one request at a time");
    let long = "x".repeat(1000);
    assert_eq!(filled(Format::Raw, &[long.as_str()]).due(), Some(Duration::ZERO), "a thousand bytes are a batch");
}

#[test]
fn a_body_keeps_its_bounds_and_one_long_message_goes_alone() {
    let (long, longer) = ("x".repeat(600), "y".repeat(2000));
    let (long, longer) = (long.as_str(), longer.as_str());
    let mut http = filled(Format::Raw, &[long, long, longer, "z"]);
    assert_eq!(http.room(), 0, "two batches wait");
    for expected in [long, long, longer, "z"] {
        assert_eq!(post(&mut http, SECOND).0, expected);
        answered(&mut http, 200);
    }
    assert_eq!(http.room(), 16);
}

#[test]
fn a_message_joins_others_if_the_body_with_it_is_no_longer_than_a_batch() {
    // The first one has a newline behind it, and the second one counts two bytes around it.
    for (length, count) in [(397, 2), (398, 1)] {
        let (first, second) = ("x".repeat(600), "y".repeat(length));
        let mut http = filled(Format::Raw, &[first.as_str(), second.as_str()]);
        assert_eq!(http.post(SECOND, &mut Vec::new(), &mut Vec::new()), count, "{length}");
    }
}

#[test]
fn no_message_is_taken_while_those_that_wait_have_the_bytes_of_two_batches() {
    for (length, room) in [(999, 14), (1000, 0)] {
        let (first, second) = ("x".repeat(1000), "y".repeat(length));
        assert_eq!(filled(Format::Raw, &[first.as_str(), second.as_str()]).room(), room, "{length}");
    }
}

#[test]
fn a_sink_has_messages_by_2xx_and_refuses_them_by_those_4xx_that_are_not_about_all_requests() {
    for status in [200, 299] {
        assert_eq!(status::meaning(status), Meaning::Delivered, "{status}");
    }
    for status in [400, 402, 409, 412, 413, 416, 422, 451, 499] {
        assert_eq!(status::meaning(status), Meaning::Poison, "{status}");
    }
    for status in [199, 300, 399, 403, 408, 411, 414, 417, 421, 425, 426, 428, 500] {
        assert_eq!(status::meaning(status), Meaning::Retry, "{status}");
    }
}

#[test]
fn of_a_body_that_is_too_long_the_length_is_the_fault_and_what_the_sink_says_follows() {
    let words = status::words(413, "over 1 MB");
    assert!(words.contains("lower send.http.batchBytes") && words.ends_with(": over 1 MB"), "{words}");
    assert!(status::words(413, "").ends_with("the bound of the sink"));
}

#[test]
fn the_message_that_a_sink_refuses_is_found_by_halves_and_the_others_go_in_order() {
    let mut http = filled(Format::Raw, &["0", "1", "2", "3", "4", "bad", "6", "7"]);
    let (mut took, mut poison, mut requests) = (Vec::new(), Vec::new(), 0);
    while http.due().is_some() {
        requests += 1;
        let (body, verdicts) = post(&mut http, SECOND);
        assert!(verdicts.is_empty());
        let status = if body.contains("bad") { 422 } else { 200 };
        if status == 200 {
            took.extend(body.lines().map(str::to_owned));
        }
        let (_, verdicts) = answered(&mut http, status);
        poison.extend(verdicts.into_iter().filter(|verdict| matches!(verdict, Verdict::Poison { .. })));
    }
    assert_eq!(took, ["0", "1", "2", "3", "4", "6", "7"]);
    let reason = "the sink answers 422: it refuses a message because of its contents".to_owned();
    assert_eq!(poison, [Verdict::Poison { number: 5, reason }]);
    // 8 refused, 4 taken, 2 refused, 1 taken, 1 refused, 2 taken.
    assert_eq!(requests, 6);
}

#[test]
fn an_answer_that_says_nothing_about_messages_has_them_posted_again() {
    for (status, reported) in [
        (401, "credentials"),
        (403, "forbids"),
        (404, "send.http.path"),
        (405, "send.http.path"),
        (410, "send.http.path"),
        (415, "send.http.format"),
        (407, "whatever they contain"),
        (431, "whatever they contain"),
        (408, "slowly"),
        (429, "rate of requests"),
        (500, "its log"),
        (503, "its log"),
        (302, "not an answer to a POST"),
        (100, "not an answer to a POST"),
    ] {
        let mut http = filled(Format::Raw, &["a", "b"]);
        post(&mut http, SECOND);
        let (outcome, verdicts) = answered(&mut http, status);
        let HttpOutcome::Retried { at, why } = outcome else { panic!("{status}: {outcome:?}") };
        assert!(verdicts.is_empty() && why.contains(reported) && why.contains(&status.to_string()), "{status}: {why}");
        assert_eq!((at, http.due()), (SECOND + SECOND / 10, Some(at)));
        assert_eq!(post(&mut http, at.saturating_sub(Duration::from_nanos(1))).0, "");
        assert_eq!(post(&mut http, at).0, "a\nb");
    }
}

#[test]
fn pauses_grow_and_an_answer_ends_them() {
    let mut http = filled(Format::Raw, &["a"; 8]);
    let mut now = SECOND;
    for millis in [100, 200, 400] {
        post(&mut http, now);
        let at = http.failed(now, 1.0);
        assert_eq!(at.saturating_sub(now), Duration::from_millis(millis));
        now = at;
    }
    post(&mut http, now);
    answered(&mut http, 200);
    http.push(Outgoing { number: 8, payload: Vec::new() }, now);
    assert_eq!(http.due(), Some(now + SECOND));
    assert_eq!(http.failed(now, 1.0).saturating_sub(now), Duration::from_millis(100));
}

#[test]
fn the_sink_may_ask_for_a_pause_of_five_minutes() {
    for (asked, seconds) in [("7", 7), (" 300 ", 300), ("301", 300), ("9999999999", 300)] {
        let mut http = filled(Format::Raw, &["a"]);
        post(&mut http, SECOND);
        let answer = HttpAnswer { status: 429, retry_after: Some(asked), body: b"slow down" };
        let outcome = http.answered(&answer, SECOND, 1.0, &mut Vec::new());
        let HttpOutcome::Retried { at, why } = outcome else { panic!("{outcome:?}") };
        assert_eq!(at, SECOND + Duration::from_secs(seconds), "{asked}");
        assert!(why.ends_with(": slow down"), "{why}");
    }
    assert_eq!(status::retry_after("Fri, 31 Dec 2027 23:59:59 GMT"), None);
    assert_eq!(status::retry_after("-1"), None);
}

#[test]
fn a_message_that_the_format_cannot_carry_is_poison_and_is_not_posted() {
    let mut http = filled(Format::Ndjson, &["{}", "plain text", "[\n]", "1"]);
    assert_eq!(post(&mut http, SECOND).0, "{}\n");
    answered(&mut http, 200);
    let (body, verdicts) = post(&mut http, SECOND);
    assert_eq!(body, "1\n");
    let reported: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Poison { number, reason } => {
                assert!(reason.starts_with("a message "), "the sink has not seen it: {reason}");
                (*number, reason.contains("set enrich"), reason.contains("newline"))
            }
            Verdict::Delivered { .. } => panic!("{verdict:?}"),
        })
        .collect();
    assert_eq!(reported, [(1, true, false), (2, false, true)]);
    let mut array = filled(Format::JsonArray, &["[\n]"]);
    assert_eq!(post(&mut array, SECOND).0, "[[\n]]");
}
