//! Name servers that are silent, fail, or are too many.

use harness::Kind;

use super::{Case, PLAIN, agrees, all_agree};

/// Two search domains without a word, and a name outside.
const SILENT: &str = "*.one.test silent\n*.two.test silent\ndb.real.test 192.0.2.60 2001:db8::60\n";

#[test]
fn servers_that_are_silent_hide_neither_hosts_nor_the_name_as_it_is() {
    // T2
    all_agree(&[
        Case {
            hosts: b"127.0.0.1 localhost\n127.0.0.61 pin.real.test\n",
            resolv_conf: b"search one.test two.test\noptions ndots:5 timeout:1 attempts:1\nnameserver 127.0.0.1\n",
            servers: &[("127.0.0.1", SILENT)],
            names: &[
                ("pin.real.test", &["127.0.0.61"]),
                ("db.real.test", &["192.0.2.60", "2001:db8::60"]),
                ("single", &[]),
            ],
        },
        Case {
            hosts: b"127.0.0.62 db.pin.test\n",
            resolv_conf: b"search svc.test\noptions ndots:5\nnameserver 127.0.0.1\n",
            servers: &[("127.0.0.1", "* silent\n")],
            names: &[("db.pin.test", &["127.0.0.62"])],
        },
    ]);
}

#[test]
fn a_name_is_found_after_a_search_domain_was_silent_for_as_long_as_the_system_waits() {
    // T2
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"search one.test two.test\noptions ndots:5\nnameserver 127.0.0.1\n",
        servers: &[("127.0.0.1", SILENT)],
        names: &[("localhost", &["127.0.0.1"]), ("db.real.test", &["192.0.2.60", "2001:db8::60"])],
    });
}

/// Four servers: silent, failing, good, and one too many.
const FOUR: [(&str, &str); 4] = [
    ("127.0.0.1", "* silent\n"),
    ("127.0.0.2", "* servfail\n"),
    ("127.0.0.3", "a.test 192.0.2.71 2001:db8::71\n"),
    ("127.0.0.4", "a.test 192.0.2.72\n"),
];

#[test]
fn a_fourth_server_is_not_asked() {
    let servers = agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.5\nnameserver 127.0.0.3\n\
            options timeout:1 attempts:1\n",
        servers: &FOUR,
        names: &[("a.test", &[])],
    });
    let asked = servers[2].asked();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn servers_that_fail_are_passed_over() {
    all_agree(&[
        Case {
            hosts: PLAIN,
            resolv_conf: b"nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\n\
                options timeout:1 attempts:1\n",
            servers: &FOUR,
            names: &[("a.test", &["192.0.2.71", "2001:db8::71"])],
        },
        Case {
            hosts: PLAIN,
            resolv_conf: b"nameserver 127.0.0.3\nnameserver 127.0.0.2\noptions rotate timeout:1 attempts:2\n",
            servers: &FOUR,
            names: &[("a.test", &["192.0.2.71", "2001:db8::71"]), ("none.test", &[])],
        },
        Case {
            hosts: PLAIN,
            resolv_conf: b"search one.test two.test\noptions timeout:1 attempts:1\nnameserver 127.0.0.1\n",
            servers: &[("127.0.0.1", "*.one.test servfail\na.two.test 192.0.2.63 2001:db8::63\n")],
            names: &[("a", &["192.0.2.63", "2001:db8::63"])],
        },
    ]);
}

#[test]
fn with_use_vc_every_question_goes_over_tcp() {
    let servers = agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"nameserver 127.0.0.3\noptions use-vc single-request-reopen no-tld-query\n",
        servers: &FOUR,
        names: &[("a.test", &["192.0.2.71", "2001:db8::71"]), ("none.test", &[])],
    });
    let asked = servers[2].asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.tcp && !asked.edns), "{asked:?}");
}

#[test]
fn with_edns0_every_question_says_so() {
    let servers = agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"nameserver 127.0.0.3\noptions edns0\n",
        servers: &FOUR,
        names: &[("a.test", &["192.0.2.71", "2001:db8::71"]), ("none.test", &[])],
    });
    let asked = servers[2].asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.edns && !asked.tcp), "{asked:?}");
}

#[test]
fn with_no_aaaa_nobody_is_asked_for_ipv6() {
    let servers = agrees(&Case {
        hosts: b"127.0.0.1 localhost\n2001:db8::72 listed.test\n",
        resolv_conf: b"nameserver 127.0.0.3\noptions no-aaaa\n",
        servers: &FOUR,
        names: &[("a.test", &["192.0.2.71"]), ("listed.test", &["2001:db8::72"]), ("none.test", &[])],
    });
    let asked = servers[2].asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.kind == Some(Kind::A)), "{asked:?}");
}
