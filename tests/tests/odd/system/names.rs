//! Hosts, search domains and dots.

use super::{Case, DOMAINS, PLAIN, agrees, all_agree};

/// Hosts of a pod: several lines and addresses for a name, comments, and lines that mean nothing.
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n\
    127.0.0.11 db.pin.test\n\
    127.0.0.12 pinned.test\n\
    127.0.0.21 multi.test\n\
    127.0.0.22\tone.test multi.test\n\
    2001:db8::21 multi.test two.test\n\
    127.0.0.23 Mixed.Test\n\
    127.0.0.24 seen.test # other.test\n\
    999.0.0.1 bad.test\n\
    not-an-address bad.test\n\
    127.0.0.26\n\
    \x20\x20127.0.0.27 indented.test\n\
    ::1 six.test\n\
    127.0.0.28 end.test";

/// Services of a pod, and the names outside.
const ZONE: &str = "*.svc.test 192.0.2.65\n\
    pinned.test 192.0.2.12 2001:db8::12\n\
    db.real.test 192.0.2.3 2001:db8::3\n\
    rooted.real.test 192.0.2.13 2001:db8::13\n\
    web.app.svc.test 192.0.2.4 2001:db8::4\n\
    half.app.svc.test 2001:db8::6\n\
    a.b.c.d.e.real.test 192.0.2.5\n\
    other.test 192.0.2.7\n";

#[test]
fn in_a_pod_hosts_come_first_for_both_families_and_then_the_search_domains() {
    // T2, T3, T26
    let servers = agrees(&Case {
        hosts: HOSTS,
        resolv_conf: b"search app.svc.test svc.test\nnameserver 127.0.0.1\noptions ndots:5 timeout:1 attempts:1\n",
        servers: &[("127.0.0.1", ZONE)],
        names: &[
            ("localhost", &["127.0.0.1"]),
            ("db.pin.test", &["127.0.0.11"]),
            ("DB.Pin.Test", &["127.0.0.11"]),
            ("pinned.test", &["127.0.0.12"]),
            ("pinned.test.", &["192.0.2.12", "2001:db8::12"]),
            ("multi.test", &["127.0.0.21", "127.0.0.22", "2001:db8::21"]),
            ("two.test", &["2001:db8::21"]),
            ("mixed.test", &["127.0.0.23"]),
            ("seen.test", &["127.0.0.24"]),
            ("indented.test", &["127.0.0.27"]),
            ("six.test", &["::1"]),
            ("end.test", &["127.0.0.28"]),
            ("end.test.", &[]),
            ("other.test", &["192.0.2.65"]),
            ("bad.test", &["192.0.2.65"]),
            ("db.real.test", &["192.0.2.65"]),
            ("rooted.real.test.", &["192.0.2.13", "2001:db8::13"]),
            ("web", &["192.0.2.4", "2001:db8::4"]),
            ("half", &["2001:db8::6"]),
            ("a.b.c.d.e.real.test", &["192.0.2.5"]),
            ("nowhere.test.", &[]),
        ],
    });
    let beyond = |name: &str| name.starts_with("rooted.real.test.");
    assert!(!servers[0].asked().iter().any(|asked| beyond(&asked.name)), "a name that ends with a dot is whole");
}

#[test]
fn with_ndots_0_a_name_without_a_dot_is_asked_as_it_is_first() {
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"search trap.test\noptions ndots:0 timeout:1 attempts:1\nnameserver 127.0.0.1\n",
        servers: &[(
            "127.0.0.1",
            "single 192.0.2.31\n\
             single.trap.test 192.0.2.32\n\
             only.trap.test 192.0.2.33 2001:db8::33\n\
             a.dotted 192.0.2.34\n\
             a.dotted.trap.test 192.0.2.35\n\
             a.suffix.trap.test 192.0.2.36\n",
        )],
        names: &[
            ("single", &["192.0.2.31"]),
            ("only", &["192.0.2.33", "2001:db8::33"]),
            ("a.dotted", &["192.0.2.34"]),
            ("a.suffix", &["192.0.2.36"]),
            ("none", &[]),
        ],
    });
}

#[test]
fn of_search_and_domain_lines_the_last_counts_and_ndots_is_1() {
    all_agree(&[
        Case {
            hosts: PLAIN,
            resolv_conf: b"domain first.test\nsearch trap.test\noptions timeout:1 attempts:1\nnameserver 127.0.0.1\n",
            servers: &[("127.0.0.1", DOMAINS)],
            names: &[
                ("single", &["192.0.2.32"]),
                ("gone", &[]),
                ("a.dotted", &["192.0.2.34"]),
                ("a.suffix", &["192.0.2.36"]),
            ],
        },
        Case {
            hosts: PLAIN,
            resolv_conf:
                b"search trap.test other.test\ndomain first.test\noptions timeout:1 attempts:1\nnameserver 127.0.0.1\n",
            servers: &[("127.0.0.1", DOMAINS)],
            names: &[
                ("single", &["192.0.2.40"]),
                ("gone", &["192.0.2.41"]),
                ("a.dotted", &["192.0.2.34"]),
                ("a.suffix", &[]),
            ],
        },
    ]);
}

#[test]
fn ndots_is_at_most_15() {
    agrees(&Case {
        hosts: PLAIN,
        resolv_conf: b"search trap.test\noptions ndots:99 timeout:1 attempts:1\nnameserver 127.0.0.1\n",
        servers: &[(
            "127.0.0.1",
            "*.trap.test 192.0.2.51\n\
             a.b.c.d.e.f.g.h.i.j.k.l.m.n.test 192.0.2.50\n\
             a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.test 192.0.2.52\n",
        )],
        names: &[
            ("a.b.c", &["192.0.2.51"]),
            ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.test", &["192.0.2.51"]),
            ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.test", &["192.0.2.52"]),
        ],
    });
}
