//! How names resolve. What `glibc` makes of the same files is the expected value.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::IpAddr, time::Duration};

use proxy::core::resolution::dns::{
    answer::{Answer, Family, Pair},
    families::{Due, Families, MOST_ADDRESSES, RETRY, Resolution, TTL},
    hosts::Hosts,
    resolv_conf::{Flag, ResolvConf},
    search::{NO_ADDRESS, Outcome},
    tries::{QUESTION, tries},
};

const LONG: &str = "a123456789b123456789c123456789d123456789e123456789f123456789g1234";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn conf(text: &str) -> ResolvConf {
    ResolvConf::parse(text.as_bytes(), "host")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn found(texts: &[&str], ttl: u64) -> Answer {
    Answer::Addresses { ips: ips(texts), ttl: seconds(ttl) }
}

fn silent() -> Answer {
    Answer::Failed { why: "timed out".to_owned(), is_servfail: false }
}

fn servfail() -> Answer {
    Answer::Failed { why: "SERVFAIL".to_owned(), is_servfail: true }
}

#[test]
fn hosts_are_read_as_getent_reads_them() {
    // Expected values: `getent ahosts` of glibc 2.36 with `hosts: files dns`.
    let text =
        b"127.0.0.1 localhost\n10.0.0.1 Db.Test alias # c\n  10.0.0.2\tdb.test\r\n::1%lo zone.test\nfd00::1 db.test\n\
        10.0.0.2 db.test\n010.0.0.1 octal.test\n::ffff:10.0.0.9 mapped.test\n10.0.0.3 dot.test.\n10.0.0.4\n\
        10.0.0.7 half.test#x y\n\xff\xfe odd.test\n10.0.0.8 \xff after.test\n# 10.0.0.6 comment.test";
    let hosts = Hosts::parse(text);
    let table: [(&str, &[&str]); 8] = [
        ("localhost", &["127.0.0.1"]),
        ("db.test", &["10.0.0.1", "10.0.0.2", "fd00::1"]),
        ("DB.Test", &["10.0.0.1", "10.0.0.2", "fd00::1"]),
        ("alias", &["10.0.0.1"]),
        ("mapped.test", &["::ffff:10.0.0.9"]),
        ("dot.test.", &["10.0.0.3"]),
        ("half.test", &["10.0.0.7"]),
        ("after.test", &["10.0.0.8"]),
    ];
    for (host, expected) in table {
        assert_eq!(hosts.addresses(host), Some(&ips(expected)[..]), "{host}");
    }
    let none = ["db.test.", "dot.test", "zone.test", "octal.test", "y", "#x", "odd.test", "comment.test", "c", ""];
    for host in none {
        assert_eq!(hosts.addresses(host), None, "{host}");
    }
}

#[test]
fn servers_are_the_first_three_that_can_be_read() {
    let table: [(&str, &[&str]); 9] = [
        ("", &["127.0.0.1"]),
        ("nameserver 0.0.0.0\nnameserver ::", &["127.0.0.1", "::1"]),
        ("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\n", &["127.0.0.1"]),
        ("nameserver 192.0.2.1 192.0.2.2\nnameserver\t2001:db8::1\r\n", &["192.0.2.1", "2001:db8::1"]),
        ("nameserver 192.0.2.1\n nameserver 192.0.2.2\nnameserver192.0.2.3\nname", &["192.0.2.1"]),
        (
            "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4",
            &["1.1.1.1", "2.2.2.2", "3.3.3.3"],
        ),
        ("nameserver odd\nnameserver 192.0.2.1", &["192.0.2.1"]),
        ("nameserver 192.0.2.1:53", &["127.0.0.1"]),
        ("nameserver fe80::1%eth0", &["fe80::1"]),
    ];
    for (text, expected) in table {
        let found: Vec<IpAddr> = conf(text).servers.into_iter().map(|server| server.ip).collect();
        assert_eq!(found, ips(expected), "{text}");
    }
    assert_eq!(conf("nameserver fe80::1%eth0").servers[0].zone.as_deref(), Some("eth0"));
}

#[test]
fn search_domains_are_those_of_the_last_line_or_of_the_host_name() {
    let table: [(&str, &str, &[&str]); 9] = [
        ("search a.test  b.test\t", "host", &["a.test", "b.test"]),
        ("search a.test\ndomain b.test c.test", "host", &["b.test"]),
        ("domain b.test\nsearch a.test c.test.", "host", &["a.test", "c.test"]),
        ("search a.test\nsearch\nsearch  ", "host", &["a.test"]),
        ("search .", "host.corp.test", &[""]),
        ("search .a.test", "host", &["a.test"]),
        ("", "host.corp.test", &["corp.test"]),
        ("", "host", &[]),
        ("options ndots:2", "host.", &[""]),
    ];
    for (text, hostname, expected) in table {
        let search = ResolvConf::parse(text.as_bytes(), hostname).search;
        assert_eq!(search, expected, "{text}");
    }
}

#[test]
fn what_can_be_read_counts_and_the_rest_is_listed() {
    // T9.
    let text = "nameserver 192.0.2.1\nnameserver x\nsearch good.test b\\c.test last.test\nodd line";
    let read = conf(text);
    assert_eq!(read.search, ["good.test", "last.test"]);
    let expected = ["nameserver \"x\" cannot be read", "search domain \"b\\\\c.test\" cannot be read"];
    assert_eq!(read.problems, expected);
    // As with glibc: such a domain ends the list.
    for word in ["a..b", &format!("{LONG}.test")] {
        let read = conf(&format!("search good.test {word} last.test"));
        assert_eq!(read.search, ["good.test"]);
        let quoted: String = word.chars().take(64).collect();
        assert_eq!(read.problems, [format!("search domain {quoted:?} cannot be read and ends the search domains")]);
    }
    let bytes = ResolvConf::parse(b"\xff\xfe\nsearch \xff.test a.test\nnameserver 192.0.2.1", "host");
    assert_eq!(
        (bytes.search, bytes.servers[0].ip, bytes.problems.len()),
        (vec!["a.test".to_owned()], ip("192.0.2.1"), 1)
    );
    assert_eq!(conf(&"nameserver x\n".repeat(100)).problems.len(), 8);
}

#[test]
fn options_have_the_values_and_bounds_of_glibc() {
    let numbers = |text: &str| {
        let conf = conf(text);
        (conf.ndots, conf.timeout.as_secs(), conf.attempts)
    };
    let table = [
        ("", (1, 5, 2)),
        ("options ndots:5 timeout:1 attempts:3", (5, 1, 3)),
        ("options ndots:99 timeout:99 attempts:99", (15, 30, 5)),
        ("options ndots:0 timeout:0 attempts:0", (0, 1, 1)),
        ("options ndots:x timeout:3s", (0, 3, 2)),
        ("options\tndots:2\noptions  attempts:4", (2, 5, 4)),
        ("options ndots: 5", (0, 5, 2)),
        ("options timeout:99999999999999999999", (1, 30, 2)),
        ("options timeout:-3 attempts:+3", (1, 1, 3)),
        ("#options ndots:5\n options ndots:5", (1, 5, 2)),
    ];
    for (text, expected) in table {
        assert_eq!(numbers(text), expected, "{text}");
    }
    let flags = |text: &str| conf(text).flags.into_iter().collect::<Vec<_>>();
    assert_eq!(flags("options rotate edns0 use-vc no-aaaa"), [Flag::Rotate, Flag::UseVc, Flag::Edns0, Flag::NoAaaa]);
    assert_eq!(flags("options single-request-reopen no_tld_query"), [Flag::SingleRequest, Flag::NoTldQuery]);
    assert!(flags("options inet6 trust-ad no-reload ip6-bytestring norotate").is_empty());
}

#[test]
fn servers_are_asked_in_rounds_for_as_long_as_glibc_asks_them_within_the_bound() {
    let plan = |text: &str, turn: usize| -> Vec<(usize, u128, bool)> {
        let all = tries(&conf(text), turn, true).into_iter();
        all.map(|one| (one.server, one.timeout.as_millis(), one.may_overlap)).collect()
    };
    assert_eq!(plan("nameserver 1.1.1.1", 7), [(0, 5000, false), (0, 5000, false)]);
    let two = "nameserver 1.1.1.1\nnameserver 2.2.2.2\noptions timeout:2 attempts:1";
    assert_eq!(plan(two, 1), [(0, 2000, false), (1, 2000, true)]);
    assert_eq!(plan(&format!("{two} rotate"), 1), [(1, 2000, false), (0, 2000, true)]);
    assert!(tries(&conf(two), 0, false).iter().all(|one| !one.may_overlap), "without overlap, one after the other");
    let three = "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\noptions attempts:1";
    assert_eq!(plan(three, 0), [(0, 5000, false), (1, 3000, true), (2, 6000, true)]);
    assert_eq!(plan(&format!("{three} timeout:1"), 0), [(0, 1000, false), (1, 1000, true), (2, 1000, true)]);
    let slow = format!("{three} timeout:30 attempts:5");
    let all = tries(&conf(&slow), 0, true);
    let sum: Duration = all.iter().map(|one| one.timeout).sum();
    assert_eq!(all.len(), 15, "each server in each round");
    assert!(sum <= QUESTION + seconds(1) && sum + seconds(1) >= QUESTION, "{sum:?}");
}

#[test]
fn of_two_failures_servfail_decides_and_of_others_the_later_one() {
    let later = Answer::Failed { why: "refused".to_owned(), is_servfail: false };
    assert_eq!(silent().or_later(later.clone()), later);
    assert_eq!(servfail().or_later(later.clone()), servfail());
    assert_eq!(later.clone().or_later(servfail()), servfail());
    assert_eq!(later.clone().or_later(Answer::NxDomain), Answer::NxDomain);
    assert_eq!(Answer::NxDomain.or_later(later), Answer::NxDomain);
}

/// The end of a search that found the name at `fqdn`.
fn at(fqdn: &str, four: Answer, six: Answer) -> Outcome {
    Outcome::Found { fqdn: fqdn.to_owned(), answers: Pair { four, six } }
}

fn resolution(texts: &[&str], failure: Option<&str>) -> Resolution {
    let addresses = Some(ips(texts)).filter(|all| !all.is_empty());
    Resolution { addresses, left_out: 0, failure: failure.map(str::to_owned) }
}

#[test]
fn a_failed_family_keeps_its_addresses_counts_as_failing_and_is_asked_again_alone() {
    // T1.
    let mut known = Families::default();
    let (four, six) = (found(&["127.0.0.1"], 20), found(&["::1"], 120));
    assert_eq!(
        known.searched(at("a.", four.clone(), six.clone()), seconds(0)),
        resolution(&["127.0.0.1", "::1"], None)
    );
    assert_eq!(known.due(seconds(0)), (seconds(20), Due::Whole), "the shorter time counts");
    let failing = resolution(&["127.0.0.1", "::1"], Some("its IPv4 addresses: SERVFAIL"));
    assert_eq!(known.searched(at("a.", servfail(), six), seconds(20)), failing);
    assert_eq!(known.due(seconds(20)), (RETRY, Due::Family(Family::Four)));
    assert_eq!(known.again(Family::Four, servfail(), seconds(25)), failing);
    assert_eq!(known.due(seconds(26)), (seconds(4), Due::Family(Family::Four)));
    assert_eq!(known.again(Family::Four, four, seconds(30)), resolution(&["127.0.0.1", "::1"], None));
    assert_eq!(known.due(seconds(30)), (seconds(20), Due::Whole), "its time counts from here on");
}

#[test]
fn an_answer_that_cannot_be_read_is_a_failure_of_its_family() {
    let mut known = Families::default();
    let six = found(&["::1"], 60);
    known.searched(at("a.", found(&["127.0.0.1"], 60), six.clone()), seconds(0));
    let malformed = Answer::Malformed { why: "odd".to_owned() };
    let kept = known.searched(at("a.", malformed, six), seconds(60));
    assert_eq!(kept, resolution(&["127.0.0.1", "::1"], Some("its IPv4 addresses: odd")));
}

#[test]
fn a_family_without_addresses_is_a_definite_answer() {
    let mut known = Families::default();
    known.searched(at("a.", found(&["127.0.0.1"], 60), found(&["::1"], 60)), seconds(0));
    let gone = known.searched(at("a.", found(&["127.0.0.1"], 60), Answer::NoData), seconds(60));
    assert_eq!(gone, resolution(&["127.0.0.1"], None));
    assert_eq!(known.due(seconds(60)), (seconds(60), Due::Whole));
}

#[test]
fn a_name_that_is_not_found_leaves_the_addresses_in_use_and_is_asked_for_again_soon() {
    let mut known = Families::default();
    let nothing = || Outcome::Nothing(NO_ADDRESS.to_owned());
    assert_eq!(known.searched(nothing(), seconds(0)), resolution(&[], Some(NO_ADDRESS)));
    assert_eq!((known.due(seconds(0)), known.fqdn()), ((RETRY, Due::Whole), None));
    known.searched(at("a.", found(&["127.0.0.1"], 60), silent()), seconds(5));
    // Sent again, they would take the place of those that another namespace has found since.
    assert_eq!(known.searched(nothing(), seconds(65)), resolution(&[], Some(NO_ADDRESS)));
    assert_eq!((known.due(seconds(65)), known.fqdn()), ((RETRY, Due::Whole), Some("a.")));
    let back = known.searched(at("a.", found(&["127.0.0.2"], 60), Answer::NoData), seconds(70));
    assert_eq!(back, resolution(&["127.0.0.2"], None));
}

#[test]
fn addresses_of_another_full_name_are_not_kept() {
    let mut known = Families::default();
    known.searched(at("a.", found(&["127.0.0.1"], 60), found(&["::1"], 60)), seconds(0));
    let moved = known.searched(at("b.", found(&["127.0.0.2"], 60), silent()), seconds(60));
    assert_eq!(moved, resolution(&["127.0.0.2"], Some("its IPv6 addresses: timed out")));
}

#[test]
fn a_family_is_asked_every_five_seconds_however_often_it_fails_with_and_without_addresses_to_keep() {
    for before in [found(&["::1"], 300), Answer::NoData] {
        let mut known = Families::default();
        known.searched(at("a.", found(&["127.0.0.1"], 300), before), seconds(0));
        known.searched(at("a.", found(&["127.0.0.1"], 300), silent()), seconds(0));
        for failures in 1..20 {
            assert_eq!(known.due(seconds(0)), (RETRY, Due::Family(Family::Six)), "after {failures} failures");
            assert_eq!(known.whole_in(seconds(0)), seconds(300));
            known.again(Family::Six, silent(), seconds(0));
        }
    }
}

#[test]
fn a_failed_family_is_asked_together_with_the_other_one_if_both_are_due_at_one_time() {
    let mut known = Families::default();
    known.searched(at("a.", found(&["127.0.0.1"], RETRY.as_secs()), silent()), seconds(0));
    assert_eq!(known.due(seconds(0)), (RETRY, Due::Whole));
}

#[test]
fn times_to_live_are_kept_within_bounds() {
    let due = |ttl: u64| {
        let mut known = Families::default();
        known.searched(at("a.", found(&["127.0.0.1"], ttl), Answer::NoData), seconds(0));
        known.due(seconds(0)).0
    };
    assert_eq!([0, 1, 60, 86_400].map(due), [TTL.0, TTL.0, seconds(60), TTL.1]);
}

#[test]
fn the_hosts_file_answers_for_both_families() {
    // T26: without ::1 in the file, there is no ::1.
    let mut known = Families::default();
    known.searched(at("localhost.", found(&["127.0.0.1"], 60), found(&["::1"], 60)), seconds(0));
    assert_eq!(known.listed(&ips(&["127.0.0.1"]), seconds(1)), resolution(&["127.0.0.1"], None));
    assert_eq!(known.due(seconds(1)), (TTL.1, Due::Whole));
    assert_eq!(
        known.listed(&ips(&["fd00::1", "10.0.0.2", "10.0.0.1"]), seconds(2)),
        resolution(&["10.0.0.1", "10.0.0.2", "fd00::1"], None)
    );
}

#[test]
fn addresses_that_left_the_hosts_file_end_with_a_definite_answer_and_not_with_a_fault() {
    let mut known = Families::default();
    known.listed(&ips(&["127.0.0.1", "::1"]), seconds(0));
    let fault = || Outcome::Nothing("timed out".to_owned());
    assert_eq!(known.searched(fault(), seconds(1)), resolution(&[], Some("timed out")), "they stay in use");
    let nothing = || Outcome::Nothing(NO_ADDRESS.to_owned());
    let gone = known.searched(nothing(), seconds(6));
    assert_eq!((gone.addresses, gone.failure.as_deref()), (Some(Vec::new()), Some(NO_ADDRESS)));
    assert_eq!(known.searched(nothing(), seconds(11)).addresses, None, "said once");
    known.listed(&ips(&["127.0.0.1"]), seconds(12));
    known.searched(at("a.", found(&["127.0.0.2"], 60), Answer::NoData), seconds(13));
    assert_eq!(known.searched(nothing(), seconds(73)).addresses, None, "the addresses were of DNS");
}

#[test]
fn a_large_answer_is_cut_to_the_same_addresses_each_time() {
    let four = |count: u16| (0..count).rev().map(|at| IpAddr::from([10, 0, at.to_be_bytes()[0], at.to_be_bytes()[1]]));
    let six = |count: u16| (0..count).map(|at| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, at]));
    let answer = |fours: u16, sixes: u16| {
        let answer = |ips: Vec<IpAddr>| Answer::Addresses { ips, ttl: seconds(60) };
        let resolution = Families::default()
            .searched(at("a.", answer(four(fours).collect()), answer(six(sixes).collect())), seconds(0));
        let addresses = resolution.addresses.expect("some");
        let fours = addresses.iter().filter(|ip| ip.is_ipv4()).count();
        assert!(addresses.is_sorted());
        (fours, addresses.len() - fours, resolution.left_out)
    };
    assert_eq!(answer(200, 56), (200, 56, 0));
    assert_eq!(answer(4000, 2), (MOST_ADDRESSES - 2, 2, 3746));
    assert_eq!(answer(2, 4000), (2, MOST_ADDRESSES - 2, 3746));
    assert_eq!(answer(4000, 4000), (MOST_ADDRESSES / 2, MOST_ADDRESSES / 2, 7744));
}

#[test]
fn after_a_failed_attempt_the_other_family_has_its_turn() {
    let of = |four: Option<&str>, six: Option<&str>| Pair { four: four.map(ip), six: six.map(ip) };
    let (four, six) = (Some("192.0.2.1"), Some("2001:db8::1"));
    let turns: Vec<_> = (0..5).map(|failures| of(four, six).after(failures)).collect();
    assert_eq!(turns, [four, six, six, four, four].map(|text| text.map(ip)));
    assert_eq!(of(None, six).after(0), six.map(ip));
    assert_eq!(of(four, None).after(1), four.map(ip));
    assert_eq!(of(None, None).after(1), None);
}
