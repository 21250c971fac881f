//! Answers that say nothing, or have records that are odd.

use harness::Kind;

use super::{Case, PLAIN, agrees, all_agree};

/// Two name servers of which the second knows every name that the first one should.
const TWO: &[u8] = b"nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1 attempts:1\n";
/// One name server.
const ONE: &[u8] = b"search trap.test\nnameserver 127.0.0.1\noptions ndots:2 timeout:1 attempts:1\n";

#[test]
fn localhost_and_other_special_names_are_asked_for_like_any_name() {
    // T26
    agrees(&Case {
        hosts: b"127.0.0.30 other.test\n",
        resolv_conf: b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        servers: &[(
            "127.0.0.1",
            "localhost 192.0.2.81\n\
             sub.localhost 192.0.2.82 2001:db8::82\n\
             a.invalid 192.0.2.83\n\
             a.onion 192.0.2.84\n",
        )],
        names: &[
            ("localhost", &["192.0.2.81"]),
            ("sub.localhost", &["192.0.2.82", "2001:db8::82"]),
            ("gone.localhost", &[]),
            ("a.invalid", &["192.0.2.83"]),
            ("a.onion", &["192.0.2.84"]),
        ],
    });
}

#[test]
fn a_server_that_knows_nothing_of_a_name_is_passed_over_and_ends_the_search_domains() {
    all_agree(&[
        Case {
            hosts: PLAIN,
            resolv_conf: TWO,
            servers: &[("127.0.0.1", "*.test lame\n"), ("127.0.0.2", "a.test 192.0.2.85 2001:db8::85\nb.test lame\n")],
            names: &[("a.test", &["192.0.2.85", "2001:db8::85"]), ("b.test", &[]), ("c.test", &[])],
        },
        Case {
            hosts: PLAIN,
            resolv_conf: b"search one.test two.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            servers: &[("127.0.0.1", "*.one.test lame\na.two.test 192.0.2.66\nb.two.test 192.0.2.66\na 192.0.2.86\n")],
            names: &[("a", &["192.0.2.86"]), ("b", &[])],
        },
    ]);
}

#[test]
fn a_server_that_does_not_understand_a_question_is_believed() {
    let servers = agrees(&Case {
        hosts: PLAIN,
        resolv_conf: TWO,
        servers: &[("127.0.0.1", "a.test formerr\n"), ("127.0.0.2", "a.test 192.0.2.66\n")],
        names: &[("a.test", &[])],
    });
    assert_eq!(servers[1].times("a.test", Kind::A), 0);
}

#[test]
fn records_that_are_odd_spoil_no_others_unless_they_have_no_end() {
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: ONE,
        servers: &[(
            "127.0.0.1",
            "short.trap.test short 192.0.2.87\n\
             odd.trap.test odd 192.0.2.88\n\
             cut.trap.test cut 192.0.2.66\n\
             cut 192.0.2.66\n\
             alias.trap.test alias\n\
             alias 192.0.2.66\n",
        )],
        names: &[("short", &["192.0.2.87"]), ("odd", &["192.0.2.88"]), ("cut", &[]), ("alias", &[])],
    });
}
