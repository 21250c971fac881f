//! The search for a name among its candidates. What `glibc` makes of the same files is the expected value.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::IpAddr, time::Duration};

use proxy::core::resolution::dns::{
    answer::{Answer, Pair},
    candidates::candidates,
    resolv_conf::ResolvConf,
    search::{NO_ADDRESS, Outcome, SEARCH, Search},
};

fn conf(text: &str) -> ResolvConf {
    ResolvConf::parse(text.as_bytes(), "host")
}

fn found(text: &str) -> Answer {
    let ips = vec![text.parse::<IpAddr>().expect("an address")];
    Answer::Addresses { ips, ttl: Duration::from_secs(60) }
}

fn silent() -> Answer {
    Answer::Failed { why: "timed out".to_owned(), is_servfail: false }
}

fn servfail() -> Answer {
    Answer::Failed { why: "SERVFAIL".to_owned(), is_servfail: true }
}

fn both(answer: Answer) -> Pair<Answer> {
    Pair { four: answer.clone(), six: answer }
}

#[test]
fn candidates_come_in_the_order_of_res_search() {
    let pod = "search ns.svc.cluster.test svc.cluster.test\noptions ndots:5";
    let table: [(&str, &str, &[&str]); 13] = [
        ("db", "", &["db."]),
        ("db", "search a.test b.test", &["db.a.test.", "db.b.test.", "db."]),
        ("db.x", "search a.test", &["db.x.", "db.x.a.test."]),
        ("db.x.", "search a.test\noptions ndots:5", &["db.x."]),
        ("db.", "search a.test", &["db."]),
        ("db.x", pod, &["db.x.ns.svc.cluster.test.", "db.x.svc.cluster.test.", "db.x."]),
        ("a.b.c.d.e.f", pod, &["a.b.c.d.e.f.", "a.b.c.d.e.f.ns.svc.cluster.test.", "a.b.c.d.e.f.svc.cluster.test."]),
        ("db", "search a.test\noptions ndots:0", &["db.", "db.a.test."]),
        ("db", "search a.test . b.test", &["db.a.test.", "db.", "db.b.test."]),
        ("db", "search a.test\noptions no-tld-query", &["db.a.test."]),
        ("db.x", "search a.test\noptions no-tld-query ndots:5", &["db.x.a.test.", "db.x."]),
        ("db", "options no-tld-query", &["db."]),
        ("a..b", "search a.test", &[]),
    ];
    for (host, text, expected) in table {
        let names: Vec<String> = candidates(host, &conf(text)).into_iter().map(|candidate| candidate.name).collect();
        assert_eq!(names, expected, "{host} with {text}");
    }
    let long = ["a"; 120].join(".");
    let domain = conf(&format!("search {}.test", ["b"; 20].join(".")));
    assert_eq!(candidates(&long, &domain).len(), 1, "a name that is too long is left out");
    // As with glibc, which asks for no later domain then.
    let ends = conf(&format!("search a.test {}.test b.test", ["b"; 20].join(".")));
    let names: Vec<String> = candidates(&long, &ends).into_iter().map(|candidate| candidate.name).collect();
    assert_eq!(names, [format!("{long}."), format!("{long}.a.test.")]);
}

/// The full names that are asked for, if servers say this of them.
fn asked(
    host: &str,
    text: &str,
    last_found: Option<&str>,
    say: impl Fn(&str) -> Pair<Answer>,
) -> (Vec<String>, Outcome) {
    let mut search = Search::new(candidates(host, &conf(text)), last_found);
    let mut names = Vec::new();
    while let Some(name) = search.next(Duration::ZERO) {
        names.push(name.clone());
        let answer = say(&name);
        search.record(name, answer);
    }
    (names, search.outcome())
}

const THREE: &str = "search a.test b.test\noptions ndots:5";

#[test]
fn the_first_candidate_with_an_address_in_either_family_is_the_name() {
    let six_only = Pair { four: Answer::NoData, six: found("fd00::1") };
    let say = |name: &str| if name == "db.x.b.test." { six_only.clone() } else { both(Answer::NxDomain) };
    let (names, outcome) = asked("db.x", THREE, None, say);
    assert_eq!(names, ["db.x.a.test.", "db.x.b.test."]);
    assert_eq!(outcome, Outcome::Found { fqdn: "db.x.b.test.".to_owned(), answers: six_only.clone() });
    let beside_silence = Pair { four: silent(), six: found("fd00::1") };
    assert_eq!(asked("db.x", THREE, None, |_| beside_silence.clone()).0, ["db.x.a.test."]);
}

#[test]
fn the_search_goes_on_after_definite_answers_and_servfail_and_ends_with_the_name_itself() {
    let all = ["db.x.a.test.", "db.x.b.test.", "db.x."];
    let half = Pair { four: servfail(), six: Answer::NoData };
    for answer in [both(Answer::NxDomain), both(Answer::NoData), both(servfail()), half] {
        assert_eq!(asked("db.x", THREE, None, |_| answer.clone()).0, all, "{answer:?}");
    }
    // T2 d: two silent search domains cost the time of one.
    assert_eq!(asked("db.x", THREE, None, |_| both(silent())).0, ["db.x.a.test.", "db.x."]);
    // One family that is silent may have the addresses.
    for other in [Answer::NoData, Answer::NxDomain, servfail()] {
        for answer in [Pair { four: silent(), six: other.clone() }, Pair { four: other.clone(), six: silent() }] {
            assert_eq!(asked("db.x", THREE, None, |_| answer.clone()).0, ["db.x.a.test.", "db.x."], "{answer:?}");
        }
    }
    let (names, _) = asked("db.x", "search a.test b.test", None, |_| both(silent()));
    assert_eq!(names, ["db.x.", "db.x.a.test."], "the name itself came first");
    // The root is a search domain too.
    let say = |name: &str| both(if name == "db." { silent() } else { Answer::NxDomain });
    assert_eq!(asked("db", "search a.test . b.test", None, say).0, ["db.a.test.", "db."]);
}

#[test]
fn a_name_with_other_records_than_addresses_ends_the_search() {
    let alias = Pair { four: Answer::NoData, six: Answer::OtherRecords };
    let (names, outcome) = asked("db.x", THREE, None, |_| alias.clone());
    assert_eq!((names, outcome), (vec!["db.x.a.test.".to_owned()], Outcome::Nothing(NO_ADDRESS.to_owned())));
}

#[test]
fn an_answer_that_cannot_be_read_is_a_failure_that_ends_the_search() {
    let malformed = Pair { four: Answer::Malformed { why: "odd".to_owned() }, six: Answer::NxDomain };
    let (names, outcome) = asked("db.x", THREE, None, |_| malformed.clone());
    assert_eq!((names, outcome), (vec!["db.x.a.test.".to_owned()], Outcome::Nothing("odd".to_owned())));
}

#[test]
fn a_failure_says_more_than_a_name_that_does_not_exist() {
    let say = |name: &str| both(if name == "db.x.a.test." { servfail() } else { Answer::NxDomain });
    assert_eq!(asked("db.x", THREE, None, say).1, Outcome::Nothing("SERVFAIL".to_owned()));
    assert_eq!(asked("db.x", THREE, None, |_| both(Answer::NxDomain)).1, Outcome::Nothing(NO_ADDRESS.to_owned()));
    assert_eq!(asked("a..b", THREE, None, |_| both(Answer::NxDomain)).1, Outcome::Nothing(NO_ADDRESS.to_owned()));
}

#[test]
fn a_fault_does_not_lead_to_another_name_than_before() {
    let other = |name: &str| both(if name == "db.x." { found("192.0.2.9") } else { servfail() });
    let (names, outcome) = asked("db.x", THREE, Some("db.x.a.test."), other);
    assert_eq!((names, outcome), (vec!["db.x.a.test.".to_owned()], Outcome::Nothing("SERVFAIL".to_owned())));
    // After silence, the name that it was before is still asked for.
    let (names, _) = asked("db.x", THREE, Some("db.x.b.test."), |_| both(silent()));
    assert_eq!(names, ["db.x.a.test.", "db.x.b.test."]);
    // What is definitely gone may be elsewhere.
    let moved = |name: &str| both(if name == "db.x." { found("192.0.2.9") } else { Answer::NxDomain });
    assert_eq!(asked("db.x", THREE, Some("db.x.a.test."), moved).0.len(), 3);
}

#[test]
fn a_slow_search_still_asks_for_the_name_itself() {
    let mut search = Search::new(candidates("db.x", &conf(THREE)), None);
    assert_eq!(search.next(Duration::ZERO).as_deref(), Some("db.x.a.test."));
    search.record("db.x.a.test.".to_owned(), both(Answer::NxDomain));
    assert_eq!(search.next(SEARCH).as_deref(), Some("db.x."));
    search.record("db.x.".to_owned(), both(Answer::NxDomain));
    assert_eq!(search.next(SEARCH), None);
}
