//! Files that lack something, or have bytes and words in them that mean nothing.

use super::{Case, DOMAINS, PLAIN, agrees, all_agree};

#[test]
fn without_a_name_server_this_machine_is_asked() {
    // T9
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"# nobody here\nsearch trap.test\noptions timeout:1 attempts:1\n",
        servers: &[("127.0.0.1", DOMAINS)],
        names: &[("localhost", &["127.0.0.1"]), ("single", &["192.0.2.32"]), ("a.dotted", &["192.0.2.34"])],
    });
}

#[test]
fn lines_words_and_options_without_a_meaning_are_passed_over() {
    // T9
    agrees(&Case {
        hosts: b"127.0.0.1 localhost\n# caf\xe9\n127.0.0.29 caf\xe9.test latin.test\n",
        resolv_conf: b"# caf\xe9\n; a comment\nfrobnicate on\n search indented.test\nsearch trap.test\n\
            nameserver not-an-address\nnameserver\nnameserver 127.0.0.1 # here\nnameserver ::zz\n\
            sortlist 130.155.160.0/255.255.240.0\n\
            options debug bogus:7 attempts:1 ndots:x timeout:1 inet6 no-such\n\n\t\noptions edns0 trust-ad",
        servers: &[(
            "127.0.0.1",
            "single.trap.test 192.0.2.32\n\
             single.indented.test 192.0.2.41\n\
             a.dotted 192.0.2.34\n\
             a.suffix.trap.test 192.0.2.36\n",
        )],
        names: &[
            ("latin.test", &["127.0.0.29"]),
            ("single", &["192.0.2.32"]),
            ("a.dotted", &["192.0.2.34"]),
            ("a.suffix", &["192.0.2.36"]),
        ],
    });
}

#[test]
fn a_number_sign_after_the_first_word_begins_no_comment() {
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"search trap.test # other.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1 # ndots:7\n",
        servers: &[("127.0.0.1", "*.trap.test 192.0.2.32\na.dotted 192.0.2.34\nx.other.test 192.0.2.35\n")],
        names: &[("x", &["192.0.2.32"]), ("a.dotted", &["192.0.2.32"])],
    });
}

#[test]
fn a_search_domain_that_no_name_can_have_ends_the_search_and_nothing_else() {
    // T9
    let zone = format!("{DOMAINS}other.late.test 192.0.2.37\n");
    let long = "x".repeat(70);
    let conf = format!("search {long}.test trap.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    all_agree(&[
        Case {
            hosts: PLAIN,
            resolv_conf: b"search trap.test a..b late.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            servers: &[("127.0.0.1", zone.as_str())],
            names: &[
                ("localhost", &["127.0.0.1"]),
                ("single", &["192.0.2.32"]),
                ("other", &[]),
                ("a.dotted", &["192.0.2.34"]),
                ("a.suffix", &["192.0.2.36"]),
            ],
        },
        Case {
            hosts: PLAIN,
            resolv_conf: conf.as_bytes(),
            servers: &[("127.0.0.1", DOMAINS)],
            names: &[
                ("localhost", &["127.0.0.1"]),
                ("single", &["192.0.2.31"]),
                ("gone", &[]),
                ("a.dotted", &["192.0.2.34"]),
                ("a.suffix", &[]),
            ],
        },
    ]);
}

#[test]
fn bytes_that_are_no_letters_spoil_nothing_else() {
    // T9
    all_agree(&[
        Case {
            hosts: PLAIN,
            resolv_conf: b"search caf\xe9.test trap.test\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            servers: &[("127.0.0.1", DOMAINS)],
            names: &[("single", &["192.0.2.32"]), ("a.dotted", &["192.0.2.34"]), ("a.suffix", &["192.0.2.36"])],
        },
        Case {
            hosts: b"127.0.0.1 localhost\r\n127.0.0.30 pinned.test other.test\r\n",
            resolv_conf: b"search trap.test\r\nnameserver 127.0.0.1\r\noptions timeout:1 attempts:1\r\n",
            servers: &[("127.0.0.1", DOMAINS)],
            names: &[("pinned.test", &["127.0.0.30"]), ("a.dotted", &["192.0.2.34"])],
        },
    ]);
}
